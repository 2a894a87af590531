"""One pass where teacher and detector share a network: the same maps and labels, half the work."""

from dataclasses import replace

import pytest
import torch
from tiny_dino import image_batch, target

from richsem.models.backbones import Backbone, BackboneConfig
from richsem.models.clip import ClipConfig, FrozenClip
from richsem.training import caching
from richsem.training.teacher import Teacher

FROZEN = BackboneConfig(name="efficientnet_lite0", weights="packaged", trainable=False)


@pytest.fixture(scope="module")
def clip():
    return FrozenClip(ClipConfig())


@pytest.fixture(scope="module")
def backbone():
    return Backbone(FROZEN).eval()


def batch_of(*counts):
    return image_batch(*(target(*[0] * count) for count in counts))


@pytest.mark.parametrize("counts", [(2, 1, 3), (2, 0, 3)])
def test_the_teachers_trunk_gives_the_backbones_maps_to_the_bit(clip, backbone, counts):
    stages = caching.shared_stages(backbone, clip)
    assert len(stages) == len(FROZEN.strides)
    batch = batch_of(*counts)
    teacher = Teacher(clip, torch.eye(4, clip.dim))
    assert teacher.sees_as_it_is(batch)
    with caching.recorded(stages) as maps:
        labelled = teacher(batch)
    for level, expected in zip(maps, backbone(batch.images), strict=True):
        assert torch.equal(level, expected)
    for own, expected in zip(labelled.targets, teacher(batch).targets, strict=True):
        assert torch.equal(own.soft_labels, expected.soft_labels)
    teacher(batch)
    assert len(maps) == len(stages)  # nothing is recorded afterwards


@pytest.mark.parametrize(
    "change", [{"weights": ""}, {"trainable": True}, {"output_norm": True}, {"name": "resnet18"}]
)
def test_another_network_is_not_taken_for_the_same(clip, change):
    config = replace(FROZEN, **{"weights": ""} | change)
    assert caching.shared_stages(Backbone(config), clip) == []


@pytest.mark.parametrize(
    ("counts", "options", "change"),
    [
        ((0, 0), {}, {}),
        ((2, 1), {"mode": "crop"}, {}),
        ((2, 1), {"zoom": 2.0}, {}),
        ((1, 1), {}, {"padding": torch.zeros(2, 64, 64, dtype=torch.bool)}),
        ((1, 1), {}, {"images": torch.rand(2, 3, 64, 90)}),
    ],
)
def test_a_trunk_that_sees_other_pixels_is_no_backbone(clip, counts, options, change):
    teacher = Teacher(clip, torch.eye(4, clip.dim), **options)
    assert not teacher.sees_as_it_is(replace(batch_of(*counts), **change))
