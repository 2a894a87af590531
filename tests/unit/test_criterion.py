"""What the criteria of both detectors do alike."""

from dataclasses import replace

import pytest
import tiny_losses as tiny
import torch
from tiny_dino import CLASSES

from richsem.structures import Supervision, TwoStageOutput

KINDS = {
    "dino": (tiny.dino_output, tiny.dino_criterion),
    "two stages": (tiny.two_stage_output, tiny.two_stage_criterion),
}
KIND = pytest.mark.parametrize("kind", KINDS)
PARTS = ("", "proposal_", "denoising_")
TERMS = {
    "dino": {
        "boxes": {f"{part}{name}" for part in PARTS for name in ("box", "giou")},
        "classes": {f"{part}class" for part in PARTS},
        "soft": {"soft", "denoising_soft"},
        "image_level": {"image_level"},
    },
    "two stages": {
        "boxes": {"heatmap", "distance", "box"},
        "classes": {"class"},
        "soft": {"soft"},
        "image_level": {"image_level"},
    },
}
WEIGHTS = {
    "dino": {"class": 1.0, "box": 5.0, "giou": 2.0},
    "two stages": {"class": 1.0, "box": 1.0, "heatmap": 0.5, "distance": 1.0},
}


def heads(output):
    """What predicts classes, what predicts places, and what imitates the teacher."""
    if isinstance(output, TwoStageOutput):
        stages, first = output.stages, [output.heatmap, output.distances]
        deltas = [stage.deltas for stage in stages]
        return [stage.logits for stage in stages], first + deltas, [stages[-1].semantic_logits]
    noisy = output.denoising
    classes = [output.logits, output.proposal_logits, noisy.logits]
    boxes = [output.boxes, output.proposal_boxes, noisy.boxes]
    return classes, boxes, [output.semantic_logits, noisy.semantic_logits]


@KIND
@pytest.mark.parametrize(
    ("supervision", "options", "switched_on"),
    [
        (Supervision.DETECTION, {"unlabelled_boxes": False}, "classes boxes soft"),
        (Supervision.IMAGE_LABELS, {}, "classes boxes soft"),
        (Supervision.CAPTIONS, {}, "classes boxes soft"),
        (Supervision.UNLABELLED, {}, "boxes soft"),
        (Supervision.UNLABELLED, {"unlabelled_boxes": False}, "soft"),
        (Supervision.BOXES_ONLY, {"unlabelled_boxes": False}, "boxes soft"),
        (Supervision.WHOLE_IMAGES, {}, "image_level"),
    ],
)
def test_the_annotation_decides_what_is_learnt(kind, supervision, options, switched_on):
    make_output, make_criterion = KINDS[kind]
    output, switched_on = make_output(), switched_on.split()
    labels = tiny.LABELS if {"classes", "image_level"} & {*switched_on} else tiny.UNKNOWN
    losses = make_criterion(**options)(output, tiny.batch_of(supervision, labels))
    assert set(losses.terms) == set().union(*(TERMS[kind][part] for part in switched_on))
    weights = WEIGHTS[kind] | {"soft": 0.5, "image_level": 0.1}
    plain = {n: n.removeprefix("proposal_").removeprefix("denoising_") for n in losses.terms}
    assert losses.weights == {name: weights[own] for name, own in plain.items()}
    total = sum(losses.weights[name] * term for name, term in losses.terms.items())
    torch.testing.assert_close(losses.total, total)
    losses.total.backward()
    for part, tensors in zip(("classes", "boxes", "soft"), heads(output), strict=True):
        if (part, *switched_on) != ("classes", "image_level"):
            assert {tensor.grad is not None for tensor in tensors} == {part in switched_on}
        else:  # taught to one prediction
            assert tensors[0].grad.any()


@KIND
def test_a_batch_that_teaches_nothing_and_counts_of_other_classes_are_errors(kind):
    make_output, make_criterion = KINDS[kind]
    with pytest.raises(ValueError, match="unlabelled teaches nothing"):
        make_criterion(unlabelled_boxes=False)(
            make_output(semantic=False), tiny.batch_of(Supervision.UNLABELLED, tiny.UNKNOWN)
        )
    criterion = KINDS[kind][1]()
    with pytest.raises(ValueError, match=f"3 image counts for {CLASSES} classes"):
        type(criterion)(criterion.config, CLASSES, [1, 2, 3])


@pytest.mark.parametrize(
    ("kind", "boxes"), [("two stages", "gt"), *(("dino", at) for at in ("gt", "pred", "pred_all"))]
)
def test_a_missing_teacher_is_an_error(kind, boxes):
    make_output, make_criterion = KINDS[kind]
    options = {"teacher_boxes": boxes} if kind == "dino" else {}
    with pytest.raises(ValueError, match=f"{boxes}: let a teacher label the batch"):
        make_criterion(**options)(make_output(), tiny.batch_of(soft=False))
    losses = make_criterion(**options, soft_weight=0.0)(make_output(), tiny.batch_of(soft=False))
    assert not any("soft" in name for name in losses.terms)


@KIND
def test_images_without_annotations_are_background(kind):
    make_output, make_criterion = KINDS[kind]
    output = make_output()
    if kind == "dino":
        output = replace(output, denoising=None)
        zero = {"box", "giou", "soft", "proposal_box", "proposal_giou"}
        branches = [output.semantic_logits, output.boxes]
    else:
        stages = [replace(one, rows=torch.full_like(one.rows, -1)) for one in output.stages]
        output = replace(output, stages=tuple(stages))
        zero, branches = {"box", "distance", "soft"}, [stages[-1].semantic_logits]
    losses = make_criterion()(output, tiny.batch_of(labels=([], [], [])))
    losses.total.backward()
    assert {name for name, term in losses.terms.items() if term == 0} == zero
    # Every process of a distributed run must find a gradient for every branch.
    assert all(tensor.grad is not None for tensor in branches)
