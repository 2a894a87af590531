"""The two-stage criterion: what each of its terms is."""

from dataclasses import replace

import pytest
import tiny_losses as tiny
import torch
from tiny_dino import CLASSES
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxCoder

from richsem.boxes import in_pixels
from richsem.losses.image_level import answering_regions
from richsem.structures import Supervision


def pixel_boxes(batch):
    return [in_pixels(target.boxes, (tiny.SIDE, tiny.SIDE)) for target in batch.targets]


@pytest.mark.parametrize("classes", [list(range(CLASSES)), [0, 2, 3]])
def test_the_terms_of_the_cascade_are_those_of_plain_loops(classes):
    """Summed over stages: classes and boxes are means over regions, soft labels over answers."""
    output, batch = tiny.two_stage_output(), tiny.batch_of(labels=([1, -1], [], [0, 3, 2]))
    labels = torch.cat([target.labels for target in batch.targets])
    soft = torch.cat([target.soft_labels for target in batch.targets])
    boxes, expected = torch.cat(pixel_boxes(batch)), {"class": 0.0, "box": 0.0, "soft": 0.0}
    for stage in output.stages:
        for region, row in enumerate(stage.rows.tolist()):
            wanted = torch.zeros(CLASSES)
            if row >= 0:
                place, box = stage.boxes[region : region + 1], boxes[row : row + 1]
                delta = BoxCoder(stage.coding).encode_single(box, place)[0]
                l1 = F.l1_loss(stage.deltas[region], delta, reduction="sum")
                expected["box"] += l1 / len(stage.rows)
                wanted[labels[row]] = 1.0
            if row < 0 or labels[row] >= 0:  # else the class is not known
                pair = stage.logits[region, classes], wanted[classes]
                loss = F.binary_cross_entropy_with_logits(*pair, reduction="sum")
                expected["class"] += loss / len(stage.rows)
            if row >= 0 and stage.semantic_logits is not None:
                student = stage.semantic_logits[region].log_softmax(-1)
                divergence = F.kl_div(student, soft[row], reduction="sum")
                expected["soft"] += divergence / (stage.rows >= 0).sum()
    criterion, chosen = tiny.two_stage_criterion(), torch.zeros(CLASSES, dtype=torch.bool)
    chosen[classes] = True
    criterion.draw_classes.forward = lambda labels, num_sets: chosen.expand(num_sets, -1)
    terms = criterion(output, batch).terms
    torch.testing.assert_close({name: terms[name] for name in expected}, expected)


def test_federated_classes_are_drawn_per_stage():
    torch.manual_seed(0)
    output, batch = tiny.two_stage_output(), tiny.batch_of(labels=([0, 0], [], []))
    stages = tuple(replace(s, rows=s.rows.where(s.rows < 2, -1)) for s in output.stages)
    output = replace(output, stages=stages)
    tiny.two_stage_criterion(federated_classes=3)(output, batch).terms["class"].backward()
    used = [stage.logits.grad.any(dim=0) for stage in output.stages]
    assert [int(columns.sum()) for columns in used] == [3, 3]
    assert all(columns[0] for columns in used)


def test_the_first_stage_counts_centres_and_cells():
    output, batch, criterion = tiny.two_stage_output(), tiny.batch_of(), tiny.two_stage_criterion()
    terms = criterion(output, batch).terms
    heatmap, distances = output.heatmap.repeat(2, 1), output.distances.repeat(2, 1, 1)
    twice = replace(output, heatmap=heatmap, distances=distances)
    heat, distance = criterion.center_losses(twice, pixel_boxes(batch) * 2)
    torch.testing.assert_close(heat, terms["heatmap"])
    torch.testing.assert_close(distance, terms["distance"])


# --- Detic's loss --------------------------------------------------------------------------------


def with_whole_images(stage):
    """The last region of each image is all of it."""
    boxes = stage.boxes.clone()
    boxes[tiny.REGIONS - 1 :: tiny.REGIONS] = torch.tensor([0.0, 0.0, tiny.SIDE, tiny.SIDE])
    return replace(stage, boxes=boxes, rows=None)


def naive_answer(stage, image, label, choice):
    *own, whole = (stage.images == image).nonzero()[:, 0].tolist()
    if choice == "image_box":
        return whole
    sides = stage.boxes[:, 2:] - stage.boxes[:, :2]
    worth = sides.prod(1) if choice == "max_size" else stage.logits[:, label]
    return max(own, key=lambda region: worth[region].item())


@pytest.mark.parametrize("labels", [tiny.LABELS, tiny.UNKNOWN], ids=["known", "unknown"])
@pytest.mark.parametrize("choice", ["max_size", "max_score", "image_box"])
def test_one_region_of_each_stage_answers_for_a_label_that_is_known(choice, labels):
    output, batch = tiny.two_stage_output(), tiny.batch_of(Supervision.WHOLE_IMAGES, labels)
    output = replace(output, stages=tuple(map(with_whole_images, output.stages)))
    expected = 0.0
    for stage in output.stages:
        for image, own in enumerate(labels):
            for label in own if labels is tiny.LABELS else ():
                answer = stage.logits[naive_answer(stage, image, label, choice)]
                wanted = F.one_hot(torch.tensor(label), CLASSES).float()
                loss = F.binary_cross_entropy_with_logits(answer, wanted, reduction="sum")
                expected += loss.item() / len(own) / len(batch)
    losses = tiny.two_stage_criterion(image_level=choice)(output, batch)
    assert losses.terms["image_level"].item() == pytest.approx(expected)
    losses.total.backward()


@pytest.mark.parametrize("choice", ["max_size", "max_score"])
def test_without_proposals_the_whole_image_answers(choice):
    stage = with_whole_images(tiny.two_stage_output().stages[0])
    kept = (stage.images != 1) | (torch.arange(len(stage.images)) == 2 * tiny.REGIONS - 1)
    fields = {name: getattr(stage, name)[kept] for name in ("images", "boxes", "logits")}
    stage = replace(stage, **fields)
    found = answering_regions(stage, torch.tensor([1, 2]), torch.tensor([3, 3]), choice)
    assert found[0] == tiny.REGIONS
    assert found[1] > tiny.REGIONS
