import pytest

from richsem import recipes
from richsem.config import differences, from_params, to_dict
from richsem.structures import Supervision

RECIPES = [
    recipes.baseline,
    recipes.richsem,
    recipes.pretraining,
    recipes.focal_huge_pretraining,
    recipes.focal_huge,
]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("profile", ["smoke", "demo", "paper"])
def test_every_recipe_survives_json(recipe, profile):
    config = recipe(profile, seed=3)
    assert config.train.seed == 3
    assert from_params(recipes.RunConfig, to_dict(config)) == config


@pytest.mark.parametrize("profile", ["smoke", "demo", "paper"])
def test_richsem_sees_detection_images_as_often_as_the_baseline(profile):
    baseline, richsem = recipes.baseline(profile), recipes.richsem(profile)
    turns = richsem.train.alternate
    assert richsem.train.steps * turns[0] == baseline.train.steps * sum(turns)
    assert richsem.data.extra.supervision is Supervision.IMAGE_LABELS
    assert richsem.detector.semantic and not baseline.detector.semantic


def test_the_runs_differ_in_what_the_method_adds_and_in_nothing_else():
    changed = differences({"a": recipes.baseline("demo"), "b": recipes.richsem("demo")})
    parts = {name.split(".")[0] for name in changed}
    assert parts == {"name", "data", "detector", "train"}
    assert all(name.startswith("data.extra") for name in changed if name.startswith("data."))
    assert {name for name in changed if name.startswith("detector.")} == {"detector.semantic"}


def test_the_paper_recipes_are_the_published_setting():
    baseline, richsem = recipes.baseline("paper"), recipes.richsem("paper")
    assert baseline.detector.queries == 900 and baseline.detector.classifier == "linear"
    assert richsem.detector.classifier == richsem.detector.label_embedding == "text"
    assert richsem.loss.soft_weight == 0.5 and richsem.loss.federated_classes == 50
    assert (richsem.optim.lr, richsem.optim.backbone_lr) == (1e-4, 1e-5)
    assert richsem.data.extra.mosaic.side == 640


def test_real_data_replace_the_embedded_benchmark_by_a_folder():
    assert recipes.richsem("paper", root="DATA").data.root == "DATA"
    assert recipes.baseline("demo", root="DATA").data.root == "DATA"


def test_focal_huge_is_richsem_on_another_backbone_from_its_own_pretraining():
    changed = differences({"a": recipes.richsem("paper"), "b": recipes.focal_huge("paper")})
    backbone = {name for name in changed if name.startswith("detector.backbone.")}
    others = {"name", "init", "detector.checkpointing", "train.precision"}
    assert set(changed) == backbone | others
    first, second = recipes.focal_huge_pretraining("paper"), recipes.focal_huge("paper")
    assert first.data.key == "o365" and second.data.key == "lvis"
    assert first.detector.backbone.name == second.detector.backbone.name
    assert (first.init, second.init) == ("", recipes.FOCAL_HUGE_START)


@pytest.mark.parametrize("profile", ["smoke", "demo"])
def test_the_small_twin_of_focal_huge_is_the_small_richsem(profile):
    assert recipes.focal_huge(profile, seed=1) == recipes.richsem(profile, seed=1)
    assert recipes.focal_huge_pretraining(profile) == recipes.pretraining(profile)
