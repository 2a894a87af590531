"""Units, limits and corrections of boxes; formats and overlaps: see the tests of parity."""

import torch
from tiny_centernet2 import random_boxes
from torchvision.models.detection._utils import BoxCoder

from richsem import boxes as own

CODING = (20.0, 20.0, 10.0, 10.0)
SIZES = torch.tensor([[64.0, 64.0], [64.0, 48.0], [32.0, 64.0]])  # height, width


def test_units_and_limits_by_hand():
    box = torch.tensor([[0.5, 0.5, 0.5, 0.25]])
    assert own.in_pixels(box, (64, 96)).tolist() == [[24, 24, 72, 40]]
    assert own.in_parts(torch.tensor([[24.0, 24, 72, 40]]), (64, 96)).tolist() == box.tolist()
    assert own.to_xywh(torch.tensor([[24.0, 24, 72, 40]])).tolist() == [[24, 24, 48, 16]]
    sizes = torch.tensor([[64, 96], [128, 192]])  # one per image
    assert own.in_pixels(box.repeat(2, 1), sizes).tolist() == [[24, 24, 72, 40], [48, 48, 144, 80]]
    # Clipping knows every image.
    boxes = torch.tensor([[-3.0, 5.0, 90.0, 70.0]]).repeat(3, 1)
    assert own.clipped(boxes, SIZES).tolist() == [[0, 5, 64, 64], [0, 5, 48, 64], [0, 5, 64, 32]]
    assert torch.equal(own.clipped(boxes[:1], SIZES[0]), own.clipped(boxes, SIZES)[:1])


def test_corrections_are_those_of_torchvision():
    coder = BoxCoder(CODING)
    first, second = random_boxes(50, 400.0), random_boxes(50, 400.0, seed=1)
    deltas = own.corrections(first, second, CODING)
    torch.testing.assert_close(deltas, coder.encode_single(second, first))
    wild = 8 * torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    wild[:, 2:][:3] = 1e4  # a box does not grow without limits
    moved = own.corrected(first, wild, CODING)
    torch.testing.assert_close(moved, coder.decode_single(wild, first), atol=1e-2, rtol=1e-4)
