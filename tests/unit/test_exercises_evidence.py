"""Exercises of notebooks 08 to 15: right answers, the slips that get a hint, and wrong ones."""

from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest

from richsem.evaluation import Detections
from richsem.operations import cost
from richsem.workbook import comparison, scaling
from richsem.workbook.exercises import evidence

CLAIMS = pd.DataFrame({"mean": [3.0, 1.5, 0.2, -1.0], "low": [2.0, 0.5, -0.5, -2.0]})
CLAIMS["margin"] = 0.0
TAIL = pd.DataFrame(
    {
        "gain": [1.0, 2.0, 6.0, None, -3.0],
        "judged": [9, 7, 5, 0, 1],
        "instances": [90, 40, 4, 3, 8],
    }
)
PARTS = pd.DataFrame({"backbone": [20.0, 700.0], "decoder": [10.0, 10.0]}, index=["R50", "H"])


def judged_by(exercise, answers, **context):
    """None for the right answer, the part of a hint that each other one must get."""
    for answer, expected in answers.items():
        hint = exercise(answer, **context)
        assert hint is None if expected is None else expected in hint, (answer, hint)


@pytest.mark.parametrize(
    ("exercise", "context", "answers"),
    [
        (
            evidence.training_states, {"parts": PARTS},
            {11.36: None, 2.84: "weights alone", 8.52: "two running means", 11360: "thousandth",
             5: "bytes"},
        ),
        (
            evidence.by_chance, {"claims": CLAIMS},
            {0.1: None, 0.2: "either side", 0.025: "share", 3.8: "do not hold", 2: "how often"},
        ),
        (
            evidence.holding_by, {"claims": CLAIMS},
            {1: None, 2: "their own margin", 3: "do not hold", 7: "column `low`"},
        ),
        (
            evidence.gain_where_judged, {"tail": TAIL},
            {3.0: None, 1.5: "over all classes", 0.0: "another column", 2.0: "median", 9: "rows"},
        ),
    ],
)  # fmt: skip
def test_numbers(exercise, context, answers):
    judged_by(exercise, answers, **context)


def test_a_deeper_decoder_costs_little():
    config = scaling.scaling("smoke", short_side=64)
    small, size = scaling.rung(config, "R50"), scaling.image_size(config, 64)
    both = (small, replace(small, decoder_layers=2 * small.decoder_layers))
    before, after = (sum(cost.image_flops(one, size).values()) for one in both)
    truth = after / before
    hints = {2.0: "doubles", truth - 1: "added", 30: "before and after"}
    judged_by(evidence.deeper_decoder, hints, config=config)
    assert evidence.deeper_decoder(truth, config=config) is None


@pytest.fixture
def runs(tiny_set):
    """Detections of two runs on images 0 and 3, whose rare objects they find or not."""

    def detections(rows):
        images, boxes, category, score = zip(*rows, strict=True)
        xyxy = [tiny_set.boxes_of(image)[0][box] for image, box in zip(images, boxes, strict=True)]
        return Detections(
            image_id=tiny_set.image_ids[list(images)], category_id=pd.array(category).to_numpy(),
            bbox_xywh=pd.DataFrame([[x, y, a - x, b - y] for x, y, a, b in xyxy]).to_numpy(),
            score=pd.array(score).to_numpy(),
        )  # fmt: skip

    return {
        "baseline": detections([(0, 0, 2, 0.9), (3, 1, 1, 0.4), (3, 1, 3, 0.2)]),
        "RichSem": detections([(0, 0, 1, 0.15), (3, 1, 1, 0.8), (4, 1, 2, 0.95), (0, 1, 1, 0.5)]),
    }


def test_two_runs(tiny_set, runs):
    side = comparison.SideBySide.of(tiny_set, runs)
    answers = {0.2: None, 1: "in all images", 0.4: "right ones", 0.5: "share", 3: "count"}
    judged_by(evidence.wrong_per_image, answers, side=side, score=0.3)
    answers = {100 / 3: None, 1 / 3: "hundredths", -100 / 3: "less the baseline's", 7: "by run"}
    judged_by(evidence.gain_at, answers, side=side)
    judged = {name: SimpleNamespace(detections=found) for name, found in runs.items()}
    judged_by(
        evidence.pictures_gained, {1: None, -1: "less the baseline's", 5: "rank again"},
        marked=tiny_set, judged=judged,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("exercise", "good"),
    [
        (
            evidence.one_small_gpu,
            "The activations of a large mosaic fill the memory, so sharding the weights does not "
            "help; I would use checkpointing and smaller images.",
        ),
        (
            evidence.four_pictures,
            "By which rule were they chosen, in how many others does it lose, and from which score "
            "on are boxes shown, with how many wrong ones?",
        ),
        (
            evidence.a_narrow_claim,
            "Its interval comes close to the margin and it is one of many claims, so I would train "
            "again with more seeds before I quote it.",
        ),
        (
            evidence.ship_it,
            "Two boxes per class are too few and another seed may turn the sign, so I hold out "
            "more and ask whether the teacher knows these classes.",
        ),
    ],
)
def test_arguments(exercise, good):
    assert exercise(good) is None
    assert "15 words" in exercise("no")
    empty = "It all depends on so very much that nobody in this room could ever tell us anything."
    assert "seems to name 0" in exercise(empty)
