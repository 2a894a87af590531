"""The second stage: regions are pooled, named and moved, three times over (METHOD 3.3).

With a mask head, boxes are cut out as well: which cells of a grid an object covers (METHOD 3.5).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import roi_align

from richsem.boxes import Coding
from richsem.config import Natural, Positive, Share
from richsem.models.deformable import transposed_product
from richsem.models.heads import MLP, TextClassifier

_USUAL_SIDE, _USUAL_STRIDE = 224, 16  # a box of this side is pooled from the map of this stride


@dataclass(frozen=True, kw_only=True)
class CascadeConfig:
    """The second stage."""

    # IoU with an annotation from which on a region answers for it, by stage.
    overlaps: tuple[Share, ...] = (0.6, 0.7, 0.8)
    # Factors on the corrections of (x, y, w, h); stage k has k times as much.
    coding: Coding = (10.0, 10.0, 5.0, 5.0)
    regions: Positive = 512  # regions of an image in training
    positive_part: Share = 0.25  # largest part of them that answers for an annotation
    # Best proposals of a whole image that is taught by its labels alone.
    image_regions: Positive = 128
    pooled: Positive = 7  # side of a region's pooled features
    # Points per bin and axis of RoIAlign; 0 takes as many as the bin has cells.
    pool_samples: Natural = 0
    hidden: Positive = 1024  # width of the fully connected layers
    box_layers: Positive = 2  # layers from there to the corrections


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """The mask head; the defaults are the published ones."""

    dim: Positive = 256  # width of its convolutions
    depth: Natural = 4  # convolutions before the enlargement
    # Side of a region's pooled features; masks have twice as many cells along a side.
    pooled: Positive = 14


class Stage(nn.Module):
    """Pooled features to class logits and corrections of boxes, with weights of its own."""

    def __init__(
        self,
        dim: int,
        config: CascadeConfig,
        number: int,
        classifier: nn.Module,
        semantic: TextClassifier | None,
    ) -> None:
        """Builds stage `number`, from 0, for maps of `dim` channels."""
        super().__init__()
        hidden = config.hidden
        self.body = MLP(dim * config.pooled**2, hidden, hidden)
        self.classifier = classifier
        self.boxes = MLP(*[hidden] * config.box_layers, 4)
        self.coding = tuple((number + 1) * factor for factor in config.coding)
        self.semantic = semantic
        for layer in self.body.layers:
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.boxes.layers[-1].weight, std=0.001)
        nn.init.zeros_(self.boxes.layers[-1].bias)

    def forward(
        self, pooled: Tensor, text: Tensor, class_scale: Tensor, scale: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Logits [R, C], corrections [R, 4] and semantic logits [R, C] of regions [R, dim, p, p].

        `class_scale` is the factor on cosines of the classifier, `scale` that of the semantic
        branch, which is tau.
        """
        hidden = F.relu(self.body(pooled.flatten(1)))
        logits = self.classifier(hidden, text, class_scale)
        semantic = None
        if self.training and self.semantic is not None:
            semantic = self.semantic(hidden, text, scale)
        return logits, self.boxes(hidden), semantic


def pool_regions(
    levels: Sequence[Tensor],
    strides: Sequence[int],
    images: Tensor,
    boxes: Tensor,
    size: int,
    samples: int,
) -> Tensor:
    """RoIAlign, each region from the level that suits its size: [R, dim, size, size].

    Levels are maps [B, dim, h, w], finest first; regions are boxes xyxy in pixels [R, 4] of images
    [R]. `samples` are points per bin and axis; 0 takes as many as the bin has cells.
    """
    # [R, 5], as RoIAlign wants them
    places = torch.cat([images[:, None].to(boxes), boxes], dim=1)
    best = best_level(boxes, strides)
    pooled = levels[0].new_zeros(boxes.shape[0], levels[0].shape[1], size, size)
    for number, (level, stride) in enumerate(zip(levels, strides, strict=True)):
        own = (best == number).nonzero()[:, 0]
        rois, scale = places[own].to(level.dtype), 1 / stride
        on_cpu = level.device.type == "cpu" and level.dtype == torch.float32
        if on_cpu and samples == 1 and level.requires_grad and len(own):
            found = _Pooled.apply(level, rois, size, scale)
        else:
            found = roi_align(level, rois, size, scale, samples, True)
        pooled = pooled.index_put((own,), found)
    return pooled


class _Pooled(torch.autograd.Function):
    """RoIAlign with a point per bin on a CPU, whose gradient is a transposed sparse product.

    Torchvision's own, channel by channel, was a fifth of a training step of the small detector.
    Every cell gets the same summands in the same order: they are equal bit for bit.
    """

    @staticmethod
    def forward(ctx: Any, level: Tensor, rois: Tensor, size: int, scale: float) -> Tensor:
        """Map [B, dim, h, w], rois [R, 5] as RoIAlign wants them; returns [R, dim, p, p]."""
        ctx.save_for_backward(rois)
        ctx.shape, ctx.scale = level.shape, scale
        return roi_align(level, rois, size, scale, 1, True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        """The gradient of every bin goes to the four cells around its centre."""
        (rois,) = ctx.saved_tensors
        batch, dim, height, width = ctx.shape
        size = gradient.shape[-1]
        start, end = (rois[:, 1:] * ctx.scale - 0.5).view(-1, 2, 2, 1).unbind(1)  # [R, 2, 1]
        side = (end - start) / size
        points = start + torch.arange(size) * side + 0.5 * side  # x and y [R, 2, p]
        last = torch.tensor([[width], [height]]) - 1
        inside = (points >= -1) & (points <= last + 1)
        points = torch.minimum(points.clamp(min=0), last)
        cell = points.int()
        part = points - cell
        # Columns left and right of each centre, rows above and below, and their shares.
        x, y = torch.stack([cell, torch.minimum(cell + 1, last)], -1).unbind(1)  # [R, p, 2] each
        x_part, y_part = (torch.stack([1 - part, part], -1) * inside[..., None]).unbind(1)
        first = (rois[:, 0].long() * (height * width)).view(-1, 1, 1, 1, 1)
        rows = first + y[:, :, None, :, None] * width + x[:, None, :, None]  # [R, p, p, 2, 2]
        weights = y_part[:, :, None, :, None] * x_part[:, None, :, None]
        by_bin = gradient.permute(0, 2, 3, 1).reshape(-1, dim)
        entries = rows.int().reshape(-1, 4), weights.reshape(-1, 4)
        found = transposed_product(*entries, by_bin, batch * height * width)
        return found.view(batch, height, width, dim).permute(0, 3, 1, 2).contiguous(), *[None] * 3


def best_level(boxes: Tensor, strides: Sequence[int]) -> Tensor:
    """The level to pool each box [R, 4] from: 224 pixels belong to stride 16, 448 to 32, ..."""
    side = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1).sqrt()
    octave = torch.floor(torch.log2(side / _USUAL_SIDE + 1e-8)) + math.log2(_USUAL_STRIDE)
    return (octave - math.log2(strides[0])).clamp(0, len(strides) - 1).long()


def make_mask_head(inputs: int, config: MaskConfig) -> nn.Sequential:
    """From pooled features [R, inputs, p, p] to logits of "the object is here" [R, 1, 2p, 2p]."""
    body = MaskRCNNHeads(inputs, (config.dim,) * config.depth, dilation=1)
    predictor = MaskRCNNPredictor(config.dim, config.dim, num_classes=1)
    # As published: all masks are undecided first.
    nn.init.normal_(predictor.mask_fcn_logits.weight, std=0.001)
    for layer in (predictor.conv5_mask, predictor.mask_fcn_logits):
        nn.init.zeros_(layer.bias)
    return nn.Sequential(body, predictor)
