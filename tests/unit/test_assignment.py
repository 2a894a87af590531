"""Which annotation a region answers for, and which regions are looked at."""

import pytest
import torch
from tiny_centernet2 import random_boxes
from tiny_dino import target
from torchvision.ops import box_iou

from richsem.models.centernet2 import assignment

SIZES = torch.tensor([[64.0, 64.0], [64.0, 48.0], [32.0, 64.0]])


def random_regions(number=60):
    images, scores = torch.arange(number) % len(SIZES), torch.linspace(0, 1, number)
    return assignment.Regions(images, random_boxes(number, 36.0, smallest=4.0), scores)


@pytest.fixture
def annotated():
    targets = [target(0, 1), target(), target(2, 3, 4, seed=1)]
    return assignment.annotated_regions(targets, SIZES)


def test_annotations_are_in_pixels_of_their_image(annotated):
    first = target(2, 3, 4, seed=1).boxes[0]
    x, y, width, height = (first * torch.tensor([64.0, 32.0, 64.0, 32.0])).tolist()
    expected = torch.tensor([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
    torch.testing.assert_close(annotated.boxes[2], expected)
    assert annotated.images.tolist() == [0, 0, 2, 2, 2]
    assert annotated.rows.tolist() == [0, 1, 2, 3, 4]
    assert (annotated.scores == 1).all()


@pytest.mark.parametrize("threshold", [0.2, 0.4])
def test_matches_are_those_of_a_plain_loop(annotated, threshold):
    regions = random_regions()
    expected = []
    for image, box in zip(regions.images.tolist(), regions.boxes, strict=True):
        row, best = assignment.BACKGROUND, threshold
        for other in range(len(annotated.boxes)):
            overlap = box_iou(box[None], annotated.boxes[other : other + 1]).item()
            if annotated.images[other] == image and overlap >= best:
                row, best = other, overlap
        expected.append(row)
    found = assignment.matched(regions, annotated, threshold)
    assert found.rows.tolist() == expected
    assert len(set(expected)) > 2  # some, but not all, are background


def test_samples_have_the_wanted_mixture(annotated):
    regions = assignment.matched(assignment.joined(random_regions(90), annotated), annotated, 0.2)
    few = assignment.sampled(regions, len(SIZES), number=8, positive_part=0.25)
    for image in range(len(SIZES)):
        own = few.rows[few.images == image]
        available = ((regions.rows >= 0) & (regions.images == image)).sum()
        positives = min(2, int(available))
        assert (own >= 0).sum() == positives
        assert len(own) == 8
    assert few.images.tolist() == sorted(few.images.tolist())
    everything = assignment.sampled(regions, len(SIZES), number=500, positive_part=1.0)
    assert len(everything.rows) == len(regions.rows)


def test_whole_images_come_last():
    proposals = [(torch.tensor([[-5.0, 10.0, 70.0, 20.0]]), torch.tensor([0.3]))] * 2
    proposals.append((torch.zeros(0, 4), torch.zeros(0)))
    regions = assignment.with_whole_images(proposals, SIZES)
    assert regions.images.tolist() == [0, 0, 1, 1, 2]
    assert regions.boxes.tolist() == [
        [0, 10, 64, 20], [0, 0, 64, 64], [0, 10, 48, 20], [0, 0, 48, 64], [0, 0, 64, 32]
    ]  # fmt: skip
