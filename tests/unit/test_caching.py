"""One pass where teacher and detector share a network: the same maps and labels, half the work."""

from dataclasses import replace

import pytest
import torch
from tiny_centernet2 import tiny_centernet2
from tiny_dino import image_batch, target, tiny_dino
from toys import exactly

from richsem.data.features import FeatureConfig
from richsem.data.samples import DetectionTrainingSet, collate
from richsem.data.sampling import item_seed
from richsem.data.transforms import TransformConfig
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
    with caching.recorded(stages) as calls:
        labelled = teacher(batch)
    maps = [calls[stage][1] for stage in stages]
    exactly(maps, backbone(batch.images))
    for own, expected in zip(labelled.targets, teacher(batch).targets, strict=True):
        exactly(own.soft_labels, expected.soft_labels)
    teacher(batch)
    assert all(calls[stage][1] is own for stage, own in zip(stages, maps, strict=True))  # no more


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


# --- a plain ViT -------------------------------------------------------------------------------

VIT = BackboneConfig(name="test_vit", strides=(8, 16), trainable=False)


@pytest.mark.parametrize("make", [tiny_dino, tiny_centernet2])
def test_a_frozen_vit_is_kept_and_its_pyramid_is_trained(make, tiny_set, own_cache):
    sizes = {"short_sides": (64,), "crop": 0.0, "keep_aspect": False}
    samples = DetectionTrainingSet(tiny_set, TransformConfig(**sizes))
    detector = make(backbone=VIT)
    kept = caching.with_cached_features(samples, detector, FeatureConfig(views=1))
    assert kept.shapes == [(64, 4, 4)]  # one map, whatever the strides
    batch = collate([samples[i, item_seed(0, i, 0)] for i in (0, 3)], samples.supervision)
    stored = collate([kept[i, 0] for i in (0, 3)], samples.supervision)
    with torch.no_grad():
        looked = detector.backbone.look(batch.images)
    torch.testing.assert_close(stored.features[0], looked[0], atol=2e-3, rtol=2e-3)

    detector.train()
    output = detector(stored)
    logits = output.heatmap if make is tiny_centernet2 else output.proposal_logits
    logits.square().sum().backward()
    trained = {n for n, p in detector.backbone.named_parameters() if p.grad is not None}
    assert trained == {f"pyramid.{n}" for n, _ in detector.backbone.pyramid.named_parameters()}

    with torch.no_grad():  # what is trained decides nothing of what is kept
        detector.backbone.pyramid.levels[0][0].weight.zero_()
    caching.with_cached_features(samples, detector, FeatureConfig(views=1))
    assert len(list(own_cache.glob("features-*"))) == 1
