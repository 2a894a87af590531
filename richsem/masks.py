"""Masks of objects: kept as a grid over their box, read from there wherever one is asked for.

The grid's box is its frame (xyxy in pixels). Flips turn the grid, resizing leaves it as it is, and
what a network says about the cells of a region is a grid, too (METHOD 3.5). In files masks are
polygons [[x1, y1, x2, y2, ...], ...] or run lengths {"size": [height, width], "counts": ...}.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco
from torch import Tensor
from torch.nn import functional as F

SIDE = 56  # cells along each side of an annotated mask: twice as many as are predicted
FARTHEST = 10_000_000  # pixels from the corner: lines are drawn point by point
ELSEWHERE = 0.1  # overlap with its box below which a mask is none of it, and the share of such
COVERED = 0.5  # from this on, a cell belongs to the object

Runs = dict[str, Any]  # size (height, width) and counts, as compressed text


def resampled(masks: Tensor, frames: Tensor, boxes: Tensor, size: Sequence[int]) -> Tensor:
    """What masks [N, h, w] in their frames [N, 4] say about other boxes [N, 4]: [N, *size].

    Boxes are cut into size (height, width) cells, at whose centres the masks are interpolated; they
    are 0 outside of their frames.
    """
    low, sides = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    frame_low, frame_sides = frames[:, :2], (frames[:, 2:] - frames[:, :2]).clamp(min=1e-6)
    axes = []
    for axis, number in enumerate((size[1], size[0])):
        centres = (torch.arange(number, device=boxes.device) + 0.5) / number
        places = low[:, axis, None] + centres * sides[:, axis, None]  # in pixels [N, number]
        axes.append(2 * (places - frame_low[:, axis, None]) / frame_sides[:, axis, None] - 1)
    x, y = axes
    grid = torch.stack([x[:, None].expand(-1, *size), y[:, :, None].expand(-1, *size)], dim=-1)
    return F.grid_sample(masks[:, None].float(), grid, align_corners=False)[:, 0]


def drawn(outline: Any, box: Tensor, size_hw: Sequence[int]) -> Tensor:
    """The mask of one object [SIDE, SIDE] over its box [4], from its outline in an image's file.

    Raises `ValueError` if the outline is neither polygons nor run lengths of such an image.
    """
    if not isinstance(outline, list):
        whole = torch.from_numpy(coco.decode(run_lengths(outline, size_hw)))[None]
        frame = box.new_tensor([[0, 0, size_hw[1], size_hw[0]]])
        return resampled(whole, frame, box[None], (SIDE, SIDE))[0] >= COVERED
    left, top, right, bottom = box.tolist()
    zoom = np.array([SIDE / (right - left), SIDE / (bottom - top)])
    points = [np.reshape(one, (-1, 2)) for one in _checked(outline)]
    moved = [((own - [left, top]) * zoom).clip(-FARTHEST, FARTHEST).ravel() for own in points]
    inside = coco.decode(coco.merge(coco.frPyObjects([own.tolist() for own in moved], SIDE, SIDE)))
    return torch.from_numpy(inside).bool()


def run_lengths(outline: Any, size_hw: Sequence[int]) -> Runs:
    """An outline in an image of (height, width) as run lengths, in text that JSON can hold."""
    height, width = size_hw
    if isinstance(outline, list):
        found = coco.merge(coco.frPyObjects(_checked(outline), height, width))
    elif not isinstance(outline, dict) or outline.get("size") != [height, width]:
        raise ValueError(f"expected polygons, or run lengths of size [{height}, {width}]")
    else:
        counts = outline.get("counts")
        lengths = np.array(counts) if isinstance(counts, list) else _lengths(str(counts))
        # What runs leave out would be whatever is in memory; judges would compare them for ever.
        if lengths.dtype.kind != "i" or (lengths < 0).any() or lengths.sum() != height * width:
            raise ValueError(f"expected run lengths that sum up to {height} x {width} pixels")
        runs = {"size": [height, width], "counts": lengths.tolist()}
        found = coco.frPyObjects(runs, height, width)
    return {"size": [height, width], "counts": found["counts"].decode("ascii")}


def misplaced(found: Sequence[Runs], boxes_xywh: np.ndarray, *, annotated: bool = True) -> str:
    """In words, if many of N masks lie elsewhere than their boxes [N, 4] in pixels; else empty.

    A detector may find no pixel of an object; an annotation without one is in other units, if its
    box is not thinner than a pixel.
    """
    around, thin = coco.toBbox(list(found)), (boxes_xywh[:, 2:] < 1).any(axis=1)
    boxes = boxes_xywh + np.outer(thin, [-0.5, -0.5, 1, 1])  # the pixels beside them may be meant
    low = np.maximum(around[:, :2], boxes[:, :2])
    high = np.minimum(*(own[:, :2] + own[:, 2:] for own in (around, boxes)))
    shared = (high - low).clip(min=0).prod(axis=1)
    whole = around[:, 2:].prod(axis=1) + boxes[:, 2:].prod(axis=1) - shared
    far = (shared < ELSEWHERE * whole)[(annotated & ~thin) | around[:, 2:].all(axis=1)]
    words = "masks lie elsewhere than their boxes; expected polygons in pixels, runs down columns"
    return f"{far.sum()} of {len(far)} {words}" if far.sum() > ELSEWHERE * len(far) else ""


def _lengths(text: str) -> np.ndarray:
    """The run lengths [n] that compressed text stands for.

    It has digits of five bits, of each number the lowest first; the last one has its sign. From the
    fourth on, numbers are differences to the last but one.
    """
    digits = np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64) - 48
    ends = np.append(-1, np.flatnonzero(digits & 32 == 0))
    digits, starts, sizes = digits[: ends[-1] + 1], ends[:-1] + 1, np.diff(ends)
    if not len(digits):
        return digits
    shifts = 5 * (np.arange(len(digits)) - np.repeat(starts, sizes))
    found = np.add.reduceat((digits & 31) << shifts, starts)
    found -= (digits[ends[1:]] >> 4 & 1) << 5 * sizes
    for first in (1, 2):
        found[first::2] = found[first::2].cumsum()
    return found


def pasted(masks: Tensor, boxes: Tensor, size_hw: Sequence[int]) -> list[Runs]:
    """Masks [N, h, w] of boxes [N, 4] as run lengths in an image of (height, width)."""
    canvas = np.zeros((*size_hw, 1), dtype=np.uint8, order="F")
    limits = boxes.new_tensor([size_hw[1], size_hw[0]] * 2)
    # Pixels that the box touches: beyond them there is nothing of the mask.
    hulls = torch.cat([boxes[:, :2].floor(), boxes[:, 2:].ceil()], 1).clamp(min=0).minimum(limits)
    found = []
    for mask, box, hull in zip(masks, boxes, hulls, strict=True):
        left, top, right, bottom = hull.long().tolist()
        size = (max(bottom - top, 0), max(right - left, 0))
        inside = resampled(mask[None], box[None], hull[None], size)[0] >= COVERED
        canvas[top:bottom, left:right, 0] = inside.cpu().numpy()
        runs = coco.encode(canvas)[0]
        found.append(runs | {"counts": runs["counts"].decode("ascii")})
        canvas[top:bottom, left:right] = 0
    return found


def _checked(outline: list[Any]) -> list[list[float]]:
    """Polygons that have an area: exporters also write points and lines."""
    polygons = [np.array(one) for one in outline if isinstance(one, list) and len(one) >= 6]
    odd = (one.ndim > 1 or len(one) % 2 or one.dtype.kind not in "if" for one in polygons)
    if not polygons or any(odd):
        raise ValueError("expected polygons [x1, y1, x2, y2, ...] of three points and more")
    if not all((np.abs(one) <= FARTHEST).all() for one in polygons):  # NaN is not, either
        raise ValueError(f"expected polygons within {FARTHEST:,} pixels")
    return [one.tolist() for one in polygons]
