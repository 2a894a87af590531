"""Controls: what cannot be altered is refused; pseudo-boxes and where they come from."""

from dataclasses import replace

import pytest
import torch

from richsem.config import ConfigError
from richsem.data.drawn import PretrainConfig
from richsem.models.clip import RN50
from richsem.recipes import dino_recipes
from richsem.training.controls import _best, check_controls, teacher_of

OTHER = PretrainConfig(unseen=1.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"teacher_rest": "even", "features": None}, "soft labels can be altered only"),
        ({"teacher_shuffled": True, "features": None}, "soft labels can be altered only"),
        ({"teacher_training": OTHER, "teacher": RN50}, "data.teacher_training trains richsem-mini"),
    ],
)
def test_what_cannot_be_altered_is_refused(change, words):
    data = dino_recipes.richsem("smoke").data
    check_controls(data)
    with pytest.raises(ConfigError, match=words):
        check_controls(replace(data, **change))


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
