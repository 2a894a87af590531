"""Pseudo-boxes: the box that a detector finds for an image's label, in place of all of its tile.

In the spirit of MosaicOS (Zhang et al. 2021), which compares ways to localise labelled images for
a second training; here the detector that a run starts from does it, as it is before the run.
"""

import copy
from dataclasses import replace

import torch
from torch import Tensor

from richsem.boxes import to_cxcywh, to_xyxy
from richsem.data.samples import Sample, TrainingSet, collate, set_fingerprint
from richsem.models.dino.dino import Dino


class PseudoBoxes:
    """A set of labelled tiles each of whose boxes is one that the detector finds in it.

    Of those whose middle is in the tile, the one with the best score for the tile's label counts,
    as far as it is inside; where there is none, the tile.
    """

    def __init__(self, samples: TrainingSet, detector: Dino) -> None:
        self.samples, self.supervision = samples, samples.supervision
        self.fingerprint = set_fingerprint(samples, "pseudo-boxes")
        self._detector = copy.deepcopy(detector).eval()  # the run changes its own

    def __len__(self) -> int:
        return len(self.samples)

    @torch.no_grad()
    def __getitem__(self, key: tuple[int, int]) -> Sample:
        sample = self.samples[key]
        output = self._detector(collate([sample], self.supervision))
        labels, tiles = sample.target.labels, sample.target.boxes
        found = _best(output.logits[-1, 0][:, labels].T, output.boxes[-1, 0], tiles)
        return replace(sample, target=replace(sample.target, boxes=found))


def _best(scores: Tensor, boxes: Tensor, tiles: Tensor) -> Tensor:
    """For each tile [N, 4] the best of the boxes [Q, 4] by its scores [N, Q]; all cxcywh."""
    away = (boxes[:, :2] - tiles[:, None, :2]).abs() - tiles[:, None, 2:] / 2
    inside = (away <= 0).all(dim=2)
    best = boxes[scores.masked_fill(~inside, -torch.inf).argmax(dim=1)]
    best = torch.where(inside.any(dim=1, keepdim=True), best, tiles)
    low, high = to_xyxy(tiles).split(2, dim=1)
    corners = to_xyxy(best)
    return to_cxcywh(torch.cat([corners[:, :2].maximum(low), corners[:, 2:].minimum(high)], dim=1))
