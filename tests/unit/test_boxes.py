"""Formats, units, overlap and corrections of boxes, against torchvision."""

import torch
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import box_iou, generalized_box_iou

from richsem import boxes as own
from richsem.boxes import generalized_iou, overlap, to_cxcywh, to_xyxy
from richsem.losses.dino_criterion import box_losses

CODING = (20.0, 20.0, 10.0, 10.0)
SIZES = torch.tensor([[64.0, 64.0], [64.0, 48.0], [32.0, 64.0]])  # height, width


def pixel_boxes(number, side=400.0, seed=0):
    draws = torch.Generator().manual_seed(seed)
    low = side * torch.rand(number, 2, generator=draws)
    return torch.cat([low, low + 2 + side * torch.rand(number, 2, generator=draws)], 1)


def random_boxes(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, 4, generator=generator) * 0.5 + 0.1


def test_overlap_agrees_with_torchvision():
    first, second = to_xyxy(random_boxes(0, 20)), to_xyxy(random_boxes(1, 9))
    second[0], second[1] = first[0], first[0] + 99  # equal, and far away
    iou, _ = overlap(first[:, None], second)
    torch.testing.assert_close(iou, box_iou(first, second), atol=2e-4, rtol=0)
    giou = generalized_iou(first[:, None], second)
    torch.testing.assert_close(giou, generalized_box_iou(first, second), atol=2e-4, rtol=0)


def test_empty_boxes_are_finite_and_keep_gradients():
    boxes = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.2, 0.2, 0.0, 0.3]], requires_grad=True)
    l1, giou = box_losses(boxes[None], boxes.detach()[None].flip(1))
    (l1 + giou).sum().backward()
    assert torch.isfinite(l1).all() and torch.isfinite(giou).all()
    assert torch.isfinite(boxes.grad).all()


def test_formats_are_inverse():
    boxes = random_boxes(3, 5, 2)
    torch.testing.assert_close(to_cxcywh(to_xyxy(boxes)), boxes)
    expected = torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., 2:]], dim=-1)
    torch.testing.assert_close(own.to_xywh(to_xyxy(boxes)), expected)
    sizes = torch.tensor([[64, 96]] * 5)[:, None]  # one per image
    torch.testing.assert_close(own.in_parts(own.in_pixels(boxes, sizes), sizes), boxes)


def test_units_by_hand():
    box = torch.tensor([[0.5, 0.5, 0.5, 0.25]])
    assert own.in_pixels(box, (64, 96)).tolist() == [[24, 24, 72, 40]]
    assert own.in_parts(torch.tensor([[24.0, 24, 72, 40]]), (64, 96)).tolist() == box.tolist()


def test_clipping_knows_every_image():
    boxes = torch.tensor([[-3.0, 5.0, 90.0, 70.0]]).repeat(3, 1)
    assert own.clipped(boxes, SIZES).tolist() == [[0, 5, 64, 64], [0, 5, 48, 64], [0, 5, 64, 32]]
    assert torch.equal(own.clipped(boxes[:1], SIZES[0]), own.clipped(boxes, SIZES)[:1])


def test_losses_are_sums_by_set():
    predicted, target = random_boxes(0, 3, 7), random_boxes(1, 3, 7)
    l1, giou = box_losses(predicted, target)
    for number in range(3):
        expected = torch.nn.functional.l1_loss(predicted[number], target[number], reduction="sum")
        torch.testing.assert_close(l1[number], expected)
        pairs = generalized_box_iou(to_xyxy(predicted[number]), to_xyxy(target[number]))
        expected = (1 - pairs.diagonal()).sum()
        torch.testing.assert_close(giou[number], expected, atol=1e-3, rtol=0)


def test_corrections_are_those_of_torchvision():
    coder = BoxCoder(CODING)
    first, second = pixel_boxes(50), pixel_boxes(50, seed=1)
    deltas = own.corrections(first, second, CODING)
    torch.testing.assert_close(deltas, coder.encode_single(second, first))
    wild = 8 * torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    wild[:, 2:][:3] = 1e4  # a box does not grow without limits
    moved = own.corrected(first, wild, CODING)
    torch.testing.assert_close(moved, coder.decode_single(wild, first), atol=1e-2, rtol=1e-4)
