"""Exercises of the labs: gains, runs that were changed as asked, arguments."""

from types import SimpleNamespace

import pandas as pd
import pytest

from richsem.operations import store
from richsem.workbook import labs
from richsem.workbook.exercises import laboratory

FRAME = pd.DataFrame(
    [("a", 0, "AP", 30.0), ("b", 0, "AP", 28.5), ("a", 1, "AP", 31.0), ("b", 1, "AP", 30.5)],
    columns=["arm", "seed", "metric", "value"],
)


@pytest.mark.parametrize(
    ("answer", "hint"), [(1.0, None), (-1.0, "sign"), (0.01, "percentages"), (7, "mean over seeds")]
)
def test_a_gain_is_the_mean_paired_difference(answer, hint):
    said = laboratory.mean_gain(answer, frame=FRAME, pair=("a", "b"), metric="AP")
    assert said is hint or hint in said


@pytest.mark.parametrize(
    ("answer", "value", "hint"),
    [
        (31.5, 0.5, None),
        (0.315, 0.5, "in percent"),
        (12, 0.5, "this seed"),
        (31.5, 1.0, "train.extra_until is 1.0"),
    ],
)
def test_a_run_has_the_asked_field_and_its_metric(answer, value, hint, monkeypatch):
    judged = SimpleNamespace(result=SimpleNamespace(metrics={"AP": 0.315}))
    monkeypatch.setattr(store, "finished", lambda runs, split: dict.fromkeys(runs, judged))
    make = labs.changed(labs.who_pays("smoke").arms["RichSem"], "x", train={"extra_until": value})
    asked = {"train.extra_until": 0.5}
    known = {"config": make(0), "asked": asked, "split": "val", "metric": "AP"}
    said = laboratory.judged_run(answer, **known)
    assert said is hint or hint in said
