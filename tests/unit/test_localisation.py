import pytest
import torch
from torchvision.ops import box_iou, generalized_box_iou

from richsem.losses.localisation import box_losses, generalized_iou, overlap, to_cxcywh, to_xyxy


def random_boxes(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, 4, generator=generator) * 0.5 + 0.1


def test_overlap_agrees_with_torchvision():
    first, second = to_xyxy(random_boxes(0, 20)), to_xyxy(random_boxes(1, 9))
    iou, _ = overlap(first[:, None], second)
    torch.testing.assert_close(iou, box_iou(first, second), atol=2e-4, rtol=0)
    giou = generalized_iou(first[:, None], second)
    torch.testing.assert_close(giou, generalized_box_iou(first, second), atol=2e-4, rtol=0)


def test_equal_and_distant_boxes():
    box, same = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    assert generalized_iou(box, same).item() == pytest.approx(1, abs=1e-5)
    far = torch.tensor([99.0, 99.0, 100.0, 100.0])
    assert generalized_iou(box, far).item() == pytest.approx(-1, abs=1e-3)


def test_empty_boxes_are_finite_and_keep_gradients():
    boxes = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.2, 0.2, 0.0, 0.3]], requires_grad=True)
    l1, giou = box_losses(boxes[None], boxes.detach()[None].flip(1))
    (l1 + giou).sum().backward()
    assert torch.isfinite(l1).all() and torch.isfinite(giou).all()
    assert torch.isfinite(boxes.grad).all()


def test_formats_are_inverse():
    boxes = random_boxes(3, 5, 2)
    torch.testing.assert_close(to_cxcywh(to_xyxy(boxes)), boxes)


def test_losses_are_sums_by_set():
    predicted, target = random_boxes(0, 3, 7), random_boxes(1, 3, 7)
    l1, giou = box_losses(predicted, target)
    for number in range(3):
        expected = torch.nn.functional.l1_loss(predicted[number], target[number], reduction="sum")
        torch.testing.assert_close(l1[number], expected)
        pairs = generalized_box_iou(to_xyxy(predicted[number]), to_xyxy(target[number]))
        expected = (1 - pairs.diagonal()).sum()
        torch.testing.assert_close(giou[number], expected, atol=1e-3, rtol=0)
