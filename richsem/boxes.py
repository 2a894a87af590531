"""Boxes as tensors [..., 4]: their formats and units, how they overlap and how they are corrected.

Formats are (x1, y1, x2, y2), (cx, cy, w, h) and (x, y, w, h); units are pixels, or parts (0..1) of
an image's sides before padding. Sizes of images are (height, width).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_convert

Coding = tuple[float, float, float, float]

_AREA = 1e-6  # keeps empty boxes finite; part of the reference numbers
_LARGEST_STEP = math.log(1000 / 16)  # of a logarithm of width or height


def to_xyxy(boxes: Tensor) -> Tensor:
    """(cx, cy, w, h) -> (x1, y1, x2, y2), in the same units."""
    return box_convert(boxes, "cxcywh", "xyxy")


def to_cxcywh(boxes: Tensor) -> Tensor:
    """(x1, y1, x2, y2) -> (cx, cy, w, h), in the same units."""
    return box_convert(boxes, "xyxy", "cxcywh")


def to_xywh(boxes: Tensor) -> Tensor:
    """(x1, y1, x2, y2) -> (x, y, w, h), in the same units."""
    return box_convert(boxes, "xyxy", "xywh")


def sides(size_hw: Tensor | Sequence, like: Tensor) -> Tensor:
    """Height and width [..., 2] -> width, height, width, height [..., 4], the units of a box."""
    size = torch.as_tensor(size_hw, dtype=like.dtype, device=like.device)
    return torch.cat([size.flip(-1)] * 2, dim=-1)


def in_pixels(boxes: Tensor, size_hw: Tensor | Sequence) -> Tensor:
    """cxcywh in parts of an image [..., 4] -> xyxy in its pixels."""
    return to_xyxy(boxes) * sides(size_hw, boxes)


def in_parts(boxes_xyxy: Tensor, size_hw: Tensor | Sequence) -> Tensor:
    """xyxy in pixels of an image [..., 4] -> cxcywh in parts of it."""
    return to_cxcywh(boxes_xyxy) / sides(size_hw, boxes_xyxy)


def clipped(boxes_xyxy: Tensor, size_hw: Tensor | Sequence) -> Tensor:
    """xyxy in pixels [N, 4], cut off at the borders of an image [2] or of one image each [N, 2]."""
    return boxes_xyxy.clamp(min=0).minimum(sides(size_hw, boxes_xyxy))


# Overlap as the method counts it. Both boxes are xyxy [..., 4] and are broadcast against each
# other: `f(a[:, None], b)` compares all pairs, `f(a, b)` those of equal position.


def overlap(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection over union, with a small area added to the union, and the union's area."""
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    shared = (high - low).clamp(min=0).prod(dim=-1)
    union = _area(first) + _area(second) - shared
    return shared / (union + _AREA), union


def generalized_iou(first: Tensor, second: Tensor) -> Tensor:
    """GIoU in -1..1: IoU less the enclosing box's share of empty area."""
    iou, union = overlap(first, second)
    low = torch.minimum(first[..., :2], second[..., :2])
    high = torch.maximum(first[..., 2:], second[..., 2:])
    enclosing = (high - low).clamp(min=0).prod(dim=-1)
    return iou - (enclosing - union) / (enclosing + _AREA)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1)


def corrections(boxes: Tensor, wanted: Tensor, coding: Sequence[float]) -> Tensor:
    """What turns boxes into the wanted ones, both xyxy [..., 4], in a cascade's terms (METHOD 3.3).

    Shifts of the centre in units of the box's size and logarithms of the change of its sides, times
    `coding`.
    """
    centre, size = to_cxcywh(boxes).split(2, dim=-1)
    wanted_centre, wanted_size = to_cxcywh(wanted).split(2, dim=-1)
    shifts = torch.cat([(wanted_centre - centre) / size, (wanted_size / size).log()], dim=-1)
    return shifts * shifts.new_tensor(coding)


def corrected(boxes: Tensor, deltas: Tensor, coding: Coding) -> Tensor:
    """Boxes xyxy [R, 4] moved by part of their size and scaled by exponentials.

    With deltas / coding = (dx, dy, dw, dh), a centre moves by (dx w, dy h) and the sides become
    (w exp dw, h exp dh): the inverse of `corrections`.
    """
    x, y, width, height = to_cxcywh(boxes).unbind(-1)
    dx, dy, dw, dh = (deltas / deltas.new_tensor(coding)).unbind(-1)
    moved = [
        x + dx * width,
        y + dy * height,
        # A wild guess must not overflow: no side grows more than 62 times.
        width * dw.clamp(max=_LARGEST_STEP).exp(),
        height * dh.clamp(max=_LARGEST_STEP).exp(),
    ]
    return to_xyxy(torch.stack(moved, dim=-1))
