"""One box through the teacher: the same answers as a reading, from one trunk pass per image."""

import numpy as np
import pytest
import torch

from richsem.data.corrupt import jitter_boxes, uniform_draws
from richsem.models.clip import soft_labels
from richsem.workbook.inspector import RegionInspector


@pytest.fixture
def inspector(untrained, tiny_set, tiny_names, tmp_path, monkeypatch):
    monkeypatch.setattr("richsem.paths.CACHE", tmp_path)
    return RegionInspector(untrained, tiny_set, tiny_names)


@pytest.mark.parametrize("mode", ["roi", "crop"])
def test_a_view_is_the_teachers_soft_label(inspector, untrained, tiny_set, tiny_names, mode):
    view = inspector.view(0, 1, scale=0.6, seed=5, mode=mode)
    boxes, labels = tiny_set.boxes_of(0)
    moved = jitter_boxes(boxes, 0.6, tiny_set.image_sizes[0], uniform_draws(len(boxes), 5))[1:2]
    pixels = torch.from_numpy(np.array(tiny_set.image(0))).permute(2, 0, 1)
    features = untrained.regions(pixels, torch.from_numpy(moved), mode)
    expected = soft_labels(features, inspector.text, untrained.scale)[0]
    assert view.names == tuple(tiny_names[i] for i in expected.argsort(descending=True))
    np.testing.assert_allclose(view.probabilities, expected.sort(descending=True)[0], rtol=1e-4)
    assert view.probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert view.true_name == tiny_names[labels[1]]
    assert view.true_box == tuple(boxes[1])
    assert view.moved_box == pytest.approx(tuple(moved[0]))


def test_without_noise_the_box_stays(inspector):
    view = inspector.view(1, 0, seed=9)
    assert view.moved_box == view.true_box
    left, top, right, bottom = map(int, view.true_box)
    assert view.crop.size == (right - left, bottom - top)


def test_a_crop_is_never_empty(inspector, tiny_set):
    for seed in range(5):
        crop = inspector.view(4, 1, scale=2.0, seed=seed).crop
        assert min(crop.size) >= 1


def test_moving_a_box_needs_no_second_pass(inspector, untrained, monkeypatch):
    passes, trunk_map = [], untrained.trunk_map
    monkeypatch.setattr(untrained, "trunk_map", lambda x: passes.append(1) or trunk_map(x))
    for scale in (0.0, 0.3, 0.6):
        inspector.view(0, 0, scale=scale)
    inspector.view(0, 2)
    assert len(passes) == 1
    inspector.view(3, 0)
    assert len(passes) == 2
