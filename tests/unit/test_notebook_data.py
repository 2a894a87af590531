"""What a profile changes, where data come from, which classes are counted."""

import dataclasses
import json

import pytest

from richsem import paths
from richsem.config import PROFILES, config_hash
from richsem.data.categories import Category
from richsem.data.reading import DataError, DataWarning
from richsem.models.clip import MINI, RN50
from richsem.workbook import notebook_data
from richsem.workbook.notebook_data import DataConfig, TailConfig


def test_profiles_differ_in_values_only():
    configs = [notebook_data.zero_shot(DataConfig(profile=profile)) for profile in PROFILES]
    assert len({type(config) for config in configs}) == 1
    assert len({config_hash(config) for config in configs}) == len(PROFILES)
    assert all(config.noise_scales[0] == 0 for config in configs)
    assert len({config.noise_repeats > 1 for config in configs}) == 1


def test_the_paper_profile_is_the_papers_teacher_on_everything():
    config = notebook_data.zero_shot(DataConfig(profile="paper"))
    assert config.clip == RN50
    assert config.max_images == 0


def test_smoke_is_smaller_than_demo():
    smoke, demo = (notebook_data.zero_shot(DataConfig(profile=p)) for p in ("smoke", "demo"))
    assert smoke.clip == demo.clip == MINI
    assert 0 < smoke.max_images < 100
    assert len(smoke.noise_scales) < len(demo.noise_scales)


@pytest.mark.parametrize(
    ("profile", "model", "weights", "expected"),
    [
        ("demo", "", "", MINI),
        ("demo", "RN50-quickgelu", "", RN50),
        ("paper", "richsem-mini", "", MINI),
        ("paper", "", "rn50.pt", dataclasses.replace(RN50, weights="rn50.pt")),
        ("demo", "", "mine.safetensors", dataclasses.replace(MINI, weights="mine.safetensors")),
        (
            "demo",
            "RN101-quickgelu",
            "x.pt",
            dataclasses.replace(RN50, model="RN101-quickgelu", weights="x.pt"),
        ),
    ],
)
def test_the_teacher_can_be_chosen(profile, model, weights, expected):
    data = DataConfig(profile=profile)
    config = notebook_data.zero_shot(data, clip_model=model, clip_weights=weights)
    assert config.clip == expected


def test_runs_with_different_seeds_share_no_noise():
    seeds = [notebook_data.zero_shot(DataConfig(), seed=s).noise_seeds for s in range(3)]
    assert len({seed for run in seeds for seed in run}) == sum(map(len, seeds))


def test_the_paper_profile_needs_real_data():
    with pytest.raises(ValueError, match="DATA_ROOT"):
        notebook_data.detection_set(DataConfig(profile="paper"))


@pytest.mark.parametrize("profile", PROFILES)
def test_one_file_serves_every_profile(tiny_set, profile):
    config = DataConfig(
        profile=profile, annotations=str(tiny_set.path), images=str(tiny_set.image_root)
    )
    dataset = notebook_data.detection_set(config)
    assert dataset.fingerprint == tiny_set.fingerprint


def test_paths_count_from_the_repository(tiny_set, monkeypatch):
    monkeypatch.setattr(notebook_data, "ROOT", tiny_set.path.parent)
    assert len(notebook_data.detection_set(DataConfig(annotations="tiny.json"))) == 5
    assert paths.ROOT.is_absolute()


def test_images_that_are_missing_are_left_out_and_counted(tiny_set, tmp_path):
    for name in ("1.png", "4.png"):
        (tmp_path / name).write_bytes((tiny_set.image_root / name).read_bytes())
    config = DataConfig(annotations=str(tiny_set.path), images=str(tmp_path))
    with pytest.warns(DataWarning, match="3 of 5 images"):
        dataset = notebook_data.detection_set(config)
    assert dataset.image_ids.tolist() == [1, 4]


def test_a_root_is_searched_for_the_split(tiny_set, tmp_path):
    (tmp_path / "lvis_v1_val.json").write_bytes(tiny_set.path.read_bytes())
    for path in tiny_set.image_root.glob("*.png"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = DataConfig(profile="paper", data_root=str(tmp_path))
    assert len(notebook_data.detection_set(config)) == 5
    with pytest.raises(DataError, match="lvis_v1_train"):
        notebook_data.detection_set(config, "train")


def test_a_part_is_spread_evenly(tiny_set):
    assert notebook_data.spread(tiny_set, 0) is tiny_set
    assert notebook_data.spread(tiny_set, 9) is tiny_set
    assert notebook_data.spread(tiny_set, 3).image_ids.tolist() == [1, 3, 5]


def test_names_are_spoken_without_signs():
    names = ("aerosol_can", "bow_(weapon)", "dog")
    categories = tuple(Category(id=i, name=name) for i, name in enumerate(names))
    assert notebook_data.spoken_names(categories) == ["aerosol can", "bow", "dog"]


def test_names_that_would_be_one_keep_their_brackets():
    names = ("bow_(weapon)", "bow_(decorative_ribbons)", "dog_(animal)")
    categories = tuple(Category(id=i, name=name) for i, name in enumerate(names))
    spoken = notebook_data.spoken_names(categories)
    assert spoken == ["bow (weapon)", "bow (decorative ribbons)", "dog"]


# --- long tails --------------------------------------------------------------------------------


def test_instances_are_counted_from_the_file(tiny_set):
    data = DataConfig(annotations=str(tiny_set.path), images=str(tiny_set.image_root))
    frame, prints = notebook_data.long_tails(TailConfig(data=data))
    assert frame["category"].tolist() == ["dog", "cat", "red_boat", "guitar"]
    assert frame["instances"].tolist() == [3, 2, 2, 1]
    assert frame["group"].tolist() == ["r", "c", "f", "f"]
    assert list(prints.values()) == [tiny_set.fingerprint]


def test_listed_counts_stand_beside(tiny_set, tmp_path):
    listed = [
        {"id": 1, "name": "a", "frequency": "r", "instance_count": 4, "image_count": 2},
        {"id": 2, "name": "b", "frequency": "f", "instance_count": 900, "image_count": 300},
    ]
    path = tmp_path / "counts.json"
    path.write_text(json.dumps(listed), encoding="utf-8")
    data = DataConfig(annotations=str(tiny_set.path), images=str(tiny_set.image_root))
    frame, prints = notebook_data.long_tails(TailConfig(data=data, categories=str(path)))
    assert frame["dataset"].nunique() == len(prints) == 2
    added = frame[frame["dataset"] == frame["dataset"].iloc[-1]]
    assert added["instances"].tolist() == [4, 900]


def test_sets_that_are_absent_are_skipped(tiny_set, tmp_path):
    (tmp_path / "lvis_v1_train.json").write_bytes(tiny_set.path.read_bytes())
    frame, _ = notebook_data.long_tails(TailConfig(data=DataConfig(data_root=str(tmp_path))))
    assert frame["dataset"].nunique() == 1


def test_an_empty_root_is_explained(tmp_path):
    with pytest.raises(DataError, match="lvis_v1_train"):
        notebook_data.long_tails(TailConfig(data=DataConfig(data_root=str(tmp_path))))


# --- notebook 05 ---------------------------------------------------------------------------


def test_few_per_class_takes_some_images_of_each_class(tiny_set):
    one = notebook_data.few_per_class(tiny_set, 1)
    assert (one.image_counts() >= 1).all() and len(one) < 4
    everything = notebook_data.few_per_class(tiny_set, 9)
    assert len(everything) == 4  # the image without a box has no class
    assert everything.image_counts().tolist() == tiny_set.image_counts().tolist()


def test_federated_tables_show_real_counts_beside(tiny_set, tmp_path):
    path = tmp_path / "categories.json"
    listed = [
        {"id": i, "name": f"c{i}", "frequency": "f", "image_count": 10 * i, "instance_count": 20}
        for i in range(1, 6)
    ]
    path.write_text(json.dumps(listed), encoding="utf-8")
    config = notebook_data.signals_of_losses(DataConfig(profile="smoke"), categories=str(path))
    config = dataclasses.replace(config, categories_images=100, federated_classes=3, steps=300)
    own, real = notebook_data.federated_tables(config, tiny_set).values()
    assert own["group"].tolist() == ["r", "c", "f", "f"]
    assert real["images"].tolist() == [10, 20, 30, 40, 50]
    for table in (own, real):
        assert (table["seen"] - table["drawn"]).abs().max() < 0.25  # few classes: a rough formula


def test_the_teacher_of_the_losses_is_that_of_table_2():
    for profile in PROFILES:
        data = DataConfig(profile=profile)
        assert notebook_data.signals_of_losses(data).clip == notebook_data.zero_shot(data).clip
