"""Exercises of notebooks 06 to 11: the right answer, typical slips, and answers that are wrong."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from workbook_toys import frame_of

from richsem.data.transforms import Picture
from richsem.evaluation import Detections
from richsem.operations import cost
from richsem.workbook import comparison, course, error_verdicts, judging, scaling, study
from richsem.workbook.course import check
from richsem.workbook.exercises import evidence, parts
from richsem.workbook.study import Claim, Study

CLASSES = pd.DataFrame(
    {"baseline": [10.0, 20, 30, 40], "RichSem": [16.0, 24, 31, 40], "group": list("rrcf")}
)
CONFIGS = {
    name: SimpleNamespace(config=SimpleNamespace(train=SimpleNamespace(steps=steps)))
    for name, steps in (("baseline", 8), ("RichSem", 16))
}
NUMBERS = frame_of({"a": [3.0, 4.0, 5.0, 3.5, 2.5], "b": [1.0, 2.5, 4.1, 2.0, 1.0]}, "AP_r")
PAIRED = np.array([2.0, 1.5, 0.9, 1.5, 1.5])
STUDY = Study(
    arms={},
    claims=[Claim(words=f"{words} help", arm="a", other="b") for words in ("Labels", "Boxes")],
)
POINTS = pd.DataFrame(
    [("RichSem", 0.0, 30.0), ("RichSem", 0.5, 26.0), ("RichSem", 0.9, 18.0), ("baseline", 0.0, 22)],
    columns=["arm", "drop", "mean"],
)
HIGHER = POINTS["mean"] + [0, 0, 0, 2]
POINTS = pd.concat([POINTS.assign(metric="AP_r"), POINTS.assign(metric="AP", mean=HIGHER)])
ORIGINAL = Picture(
    image=torch.zeros(3, 40, 40, dtype=torch.uint8),
    boxes_xyxy=torch.tensor([[0.0, 0, 40, 40], [10, 10, 30, 30]]),
    labels=torch.tensor([0, 1]),
)
HALF = study.mean_interval(PAIRED)[2] - PAIRED.mean()


@pytest.fixture
def told(monkeypatch):
    sentences = []
    monkeypatch.setattr(course, "say", sentences.append)
    return sentences


def cut(side, *boxes):
    boxes = torch.tensor([[0.0, 0, side, side], *boxes])
    image = torch.zeros(3, side, side, dtype=torch.uint8)
    return Picture(image=image, boxes_xyxy=boxes, labels=torch.arange(len(boxes)))


def steps(**numbers):
    return {
        name: SimpleNamespace(config=SimpleNamespace(train=SimpleNamespace(steps=number)))
        for name, number in numbers.items()
    }


@pytest.mark.parametrize(
    ("exercise", "known", "right", "slips"),
    [
        (
            parts.cut_that_fits,
            {"original": ORIGINAL},
            cut(20, [0.0, 0, 20, 20]),
            {
                "whole picture": ORIGINAL,
                "gone": cut(8),
                "nearer": cut(30, [5.0, 5, 25, 25]),
                "cannot be read": "the middle",
            },
        ),
        (
            parts.points_of_a_group,
            {"classes": CLASSES},
            2.5,
            {"AP_r's own": 5.0, "a sum": 10.0, "whole gain": 2.75, "how many classes": 1.0},
        ),
        (
            parts.quarter_of_the_steps,
            {"configs": {name: run.config for name, run in CONFIGS.items()}},
            steps(baseline=2, RichSem=4),
            {
                "two judged runs": steps(baseline=2),
                "a quarter is 2": steps(baseline=4, RichSem=8),
                "extra step": steps(baseline=2, RichSem=2),
            },
        ),
        (
            evidence.half_of_an_interval,
            {"numbers": NUMBERS, "first": "a", "second": "b"},
            HALF,
            {
                "root of n": HALF * 5**0.5,
                "1.96": 1.96 * PAIRED.std(ddof=1) / 5**0.5,
                "pair first": stats.t.ppf(0.975, 4)
                * (NUMBERS.groupby("arm")["value"].sem() ** 2).sum() ** 0.5,
                "seed by seed": 9.0,
            },
        ),
        (
            evidence.verdicts_of_three_seeds,
            {"one": STUDY, "numbers": NUMBERS},
            0,
            {"that many stay": 2, "line by line": 5},
        ),
        (
            evidence.level_with_all,
            {"points_of": POINTS},
            0.7,
            {"this is AP's": 0.6, "a share lies": 70, "rising x": 0.2},
        ),
        (
            evidence.lower_end_for_all,
            {"one": STUDY, "numbers": NUMBERS},
            PAIRED.mean() - stats.t.ppf(1 - 0.0125, 4) * stats.sem(PAIRED),
            {"plain interval": PAIRED.mean() - HALF, "0.025 / m": 7.0},
        ),
        (
            evidence.claim_with_a_margin,
            {"arms": ["baseline", "o365_box"]},
            Claim(words="", arm="o365_box", other="baseline", metric="AP_f", margin=-2.0),
            {
                "the arms are": Claim(words="", arm="o365", other="baseline"),
                "should be better": Claim(words="", arm="baseline", other="o365_box"),
                "which metric": Claim(words="", arm="o365_box", other="baseline"),
                "difference above": Claim(
                    words="", arm="o365_box", other="baseline", metric="AP_f", margin=2.0
                ),
                "cannot be read": "less than two",
            },
        ),
    ],
)
def test_an_answer_is_right_or_gets_the_hint_of_its_slip(exercise, known, right, slips, told):
    assert check(exercise, right, **known) == 1, told
    for words, answer in slips.items():
        assert check(exercise, answer, **known) == 0
        assert words in told[-1]


def test_thresholds_and_draws_are_read_off_the_set(tiny_set, told):
    counts = tiny_set.image_counts()
    share = counts[counts > 0].min() / len(tiny_set)
    known = {"dataset": tiny_set}
    for answer, words in (
        (9 * share, "Right"),
        (3 * share, "root"),
        (5, "solve"),
    ):
        check(parts.threshold_of_three, answer, **known)
        assert words in told[-1]
    draws = [
        (evidence.drop_annotations(tiny_set, 0.3, seed).instance_counts() == 1).sum()
        for seed in range(5)
    ]
    check(evidence.luck_of_the_draw, max(draws) - min(draws), **known, share=0.3)
    assert "Right" in told[-1]
    check(evidence.luck_of_the_draw, 77, **known, share=0.3)
    assert "seeds 0 to 4" in told[-1]


def test_ap_and_louder_classes_are_those_of_the_evaluator(tiny_set, told):
    ids = np.array([category.id for category in tiny_set.categories])
    boxes = tiny_set.boxes_xyxy.copy()
    boxes[:, 2:] -= boxes[:, :2]
    labels = tiny_set.labels.copy()
    labels[-1] = (labels[-1] + 1) % len(ids)  # one is wrong
    found = Detections(
        image_id=np.asarray(tiny_set.image_ids)[tiny_set.box_image],
        category_id=ids[labels],
        bbox_xywh=boxes,
        score=np.linspace(0.9, 0.1, len(labels)),
    )
    judgement = error_verdicts.judge(tiny_set, found, "coco")
    label = int(labels[0])
    truth = 100 * error_verdicts.class_ap(judgement)[label]
    assert check(evidence.ap_by_hand, truth, judgement=judgement, label=label) == 1
    assert check(evidence.ap_by_hand, truth + 9, judgement=judgement, label=label) == 0
    table = judging.cap_curve(tiny_set, found, "coco", (20,)).set_index("group")["ap"]
    known = {"dataset": tiny_set, "found": found, "louder": found, "protocol": "coco"}
    assert check(evidence.louder_rare_classes, table["r"], **known) == 1
    assert check(evidence.louder_rare_classes, table["r"] - 7, **known) == 0


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
    answers = {100 / 3: None, 1 / 3: "hundredths", -100 / 3: "what less what", 7: "by run"}
    judged_by(evidence.gain_at, answers, side=side)
    judged = {name: SimpleNamespace(detections=found) for name, found in runs.items()}
    judged_by(
        evidence.pictures_gained, {1: None, -1: "what less what", 5: "rank again"},
        marked=tiny_set, judged=judged,
    )  # fmt: skip
