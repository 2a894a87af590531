from dataclasses import replace

import pytest

from richsem.config import ConfigError, differences, from_params, to_dict, with_settings
from richsem.data.transforms import NUM_TILES
from richsem.operations.recipe_book import recipe_names
from richsem.recipes import centernet2_recipes, dino_recipes
from richsem.structures import Supervision
from richsem.training import run_config
from richsem.training.build import check

TWO_STAGE = [recipe_names()[f"centernet2{name}"] for name in ("", "_detic", "_richsem")]


@pytest.mark.parametrize("name", recipe_names())
@pytest.mark.parametrize("profile", ["smoke", "demo", "paper"])
def test_recipes_survive_json_and_fit_together(name, profile):
    config = recipe_names()[name](profile, seed=3)
    assert config.train.seed == 3
    assert config.name == name or name.startswith("focal_huge")  # a small twin is the small run
    assert from_params(run_config.RunConfig, to_dict(config)) == config
    check(replace(config, init=""))  # what a run starts from may not be trained yet
    changed = with_settings(config, ["detector.dim=24", "loss.soft_weight=2.0"])
    assert type(changed.detector) is type(config.detector)
    assert (changed.detector.dim, changed.loss.soft_weight) == (24, 2.0)


@pytest.mark.parametrize("setting", ["data=5", "data=null", "data.extra=none", "detector=[]"])
def test_a_part_of_a_run_that_is_no_record_is_refused(setting):
    config = dino_recipes.richsem("smoke")
    with pytest.raises(ConfigError, match=r"(data|extra|detector) must be "):
        with_settings(config, [setting])


def test_a_wrong_field_and_the_loss_of_the_other_detector_are_refused():
    dino, other = dino_recipes.baseline(), centernet2_recipes.centernet2()
    values = to_dict(other) | {"detector": to_dict(other.detector) | {"towers": 3}}
    with pytest.raises(ConfigError, match="CenterNet2Config has no field 'towers'"):
        from_params(run_config.RunConfig, values)
    with pytest.raises(ConfigError, match="must be a CenterNet2CriterionConfig"):
        check(replace(other, loss=dino.loss))


@pytest.mark.parametrize("profile", ["smoke", "demo", "paper"])
def test_richsem_sees_detection_images_as_often_and_differs_in_what_the_method_adds(profile):
    baseline, richsem = dino_recipes.baseline(profile), dino_recipes.richsem(profile)
    assert richsem.train.steps == 2 * baseline.train.steps  # every second step is on extra images
    assert richsem.data.extra.supervision is Supervision.IMAGE_LABELS
    assert richsem.detector.semantic and not baseline.detector.semantic
    changed = differences({"a": dino_recipes.baseline("demo"), "b": dino_recipes.richsem("demo")})
    assert {name.split(".")[0] for name in changed} == {"name", "data", "detector", "train"}
    others = run_config.other_run(baseline, richsem)
    assert [name for name in others if name.startswith("data.")] == ["data.extra"]
    assert {name for name in changed if name.startswith("detector.")} == {"detector.semantic"}


def test_the_paper_recipes_are_the_published_settings():
    baseline, richsem = dino_recipes.baseline("paper"), dino_recipes.richsem("paper")
    assert baseline.detector.queries == 900 and baseline.detector.classifier == "linear"
    assert richsem.detector.classifier == richsem.detector.label_embedding == "text"
    assert richsem.loss.soft_weight == 0.5 and richsem.loss.federated_classes == 50
    assert (richsem.optim.lr, richsem.optim.backbone_lr) == (1e-4, 1e-5)
    assert richsem.data.extra.mosaic.side == 640
    assert dino_recipes.richsem("paper", root="DATA").data.root == "DATA"
    assert dino_recipes.baseline("demo", root="DATA").data.root == "DATA"
    baseline, detic, richsem = (recipe("paper") for recipe in TWO_STAGE)
    assert (baseline.optim.lr, baseline.optim.clip_value, baseline.optim.warmup) == (2e-4, 1, 1e4)
    assert (baseline.train.steps, baseline.train.batch_size) == (90_000, 64)
    assert baseline.data.transform.side == 640
    assert baseline.detector.class_scale == 50 and baseline.detector.classifier == "text"
    assert (detic.train.extra_batch_size, detic.optim.warmup) == (256, 1000)
    assert detic.data.extra.transform.side == 320 and detic.data.extra.mosaic is None
    assert richsem.data.extra.mosaic.side == 320 and richsem.loss.soft_weight == 0.5


def test_focal_huge_is_richsem_on_another_backbone_from_its_own_pretraining():
    first, second = dino_recipes.focal_huge_pretraining("paper"), dino_recipes.focal_huge("paper")
    changed = set(differences({"a": dino_recipes.richsem("paper"), "b": second}))
    backbone = {name for name in changed if name.startswith("detector.backbone.")}
    assert changed - backbone == {"name", "init", "detector.checkpointing", "train.precision"}
    assert first.data.key == "o365" and second.data.key == "lvis"
    assert first.detector.backbone.name == second.detector.backbone.name
    assert (first.init, second.init) == ("", dino_recipes.FOCAL_HUGE_START)
    for profile in ("smoke", "demo"):  # its small twin is the small one
        assert dino_recipes.focal_huge(profile, seed=1) == dino_recipes.richsem(profile, seed=1)
        assert dino_recipes.focal_huge_pretraining(profile) == dino_recipes.pretraining(profile)


def test_small_runs_of_both_detectors_share_their_data_and_detic_sees_as_many_images():
    known = recipe_names()
    for name, twin in (("baseline", ""), ("richsem", "_richsem"), ("pretraining", "_pretraining")):
        one, other = known[name]("demo"), known[f"centernet2{twin}"]("demo")
        assert one.data == other.data and one.train.batch_size == other.train.batch_size
        assert one.detector.backbone == other.detector.backbone
    _, detic, richsem = (recipe("demo") for recipe in TWO_STAGE)
    assert detic.train.extra_batch_size == NUM_TILES * richsem.train.extra_batch_size
    assert detic.data.extra.supervision is Supervision.WHOLE_IMAGES
    assert richsem.detector.semantic and not detic.detector.semantic
