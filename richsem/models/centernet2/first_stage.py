"""The first stage: a heat map of object centres on every level of a pyramid (METHOD 3.3)."""

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork, nms
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from richsem.config import Positive, Share
from richsem.models.heads import PRIOR, group_norm
from richsem.structures import Cells

_FIRST_DISTANCE = 8.0  # strides; boxes start large, so that none is lost to the ReLU
_SMALLEST_SIDE = 0.01  # pixels of a proposal


@dataclass(frozen=True, kw_only=True)
class ProposalConfig:
    """How cells become proposals; the first of two numbers counts in training."""

    min_score: Share = 1e-4  # least probability of a centre
    # Most probable cells of each level, before the suppression.
    candidates: tuple[Positive, Positive] = (4000, 1000)
    nms: Share = 0.9  # IoU above which the weaker of two proposals goes
    kept: tuple[Positive, Positive] = (2000, 256)  # proposals of an image


class FeaturePyramid(FeaturePyramidNetwork):
    """FPN: the backbone's maps with one width, each informed by the coarser ones, and two more."""

    def __init__(self, channels: Sequence[int], dim: int) -> None:
        super().__init__(list(channels), dim, LastLevelP6P7(dim, dim))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps [B, C_l, h, w], finest first -> [B, dim, h, w], two levels more."""
        named = OrderedDict((str(level), feature) for level, feature in enumerate(features))
        return list(super().forward(named).values())


class CenterHead(nn.Module):
    """Heat map and distances to the four sides for every cell; all levels share the weights."""

    def __init__(self, dim: int, depth: int, strides: Sequence[int]) -> None:
        super().__init__()
        self.strides = tuple(strides)
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers += [nn.Conv2d(dim, dim, 3, padding=1), group_norm(dim), nn.ReLU()]
        self.tower = nn.Sequential(*layers)
        self.heatmap = nn.Conv2d(dim, 1, 3, padding=1)
        self.distances = nn.Conv2d(dim, 4, 3, padding=1)
        self.level_scales = nn.Parameter(torch.ones(len(self.strides)))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)
        nn.init.constant_(self.heatmap.bias, -math.log((1 - PRIOR) / PRIOR))
        nn.init.constant_(self.distances.bias, _FIRST_DISTANCE)

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Maps [B, dim, h, w] -> heat-map logits [B, M] and distances in strides [B, M, 4]."""
        heat, distances = [], []
        for scale, level in zip(self.level_scales, levels, strict=True):
            seen = self.tower(level)
            heat.append(self.heatmap(seen).flatten(1))
            distances.append((scale * self.distances(seen)).relu().flatten(2).transpose(1, 2))
        return torch.cat(heat, 1), torch.cat(distances, 1)

    def cells(self, levels: Sequence[Tensor]) -> Cells:
        """Where the cells of the maps lie."""
        return make_cells([level.shape[-2:] for level in levels], self.strides, levels[0].device)


def make_cells(
    shapes: Sequence[Sequence[int]], strides: Sequence[int], device: torch.device | str = "cpu"
) -> Cells:
    """The cells of maps with these (height, width) and strides, row by row."""
    points, counts = [], []
    for (height, width), stride in zip(shapes, strides, strict=True):
        rows, columns = (stride * (torch.arange(n, device=device) + 0.5) for n in (height, width))
        grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)
        points.append(grid.view(-1, 2))
        counts.append(height * width)
    repeats = torch.tensor(counts, device=device)
    levels = torch.arange(len(counts), device=device).repeat_interleave(repeats)
    sides = torch.tensor(strides, dtype=torch.float32, device=device)
    return Cells(torch.cat(points), sides[levels], levels)


def boxes_of_cells(cells: Cells, distances: Tensor) -> Tensor:
    """Distances to the sides in strides [..., M, 4] -> xyxy in pixels [..., M, 4]."""
    reach = distances * cells.strides[:, None]
    low, high = cells.points - reach[..., :2], cells.points + reach[..., 2:]
    return torch.cat([low, high.maximum(low + _SMALLEST_SIDE)], dim=-1)


@torch.no_grad()
def propose(
    heatmap: Tensor,  # logits [B, M]
    distances: Tensor,  # in strides [B, M, 4]
    cells: Cells,  # where the cells are
    sizes: Tensor,  # height and width of each image [B, 2]
    config: ProposalConfig,  # limits
    training: bool,  # which of two numbers counts
) -> list[tuple[Tensor, Tensor]]:
    """The best boxes of each image; padding proposes nothing.

    For each image they are boxes xyxy in pixels [N, 4] and scores, the root of the probability [N],
    in descending order.
    """
    candidates, kept = (pair[0 if training else 1] for pair in (config.candidates, config.kept))
    probability = heatmap.float().sigmoid()
    outside = (cells.points >= sizes.flip(1)[:, None]).any(dim=-1)
    probability = probability.masked_fill(outside, 0.0)
    best = _best_of_levels(probability, cells, candidates)
    probability = probability.gather(1, best)
    boxes = boxes_of_cells(cells, distances.float())
    boxes = boxes.gather(1, best[..., None].expand(-1, -1, 4))
    proposals = []
    for own, score in zip(boxes, probability, strict=True):
        likely = score > config.min_score
        own, score = own[likely], score[likely]
        first = nms(own, score, config.nms)[:kept]
        proposals.append((own[first], score[first].sqrt()))
    return proposals


def _best_of_levels(probability: Tensor, cells: Cells, number: int) -> Tensor:
    """The most probable cells of each level, as columns of `probability` [B, K]."""
    best, start = [], 0
    for level in probability.split(torch.bincount(cells.levels).tolist(), dim=1):
        best.append(start + level.topk(min(number, level.shape[1]), dim=1).indices)
        start += level.shape[1]
    return torch.cat(best, dim=1)
