"""Overlap of boxes as the method counts it: with a small area added to every denominator.

All boxes are float [..., 4]; two arguments are broadcast against each other, so that
`f(a[:, None], b)` compares all pairs and `f(a, b)` those of equal position.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

_AREA = 1e-6  # keeps empty boxes finite; part of the reference numbers


def to_xyxy(boxes: Tensor) -> Tensor:
    """(cx, cy, w, h) -> (x1, y1, x2, y2) in the same units."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def to_cxcywh(boxes: Tensor) -> Tensor:
    """(x1, y1, x2, y2) -> (cx, cy, w, h) in the same units."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def overlap(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection over union and area of the union of xyxy boxes, each [...]."""
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    shared = (high - low).clamp(min=0).prod(dim=-1)
    union = _area(first) + _area(second) - shared
    return shared / (union + _AREA), union


def generalized_iou(first: Tensor, second: Tensor) -> Tensor:
    """GIoU of xyxy boxes [...], in -1..1: IoU less the enclosing box's share of empty area."""
    iou, union = overlap(first, second)
    low = torch.minimum(first[..., :2], second[..., :2])
    high = torch.maximum(first[..., 2:], second[..., 2:])
    enclosing = (high - low).clamp(min=0).prod(dim=-1)
    return iou - (enclosing - union) / (enclosing + _AREA)


def box_losses(predicted: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """L1 and 1 - GIoU of matched boxes, summed over the pairs (METHOD 2.5).

    Args:
        predicted: cxcywh in 0..1 [S, K, 4].
        target: The boxes that they should be [S, K, 4].

    Returns:
        Two sums [S].
    """
    distance = (predicted - target).abs().sum(dim=(1, 2))
    giou = generalized_iou(to_xyxy(predicted), to_xyxy(target))
    return distance, (1 - giou).sum(dim=1)


def corrections(boxes: Tensor, wanted: Tensor, coding: Sequence[float]) -> Tensor:
    """What turns boxes into the wanted ones, both xyxy [..., 4], in a cascade's terms (METHOD 3.3).

    Shifts of the centre in units of the box's size and logarithms of the change of its sides, times
    `coding`.
    """
    centre, size = to_cxcywh(boxes).split(2, dim=-1)
    wanted_centre, wanted_size = to_cxcywh(wanted).split(2, dim=-1)
    shifts = torch.cat([(wanted_centre - centre) / size, (wanted_size / size).log()], dim=-1)
    return shifts * shifts.new_tensor(coding)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1)
