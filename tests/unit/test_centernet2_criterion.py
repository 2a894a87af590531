"""The two-stage criterion: which terms there are, and what each of them is."""

from dataclasses import replace

import pytest
import torch
from tiny_dino import annotated
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxCoder

from richsem.boxes import in_pixels
from richsem.losses.centernet2_criterion import (
    CenterNet2Criterion,
    CenterNet2CriterionConfig,
    region_box_loss,
    region_class_loss,
)
from richsem.losses.image_level import answering_regions, region_label_loss
from richsem.models.centernet2.first_stage import make_cells
from richsem.structures import Batch, RegionOutput, Supervision, TwoStageOutput

C, STAGES, SIDE = 6, 2, 32
LABELS, UNKNOWN = ([1, 4], [], [0, 3, 5]), ([-1, -1], [], [-1, -1, -1])
COUNTS = [len(own) for own in LABELS]
PER_IMAGE = 5
RANGES = ((0.0, 12.0), (8.0, 1e8))


def random(draws, *shape):
    return torch.randn(*shape, generator=draws).requires_grad_()


def make_stage(draws, stage, semantic):
    """Five regions per image; the first ones answer for its annotations."""
    rows, first = [], 0
    for count in COUNTS:
        rows += [*range(first, first + count), *[-1] * (PER_IMAGE - count)]
        first += count
    number = PER_IMAGE * len(COUNTS)
    low = 20 * torch.rand(number, 2, generator=draws)
    boxes = torch.cat([low, low + 2 + 8 * torch.rand(number, 2, generator=draws)], dim=1)
    return RegionOutput(
        images=torch.arange(len(COUNTS)).repeat_interleave(PER_IMAGE),
        boxes=boxes,
        scores=torch.ones(number),
        rows=torch.tensor(rows),
        logits=random(draws, number, C),
        deltas=random(draws, number, 4),
        coding=tuple(factor * (stage + 1) for factor in (10.0, 10.0, 5.0, 5.0)),
        refined=boxes,
        semantic_logits=random(draws, number, C) if semantic else None,
    )


def pixel_boxes(batch):
    return [in_pixels(target.boxes, (SIDE, SIDE)) for target in batch.targets]


def make_output(seed=0, semantic=True):
    draws = torch.Generator().manual_seed(seed)
    cells = make_cells([(4, 4), (2, 2)], (8, 16))
    return TwoStageOutput(
        sizes=torch.full((len(COUNTS), 2), float(SIDE)),
        cells=cells,
        heatmap=random(draws, len(COUNTS), len(cells.points)),
        distances=torch.rand(len(COUNTS), len(cells.points), 4, generator=draws).requires_grad_(),
        stages=tuple(make_stage(draws, k, semantic and k == STAGES - 1) for k in range(STAGES)),
    )


def make_batch(supervision=Supervision.DETECTION, labelled=True, soft=True):
    targets = annotated(*(LABELS if labelled else UNKNOWN), soft=soft, num_classes=C)
    return Batch(targets=targets, supervision=supervision)


def make_criterion(**values):
    values = {"ranges": RANGES, "federated_classes": 0} | values
    return CenterNet2Criterion(CenterNet2CriterionConfig(**values), C, [1] * C)


EVERYTHING = {"heatmap", "distance", "class", "box", "soft"}


@pytest.mark.parametrize(
    ("supervision", "labelled", "expected"),
    [
        (Supervision.DETECTION, True, EVERYTHING),
        (Supervision.IMAGE_LABELS, True, EVERYTHING),
        (Supervision.CAPTIONS, True, EVERYTHING),
        (Supervision.UNLABELLED, False, EVERYTHING - {"class"}),
        (Supervision.BOXES_ONLY, False, EVERYTHING - {"class"}),
        (Supervision.WHOLE_IMAGES, True, {"image_level"}),
    ],
)
def test_the_supervision_decides(supervision, labelled, expected):
    output, batch = make_output(), make_batch(supervision, labelled)
    losses = make_criterion()(output, batch)
    assert set(losses.terms) == set(losses.weights) == expected
    losses.total.backward()
    learns_classes = bool(expected & {"class", "image_level"})
    assert all((stage.logits.grad is not None) == learns_classes for stage in output.stages)
    assert (output.heatmap.grad is None) == ("heatmap" not in expected)


def test_soft_labels_alone():
    batch = make_batch(Supervision.UNLABELLED, labelled=False)
    criterion = make_criterion(unlabelled_boxes=False)
    assert set(criterion(make_output(), batch).terms) == {"soft"}
    with pytest.raises(ValueError, match="unlabelled teaches nothing"):
        criterion(make_output(semantic=False), batch)


def test_weights_are_those_of_the_method():
    losses = make_criterion()(make_output(), make_batch())
    assert losses.weights == {
        "heatmap": 0.5, "distance": 1.0, "class": 1.0, "box": 1.0, "soft": 0.5
    }  # fmt: skip
    total = sum(losses.weights[name] * losses.terms[name] for name in EVERYTHING)
    torch.testing.assert_close(losses.total, total)


def test_terms_are_sums_over_the_stages():
    output, batch = make_output(), make_batch()
    terms = make_criterion()(output, batch).terms
    labels = torch.cat([target.labels for target in batch.targets])
    boxes = torch.cat(pixel_boxes(batch))
    of_classes = [region_class_loss(stage, labels, None) for stage in output.stages]
    of_boxes = [region_box_loss(stage, boxes) for stage in output.stages]
    torch.testing.assert_close(terms["class"], sum(of_classes))
    torch.testing.assert_close(terms["box"], sum(of_boxes))


@pytest.mark.parametrize("classes", [None, [0, 2, 3]])
def test_the_class_loss_is_that_of_a_plain_loop(classes):
    stage, batch = make_output().stages[0], make_batch()
    labels = torch.cat([target.labels for target in batch.targets])
    labels[1] = -1  # the second region's class is not known
    expected = 0.0
    for region, row in enumerate(stage.rows.tolist()):
        if row == 1:
            continue
        for column in classes or range(C):
            right = float(row >= 0 and labels[row] == column)
            logit = stage.logits[region, column]
            expected += F.binary_cross_entropy_with_logits(logit, torch.tensor(right)).item()
    chosen = None
    if classes:
        chosen = torch.zeros(C, dtype=torch.bool)
        chosen[classes] = True
    found = region_class_loss(stage, labels, chosen)
    assert found.item() == pytest.approx(expected / len(stage.rows), rel=1e-5)


def test_the_box_loss_is_that_of_torchvision():
    stage, batch = make_output().stages[1], make_batch()
    boxes = torch.cat(pixel_boxes(batch))
    coder, expected = BoxCoder(stage.coding), 0.0
    for region, row in enumerate(stage.rows.tolist()):
        if row >= 0:
            wanted = coder.encode_single(boxes[row : row + 1], stage.boxes[region : region + 1])
            expected += F.l1_loss(stage.deltas[region], wanted[0], reduction="sum").item()
    found = region_box_loss(stage, boxes)
    assert found.item() == pytest.approx(expected / len(stage.rows), rel=1e-5)


def test_the_soft_loss_is_a_mean_over_regions_that_answer():
    output, batch = make_output(), make_batch()
    found = make_criterion()(output, batch).terms["soft"]
    stage = output.stages[-1]
    soft = torch.cat([target.soft_labels for target in batch.targets if len(target.labels)])
    losses = [
        F.kl_div(stage.semantic_logits[region].log_softmax(-1), soft[row], reduction="sum")
        for region, row in enumerate(stage.rows.tolist())
        if row >= 0
    ]
    torch.testing.assert_close(found, torch.stack(losses).mean())


def test_missing_soft_labels_are_named():
    with pytest.raises(ValueError, match="let a teacher label the batch"):
        make_criterion()(make_output(), make_batch(soft=False))
    assert "soft" not in make_criterion(soft_weight=0)(make_output(), make_batch(soft=False)).terms


def test_images_without_annotations_are_background():
    output, batch = make_output(), make_batch()
    empty = replace(batch, targets=(batch.targets[1],) * 3)
    stages = (replace(one, rows=torch.full_like(one.rows, -1)) for one in output.stages)
    output = replace(output, stages=tuple(stages))
    losses = make_criterion()(output, empty)
    losses.total.backward()
    assert losses.terms["box"] == losses.terms["distance"] == losses.terms["soft"] == 0
    assert losses.terms["class"] > 0 and losses.terms["heatmap"] > 0
    assert output.stages[-1].semantic_logits.grad is not None


def test_federated_classes_are_drawn_per_stage():
    torch.manual_seed(0)
    output, batch = make_output(), make_batch()
    one = replace(batch.targets[0], labels=torch.zeros(2).long())
    batch = replace(batch, targets=(one, batch.targets[1], batch.targets[1]))
    stages = tuple(replace(s, rows=s.rows.where(s.rows < 2, -1)) for s in output.stages)
    output = replace(output, stages=stages)
    make_criterion(federated_classes=3)(output, batch).terms["class"].backward()
    used = [stage.logits.grad.any(dim=0) for stage in output.stages]
    assert [int(columns.sum()) for columns in used] == [3, 3]
    assert all(columns[0] for columns in used)


def test_the_first_stage_counts_centres_and_cells():
    output, batch = make_output(), make_batch()
    terms = make_criterion()(output, batch).terms
    doubled = Batch(targets=batch.targets * 2)
    twice = replace(
        output,
        sizes=output.sizes.repeat(2, 1),
        heatmap=output.heatmap.repeat(2, 1),
        distances=output.distances.repeat(2, 1, 1),
    )
    criterion = make_criterion()
    boxes = pixel_boxes(doubled)
    heat, distance = criterion.center_losses(twice, boxes)
    torch.testing.assert_close(heat, terms["heatmap"])
    torch.testing.assert_close(distance, terms["distance"])


# --- Detic's loss --------------------------------------------------------------------------------


def with_whole_images(stage):
    """The last region of each image is all of it."""
    boxes = stage.boxes.clone()
    boxes[PER_IMAGE - 1 :: PER_IMAGE] = torch.tensor([0.0, 0.0, SIDE, SIDE])
    return replace(stage, boxes=boxes, rows=None)


def naive_answer(stage, image, label, choice):
    own = (stage.images == image).nonzero()[:, 0].tolist()
    if choice == "image_box" or len(own) == 1:
        return own[-1]
    sides = stage.boxes[:, 2:] - stage.boxes[:, :2]
    worth = sides.prod(1) if choice == "max_size" else stage.logits[:, label]
    return max(own[:-1], key=lambda region: worth[region].item())


@pytest.mark.parametrize("choice", ["max_size", "max_score", "image_box"])
def test_one_region_answers_for_a_label(choice):
    stage, batch = with_whole_images(make_output().stages[0]), make_batch()
    expected = 0.0
    for image, target in enumerate(batch.targets):
        for label in target.labels.tolist():
            answer = stage.logits[naive_answer(stage, image, label, choice)]
            wanted = F.one_hot(torch.tensor(label), C).float()
            loss = F.binary_cross_entropy_with_logits(answer, wanted, reduction="sum")
            expected += loss.item() / len(target.labels) / len(batch)
    assert region_label_loss(stage, batch.targets, choice).item() == pytest.approx(expected)


@pytest.mark.parametrize("choice", ["max_size", "max_score"])
def test_without_proposals_the_whole_image_answers(choice):
    stage = with_whole_images(make_output().stages[0])
    kept = (stage.images != 1) | (torch.arange(len(stage.images)) == 2 * PER_IMAGE - 1)
    stage = replace(
        stage, images=stage.images[kept], boxes=stage.boxes[kept], logits=stage.logits[kept]
    )
    found = answering_regions(stage, torch.tensor([1, 2]), torch.tensor([3, 3]), choice)
    assert found[0] == PER_IMAGE
    assert found[1] > PER_IMAGE


def test_unknown_image_labels_teach_nothing():
    output = make_output()
    output = replace(output, stages=tuple(map(with_whole_images, output.stages)))
    losses = make_criterion()(output, make_batch(Supervision.WHOLE_IMAGES, labelled=False))
    assert losses.total == 0
    losses.total.backward()
