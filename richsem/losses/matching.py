"""Which prediction answers for which target: Hungarian matching (METHOD 2.5).

The costs of all layers and images are computed together and leave the device once per step; only
the assignment itself is solved one by one. A target of unknown class (label -1) is matched by its
box alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from richsem.boxes import generalized_iou, to_xyxy
from richsem.structures import Target

_WORST = 1e6  # instead of a cost that is not a number: the loss shall report it, not the matching

# Weights of the focal class cost, of the L1 distance of (cx, cy, w, h) and of the negative GIoU.
CLASS_COST, BOX_COST, GIOU_COST = 2.0, 5.0, 2.0
ALPHA, GAMMA = 0.25, 2.0  # balance and exponent of the focal terms, in costs and losses


@dataclass(frozen=True)
class Matches:
    """K pairs of prediction and target in each of S output sets."""

    images: Tensor  # image of each pair, the same in all sets [K]
    queries: Tensor  # [S, K]
    targets: Tensor  # row in the batch's targets, images one after the other [S, K]

    def pick(self, values: Tensor) -> Tensor:
        """The matched rows [S, K, ...] of predictions [S, B, Q, ...]."""
        sets = torch.arange(len(values), device=values.device)[:, None]
        return values[sets, self.images, self.queries]

    def of(self, first: int, stop: int | None) -> "Matches":
        """The matches of the output sets first:stop, counted as in a slice."""
        return Matches(self.images, self.queries[first:stop], self.targets[first:stop])


def num_matches(targets: Sequence[Target], num_queries: int) -> int:
    """Number of targets that get a query: the local share of the losses' normaliser N."""
    return sum(min(len(target.labels), num_queries) for target in targets)


@torch.no_grad()
def matching_cost(target_logits: Tensor, boxes: Tensor, targets: Sequence[Target]) -> Tensor:
    """Cost of every prediction for every target of its image [S, B, Q, M].

    `target_logits` are those of `logits_of_targets` [S, B, Q, M], `boxes` predicted cxcywh in 0..1
    [S, B, Q, 4]; columns beyond an image's own targets, at most M, mean nothing.
    """
    wanted = pad_sequence([one.boxes for one in targets], batch_first=True).float()  # [B, M, 4]
    distance = torch.cdist(boxes, wanted.expand(len(boxes), *wanted.shape), p=1)  # [S, B, Q, M]
    giou = generalized_iou(to_xyxy(boxes)[..., None, :], to_xyxy(wanted)[:, None])
    cost = BOX_COST * distance - GIOU_COST * giou
    probability = target_logits.sigmoid()
    hit = ALPHA * (1 - probability) ** GAMMA * -(probability + 1e-8).log()
    miss = (1 - ALPHA) * probability**GAMMA * -(1 - probability + 1e-8).log()
    return cost + CLASS_COST * (hit - miss).nan_to_num()  # NaN where a class is unknown


def logits_of_targets(logits: Tensor, targets: Sequence[Target]) -> Tensor:
    """Logits [S, B, Q, C] -> those of each target's class [S, B, Q, M].

    Class-agnostic logits (C = 1) count for every target. Where a class is unknown the result is
    NaN, which `matching_cost` reads as "no opinion".
    """
    labels = [target.labels for target in targets]
    columns = pad_sequence(labels, batch_first=True, padding_value=-1)[:, None]  # [B, 1, M]
    if logits.shape[-1] == 1:
        return logits.expand(*logits.shape[:-1], columns.shape[-1])
    index = columns.clamp(min=0).expand(*logits.shape[:-1], columns.shape[-1])
    return logits.gather(-1, index).masked_fill(columns < 0, torch.nan)


def match(cost: Tensor, counts: Sequence[int]) -> Matches:
    """Solves all assignments of `matching_cost` [S, B, Q, M], at least total cost each.

    `counts` are the numbers of targets of each image; it may have more of them than queries.
    """
    table = cost.nan_to_num(_WORST, _WORST, -_WORST).cpu().numpy()
    offsets = np.cumsum([0, *counts])
    solved = [  # [B][2, S, K_b]
        np.stack([linear_sum_assignment(one[:, :count]) for one in table[:, image]], axis=1)
        for image, count in enumerate(counts)
    ]
    queries, rows = np.concatenate(solved, axis=2) if solved else np.zeros((2, len(table), 0), int)
    images = np.repeat(np.arange(len(counts)), [pairs.shape[2] for pairs in solved])
    joined = np.concatenate([images[None], queries, rows + offsets[images]]).astype(np.int64)
    images, queries, rows = torch.from_numpy(joined).to(cost.device).split((1, *[len(table)] * 2))
    return Matches(images[0], queries, rows)


def denoising_matches(
    counts: Sequence[int], num_slots: int, num_groups: int, num_layers: int, device: torch.device
) -> Matches:
    """The pairs of denoising queries: in every group, positive slot j answers for target j.

    Slots lie as [group][positive half, negative half]; negative and empty ones answer for nothing.
    """
    number = sum(counts)
    images = np.repeat(np.arange(len(counts)), counts)
    slots = np.arange(number) - np.cumsum([0, *counts])[images]
    starts = 2 * num_slots * np.arange(num_groups)
    queries = (starts[:, None] + slots).ravel()
    rows = np.tile(np.arange(number), num_groups)
    joined = np.stack([np.tile(images, num_groups), queries, rows]).astype(np.int64)
    images, queries, rows = torch.from_numpy(joined).to(device)
    return Matches(images, queries.expand(num_layers, -1), rows.expand(num_layers, -1))
