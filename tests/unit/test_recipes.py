import pytest

from richsem.config import differences, from_params, to_dict
from richsem.data.transforms import NUM_TILES
from richsem.recipes import centernet2_recipes, dino_recipes
from richsem.structures import Supervision
from richsem.training import run_config
from richsem.training.build import check

RECIPES = [
    dino_recipes.baseline,
    dino_recipes.richsem,
    dino_recipes.pretraining,
    dino_recipes.focal_huge_pretraining,
    dino_recipes.focal_huge,
]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("profile", ["smoke", "demo", "paper"])
def test_every_recipe_survives_json(recipe, profile):
    config = recipe(profile, seed=3)
    assert config.train.seed == 3
    assert from_params(run_config.RunConfig, to_dict(config)) == config


@pytest.mark.parametrize("profile", ["smoke", "demo", "paper"])
def test_richsem_sees_detection_images_as_often_as_the_baseline(profile):
    baseline, richsem = dino_recipes.baseline(profile), dino_recipes.richsem(profile)
    assert richsem.train.steps == 2 * baseline.train.steps  # every second step is on extra images
    assert richsem.data.extra.supervision is Supervision.IMAGE_LABELS
    assert richsem.detector.semantic and not baseline.detector.semantic


def test_the_runs_differ_in_what_the_method_adds_and_in_nothing_else():
    changed = differences({"a": dino_recipes.baseline("demo"), "b": dino_recipes.richsem("demo")})
    parts = {name.split(".")[0] for name in changed}
    assert parts == {"name", "data", "detector", "train"}
    assert all(name.startswith("data.extra") for name in changed if name.startswith("data."))
    assert {name for name in changed if name.startswith("detector.")} == {"detector.semantic"}


def test_the_paper_recipes_are_the_published_setting():
    baseline, richsem = dino_recipes.baseline("paper"), dino_recipes.richsem("paper")
    assert baseline.detector.queries == 900 and baseline.detector.classifier == "linear"
    assert richsem.detector.classifier == richsem.detector.label_embedding == "text"
    assert richsem.loss.soft_weight == 0.5 and richsem.loss.federated_classes == 50
    assert (richsem.optim.lr, richsem.optim.backbone_lr) == (1e-4, 1e-5)
    assert richsem.data.extra.mosaic.side == 640


def test_real_data_replace_the_embedded_benchmark_by_a_folder():
    assert dino_recipes.richsem("paper", root="DATA").data.root == "DATA"
    assert dino_recipes.baseline("demo", root="DATA").data.root == "DATA"


def test_focal_huge_is_richsem_on_another_backbone_from_its_own_pretraining():
    changed = differences(
        {"a": dino_recipes.richsem("paper"), "b": dino_recipes.focal_huge("paper")}
    )
    backbone = {name for name in changed if name.startswith("detector.backbone.")}
    others = {"name", "init", "detector.checkpointing", "train.precision"}
    assert set(changed) == backbone | others
    first, second = dino_recipes.focal_huge_pretraining("paper"), dino_recipes.focal_huge("paper")
    assert first.data.key == "o365" and second.data.key == "lvis"
    assert first.detector.backbone.name == second.detector.backbone.name
    assert (first.init, second.init) == ("", dino_recipes.FOCAL_HUGE_START)


@pytest.mark.parametrize("profile", ["smoke", "demo"])
def test_the_small_twin_of_focal_huge_is_the_small_richsem(profile):
    assert dino_recipes.focal_huge(profile, seed=1) == dino_recipes.richsem(profile, seed=1)
    assert dino_recipes.focal_huge_pretraining(profile) == dino_recipes.pretraining(profile)


TWO_STAGE = [
    centernet2_recipes.centernet2,
    centernet2_recipes.centernet2_detic,
    centernet2_recipes.centernet2_richsem,
    centernet2_recipes.centernet2_pretraining,
]


@pytest.mark.parametrize("recipe", TWO_STAGE)
@pytest.mark.parametrize("profile", ["smoke", "demo", "paper"])
def test_recipes_of_two_stages_survive_json_and_fit_together(recipe, profile):
    config = recipe(profile, seed=3)
    assert config.train.seed == 3 and config.name == recipe.__name__
    assert from_params(run_config.RunConfig, to_dict(config)) == config
    check(config)


def test_small_runs_of_both_detectors_share_their_data():
    for one, other in (
        (dino_recipes.baseline, centernet2_recipes.centernet2),
        (dino_recipes.richsem, centernet2_recipes.centernet2_richsem),
        (dino_recipes.pretraining, centernet2_recipes.centernet2_pretraining),
    ):
        assert one("demo").data == other("demo").data
        assert one("demo").train.batch_size == other("demo").train.batch_size
        assert one("demo").detector.backbone == other("demo").detector.backbone


def test_detic_sees_as_many_images_as_richsem():
    detic, richsem = (recipe("demo") for recipe in TWO_STAGE[1:3])
    assert detic.train.extra_batch_size == NUM_TILES * richsem.train.extra_batch_size
    assert detic.data.extra.supervision is Supervision.WHOLE_IMAGES
    assert richsem.detector.semantic and not detic.detector.semantic


def test_the_two_stage_paper_recipes_are_the_published_setting():
    baseline, detic, richsem = (recipe("paper") for recipe in TWO_STAGE[:3])
    assert (baseline.optim.lr, baseline.optim.clip_value, baseline.optim.warmup) == (2e-4, 1, 1e4)
    assert (baseline.train.steps, baseline.train.batch_size) == (90_000, 64)
    assert baseline.data.transform.side == 640
    assert baseline.detector.class_scale == 50 and baseline.detector.classifier == "text"
    assert (detic.train.extra_batch_size, detic.optim.warmup) == (256, 1000)
    assert detic.data.extra.transform.side == 320 and detic.data.extra.mosaic is None
    assert richsem.data.extra.mosaic.side == 320 and richsem.loss.soft_weight == 0.5
