from dataclasses import replace

import pytest
import torch
from tiny_dino import annotated

from richsem.config import from_params
from richsem.losses.centernet2_criterion import CenterNet2Criterion, CenterNet2CriterionConfig
from richsem.losses.dino_criterion import DinoCriterion, DinoCriterionConfig
from richsem.losses.matching import num_matches
from richsem.structures import Batch, DenoisingOutput, DetectorOutput, Supervision

C, LAYERS, QUERIES = 7, 2, 8
LABELS, UNKNOWN = ([1, 4], [], [0, 3, 5]), ([-1, -1], [], [-1, -1, -1])
COUNTS = [len(own) for own in LABELS]
GROUPS, SLOTS = 2, max(COUNTS)
SUFFIXES = ("class", "box", "giou")


def random(generator, *shape):
    return torch.randn(*shape, generator=generator).requires_grad_()


def random_boxes(generator, *shape):
    return (torch.rand(*shape, 4, generator=generator) * 0.3 + 0.2).requires_grad_()


def make_output(seed=0, semantic=True, proposal_classes=C):
    make = torch.Generator().manual_seed(seed)
    batch, noisy = len(COUNTS), 2 * SLOTS * GROUPS
    denoising = DenoisingOutput(
        logits=random(make, LAYERS, batch, noisy, C),
        boxes=random_boxes(make, LAYERS, batch, noisy),
        semantic_logits=random(make, batch, noisy, C) if semantic else None,
        num_groups=GROUPS,
        num_slots=SLOTS,
    )
    return DetectorOutput(
        logits=random(make, LAYERS, batch, QUERIES, C),
        boxes=random_boxes(make, LAYERS, batch, QUERIES),
        proposal_logits=random(make, batch, QUERIES, proposal_classes),
        proposal_boxes=random_boxes(make, batch, QUERIES),
        semantic_logits=random(make, batch, QUERIES, C) if semantic else None,
        denoising=denoising,
    )


def make_batch(supervision=Supervision.DETECTION, labelled=True, soft=True):
    targets = annotated(*(LABELS if labelled else UNKNOWN), soft=soft, num_classes=C)
    return Batch(targets=targets, supervision=supervision)


def make_criterion(**params):
    config = from_params(DinoCriterionConfig, {"federated_classes": 0, **params})
    return DinoCriterion(config, C, [1] * C)


def named(*prefixes):
    return {f"{prefix}{suffix}" for prefix in prefixes for suffix in SUFFIXES}


def test_parts_that_a_detector_lacks_are_left_out():
    output = DetectorOutput(logits=make_output().logits, boxes=make_output().boxes)
    assert set(make_criterion()(output, make_batch(soft=False)).terms) == named("")


@pytest.mark.parametrize("supervision", [Supervision.UNLABELLED, Supervision.BOXES_ONLY])
def test_without_labels_no_classifier_learns(supervision):
    output = make_output()
    losses = make_criterion()(output, make_batch(supervision, labelled=False))
    expected = {n for n in named("", "proposal_", "denoising_") if not n.endswith("class")}
    assert set(losses.terms) == expected | {"soft", "denoising_soft"}
    losses.total.backward()
    assert output.logits.grad is output.proposal_logits.grad is output.denoising.logits.grad is None
    assert output.proposal_boxes.grad.any() and output.semantic_logits.grad.any()


def test_soft_labels_alone():
    batch = make_batch(Supervision.UNLABELLED, labelled=False)
    criterion = make_criterion(unlabelled_boxes=False)
    assert set(criterion(make_output(), batch).terms) == {"soft", "denoising_soft"}
    with pytest.raises(ValueError, match="unlabelled teaches nothing"):
        criterion(make_output(semantic=False), batch)


def test_as_released_unlabelled_proposals_learn_the_placeholder():
    batch = make_batch(Supervision.UNLABELLED, labelled=False)
    losses = make_criterion(as_released_masks=True)(make_output(), batch)
    assert "proposal_class" in losses.terms and "class" not in losses.terms
    zeros = tuple(replace(one, labels=torch.zeros_like(one.labels)) for one in batch.targets)
    expected = make_criterion()(make_output(), Batch(targets=zeros)).terms["proposal_class"]
    torch.testing.assert_close(losses.terms["proposal_class"], expected)


def test_whole_images_have_one_term():
    output = make_output()
    losses = make_criterion()(output, make_batch(Supervision.WHOLE_IMAGES, soft=False))
    assert dict(losses.weights) == {"image_level": 0.1}
    losses.total.backward()
    assert output.logits.grad.any() and output.boxes.grad is None


def test_unknown_labels_in_a_labelled_batch_are_no_negatives():
    """A tile without a label must not teach its query that nothing is there."""
    batch = make_batch(Supervision.CAPTIONS)
    first = replace(batch.targets[0], labels=torch.tensor([-1, 2]))
    batch = replace(batch, targets=(first, *batch.targets[1:]))
    output = make_output()
    criterion = make_criterion(soft_weight=0.0)
    matches = criterion.match(output, batch.targets)
    criterion(output, batch).terms["class"].backward()
    unknown = matches.targets == 0
    for layer in range(LAYERS):
        (query,) = matches.queries[layer, unknown[layer]]
        assert not output.logits.grad[layer, 0, query].any()
        assert (output.logits.grad[layer, 0].abs().sum(dim=-1) > 0).sum() == QUERIES - 1


def test_class_agnostic_proposals_learn_where_objects_are():
    output = make_output(proposal_classes=1)
    losses = make_criterion(federated_classes=3)(output, make_batch())
    losses.terms["proposal_class"].backward()
    matches = make_criterion().match(output, make_batch().targets)
    falling = output.proposal_logits.grad[matches.images, matches.queries[-1], 0] < 0
    assert falling.all() and (output.proposal_logits.grad < 0).sum() == sum(COUNTS)


def test_the_normaliser_divides_everything():
    batch, output, criterion = make_batch(), make_output(), make_criterion()
    number = num_matches(batch.targets, QUERIES)
    assert number == sum(COUNTS)
    own = criterion(output, batch).terms
    doubled = criterion(output, batch, num_boxes=torch.tensor(2.0 * number)).terms
    for name, term in own.items():
        torch.testing.assert_close(doubled[name], term / 2)
    floored = criterion(output, batch, num_boxes=0.25).terms
    torch.testing.assert_close(floored["box"], own["box"] * number)


def test_order_of_images_and_targets_does_not_matter():
    batch, output = make_batch(), replace(make_output(), denoising=None)
    criterion = make_criterion()
    turned = [
        replace(
            one,
            labels=one.labels.flip(0),
            boxes=one.boxes.flip(0),
            soft_labels=None if one.soft_labels is None else one.soft_labels.flip(0),
        )
        for one in batch.targets[::-1]
    ]
    mirrored = DetectorOutput(
        logits=output.logits.flip(1),
        boxes=output.boxes.flip(1),
        proposal_logits=output.proposal_logits.flip(0),
        proposal_boxes=output.proposal_boxes.flip(0),
        semantic_logits=output.semantic_logits.flip(0),
    )
    expected = criterion(output, batch).total
    torch.testing.assert_close(criterion(mirrored, Batch(targets=tuple(turned))).total, expected)


def test_no_targets_in_any_image():
    batch = make_batch()
    empty = [
        replace(one, labels=one.labels[:0], boxes=one.boxes[:0], soft_labels=None)
        for one in batch.targets
    ]
    output = replace(make_output(), denoising=None)
    losses = make_criterion()(output, Batch(targets=tuple(empty)))
    losses.total.backward()
    zero = {"box", "giou", "soft", "proposal_box", "proposal_giou"}
    assert {name for name, term in losses.terms.items() if term == 0} == zero
    # Every process of a distributed run must find a gradient for every branch.
    assert output.semantic_logits.grad is not None and output.boxes.grad is not None


def test_more_targets_than_queries():
    targets = tuple(
        replace(one, labels=torch.zeros(20).long(), boxes=torch.rand(20, 4), soft_labels=None)
        for one in make_batch().targets
    )
    assert num_matches(targets, QUERIES) == QUERIES * len(COUNTS)
    output = replace(make_output(semantic=False), denoising=None)
    assert torch.isfinite(make_criterion()(output, Batch(targets=targets)).total)


def test_a_broken_prediction_reaches_the_loss():
    output = make_output()
    broken = replace(output, logits=output.logits * torch.nan)
    losses = make_criterion()(broken, make_batch())
    assert {name for name, term in losses.terms.items() if term.isnan()} == {"class"}


def test_half_precision_is_judged_in_full_precision():
    output = make_output()
    half = replace(output, logits=output.logits.bfloat16(), boxes=output.boxes.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = make_criterion()(half, make_batch())
    assert all(term.dtype == torch.float32 for term in losses.terms.values())
    expected = replace(half, logits=half.logits.float(), boxes=half.boxes.float())
    torch.testing.assert_close(losses.total, make_criterion()(expected, make_batch()).total)


# --- where the teacher looks ---------------------------------------------------------------


@pytest.mark.parametrize("teacher_boxes", ["pred", "pred_all"])
def test_the_teacher_at_predicted_boxes(teacher_boxes):
    """At those of matched queries, or at all of them."""
    output, batch = make_output(), make_batch(soft=False)
    labels = torch.randn(len(COUNTS), QUERIES, C).softmax(dim=-1)
    criterion = make_criterion(teacher_boxes=teacher_boxes)
    losses = criterion(replace(output, query_soft_labels=labels), batch)
    assert "soft" in losses.terms and "denoising_soft" not in losses.terms
    student = output.semantic_logits.log_softmax(dim=-1)
    matches = criterion.match(output, batch.targets).of(LAYERS - 1, LAYERS)
    rows = (matches.images, matches.queries[0]) if teacher_boxes == "pred" else ...
    expected = torch.nn.functional.kl_div(student[rows], labels[rows], reduction="sum")
    number = sum(COUNTS) if teacher_boxes == "pred" else len(COUNTS) * QUERIES
    torch.testing.assert_close(losses.terms["soft"], expected / number)


@pytest.mark.parametrize("teacher_boxes", ["gt", "pred", "pred_all"])
def test_a_missing_teacher_is_an_error(teacher_boxes):
    criterion = make_criterion(teacher_boxes=teacher_boxes)
    with pytest.raises(ValueError, match=f"'{teacher_boxes}': let a teacher"):
        criterion(make_output(), make_batch(soft=False))
    make_criterion(soft_weight=0.0)(make_output(), make_batch(soft=False))


@pytest.mark.parametrize(
    ("criterion", "config"),
    [(DinoCriterion, DinoCriterionConfig), (CenterNet2Criterion, CenterNet2CriterionConfig)],
)
def test_one_count_per_class(criterion, config):
    with pytest.raises(ValueError, match="3 image counts for 7 classes"):
        criterion(config(), C, [1, 2, 3])
