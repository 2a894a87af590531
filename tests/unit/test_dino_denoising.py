"""Denoising queries: how far boxes and labels move, and what unknown labels become."""

import torch
from tiny_dino import target

from richsem.models.dino.denoising import (
    DenoisingConfig,
    attention_mask,
    build_queries,
    draw,
    noisy_boxes,
)

CPU = torch.device("cpu")


def embed(labels):
    """Content [..., 4] that tells the label."""
    return (labels + 1.0)[..., None].expand(*labels.shape, 4)


def queries_of(*targets, **noise):
    torch.manual_seed(0)
    return build_queries(targets, DenoisingConfig(**noise), 5, embed)


def test_boxes_stay_inside_the_image():
    boxes = torch.tensor([0.05, 0.95, 0.1, 0.1]).expand(2, 8, 7, 4)
    noisy = noisy_boxes(boxes, draw((2, 8, 7), 5, CPU), 1.0)
    low, high = noisy[..., :2] - noisy[..., 2:].abs() / 2, noisy[..., :2] + noisy[..., 2:].abs() / 2
    assert (low >= -1e-6).all()
    assert (high <= 1 + 1e-6).all()


def test_unknown_labels_have_no_content():
    queries = queries_of(target(-1, -1), target(2), number=3, label_noise=1.0)
    content = queries.content.unflatten(1, (-1, queries.num_slots))
    assert not content[0].any()
    assert content[1, :, 0].all()
    assert not content[1, :, 1].any()
    assert queries.box_logits[0].any(-1).all()


def test_no_targets_no_queries():
    queries = queries_of(target(), target())
    assert queries.content.shape[1] == 0
    assert queries.num_slots == 0
    assert queries.num_groups == 1


def test_the_same_seed_draws_the_same():
    one, other = (queries_of(target(0, 1)) for _ in range(2))
    assert torch.equal(one.box_logits, other.box_logits)


def test_the_mask_without_groups_hides_nothing():
    assert not attention_mask(1, 0, 4, CPU).any()
    assert attention_mask(1, 0, 4, CPU).shape == (4, 4)
