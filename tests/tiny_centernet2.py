"""A two-stage detector of a few numbers, for tests of the model itself."""

import torch
from tiny_dino import CLASSES, TEXT_DIM

from richsem.models.backbones import BackboneConfig
from richsem.models.centernet2.centernet2 import CascadeConfig, CenterNet2, CenterNet2Config
from richsem.models.centernet2.first_stage import ProposalConfig

STRIDES = (8, 16, 32, 64)
RANGES = ((0.0, 24.0), (16.0, 48.0), (32.0, 96.0), (64.0, 1e8))  # half diagonals, by level
SIZES = {
    "backbone": BackboneConfig(
        name="test_resnet", strides=(8, 16), frozen_stride=0, frozen_norm=False
    ),
    "num_classes": CLASSES,
    "dim": 16,
    "tower": 1,
    "proposals": ProposalConfig(candidates=(40, 20), kept=(30, 12)),
    "cascade": CascadeConfig(regions=16, image_regions=6, pooled=3, hidden=24, pool_samples=2),
    "text_dim": TEXT_DIM,
    "scale": 10.0,
    "class_scale": 8.0,
}


def tiny_centernet2(*, with_text=True, seed=0, **changes):
    """A detector with random weights; most of its detections are too weak to be shown."""
    torch.manual_seed(seed)
    config = CenterNet2Config(**(SIZES | changes))
    return CenterNet2(config, torch.randn(config.num_classes, TEXT_DIM) if with_text else None)


def random_boxes(number, side, smallest=2.0, seed=0):
    """Boxes xyxy [N, 4] that begin within a square and are about as large at most."""
    draws = torch.Generator().manual_seed(seed)
    low = side * torch.rand(number, 2, generator=draws)
    return torch.cat([low, low + smallest + side * torch.rand(number, 2, generator=draws)], 1)
