"""Counting from shapes: against numbers counted by hand, and against models with real weights."""

from dataclasses import replace
from unittest import mock

import pytest
import torch
from tiny_centernet2 import tiny_centernet2
from tiny_dino import LINEAR, SIDE, image_batch, target, tiny_dino
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from toys import two_stage_run

from richsem.models import deformable
from richsem.models.backbones import BackboneConfig
from richsem.models.centernet2.cascade import MaskConfig
from richsem.operations import cost
from richsem.operations.cost import Memory
from richsem.recipes import centernet2_recipes, dino_recipes
from richsem.structures import Supervision

RUN = dino_recipes.richsem("paper")
SIZE = (SIDE, SIDE)


class Two(nn.Module):
    """Ten inputs, a hidden layer of four, three outputs."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(10, 4)
        self.second = nn.Linear(4, 3, bias=False)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


def saved(model, *inputs):
    return cost.saved_by_module(model, *inputs).total()


class Product(nn.Linear):
    def forward(self, x):
        return x @ self.weight.T


class Inside(nn.Module):
    """Calls what is in a part, and not the part itself, as a detector does with its backbone."""

    def __init__(self):
        super().__init__()
        self.part = nn.ModuleList([Two()])

    def forward(self, x):
        return self.part[0](x)


@pytest.mark.parametrize(
    ("model", "shape", "expected"),
    [
        (Two(), (7, 10), {"first": 2 * 7 * 10 * 4, "second": 2 * 7 * 4 * 3}),
        (nn.Sequential(nn.Conv2d(3, 8, 5, 2, 2)), (1, 3, 16, 16), {"0": 2 * 64 * 8 * 3 * 25}),
        (Inside(), (7, 10), {"part": 2 * 7 * (10 * 4 + 4 * 3)}),
        (nn.Sequential(Inside()), (7, 10), {"0": 2 * 7 * (10 * 4 + 4 * 3)}),
        (Product(10, 4), (7, 10), {"(between parts)": 2 * 7 * 10 * 4}),
    ],
)
def test_arithmetic_is_what_is_counted_by_hand(model, shape, expected):
    assert cost.forward_flops(model, torch.zeros(shape)) == expected


def test_parameters_memory_and_what_two_layers_keep_as_counted_by_hand():
    assert cost.count_parameters(Two()) == {"first": 10 * 4 + 4, "second": 4 * 3}
    model, x = Two(), torch.zeros(7, 10)
    hidden = 4 * 7 * 4  # bytes of the hidden state, which relu and the second layer share
    assert cost.saved_by_module(model, x) == {"Two.first": x.numel() * 4, "Two": hidden}
    assert not model.second._forward_hooks and not model.second._forward_pre_hooks
    memory = Memory(weights=4, gradients=4, optimiser=8, activations=3, recomputed=1)
    assert [memory.per_device(0), memory.per_device(2)] == [16, 16 + 8]


@pytest.mark.parametrize("changes", [LINEAR, {"checkpointing": True}])
def test_arithmetic_and_memory_of_shapes_are_those_of_a_real_forward_pass(changes):
    real = tiny_dino(**changes)
    batch, imagined = image_batch(target(*[0] * cost.OBJECTS)), cost.imagined_batch(SIZE)
    shapes = cost.on_meta(real.config)
    assert all(parameter.is_meta for parameter in shapes.parameters())
    # On a CPU both kinds of attention are computed in other ways than elsewhere.
    textbook = mock.patch.object(deformable, "sample_gathered", deformable.sample_textbook)
    with textbook, sdpa_kernel(SDPBackend.MATH):
        assert cost.forward_flops(shapes, imagined) == cost.forward_flops(real, batch)
        measured = saved(real.train(), batch)
    counted = saved(shapes, imagined)
    assert counted == pytest.approx(measured, rel=0.001)


@pytest.mark.parametrize("kind", ["detection", "extra"])
def test_regions_that_shapes_cannot_choose_count_as_many_as_there_may_be(kind):
    real = tiny_centernet2(masks=MaskConfig(dim=16, pooled=4)).train()
    taught = two_stage_run("nowhere", supervision=Supervision.WHOLE_IMAGES)
    config = cost.looking(replace(taught, detector=real.config), kind)
    batch = image_batch(target(*[0] * cost.OBJECTS))
    if kind == "extra":
        batch = replace(batch, supervision=Supervision.WHOLE_IMAGES)
    assert cost.image_bytes(config, SIZE) == pytest.approx(saved(real, batch), rel=0.02)
    saving = replace(config, backbone=replace(config.backbone, checkpointing=True))
    assert cost.image_bytes(saving, SIZE) < cost.image_bytes(config, SIZE)
    assert cost.largest_layer(saving, SIZE) > 0 == cost.largest_layer(config, SIZE)


def test_checkpoints_keep_less_and_name_the_blocks_that_are_recomputed():
    plain = tiny_dino().config
    backbone = replace(plain.backbone, checkpointing=True)
    saving = replace(plain, checkpointing=True, backbone=backbone)
    names = cost.recomputed_layers(cost.on_meta(saving))
    assert names[-3:] == ["encoder.layers.0", "decoder.layers.0", "decoder.layers.1"]
    kept, full = cost.image_bytes(saving, SIZE), cost.image_bytes(plain, SIZE)
    assert cost.recomputed_layers(cost.on_meta(plain)) == []
    assert cost.largest_layer(plain, SIZE) == 0
    assert kept < full and 0 < cost.largest_layer(saving, SIZE) < full
    backbone = BackboneConfig(name="convnext_atto", frozen_stride=0, checkpointing=True)
    config = tiny_dino(levels=3, backbone=backbone).config
    detector, batch = cost.on_meta(config), cost.imagined_batch((256, 256))
    assert "backbone.body.stages_2.blocks.5" in cost.recomputed_layers(detector)
    plain = cost.on_meta(replace(config, backbone=replace(backbone, checkpointing=False)))
    needed = saved(detector, batch) + cost.largest_layer(config, (256, 256))
    assert needed < 0.5 * saved(plain, batch)


def test_a_run_costs_three_forward_passes_per_image_and_four_with_checkpoints():
    # The largest images are padded.
    assert cost.image_sizes(RUN) == {"detection": (800, 1344), "extra": (1280, 1280)}
    taught = centernet2_recipes.centernet2_detic("paper")
    assert cost.image_sizes(taught) == {"detection": (640, 640), "extra": (320, 320)}
    config = tiny_dino(backbone=BackboneConfig(name="test_resnet")).config
    train = replace(RUN.train, steps=10, batch_size=4)
    run = replace(RUN, detector=config, train=train, data=dino_recipes.baseline("demo").data)
    flops = sum(cost.image_flops(config, (256, 256)).values())
    assert cost.training_flops(run) == 3 * 40 * flops
    saving = replace(run, detector=replace(config, checkpointing=True))
    assert cost.training_flops(saving) == 4 * 40 * flops
    memory = cost.training_memory(run)
    trainable = [p for p in cost.on_meta(config).parameters() if p.requires_grad]
    assert memory.gradients == 4 * sum(p.numel() for p in trainable)
    assert memory.optimiser == 2 * memory.gradients < 2 * memory.weights
    extra = replace(RUN.data.extra, mosaic=None, transform=centernet2_recipes.ScaleJitterConfig())
    both = replace(run, data=replace(run.data, extra=extra))
    few, many = (
        replace(both, train=replace(train, batch_size=n, extra_batch_size=1)) for n in (4, 16)
    )
    assert [cost.hungriest(few), cost.hungriest(many)] == ["extra", "detection"]
