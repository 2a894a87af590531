"""The scarcity probe: a linear classifier that reports class averages, and its features."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from richsem.workbook.probe import box_features, image_features, linear_probe

GROUPS = np.array(["f", "c", "r"])
SIZE = 64  # enough directions for two examples to mislead
CENTRES = 4 * torch.eye(3, SIZE)


def cluster(counts, seed=0, spread=0.3):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    noise = torch.randn(len(labels), SIZE, generator=generator)
    return CENTRES[labels] + spread * noise, labels


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def test_separable_classes_are_separated():
    data, test = [cluster([2000, 300, 60])], cluster([20, 20, 20], seed=1)
    result = linear_probe(data, test, GROUPS, steps=1000)
    assert set(result) == {"all", "r", "c", "f", "train"}
    assert all(value > 95 for value in result.values())


def test_classes_are_averaged_and_not_boxes():
    features, labels = cluster([90, 10, 10], seed=1)
    wrong = labels == 1
    features[wrong] = features[~wrong][:10]  # looks exactly like the first class
    result = linear_probe([cluster([100, 100, 100])], (features, labels), GROUPS)
    assert result["c"] < 20 < 80 < min(result["f"], result["r"])
    assert result["all"] == pytest.approx((result["f"] + result["c"] + result["r"]) / 3)


def test_a_group_that_is_not_tested_has_no_number():
    result = linear_probe([cluster([50, 50, 50])], cluster([5, 5]), GROUPS)
    assert np.isnan(result["r"])
    assert result["all"] == pytest.approx((result["f"] + result["c"]) / 2)


def test_extra_data_of_a_scarce_class_helps_it():
    """Two examples cannot teach a noisy class; many more can."""
    scarce, extra = cluster([400, 400, 2], spread=2.5), cluster([0, 0, 400], seed=2, spread=2.5)
    test = cluster([200, 200, 200], seed=3, spread=2.5)
    without = linear_probe([scarce], test, GROUPS)
    with_extra = linear_probe([scarce, extra], test, GROUPS)
    assert without["r"] < without["f"] - 10
    assert with_extra["r"] > without["r"] + 10


def test_equal_seeds_give_equal_numbers():
    data, test = cluster([300, 300, 30], spread=2.0), cluster([50, 50, 50], seed=1, spread=2.0)
    runs = [linear_probe([data], test, GROUPS, seed=4, steps=5) for _ in range(2)]
    assert runs[0] == runs[1]


def test_box_features_follow_the_boxes(tiny_set):
    features, labels = box_features(tiny_set)
    assert features.shape == (len(tiny_set.labels), 4 * 576)
    np.testing.assert_array_equal(labels, tiny_set.labels)
    turned = tiny_set.select([4, 3, 2, 1, 0])
    place = np.argsort(turned.annotation_ids)
    torch.testing.assert_close(box_features(turned)[0][place], features, atol=1e-4, rtol=1e-4)


def test_image_features_take_any_size():
    pictures = [Image.new("RGB", size, "red") for size in ((50, 70), (64, 64), (20, 30))]
    images = SimpleNamespace(image=pictures.__getitem__, labels=((2,), (0,), (1,)))
    images = type("Images", (), {"__len__": lambda self: 3, **vars(images)})()
    features, labels = image_features(images)
    assert features.shape == (3, 4 * 576)
    assert labels.tolist() == [2, 0, 1]
    torch.testing.assert_close(features[0], features[2], atol=1e-3, rtol=1e-3)
