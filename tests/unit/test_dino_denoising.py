"""Denoising queries: how far boxes and labels move, and what unknown labels become."""

import pytest
import torch
from tiny_dino import target

from richsem.models.dino.denoising import (
    DenoisingConfig,
    attention_mask,
    build_queries,
    count_groups,
    draw,
    noisy_boxes,
    noisy_labels,
)

CPU = torch.device("cpu")


def embed(labels):
    """Content [..., 4] that tells the label."""
    return (labels + 1.0)[..., None].expand(*labels.shape, 4)


def queries_of(*targets, **noise):
    torch.manual_seed(0)
    return build_queries(targets, DenoisingConfig(**noise), 5, embed)


def test_without_noise_they_are_the_targets():
    targets = target(0, 3), target(4)
    queries = queries_of(*targets, number=1, label_noise=0.0, box_noise=0.0)
    content = queries.content.view(2, 4, 2, 4)  # image, copy, slot
    boxes = queries.box_logits.view(2, 4, 2, 4)
    assert content[0, ..., 0].tolist() == [[1.0, 4.0]] * 4
    assert content[1, ..., 0].tolist() == [[5.0, 0.0]] * 4
    torch.testing.assert_close(boxes[0].sigmoid(), targets[0].boxes.expand(4, 2, 4))
    torch.testing.assert_close(boxes[1, :, :1].sigmoid(), targets[1].boxes.expand(4, 1, 4))
    assert not boxes[1, :, 1].any()


def test_positives_move_by_less_than_half_a_side_and_negatives_by_more():
    boxes = torch.tensor([0.5, 0.5, 0.2, 0.1]).expand(3, 8, 7, 4)
    noisy = noisy_boxes(boxes, draw((3, 8, 7), 5, CPU), 0.8)
    corners = torch.cat(
        [noisy[..., :2] - noisy[..., 2:] / 2, noisy[..., :2] + noisy[..., 2:] / 2], -1
    )
    shift = (corners - torch.tensor([0.4, 0.45, 0.6, 0.55])).abs() / torch.tensor([0.1, 0.05] * 2)
    assert (shift[:, ::2] <= 0.8 + 1e-5).all()
    assert (shift[:, 1::2] >= 0.8 - 1e-5).all()
    assert (shift[:, 1::2] <= 1.6 + 1e-5).all()


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


def test_labels_are_replaced_half_as_often_as_the_noise_says():
    torch.manual_seed(0)
    shape = (4, 50, 50)
    labels = torch.full(shape, 7)
    replaced = noisy_labels(labels, draw(shape, 5, CPU), 0.5) != 7
    assert replaced.float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert (noisy_labels(-torch.ones(shape).long(), draw(shape, 5, CPU), 2.0) == -1).all()


def test_no_targets_no_queries():
    queries = queries_of(target(), target())
    assert queries.content.shape[1] == 0
    assert queries.num_slots == 0
    assert queries.num_groups == 1


@pytest.mark.parametrize(("number", "slots"), [(100, 1), (100, 7), (50, 51), (3, 4), (0, 2)])
def test_groups_share_a_total(number, slots):
    groups = count_groups(number, slots)
    assert groups >= 1
    if number >= 50 and groups > 1:
        assert 2 * number - 2 * slots < 2 * slots * groups <= 2 * number


def test_the_same_seed_draws_the_same():
    one, other = (queries_of(target(0, 1)) for _ in range(2))
    assert torch.equal(one.box_logits, other.box_logits)


def test_the_mask_without_groups_hides_nothing():
    assert not attention_mask(1, 0, 4, CPU).any()
    assert attention_mask(1, 0, 4, CPU).shape == (4, 4)
