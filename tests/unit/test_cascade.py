"""Pooling, box corrections and the heads of a stage, against torchvision."""

import pytest
import torch
from tiny_centernet2 import random_boxes
from torch.nn import functional as F
from torchvision.ops import roi_align
from torchvision.ops.poolers import LevelMapper

from richsem.models.centernet2.cascade import CascadeConfig, Stage, best_level, pool_regions
from richsem.models.heads import LinearClassifier, TextClassifier


@pytest.mark.parametrize("strides", [(8, 16, 32), (16, 32), (4, 8, 16, 32)])
def test_levels_are_those_of_torchvision(strides):
    # Those of 224 pixels begin at stride 16, those of 448 at 32.
    sides = torch.tensor([112.0, 223.0, 224.0, 447.0, 448.0, 0.0])
    some = torch.cat([random_boxes(200, 900.0), F.pad(sides[:, None].expand(-1, 2), (2, 0))])
    first = {4: 2, 8: 3, 16: 4}[strides[0]]
    mapper = LevelMapper(first, first + len(strides) - 1)
    assert torch.equal(best_level(some, strides), mapper([some]))


@pytest.mark.parametrize("samples", [0, 2])
def test_each_region_is_pooled_from_its_level(samples):
    torch.manual_seed(0)
    levels = [torch.randn(2, 3, 64 // k, 80 // k) for k in (1, 2, 4)]
    strides, some = (8, 16, 32), random_boxes(30, 400.0)
    images = torch.arange(30) % 2
    pooled = pool_regions(levels, strides, images, some, 5, samples)
    for row, level in enumerate(best_level(some, strides).tolist()):
        place = torch.cat([images[row : row + 1].float(), some[row]])[None]
        expected = roi_align(levels[level], place, 5, 1 / strides[level], samples, aligned=True)
        torch.testing.assert_close(pooled[row], expected[0])


def test_the_gradient_of_pooled_regions_is_that_of_torchvision_bit_for_bit():
    torch.manual_seed(0)
    level = torch.randn(2, 3, 16, 20, requires_grad=True)
    some, images = random_boxes(60, 400.0) - 50, torch.arange(60) % 2  # some lie partly outside
    rois = torch.cat([images[:, None], some], 1)
    pooled = pool_regions([level], (16,), images, some, 4, 1)
    both = pooled, roi_align(level, rois, 4, 1 / 16, 1, aligned=True)
    assert torch.equal(*(torch.autograd.grad(one.square().sum(), level)[0] for one in both))


def test_a_stage_starts_without_correcting():
    torch.manual_seed(0)
    config = CascadeConfig(pooled=2, hidden=8)
    stage = Stage(3, config, 1, LinearClassifier(8, 5), TextClassifier(8, 4))
    text = torch.randn(5, 4)
    logits, deltas, semantic = stage(torch.randn(6, 3, 2, 2), text, 50.0, torch.tensor(100.0))
    assert stage.coding == (20.0, 20.0, 10.0, 10.0)
    assert logits.shape == (6, 5) and semantic.shape == (6, 5)
    assert deltas.abs().max() < 0.05
    assert stage.eval()(torch.randn(6, 3, 2, 2), text, 50.0, torch.tensor(100.0))[2] is None
