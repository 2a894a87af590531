"""What a heat map should say, and what it costs if it does not."""

import math

import pytest
import torch
from tiny_centernet2 import random_boxes
from torchvision.ops import generalized_box_iou_loss

from richsem.losses.centers import center_targets, distance_loss, heatmap_loss
from richsem.models.centernet2.first_stage import make_cells

RANGES = ((0.0, 24.0), (16.0, 48.0), (32.0, 1e8))
STRIDES = (8, 16, 32)


def naive(cells, boxes):
    """Cell by cell and object by object, as METHOD 3.3 says it."""
    heat, rows, distances, peaks = [], [], [], []
    for cell, (x, y) in enumerate(cells.points.tolist()):
        stride = cells.strides[cell].item()
        low, high = RANGES[int(cells.levels[cell])]
        warmest, best = 0.0, (math.inf, -1, None)
        for row, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
            cx, cy, w, h = (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0
            home_x, home_y = (stride * (math.floor(c / stride) + 0.5) for c in (cx, cy))
            is_home = (x, y) == (home_x, home_y)
            squared = 0.0 if is_home else (x - cx) ** 2 + (y - cy) ** 2
            relative = squared / max(2 * w * h / 81, 16)
            warmest = max(warmest, math.exp(-relative))
            in_charge = low <= math.hypot(w, h) / 2 <= high
            close = abs(x - home_x) <= stride and abs(y - home_y) <= stride
            sides = (x - x0, y - y0, x1 - x, y1 - y)
            if in_charge and close and min(sides) > 0 and relative < best[0]:
                best = (relative, row, [side / stride for side in sides])
            if in_charge and is_home:
                peaks.append(cell)
        heat.append(warmest if warmest >= 1e-4 else 0.0)
        rows.append(best[1])
        distances.append(best[2])
    return heat, rows, distances, peaks


@pytest.mark.parametrize("seed", range(4))
def test_targets_are_those_of_plain_loops(seed):
    cells = make_cells([(12, 12), (6, 6), (3, 3)], STRIDES)
    boxes = random_boxes(2 + 3 * seed, 48.0, smallest=6.0, seed=seed)
    found = center_targets(cells, boxes, RANGES)
    heat, rows, distances, peaks = naive(cells, boxes)
    torch.testing.assert_close(found.heat, torch.tensor(heat))
    assert found.rows.tolist() == rows
    assert found.peaks.tolist() == peaks
    for row, ours, theirs in zip(rows, found.distances, distances, strict=True):
        if row >= 0:
            torch.testing.assert_close(ours, torch.tensor(theirs))


def test_an_image_without_objects_is_cold():
    found = center_targets(
        make_cells([(12, 12), (6, 6), (3, 3)], STRIDES), torch.zeros(0, 4), RANGES
    )
    assert not found.heat.any()
    assert (found.rows == -1).all() and not len(found.peaks)


def test_heatmap_loss_by_hand():
    logits = torch.tensor([0.0, 1.0, 3.0, -20.0, 0.5], requires_grad=True)
    heat = torch.tensor([1.0, 0.5, 0.0, 0.0, 1.0])
    loss = heatmap_loss(logits, heat, torch.tensor([0, 4, 4]))
    p = torch.tensor([0.0, 1.0, 3.0, -20.0, 0.5]).sigmoid().clamp(1e-4, 1 - 1e-4).tolist()
    hits = [0.25 * (1 - p[i]) ** 2 * -math.log(p[i]) for i in (0, 4, 4)]
    # The third is brighter than .85 without an object: it is not held against the detector.
    misses = [0.75 * (1 - h) ** 4 * p[i] ** 2 * -math.log(1 - p[i]) for i, h in ((1, 0.5), (3, 0))]
    assert loss.item() == pytest.approx(sum(hits) + sum(misses), rel=1e-5)
    loss.backward()
    assert logits.grad[2] == 0
    assert logits.grad[0] < 0 < logits.grad[1]


def test_distance_loss_is_giou_but_for_the_added_area():
    draws = torch.Generator().manual_seed(0)
    first, second = 100 * torch.rand(2, 40, 4, generator=draws)
    as_boxes = [torch.cat([-d[:, :2], d[:, 2:]], dim=1) for d in (first, second)]
    expected = generalized_box_iou_loss(*as_boxes, reduction="sum")
    torch.testing.assert_close(distance_loss(first, second), expected, rtol=1e-3, atol=0)
    assert distance_loss(first, first).item() == pytest.approx(0, abs=1e-4)


def test_distance_loss_by_hand():
    """1 x 1 inside 2 x 2: (1 + 1) / (4 + 1), nothing is enclosed beyond the larger one."""
    small = torch.tensor([[0.5, 0.5, 0.5, 0.5]])
    assert distance_loss(small, 2 * small).item() == pytest.approx(1 - 2 / 5)
