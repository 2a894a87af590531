import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from tiny_dino import target

from richsem.losses.matching import (
    denoising_matches,
    logits_of_targets,
    match,
    matching_cost,
    num_matches,
)
from richsem.structures import Target


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


def test_class_agnostic_logits_count_for_every_target():
    targets = [target(5, -1), target(3)]
    logits, _ = predictions(1, 2, 4, 1)
    assert torch.equal(logits_of_targets(logits, targets), logits.expand(1, 2, 4, 2))


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


def test_number_of_matches_counts_queries():
    targets = [target(0, 0, 0), target(), target(*[1] * 6)]
    assert num_matches(targets, num_queries=4) == 7


def test_no_targets_at_all():
    targets = [target(), target()]
    logits, boxes = predictions(2, 2, 3, 4)
    cost = matching_cost(logits_of_targets(logits, targets), boxes, targets)
    matches = match(cost, [0, 0])
    assert matches.queries.shape == matches.targets.shape == (2, 0)
    assert matches.pick(boxes).shape == (2, 0, 4)


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


def test_order_of_targets_does_not_matter():
    targets, (logits, boxes) = [target(2, 0, 1)], predictions(1, 1, 8, 4)
    order = torch.tensor([2, 0, 1])
    turned = [Target(targets[0].labels[order], targets[0].boxes[order], (8, 8), (8, 8), 0)]
    found = [
        match(matching_cost(logits_of_targets(logits, t), boxes, t), [3]) for t in (targets, turned)
    ]
    assert torch.equal(found[0].queries, found[1].queries)
    assert torch.equal(found[0].targets, order[found[1].targets])


def test_denoising_pairs():
    matches = denoising_matches([2, 0, 1], num_slots=2, num_groups=3, num_layers=2, device="cpu")
    assert matches.images.tolist() == [0, 0, 2] * 3
    assert matches.queries.tolist() == [[0, 1, 0, 4, 5, 4, 8, 9, 8]] * 2
    assert matches.targets.tolist() == [[0, 1, 2] * 3] * 2


def test_denoising_pairs_without_targets():
    matches = denoising_matches([0, 0], num_slots=0, num_groups=1, num_layers=2, device="cpu")
    assert matches.queries.shape == (2, 0)
