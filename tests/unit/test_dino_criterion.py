"""DINO's criterion: its parts, its normaliser, and where the teacher looks."""

from dataclasses import replace

import pytest
import tiny_losses as tiny
import torch
from tiny_dino import CLASSES

from richsem.losses.matching import num_matches
from richsem.structures import Batch, DetectorOutput, Supervision


def test_absent_parts_are_left_out_and_broken_ones_reach_the_loss():
    output = DetectorOutput(logits=tiny.dino_output().logits, boxes=tiny.dino_output().boxes)
    terms = tiny.dino_criterion()(output, tiny.batch_of(soft=False)).terms
    assert set(terms) == {"class", "box", "giou"}
    output = tiny.dino_output()
    broken = replace(output, logits=output.logits * torch.nan)
    losses = tiny.dino_criterion()(broken, tiny.batch_of())
    assert {name for name, term in losses.terms.items() if term.isnan()} == {"class"}


def test_as_released_proposals_always_learn_and_the_placeholder_where_classes_are_unknown():
    batch = tiny.batch_of(Supervision.UNLABELLED, tiny.UNKNOWN)
    released = tiny.dino_criterion(as_released_masks=True, unlabelled_boxes=False)
    terms = released(tiny.dino_output(), batch).terms
    proposals = {"proposal_box", "proposal_giou", "proposal_class"}
    assert set(terms) == proposals | {"soft", "denoising_soft"}
    zeros = tuple(replace(one, labels=torch.zeros_like(one.labels)) for one in batch.targets)
    expected = tiny.dino_criterion()(tiny.dino_output(), Batch(targets=zeros)).terms
    for name in proposals:
        torch.testing.assert_close(terms[name], expected[name])
    whole = tiny.batch_of(Supervision.WHOLE_IMAGES)
    assert set(released(tiny.dino_output(), whole).terms) == {"image_level"}


def test_unknown_labels_in_a_labelled_batch_are_no_negatives():
    """A tile without a label must not teach its query that nothing is there."""
    batch = tiny.batch_of(Supervision.CAPTIONS)
    first = replace(batch.targets[0], labels=torch.tensor([-1, 2]))
    batch = replace(batch, targets=(first, *batch.targets[1:]))
    output = tiny.dino_output()
    criterion = tiny.dino_criterion(soft_weight=0.0)
    matches = criterion.match(output, batch.targets)
    criterion(output, batch).terms["class"].backward()
    unknown = matches.targets == 0
    for layer in range(tiny.LAYERS):
        (query,) = matches.queries[layer, unknown[layer]]
        assert not output.logits.grad[layer, 0, query].any()
        assert (output.logits.grad[layer, 0].abs().sum(dim=-1) > 0).sum() == tiny.QUERIES - 1


def test_class_agnostic_proposals_learn_where_objects_are():
    output = tiny.dino_output(proposal_classes=1)
    losses = tiny.dino_criterion(federated_classes=3)(output, tiny.batch_of())
    losses.terms["proposal_class"].backward()
    matches = tiny.dino_criterion().match(output, tiny.batch_of().targets)
    falling = output.proposal_logits.grad[matches.images, matches.queries[-1], 0] < 0
    assert falling.all() and (output.proposal_logits.grad < 0).sum() == sum(tiny.COUNTS)


def test_the_normaliser_divides_everything():
    batch, output, criterion = tiny.batch_of(), tiny.dino_output(), tiny.dino_criterion()
    number = num_matches(batch.targets, tiny.QUERIES)
    assert number == sum(tiny.COUNTS)
    many = tiny.batch_of(labels=([0] * 20,) * 3).targets  # each query answers for one at most
    assert num_matches(many, tiny.QUERIES) == 3 * tiny.QUERIES
    own = criterion(output, batch).terms
    doubled = criterion(output, batch, num_boxes=torch.tensor(2.0 * number)).terms
    torch.testing.assert_close(doubled, {name: term / 2 for name, term in own.items()})
    floored = criterion(output, batch, num_boxes=0.25).terms
    torch.testing.assert_close(floored["box"], own["box"] * number)


def test_half_precision_is_judged_in_full_precision():
    output = tiny.dino_output()
    half = replace(output, logits=output.logits.bfloat16(), boxes=output.boxes.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = tiny.dino_criterion()(half, tiny.batch_of())
    assert all(term.dtype == torch.float32 for term in losses.terms.values())
    expected = replace(half, logits=half.logits.float(), boxes=half.boxes.float())
    torch.testing.assert_close(losses.total, tiny.dino_criterion()(expected, tiny.batch_of()).total)


# --- where the teacher looks ---------------------------------------------------------------


@pytest.mark.parametrize("teacher_boxes", ["pred", "pred_all"])
def test_the_teacher_at_predicted_boxes(teacher_boxes):
    """At those of matched queries, or at all of them."""
    output, batch = tiny.dino_output(), tiny.batch_of(soft=False)
    labels = torch.randn(len(tiny.COUNTS), tiny.QUERIES, CLASSES).softmax(dim=-1)
    criterion = tiny.dino_criterion(teacher_boxes=teacher_boxes)
    losses = criterion(replace(output, query_soft_labels=labels), batch)
    assert "soft" in losses.terms and "denoising_soft" not in losses.terms
    student = output.semantic_logits.log_softmax(dim=-1)
    matches = criterion.match(output, batch.targets).of(tiny.LAYERS - 1, tiny.LAYERS)
    rows = (matches.images, matches.queries[0]) if teacher_boxes == "pred" else ...
    expected = torch.nn.functional.kl_div(student[rows], labels[rows], reduction="sum")
    number = sum(tiny.COUNTS) if teacher_boxes == "pred" else len(tiny.COUNTS) * tiny.QUERIES
    torch.testing.assert_close(losses.terms["soft"], expected / number)
