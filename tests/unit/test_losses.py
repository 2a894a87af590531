"""The parts of both criteria: classes, pairs, soft labels, whole images, centres."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from tiny_centernet2 import random_boxes
from tiny_dino import annotated, target
from torch.nn import functional as F
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from richsem.losses.centers import center_targets, distance_loss, heatmap_loss
from richsem.losses.classification import FederatedClasses, focal_losses
from richsem.losses.image_level import image_level_loss
from richsem.losses.matching import Matches, logits_of_targets, match, matching_cost
from richsem.losses.semantic import soft_label_loss
from richsem.models.centernet2.first_stage import make_cells

# Of two output sets, two images, five queries and six classes; three targets and their pairs.
LOGITS = 3 * torch.randn(2, 2, 5, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([1, 4, 0])
MATCHES = Matches(
    images=torch.tensor([0, 0, 1]),
    queries=torch.tensor([[3, 1, 2], [0, 4, 4]]),
    targets=torch.tensor([[1, 0, 2], [0, 1, 2]]),
)


def test_a_query_of_unknown_class_is_left_out_and_extreme_logits_are_finite():
    wanted, sets = torch.zeros_like(LOGITS), torch.arange(2)[:, None]
    wanted[sets, MATCHES.images, MATCHES.queries, LABELS[MATCHES.targets]] = 1
    dense = sigmoid_focal_loss(LOGITS, wanted).sum(dim=-1)
    dense[0, 0, 3] = 0  # both queries of target 1
    dense[1, 0, 4] = 0
    losses = focal_losses(LOGITS, torch.tensor([1, -1, 0]), MATCHES)
    torch.testing.assert_close(losses, dense.sum(dim=(1, 2)))
    logits = (LOGITS.sign() * 1e4).requires_grad_()
    focal_losses(logits, LABELS, MATCHES).sum().backward()
    assert torch.isfinite(logits.grad).all()


# --- the federated draw --------------------------------------------------------------------


def test_present_classes_are_kept_and_filled_up_and_no_class_to_draw_is_an_error():
    draw = FederatedClasses(4, torch.tensor([0, 5, 5, 5, 5, 5, 5]))
    chosen = draw(torch.tensor([3, 3, 0, -1]), 500)
    assert chosen[:, [0, 3]].all()
    assert (chosen.sum(dim=1) == 4).all()
    assert len(chosen.unique(dim=0)) > 2  # a fresh draw for each output set
    with pytest.raises(ValueError, match="federated_classes=0"):
        FederatedClasses(5, torch.zeros(3))
    FederatedClasses(0, torch.zeros(3))


@pytest.mark.parametrize(
    ("number", "counts", "present", "expected"),
    [
        (2, [1, 1, 1, 1, 1, 1], [0, 2, 3, 5], [0, 2, 3, 5]),  # more than wanted
        (5, [0, 1, 1, 0], [1], [1, 2]),  # the others have no images
    ],
)
def test_the_draw_may_be_larger_or_smaller(number, counts, present, expected):
    chosen = FederatedClasses(number, counts)(torch.tensor(present), 10)
    assert [row.nonzero().flatten().tolist() for row in chosen] == [expected] * 10


# --- pairs -------------------------------------------------------------------------------------


def predictions(num_sets, num_images, num_queries, num_classes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_sets, num_images, num_queries, num_classes, generator=generator)
    boxes = torch.rand(num_sets, num_images, num_queries, 4, generator=generator) * 0.3 + 0.2
    return logits, boxes


def test_unknown_classes_cost_nothing():
    targets = [target(-1, 1)]
    logits, boxes = predictions(1, 1, 5, 3)
    cost = matching_cost(logits_of_targets(logits, targets), boxes, targets)
    nowhere = torch.full((1, 1, 5, 2), torch.nan)  # "no opinion" about both
    geometry = matching_cost(nowhere, boxes, targets)
    assert torch.equal(cost[..., 0], geometry[..., 0])
    assert not torch.equal(cost[..., 1], geometry[..., 1])


def test_pairs_are_those_of_scipy():
    counts = [3, 0, 6, 1]
    cost = torch.randn(2, 4, 4, 6, generator=torch.Generator().manual_seed(0))
    matches = match(cost, counts)
    assert matches.images.tolist() == [0, 0, 0, 2, 2, 2, 2, 3]  # image 2 has too few queries
    offsets = np.cumsum([0, *counts])
    for number in range(2):
        for image, count in enumerate(counts):
            queries, rows = linear_sum_assignment(cost[number, image, :, :count])
            mine = matches.images == image
            assert matches.queries[number, mine].tolist() == queries.tolist()
            assert (matches.targets[number, mine] - offsets[image]).tolist() == rows.tolist()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_broken_predictions_still_match(bad):
    """The loss reports them, with the names of its terms; the matching must not fall over."""
    targets = [target(0, 1)]
    logits, boxes = predictions(1, 1, 4, 3)
    logits[:, :, 1], boxes[:, :, 2] = bad, bad
    cost = matching_cost(logits_of_targets(logits, targets), boxes, targets)
    matches = match(cost, [2])
    assert sorted(matches.targets[0].tolist()) == [0, 1]
    assert 2 not in matches.queries[0]


# --- soft labels and whole images --------------------------------------------------------------


def test_a_certain_teacher_is_finite():
    teacher, student = torch.eye(3), torch.zeros(3, 3, requires_grad=True)
    loss = soft_label_loss(teacher, student)
    loss.backward()
    assert loss.item() == pytest.approx(3 * math.log(3))
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("choice", ["max_size", "max_score"])
def test_against_loops(choice):
    """METHOD 3.2, one layer, image and label at a time."""
    logits, boxes = predictions(3, 4, 5, 4)
    labels, targets = [[2, 0], [], [1], []], annotated([2, 0], [], [1], [-1])
    expected = torch.zeros(())
    for layer in range(3):
        for image, own in enumerate(labels):
            for label in own:
                area = boxes[layer, image, :, 2] * boxes[layer, image, :, 3]
                score = logits[layer, image, :, label]
                query = (area if choice == "max_size" else score).argmax()
                wanted = F.one_hot(torch.tensor(label), 4).float()
                answer = logits[layer, image, query]
                loss = F.binary_cross_entropy_with_logits(answer, wanted, reduction="sum")
                expected += loss / len(own) / len(labels)
    torch.testing.assert_close(image_level_loss(logits, boxes, targets, choice), expected)


# --- centres ------------------------------------------------------------------------------------

RANGES = ((0.0, 24.0), (16.0, 48.0), (32.0, 1e8))
CELLS = make_cells([(12, 12), (6, 6), (3, 3)], (8, 16, 32))


def naive_centres(cells, boxes):
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
    boxes = random_boxes(2 + 3 * seed, 48.0, smallest=6.0, seed=seed)
    found = center_targets(CELLS, boxes, RANGES)
    heat, rows, distances, peaks = naive_centres(CELLS, boxes)
    torch.testing.assert_close(found.heat, torch.tensor(heat))
    assert found.rows.tolist() == rows
    assert found.peaks.tolist() == peaks
    for row, ours, theirs in zip(rows, found.distances, distances, strict=True):
        if row >= 0:
            torch.testing.assert_close(ours, torch.tensor(theirs))


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
    # 1 x 1 inside 2 x 2: (1 + 1) / (4 + 1), nothing is enclosed beyond the larger one.
    small = torch.tensor([[0.5, 0.5, 0.5, 0.5]])
    assert distance_loss(small, 2 * small).item() == pytest.approx(1 - 2 / 5)
