"""Where data come from, which classes are counted, and what a linear probe tells of them."""

import shutil
from functools import partial
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_files import write_json
from workbook_toys import files_of

from richsem.config import PROFILES
from richsem.data.reading import DataError, DataWarning
from richsem.workbook import notebook_data
from richsem.workbook.notebook_data import DataConfig


def test_one_file_serves_every_profile_and_its_parts_are_spread_evenly(tiny_set, monkeypatch):
    for profile in PROFILES:
        config = DataConfig(profile=profile, **files_of(tiny_set))
        dataset = notebook_data.open_detection_set(config)
        assert dataset.fingerprint == tiny_set.fingerprint
    with pytest.raises(ValueError, match="DATA_ROOT"):
        notebook_data.open_detection_set(DataConfig(profile="paper"))
    with pytest.raises(ValueError, match="IMAGES needs ANNOTATIONS"):
        notebook_data.open_detection_set(DataConfig(images="photos"))
    monkeypatch.chdir(tiny_set.path.parent)
    monkeypatch.delenv("RICHSEM_HERE", raising=False)
    assert len(notebook_data.open_detection_set(DataConfig(annotations="tiny.json"))) == 5
    assert all(notebook_data.spread(tiny_set, number) is tiny_set for number in (0, 9))
    assert notebook_data.spread(tiny_set, 3).image_ids.tolist() == [1, 3, 5]


def test_images_are_spaced_and_those_without_a_box_give_way_to_the_next(tiny_set):
    assert notebook_data.spaced(tiny_set, 9).tolist() == [0, 1, 3, 4]
    assert notebook_data.spaced(tiny_set, 3).tolist() == [0, 3, 4]  # not 2, which has none
    assert notebook_data.spaced(tiny_set.select([3, 2]), 2).tolist() == [0]  # none comes after it
    with pytest.raises(DataError, match="no image has a box"):
        notebook_data.spaced(tiny_set.select([2]), 1)


def test_clear_images_and_classes_are_found(tiny_set):
    assert notebook_data.clear_image(tiny_set) == 4  # the boxes of the first one overlap
    parts = (tiny_set.select([3, 4]), tiny_set.select([2, 1]))
    assert [notebook_data.clear_image(part) for part in parts] == [1, 1]
    assert notebook_data.class_called("cat", ["dog", "cat"]) == 1
    with pytest.raises(ValueError, match="no class is called 'toaster'"):
        notebook_data.class_called("toaster", ["dog", "toast oven"])


def test_missing_images_are_left_out_and_a_root_is_searched_for_the_split(tiny_set, tmp_path):
    for name in ("1.png", "4.png"):
        shutil.copy(tiny_set.image_root / name, tmp_path)
    config = DataConfig(annotations=str(tiny_set.path), images=str(tmp_path))
    with pytest.warns(DataWarning, match="3 of 5 pictures"):
        dataset = notebook_data.open_detection_set(config)
    assert dataset.image_ids.tolist() == [1, 4]
    shutil.copytree(tiny_set.image_root, tmp_path, dirs_exist_ok=True)
    shutil.copy(tiny_set.path, tmp_path / "lvis_v1_val.json")
    config = DataConfig(profile="paper", data_root=str(tmp_path))
    assert len(notebook_data.open_detection_set(config)) == 5
    with pytest.raises(DataError, match="lvis_v1_train"):
        notebook_data.open_detection_set(config, "train")


def test_instances_and_listed_counts_stand_beside_and_absent_sets_are_skipped(tiny_set, tmp_path):
    frame, prints = notebook_data.long_tails(DataConfig(**files_of(tiny_set)))
    assert frame["category"].tolist() == ["dog", "cat", "red_boat", "guitar"]
    assert frame["instances"].tolist() == [3, 2, 2, 1]
    assert frame["group"].tolist() == ["r", "c", "f", "f"]
    assert list(prints.values()) == [tiny_set.fingerprint]
    known = {"name": "a", "frequency": "r", "image_count": 2}
    listed = [known | {"id": i, "instance_count": number} for i, number in ((1, 4), (2, 900))]
    path = write_json(tmp_path / "counts.json", listed)
    config = DataConfig(categories=str(path), **files_of(tiny_set))
    frame, prints = notebook_data.long_tails(config)
    assert frame["dataset"].nunique() == len(prints) == 2
    assert frame["instances"].tolist()[4:] == [4, 900]
    config = DataConfig(data_root=str(tmp_path))
    with pytest.raises(DataError, match="lvis_v1_train"):
        notebook_data.long_tails(config)
    shutil.copy(tiny_set.path, tmp_path / "lvis_v1_train.json")
    assert notebook_data.long_tails(config)[0]["dataset"].nunique() == 1


SIZE = 64  # enough directions for two examples to mislead
CENTRES = 4 * torch.eye(3, SIZE)
probe = partial(
    notebook_data.linear_probe, groups=np.array(["f", "c", "r"]), corrected=True, seed=0, steps=1000
)


def cluster(counts, seed=0, spread=0.3):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    noise = torch.randn(len(labels), SIZE, generator=generator)
    return CENTRES[labels] + spread * noise, labels


def test_separable_classes_are_separated_and_averaged_over_those_that_are_tested():
    data, test = [cluster([2000, 300, 60])], cluster([20, 20, 20], seed=1)
    result = probe(data, test)
    assert set(result) == {"all", "r", "c", "f", "train"}
    assert all(value > 95 for value in result.values())
    # Averages are over classes, not over boxes.
    features, labels = cluster([90, 10, 10], seed=1)
    wrong = labels == 1
    features[wrong] = features[~wrong][:10]  # looks exactly like the first class
    result = probe([cluster([100, 100, 100])], (features, labels))
    assert result["c"] < 20 < 80 < min(result["f"], result["r"])
    assert result["all"] == pytest.approx((result["f"] + result["c"] + result["r"]) / 3)
    result = probe([cluster([50, 50, 50])], cluster([5, 5]))
    assert np.isnan(result["r"])
    assert result["all"] == pytest.approx((result["f"] + result["c"]) / 2)
    data, test = cluster([300, 300, 30], spread=2.0), cluster([50, 50, 50], seed=1, spread=2.0)
    runs = [probe([data], test, seed=4, steps=5) for _ in range(2)]
    assert runs[0] == runs[1]


def test_extra_data_of_a_scarce_class_helps_it():
    """Two examples cannot teach a noisy class; many more can."""
    scarce, extra = cluster([400, 400, 2], spread=2.5), cluster([0, 0, 400], seed=2, spread=2.5)
    test = cluster([200, 200, 200], seed=3, spread=2.5)
    without, with_extra = probe([scarce], test), probe([scarce, extra], test)
    assert without["r"] < without["f"] - 10 and with_extra["r"] > without["r"] + 10


def test_features_follow_the_boxes_and_take_any_size(tiny_set):
    features, labels = notebook_data.box_features(tiny_set)
    assert features.shape == (len(tiny_set.labels), 4 * 576)
    np.testing.assert_array_equal(labels, tiny_set.labels)
    turned = tiny_set.select([4, 3, 2, 1, 0])
    other = notebook_data.box_features(turned)[0][np.argsort(turned.annotation_ids)]
    torch.testing.assert_close(other, features, atol=1e-4, rtol=1e-4)
    pictures = [Image.new("RGB", size, "red") for size in ((50, 70), (64, 64), (20, 30))]
    images = mock.MagicMock(image=pictures.__getitem__, labels=((2,), (0,), (1,)))
    images.__len__.return_value = 3
    features, labels = notebook_data.image_features(images)
    assert features.shape == (3, 4 * 576) and labels.tolist() == [2, 0, 1]
    torch.testing.assert_close(features[0], features[2], atol=1e-3, rtol=1e-3)
