"""Exercises of the notebooks: the right answer, typical slips, and answers that are wrong."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from workbook_toys import found_among, found_at, frame_of

from richsem.data.transforms import Picture
from richsem.models.clip import soft_labels
from richsem.operations import store
from richsem.workbook import comparison, course, error_verdicts, judging, labs, scaling
from richsem.workbook.course import check
from richsem.workbook.exercises import evidence, laboratory, parts
from richsem.workbook.signals import effective_classes
from richsem.workbook.study import Claim, Study, mean_interval

SOFT = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
TAILS = pd.DataFrame({"dataset": ["a"] * 4 + ["b"], "instances": [1, 70, 20, 9, 500]})
STEPS = pd.DataFrame({"proposal": [0.5, 0.5], "stage 1": [0.8, 0.6], "stage 2": [0.8, 0.7]})
TEXT = torch.eye(4)
FEATURES = torch.nn.functional.normalize(torch.eye(4) + 0.2, dim=-1)
CLASSES = pd.DataFrame(
    {"baseline": [10.0, 20, 30, 40], "RichSem": [16.0, 24, 31, 40], "group": list("rrcf")}
)
NUMBERS = frame_of({"a": [3.0, 4.0, 5.0, 3.5, 2.5], "b": [1.0, 2.5, 4.1, 2.0, 1.0]}, "AP_r")
PAIRED = np.array([2.0, 1.5, 0.9, 1.5, 1.5])
HALF = mean_interval(PAIRED)[2] - PAIRED.mean()
UNPAIRED = (NUMBERS.groupby("arm")["value"].sem() ** 2).sum() ** 0.5
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
CLAIMS = pd.DataFrame({"mean": [3.0, 1.5, 0.2, -1.0], "low": [2.0, 0.5, -0.5, -2.0]})
CLAIMS["margin"] = 0.0
TAIL = pd.DataFrame(
    {"gain": [1.0, 2, 6, None, -3], "judged": [9, 7, 5, 0, 1], "instances": [90, 40, 4, 3, 8]}
)
PARTS = pd.DataFrame({"backbone": [20.0, 700.0], "decoder": [10.0, 10.0]}, index=["R50", "H"])
GAINS = frame_of({"a": [30.0, 31.0], "b": [28.5, 30.5]}, "AP")


@pytest.fixture
def judged_by(monkeypatch):
    """Checks that an answer is right, and that others get a hint with these words."""
    told = []
    monkeypatch.setattr(course, "say", told.append)

    def judge(exercise, right, slips, **known):
        assert check(exercise, right, **known) == 1, told
        if hints := course.HINTS.get(exercise.__name__):  # one for each slip
            assert {*exercise(**known), "otherwise"} == {*hints, "right"} - {"tolerance", "times"}
        for words, answer in slips.items():
            assert check(exercise, answer, **known) == 0
            assert words in told[-1], answer

    return judge


def cut(side, *boxes):
    boxes = torch.tensor([[0.0, 0, side, side], *boxes])
    image = torch.zeros(3, side, side, dtype=torch.uint8)
    return Picture(image=image, boxes_xyxy=boxes, labels=torch.arange(len(boxes)))


def probe(*, corrected):
    return {"r": 40.0 if corrected else 25.0, "f": 90.0}


def view(image, box):
    return SimpleNamespace(names=["cat", "dog"], true_name="dog" if image else "cat")


def doubtful(tau):
    return float(effective_classes(soft_labels(FEATURES, TEXT, tau)).mean())


def steps(**numbers):
    return {
        name: SimpleNamespace(config=SimpleNamespace(train=SimpleNamespace(steps=number)))
        for name, number in numbers.items()
    }


def about(arm, other, **how):
    return Claim(words="", arm=arm, other=other, **how)


@pytest.mark.parametrize(
    ("exercise", "known", "right", "slips"),
    [
        (parts.rare_boxes, {"dataset": SimpleNamespace(labels=np.array([0, 1, 1, 1])),
            "groups": np.array(["r", "c"])}, 0.25,
         {"classes": 0.5, "between 0 and 1": 25, "group of every box": 0.9}),
        (parts.misnamed_box, {"inspector": SimpleNamespace(view=view)}, (1, 0),
         {"is the annotated one": (0, 0)}),
        (parts.classes_of_share, {"tails": TAILS}, 2, {"passes 80 %": 1, "cumsum": 3}),
        (parts.cost_of_the_prior, {"probe": probe}, 25.0, {"corrected": 40.0, "entry `r`": 90.0}),
        (parts.right_in_five, {"ranks": np.array([0, 4, 5, 9]), "labels": np.array([0, 1, 1, 1])},
         0.5, {"six places": 0.75, "averaged over classes": 2 / 3, "from 0": 0.1}),
        (parts.tau_of_doubt, {"features": FEATURES, "text": TEXT, "classes": doubtful(2.0)}, 2.0,
         {"flatter": 20.0}),
        (parts.giou_by_hand, {"first": torch.tensor([0.0, 0.0, 4.0, 2.0]),
            "second": torch.tensor([2.0, 1.0, 6.0, 3.0])}, 2 / 14 - 4 / 18,
         {"IoU alone": 2 / 14, "taken off": 2 / 14 + 4 / 18, "box around both": -1}),
        (parts.noise_of_overlap, {"box": torch.tensor([0.5, 0.5, 0.2, 0.2]), "wanted": 1.0}, 0.0,
         {"median IoU is 0.": 1.0}),
        (parts.strongest_stage, {"steps": STEPS}, 0.2,
         {"all stages": 0.25, "one stage before": 0.7, "diff": 0.1}),
        (parts.ranges_apart, {"levels": 2}, ((0, 40), (40, 1e8)),
         {"two levels": ((0, 40), (30, 1e8)), "no level": ((0, 40), (50, 1e8)),
            "ends before": ((0, 2e8), (2e8, 1e8)), "no level now": ((0, 40), (40, 90))}),
        (parts.share_of_mistakes,
         {"soft": SOFT, "labels": torch.tensor([0, 1, 1, 1]),
            "asked": torch.tensor([True, True, True, False])}, 1 / 3,
         {"how often the teacher is right": 2 / 3, "all objects": 0.25, "argmax": 0.4}),
        (parts.steps_to_unlearn, {"target": torch.tensor([1.0, 0, 0]), "label": 0, "other": 1}, 4,
         {"no lead": 1, "first row": 9}),
        (parts.cut_that_fits, {"original": cut(40, [10.0, 10, 30, 30])}, cut(20, [0.0, 0, 20, 20]),
         {"whole picture": cut(40), "gone": cut(8), "nearer": cut(30, [5.0, 5, 25, 25]),
            "cannot be read": "the middle"}),
        (parts.points_of_a_group, {"classes": CLASSES}, 2.5,
         {"AP_r's own": 5.0, "a sum": 10.0, "whole gain": 2.75, "how many classes": 1.0}),
        (parts.quarter_of_the_steps,
         {"configs": {n: run.config for n, run in steps(baseline=8, RichSem=16).items()}},
         steps(baseline=2, RichSem=4),
         {"two judged runs": steps(baseline=2), "a quarter is 2": steps(baseline=4, RichSem=8),
            "extra step": steps(baseline=2, RichSem=2)}),
        (evidence.half_of_an_interval, {"numbers": NUMBERS, "first": "a", "second": "b"}, HALF,
         {"root of n": HALF * 5**0.5, "1.96": 1.96 * PAIRED.std(ddof=1) / 5**0.5,
            "pair first": stats.t.ppf(0.975, 4) * UNPAIRED, "seed by seed": 9.0}),
        (evidence.verdicts_of_three_seeds, {"one": STUDY, "numbers": NUMBERS}, 2,
         {"plain verdicts": 0, "line by line": 5}),
        (evidence.level_with_all, {"points_of": POINTS}, 0.7,
         {"this is AP's": 0.6, "a share lies": 70, "rising x": 0.2}),
        (evidence.lower_end_for_all, {"one": STUDY, "numbers": NUMBERS},
         PAIRED.mean() - stats.t.ppf(1 - 0.0125, 4) * stats.sem(PAIRED),
         {"plain interval": PAIRED.mean() - HALF, "0.025 / m": 7.0}),
        (evidence.claim_with_a_margin, {"arms": ["baseline", "o365_box"]},
         about("o365_box", "baseline", metric="AP_f", margin=-2.0),
         {"the arms are": about("o365", "baseline"),
            "should be better": about("baseline", "o365_box"),
            "which metric": about("o365_box", "baseline"),
            "difference above": about("o365_box", "baseline", metric="AP_f", margin=2.0),
            "cannot be read": "less than two"}),
        (evidence.training_states, {"parts": PARTS}, 11.36,
         {"weights alone": 2.84, "two running means": 8.52, "thousandth": 11360, "bytes": 5}),
        (evidence.by_chance, {"claims": CLAIMS}, 0.1,
         {"either side": 0.2, "share": 0.025, "do not hold": 3.8, "how often": 2}),
        (evidence.holding_by, {"claims": CLAIMS}, 1,
         {"their own margin": 2, "do not hold": 3, "column `low`": 7}),
        (evidence.gain_where_judged, {"tail": TAIL}, 3.0,
         {"over all classes": 1.5, "another column": 0.0, "median": 2.0, "rows": 9}),
        (laboratory.mean_gain, {"frame": GAINS, "pair": ("a", "b"), "metric": "AP"}, 1.0,
         {"sign": -1.0, "percentages": 0.01, "mean over seeds": 7}),
    ],
)  # fmt: skip
def test_an_answer_is_right_or_gets_the_hint_of_its_slip(exercise, known, right, slips, judged_by):
    judged_by(exercise, right, slips, **known)


def test_thresholds_draws_ap_and_louder_classes_are_read_off_the_set(tiny_set, judged_by):
    counts, known = tiny_set.image_counts(), {"dataset": tiny_set}
    share = counts[counts > 0].min() / len(tiny_set)
    slips = {"root": 3 * share, "in percent": 900 * share, "solve": 5}
    judged_by(parts.threshold_of_three, 9 * share, slips, **known)
    luck, slips = evidence.luck_of_the_draw(**known, share=0.3), {"seeds 0 to 4": 77}
    assert luck["right"] <= luck["mean"] <= luck["most"]
    judged_by(evidence.luck_of_the_draw, luck["right"], slips, **known, share=0.3)
    labels = tiny_set.labels.copy()
    labels[-1] = (labels[-1] + 1) % len(tiny_set.categories)  # one is wrong
    found = found_at(tiny_set, labels)
    judgement, label = error_verdicts.judge(tiny_set, found, "coco"), int(labels[0])
    truth = 100 * error_verdicts.class_ap(judgement)[label]
    slips = {"101 recalls": truth + 9}
    judged_by(evidence.ap_by_hand, truth, slips, judgement=judgement, label=label)
    table = judging.cap_curve(tiny_set, found, "coco", (20,)).set_index("group")["ap"]
    known = {"dataset": tiny_set, "found": found, "louder": found, "protocol": "coco"}
    judged_by(evidence.louder_rare_classes, table["r"], {"of `louder`": table["r"] - 7}, **known)


def test_a_deeper_decoder_costs_little(judged_by):
    config = scaling.scaling("smoke", short_side=64)
    numbers = evidence.deeper_decoder(config=config)
    assert 1 < numbers["right"] < numbers["part"]
    slips = {"doubles": 2.0, "added": numbers["added"], "before and after": 30}
    judged_by(evidence.deeper_decoder, numbers["right"], slips, config=config)


@pytest.fixture
def runs(tiny_set):
    """Detections of two runs on images 0 and 3, whose rare objects they find or not."""
    rows = {
        "baseline": [(0, 0, 0.9, 2), (3, 1, 0.4, 1), (3, 1, 0.2, 3)],
        "RichSem": [(0, 0, 0.15, 1), (3, 1, 0.8, 1), (4, 1, 0.95, 2), (0, 1, 0.5, 1)],
    }
    return {name: found_among(tiny_set, own) for name, own in rows.items()}


def test_two_runs(tiny_set, runs, judged_by):
    side = comparison.SideBySide.of(tiny_set, runs)
    slips = {"in all images": 1, "right ones": 0.4, "share": 0.5, "count": 3}
    judged_by(evidence.wrong_per_image, 0.2, slips, side=side, score=0.3)
    slips = {"hundredths": 1 / 3, "what less what": -100 / 3, "by run": 7}
    judged_by(evidence.gain_at, 100 / 3, slips, side=side)
    judged = {name: SimpleNamespace(detections=found) for name, found in runs.items()}
    slips = {"what less what": -1, "rank again": 5}
    judged_by(evidence.pictures_gained, 1, slips, marked=tiny_set, judged=judged)


def test_a_run_has_the_asked_field_and_its_metric(judged_by, monkeypatch):
    judged = SimpleNamespace(result=SimpleNamespace(metrics={"AP": 0.315}))
    monkeypatch.setattr(store, "finished", lambda runs, split: dict.fromkeys(runs, judged))
    make = labs.changed(labs.who_pays("smoke").arms["RichSem"], "x", train={"extra_until": 0.5})
    known = {"config": make(0), "split": "val", "metric": "AP"}
    slips, asked = {"in percent": 0.315, "this seed": 12}, {"train.extra_until": 0.5}
    judged_by(laboratory.judged_run, 31.5, slips, **known, asked=asked)
    hint = laboratory.judged_run(31.5, **known, asked={"train.extra_until": 1.0})
    assert hint.startswith("train.extra_until is 0.5")
