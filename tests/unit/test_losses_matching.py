import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from tiny_dino import target

from richsem.losses.matching import logits_of_targets, match, matching_cost


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
