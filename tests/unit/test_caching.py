"""One pass where teacher and detector share a network: the same maps and labels, half the work."""

from dataclasses import replace

import pytest
import torch

from richsem.models.backbones import Backbone, BackboneConfig
from richsem.models.clip import ClipConfig, FrozenClip
from richsem.structures import Batch, Target
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
    generator = torch.Generator().manual_seed(0)
    targets = tuple(
        Target(
            labels=torch.zeros(count).long(),
            boxes=torch.tensor([[0.5, 0.5, 0.4, 0.6]]).repeat(count, 1),
            size=(64, 96),
            original_size=(64, 96),
            image_id=number,
        )
        for number, count in enumerate(counts)
    )
    return Batch(targets=targets, images=torch.rand(len(counts), 3, 64, 96, generator=generator))


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
    for target, expected in zip(labelled.targets, teacher(batch).targets, strict=True):
        assert torch.equal(target.soft_labels, expected.soft_labels)
    teacher(batch)
    assert len(maps) == len(stages)  # nothing is recorded afterwards


@pytest.mark.parametrize(
    "change", [{"weights": ""}, {"trainable": True}, {"output_norm": True}, {"name": "resnet18"}]
)
def test_another_network_is_not_taken_for_the_same(clip, change):
    config = replace(FROZEN, **{"weights": ""} | change)
    assert caching.shared_stages(Backbone(config), clip) == []


@pytest.mark.parametrize(
    ("counts", "options"),
    [((0, 0), {}), ((2, 1), {"mode": "crop"}), ((2, 1), {"zoom": 2.0})],
)
def test_a_trunk_that_sees_other_pixels_is_no_backbone(clip, counts, options):
    teacher = Teacher(clip, torch.eye(4, clip.dim), **options)
    assert not teacher.sees_as_it_is(batch_of(*counts))


def test_padding_and_odd_sides_are_seen_differently(clip):
    teacher, batch = Teacher(clip, torch.eye(4, clip.dim)), batch_of(1, 1)
    padded = replace(batch, padding=torch.zeros(2, 64, 96, dtype=torch.bool))
    odd = replace(batch, images=torch.rand(2, 3, 64, 90))
    assert not teacher.sees_as_it_is(padded) and not teacher.sees_as_it_is(odd)
