"""Masks of boxes, whatever is in them: which cells of a grid an object covers (METHOD 3.5)."""

from dataclasses import dataclass

from torch import nn
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """The mask head; the defaults are the published ones."""

    dim: int = 256  # width of its convolutions
    depth: int = 4  # convolutions before the enlargement
    # Side of a region's pooled features; masks have twice as many cells along a side.
    pooled: int = 14


def make_mask_head(inputs: int, config: MaskConfig) -> nn.Sequential:
    """From pooled features [R, inputs, p, p] to logits of "the object is here" [R, 1, 2p, 2p]."""
    body = MaskRCNNHeads(inputs, (config.dim,) * config.depth, dilation=1)
    predictor = MaskRCNNPredictor(config.dim, config.dim, num_classes=1)
    # As published: all masks are undecided first.
    nn.init.normal_(predictor.mask_fcn_logits.weight, std=0.001)
    for layer in (predictor.conv5_mask, predictor.mask_fcn_logits):
        nn.init.zeros_(layer.bias)
    return nn.Sequential(body, predictor)
