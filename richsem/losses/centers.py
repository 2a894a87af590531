"""Heat maps of object centres: what they should be, and how far they are from it (METHOD 3.3)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from richsem.boxes import to_cxcywh
from richsem.structures import Cells

_SPREAD = (1 - 0.8) / (1 + 0.8)  # of a peak, so that boxes around it overlap the object by .8
_LEAST_RADIUS = 4.0  # pixels
_FAINT = 1e-4  # heat below it counts as none
_LEAST_PROBABILITY = 1e-4
_BRIGHT = 0.85  # background as bright as this is often an object that nobody annotated
_ALPHA, _GAMMA, _FADE = 0.25, 2.0, 4.0

Ranges = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class CenterTargets:
    """What the M cells of an image should say."""

    heat: Tensor  # 1 where a centre is, falling off around it [M]
    # Cells that hold the centre of an object of a size that is their level's business, one entry
    # per object and level [P].
    peaks: Tensor
    rows: Tensor  # the object whose sides a cell should tell, -1 for none [M]
    distances: Tensor  # to the left, top, right and bottom of that object, in strides [M, 4]


def center_targets(cells: Cells, boxes: Tensor, ranges: Ranges) -> CenterTargets:
    """Targets of one image, whose objects are boxes xyxy in pixels [N, 4].

    `ranges` are by level the least and the largest half diagonal of a box, both included.
    """
    if not len(boxes):
        nothing = torch.zeros_like(cells.strides)
        none = torch.full_like(cells.levels, -1)
        return CenterTargets(nothing, none[:0], none, nothing[:, None].expand(-1, 4))
    points, strides = cells.points[:, None], cells.strides[:, None]  # [M, 1, ...]
    centres, sides = to_cxcywh(boxes).split(2, dim=-1)
    half = sides.norm(dim=-1) / 2
    least, largest = half.new_tensor(ranges)[cells.levels].T[..., None]  # [2, M, 1]
    in_charge = (half >= least) & (half <= largest)  # [M, N]
    homes = (centres / strides[..., None]).floor() * strides[..., None] + strides[..., None] / 2
    away = (points - homes).abs().amax(dim=-1) / strides  # in cells

    distance = ((points - centres) ** 2).sum(dim=-1).masked_fill(away == 0, 0.0)
    radius = (2 * sides.prod(dim=-1) * _SPREAD**2).clamp(min=_LEAST_RADIUS**2)
    distance = distance / radius
    heat = torch.exp(-distance.amin(dim=1))

    reach = torch.cat([points - boxes[:, :2], boxes[:, 2:] - points], dim=-1)  # [M, N, 4]
    near = (away <= 1) & (reach.amin(dim=-1) > 0) & in_charge
    nearest = distance.masked_fill(~near, torch.inf).argmin(dim=1)
    return CenterTargets(
        heat=heat.masked_fill(heat < _FAINT, 0.0),
        peaks=((away == 0) & in_charge).nonzero()[:, 0],
        rows=nearest.where(near.any(dim=1), -1),
        distances=reach.take_along_dim(nearest[:, None, None], dim=1)[:, 0] / strides,
    )


def heatmap_loss(logits: Tensor, heat: Tensor, peaks: Tensor) -> Tensor:
    """Focal loss of cells that hold centres, and of all others by how far from one they are.

    Logits of the heat map [M], what it should be [M], and cells with a centre [P], of which each
    counts once for each of its objects -> the sum over cells.
    """
    probability = logits.sigmoid().clamp(_LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
    at_peaks = probability[peaks]
    hits = _ALPHA * (1 - at_peaks) ** _GAMMA * at_peaks.log()
    counted = (1 - heat) ** _FADE * (probability < _BRIGHT)
    misses = (1 - _ALPHA) * probability**_GAMMA * torch.log1p(-probability) * counted
    return -(hits.sum() + misses.sum())


def distance_loss(predicted: Tensor, wanted: Tensor) -> Tensor:
    """1 - GIoU of boxes around common points, given by the distances to their sides [K, 4].

    One unit of area is added to intersection and union. Returns the sum.
    """
    low, high = torch.minimum(predicted, wanted), torch.maximum(predicted, wanted)
    shared, enclosing = _area(low), _area(high)
    union = _area(predicted) + _area(wanted) - shared
    giou = (shared + 1) / (union + 1) - (enclosing - union) / enclosing
    return (1 - giou).sum()


def _area(distances: Tensor) -> Tensor:
    left, top, right, bottom = distances.unbind(-1)
    return (left + right) * (top + bottom)
