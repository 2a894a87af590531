"""A detector learns a batch by heart, and what it found is counted."""

from dataclasses import replace

import pytest
import torch

from richsem.losses.dino_criterion import DinoCriterion, DinoCriterionConfig
from richsem.models.backbones import BackboneConfig
from richsem.models.dino.denoising import DenoisingConfig
from richsem.models.dino.dino import Dino, DinoConfig
from richsem.structures import Batch, Target
from richsem.training.optim import OptimConfig
from richsem.workbook.overfit import (
    Found,
    detections,
    learn_by_heart,
    num_surplus,
    recognised,
    with_features,
)

SIDE, CLASSES = 64, 3
OPTIM = OptimConfig(lr=2e-3, clip_norm=1.0, schedule="constant")


def detector_of(**changes):
    torch.manual_seed(0)
    backbone = BackboneConfig(name="test_resnet", strides=(8, 16), frozen_stride=0, trainable=False)
    config = DinoConfig(
        backbone=backbone,
        num_classes=CLASSES,
        dim=16,
        heads=2,
        levels=2,
        encoder_layers=1,
        decoder_layers=2,
        ffn=16,
        queries=6,
        classifier="linear",
        proposal_classifier="agnostic",
        label_embedding="classifier",
        semantic=False,
        text_dim=8,
        denoising=DenoisingConfig(number=1),
    )
    return Dino(replace(config, **changes))


@pytest.fixture
def batch():
    torch.manual_seed(1)
    target = Target(
        labels=torch.tensor([2]),
        boxes=torch.tensor([[0.4, 0.5, 0.3, 0.4]]),
        size=(SIDE, SIDE),
        original_size=(2 * SIDE, 2 * SIDE),
        image_id=1,
    )
    return Batch(targets=(target,), images=torch.rand(1, 3, SIDE, SIDE))


def criterion():
    return DinoCriterion(DinoCriterionConfig(federated_classes=0), CLASSES, torch.ones(CLASSES))


def test_the_loss_falls_and_the_object_is_found(batch):
    detector = detector_of()
    history = learn_by_heart(detector, criterion(), batch, 60, OPTIM)
    assert history["step"].tolist() == list(range(1, 61))
    assert {"total", "class", "giou", "denoising_class"} <= set(history.columns)
    assert history["total"].iloc[-5:].mean() < 0.4 * history["total"].iloc[:5].mean()
    assert not detector.training
    (found,) = detections(detector, batch, threshold=0.2)
    assert found.recognised.tolist() == [True]
    assert found.labels[0] == 2
    assert (found.scores.diff() <= 0).all()


def test_the_same_seed_learns_the_same(batch):
    runs = [learn_by_heart(detector_of(), criterion(), batch, 3, OPTIM, seed=s) for s in (5, 5, 6)]
    assert runs[0].equals(runs[1])
    assert not runs[0].equals(runs[2])


def test_a_frozen_backbone_is_asked_once_and_a_trainable_one_always(batch):
    frozen = detector_of()
    ready = with_features(frozen, batch)
    assert len(ready.features) == 2
    assert with_features(frozen, ready) is ready
    backbone = replace(frozen.config.backbone, trainable=True)
    assert with_features(detector_of(backbone=backbone), batch) is batch


def test_recognised_needs_class_and_place(batch):
    target = batch.targets[0]
    box = torch.tensor([[0.25, 0.3, 0.55, 0.7]]) * SIDE
    assert recognised(torch.tensor([2]), box, target).tolist() == [True]
    assert recognised(torch.tensor([1]), box, target).tolist() == [False]
    assert recognised(torch.tensor([2]), box + 0.2 * SIDE, target).tolist() == [False]
    assert recognised(torch.zeros(0).long(), box[:0], target).tolist() == [False]


def test_surplus_boxes_are_counted():
    boxes, labels = torch.zeros(3, 4), torch.zeros(3).long()
    found = Found(
        boxes_xyxy=boxes, labels=labels, scores=labels, recognised=torch.tensor([True, False])
    )
    assert num_surplus([found, found]) == 4
