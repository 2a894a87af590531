"""Exercises of notebooks 00 to 07: the right answer, typical slips, and answers that are wrong."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from richsem.models.clip import soft_labels
from richsem.workbook import signals
from richsem.workbook.exercises import parts

SOFT = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
TAILS = pd.DataFrame({"dataset": ["a"] * 4 + ["b"], "instances": [1, 70, 20, 9, 500]})
STEPS = pd.DataFrame({"proposal": [0.5, 0.5], "stage 1": [0.8, 0.6], "stage 2": [0.8, 0.7]})
TEXT = torch.eye(4)
FEATURES = torch.nn.functional.normalize(torch.eye(4) + 0.2, dim=-1)


def probe(*, corrected):
    return {"r": 40.0 if corrected else 25.0, "f": 90.0}


def view(image, box):
    return SimpleNamespace(names=["cat", "dog"], true_name="dog" if image else "cat")


def doubtful(tau):
    return float(signals.effective_classes(soft_labels(FEATURES, TEXT, tau)).mean())


@pytest.mark.parametrize(
    ("exercise", "known", "right", "slips"),
    [
        (
            parts.rare_boxes,
            {
                "dataset": SimpleNamespace(labels=np.array([0, 1, 1, 1])),
                "groups": np.array(["r", "c"]),
            },
            0.25,
            {0.5: "classes", 25: "between 0 and 1", 0.9: "group of every box"},
        ),
        (
            parts.misnamed_box,
            {"inspector": SimpleNamespace(view=view)},
            (1, 0),
            {(0, 0): "is the annotated one"},
        ),
        (parts.classes_of_share, {"tails": TAILS}, 2, {1: "passes 80 %", 3: "cumsum"}),
        (parts.cost_of_the_prior, {"probe": probe}, 25.0, {40.0: "corrected", 90.0: "entry `r`"}),
        (
            parts.right_in_five,
            {"ranks": np.array([0, 4, 5, 9]), "labels": np.array([0, 1, 1, 1])},
            0.5,
            {0.75: "six places", 2 / 3: "averaged over classes", 0.1: "from 0"},
        ),
        (
            parts.tau_of_doubt,
            {"features": FEATURES, "text": TEXT, "classes": doubtful(2.0)},
            2.0,
            {20.0: "flatter"},
        ),
        (
            parts.giou_by_hand,
            {
                "first": torch.tensor([0.0, 0.0, 4.0, 2.0]),
                "second": torch.tensor([2.0, 1.0, 6.0, 3.0]),
            },
            2 / 14 - 4 / 18,
            {2 / 14: "IoU alone", 2 / 14 + 4 / 18: "taken off", -1: "box around both"},
        ),
        (
            parts.noise_of_overlap,
            {"box": torch.tensor([0.5, 0.5, 0.2, 0.2]), "wanted": 1.0},
            0.0,
            {1.0: "median IoU is 0."},
        ),
        (
            parts.strongest_stage,
            {"steps": STEPS},
            0.2,
            {0.25: "all stages", 0.7: "one stage before", 0.1: "diff"},
        ),
        (
            parts.ranges_apart,
            {"levels": 2},
            ((0, 40), (40, 1e8)),
            {
                ((0, 40), (30, 1e8)): "two levels",
                ((0, 40), (50, 1e8)): "no level",
                ((0, 40), (40, 90)): "no level",
            },
        ),
        (
            parts.share_of_mistakes,
            {
                "soft": SOFT,
                "labels": torch.tensor([0, 1, 1, 1]),
                "asked": torch.tensor([True, True, True, False]),
            },
            1 / 3,
            {2 / 3: "how often the teacher is right", 0.25: "all objects", 0.4: "argmax"},
        ),
        (
            parts.steps_to_unlearn,
            {"target": torch.tensor([1.0, 0, 0]), "label": 0, "other": 1},
            4,
            {1: "no lead", 9: "first row"},
        ),
    ],
)
def test_answers_and_slips(exercise, known, right, slips):
    assert exercise(right, **known) is None
    for answer, words in slips.items():
        assert words in exercise(answer, **known), answer
