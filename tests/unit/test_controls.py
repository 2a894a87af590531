"""Controls: what cannot be altered is refused; pseudo-boxes and where they come from."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from richsem.config import ConfigError
from richsem.data.drawn import PretrainConfig
from richsem.data.samples import Sample
from richsem.models.clip import RN50
from richsem.recipes import centernet2_recipes, dino_recipes
from richsem.structures import Supervision, Target
from richsem.training import build
from richsem.training.controls import (
    PseudoLabels,
    _best,
    check_controls,
    label_counts,
    teacher_of,
)

OTHER = PretrainConfig(unseen=1.0)


class FixedSet(list):
    """Samples by (index, seed), all seeds alike."""

    fingerprint = "fixed"

    def __init__(self, samples, supervision):
        super().__init__(samples)
        self.supervision = supervision

    def __getitem__(self, key):
        return super().__getitem__(key[0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"teacher_rest": "even", "features": None}, "soft labels can be altered only"),
        ({"teacher_shuffled": True, "features": None}, "soft labels can be altered only"),
        ({"teacher_training": OTHER, "teacher": RN50}, "data.teacher_training trains richsem-mini"),
    ],
)
def test_what_cannot_be_altered_is_refused(change, words):
    run = dino_recipes.richsem("smoke")
    check_controls(run.data, run.detector)
    with pytest.raises(ConfigError, match=words):
        check_controls(replace(run.data, **change), run.detector)


@pytest.mark.parametrize("change", [{"pseudo_boxes": True}, {"pseudo_score": 0.5}])
def test_only_a_dino_is_asked_what_is_in_tiles(change):
    runs = dino_recipes.richsem("smoke"), centernet2_recipes.centernet2_richsem("smoke")
    dino, other = (
        replace(run, data=replace(run.data, extra=replace(run.data.extra, **change)))
        for run in runs
    )
    build.check(dino)
    with pytest.raises(ConfigError, match="need a DINO"):
        build.check(other)


def test_a_teacher_trained_anew_lies_in_the_cache():
    data = dino_recipes.richsem("smoke").data
    assert teacher_of(data) == data.teacher
    own = teacher_of(replace(data, teacher_training=OTHER))
    assert own == replace(data.teacher, weights=own.weights) and own.weights.endswith("safetensors")


def test_the_best_box_in_a_tile_counts_as_far_as_it_is_inside():
    tiles = torch.tensor([[0.25, 0.25, 0.5, 0.5], [0.75, 0.75, 0.5, 0.5], [0.75, 0.25, 0.5, 0.5]])
    boxes = torch.tensor([[0.2, 0.2, 0.1, 0.1], [0.45, 0.25, 0.2, 0.2], [0.7, 0.8, 0.1, 0.1]])
    scores = torch.tensor([[0.1, 0.5, 0.9], [0.9, 0.8, 0.1], [0.3, 0.2, 0.1]])
    inside = torch.tensor([0.425, 0.25, 0.15, 0.2])
    expected = torch.stack([inside, boxes[2], tiles[2]])
    torch.testing.assert_close(_best(scores, boxes, tiles), expected)


class Scripted(torch.nn.Module):
    """A detector that always finds the same three boxes of three classes."""

    logits = torch.tensor([[2.0, -3.0, -3.0], [1.0, -3.0, 0.5], [-3.0, -3.0, -1.0]])
    boxes = torch.tensor([[0.3, 0.3, 0.2, 0.2], [0.31, 0.3, 0.2, 0.2], [0.7, 0.7, 0.2, 0.2]])

    def forward(self, batch):
        assert batch.supervision is Supervision.UNLABELLED
        return SimpleNamespace(logits=self.logits[None, None], boxes=self.boxes[None, None])


def unlabelled():
    """A set of one unlabelled image with two tiles and soft labels for these."""
    tiles = torch.tensor([[0.25, 0.5, 0.5, 1.0], [0.75, 0.5, 0.5, 1.0]])
    target = Target(torch.full((2,), -1), tiles, (8, 8), (8, 8), 1, torch.ones(2, 3) / 3)
    images = [Sample(target=target, image=torch.zeros(3, 8, 8))]
    return FixedSet(images, Supervision.UNLABELLED)


@pytest.mark.parametrize(("score", "kept"), [(0.2, [0, 2]), (0.5, [0]), (0.9, [])])
def test_pseudo_labels_are_sure_and_of_one_box_each(score, kept):
    taught = PseudoLabels(unlabelled(), Scripted(), score)
    target = taught[0, 0].target
    assert taught.supervision is Supervision.IMAGE_LABELS and target.soft_labels is None
    assert target.labels.tolist() == kept  # of each box the class with the same number is best
    torch.testing.assert_close(target.boxes, Scripted.boxes[kept])
    assert taught.fingerprint != PseudoLabels(unlabelled(), Scripted(), 0.3).fingerprint


def test_items_with_a_class_are_counted_once_and_unknown_ones_not():
    samples = unlabelled()
    target = samples[0, 0].target
    labels = [torch.tensor(own) for own in ([2, 2], [2, -1], [0, 2])]
    images = [Sample(target=replace(target, labels=own)) for own in labels]
    assert label_counts(FixedSet(images, samples.supervision), 4).tolist() == [1, 0, 3, 0]
