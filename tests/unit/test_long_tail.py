"""Remedies of others in the class loss: who is spared a no, and priors in training."""

import math

import pytest
import tiny_losses as tiny
import torch
from tiny_dino import CLASSES, target
from torchvision.ops import sigmoid_focal_loss

from richsem.losses.classification import focal_losses
from richsem.losses.dino_criterion import DinoCriterion, DinoCriterionConfig
from richsem.losses.long_tail import log_prior, present_classes, slipped, spared
from richsem.losses.matching import Matches
from richsem.losses.supervision import loss_terms
from richsem.structures import Supervision

COUNTS = torch.tensor([1, 10, 1000])
LOGITS = torch.randn(2, 1, 4, 3, generator=torch.Generator().manual_seed(0))
MATCHES = Matches(
    images=torch.tensor([0, 0]),
    queries=torch.tensor([[3, 1], [0, 2]]),
    targets=torch.tensor([[0, 1], [1, 0]]),
)


def test_remedies_by_hand():
    expected = torch.tensor([[0, 1, 0], [1, 0, 0], [1, 1, 0]]).float()
    assert torch.equal(spared("equalised", COUNTS, tail=100), expected)
    part = spared("seesaw", COUNTS, tail=0)
    assert part[2, 0].item() == pytest.approx(1 - (1 / 1000) ** 0.8)
    assert part[1, 0].item() == pytest.approx(1 - (1 / 10) ** 0.8)
    assert part.triu().abs().sum() == 0  # nothing is spared to a more frequent class
    assert spared("none", COUNTS, tail=0) is None
    found = log_prior(0.5, COUNTS)
    assert found.tolist() == pytest.approx([0.5 * math.log(n / 1000) for n in (1, 10, 1000)])
    assert log_prior(0.0, COUNTS) is None


@pytest.mark.parametrize("classes", [None, torch.tensor([[True, False, True]] * 2)])
def test_what_is_spared_is_missing_from_the_loss_of_objects_alone(classes):
    labels, relief = torch.tensor([0, 2]), spared("seesaw", COUNTS, tail=0)
    wanted, weight = torch.zeros_like(LOGITS), torch.ones_like(LOGITS)
    for layer in range(2):
        for query, row in zip(MATCHES.queries[layer], MATCHES.targets[layer], strict=True):
            wanted[layer, 0, query, labels[row]] = 1
            weight[layer, 0, query] -= relief[labels[row]]
    if classes is not None:
        weight = weight * classes[:, None, None]
    dense = (sigmoid_focal_loss(LOGITS, wanted) * weight).sum(dim=(1, 2, 3))
    torch.testing.assert_close(focal_losses(LOGITS, labels, MATCHES, classes, relief), dense)


def test_each_image_may_have_classes_of_its_own_that_count():
    targets = [target(1, 1, -1), target()]
    present = present_classes(targets, 3)
    assert present.tolist() == [[[False, True, False], [False, False, False]]]
    logits = LOGITS.expand(2, 2, 4, 3)
    matches = Matches(
        images=torch.tensor([0]), queries=torch.tensor([[3], [0]]), targets=torch.tensor([[0]] * 2)
    )
    found = focal_losses(logits, torch.tensor([1]), matches, present)
    wanted = torch.zeros(2, 4)
    wanted[0, 3] = wanted[1, 0] = 1
    dense = sigmoid_focal_loss(logits[:, 0, :, 1], wanted).sum(dim=1)
    torch.testing.assert_close(found, dense)  # of the second image nothing counts


def test_coarse_boxes_can_leave_out_boxes_or_the_no_of_other_classes():
    without = loss_terms(Supervision.IMAGE_LABELS, coarse_boxes=False)
    assert (without.boxes, without.proposal_boxes, without.classes) == (False, False, True)
    assert not loss_terms(Supervision.IMAGE_LABELS, own_class_only=True).others
    for supervision in (Supervision.DETECTION, Supervision.UNLABELLED):
        plain = loss_terms(supervision)
        assert loss_terms(supervision, coarse_boxes=False, own_class_only=True) == plain


@pytest.mark.parametrize(
    "changes",
    [{"prior_strength": 1.0}, {"relief": "seesaw"}, {"own_class_only": True}],
    ids=lambda changes: next(iter(changes)),
)
def test_the_criterion_hears_each_switch(changes):
    output, batch = tiny.dino_output(), tiny.batch_of(Supervision.IMAGE_LABELS)
    losses = []
    for some in ({}, changes):
        config = DinoCriterionConfig(federated_classes=0, **some)
        criterion = DinoCriterion(config, CLASSES, range(1, CLASSES + 1))
        losses.append(criterion(output, batch).total)
    assert losses[0] != losses[1]


@pytest.mark.parametrize("kind", [Supervision.DETECTION, Supervision.IMAGE_LABELS])
def test_classes_are_drawn_for_extra_images_by_counts_of_their_own(kind):
    config = DinoCriterionConfig(federated_classes=CLASSES)
    output, batch = tiny.dino_output(), tiny.batch_of(kind, labels=([0], [0], [0]))
    losses = []
    for own in ([1] * CLASSES, [0] * (CLASSES - 1) + [1]):  # without an image: never drawn
        criterion = DinoCriterion(config, CLASSES, [1] * CLASSES, own)
        losses.append(float(criterion(output, batch).terms["class"].detach()))
    assert (losses[0] == losses[1]) == (kind is Supervision.DETECTION)


def test_choices_slip_to_any_query_as_often_as_they_are_told_to():
    torch.manual_seed(0)
    choices = torch.zeros(2, 4000, dtype=torch.long)
    assert torch.equal(slipped(choices, 0.0, 10), choices)
    found = slipped(choices, 0.5, 10)
    assert 0.42 < (found > 0).float().mean() < 0.48 and found.max() == 9
