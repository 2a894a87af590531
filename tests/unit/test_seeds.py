"""Means, intervals and paired differences over seeds, on numbers worked out by hand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from richsem.workbook.figures.seed_charts import curves_figure
from richsem.workbook.results import checked_table
from richsem.workbook.seeds import (
    Claim,
    check,
    cost_frame,
    differences,
    findings,
    gain_correlation,
    in_words,
    interval,
    means,
    per_seed,
    table_rows,
    words,
)


def frame(**arms):
    """Values by arm, one per seed, all of one metric."""
    return pd.DataFrame(
        {"arm": arm, "seed": seed, "metric": "AP_r", "value": value}
        for arm, values in arms.items()
        for seed, value in enumerate(values)
    )


def test_interval_by_hand():
    mean, low, high = interval([1.0, 2.0, 3.0])
    half = 4.302652729911275 / np.sqrt(3)  # t(0.975, 2 degrees) * s / sqrt(n), s = 1
    assert (mean, low, high) == pytest.approx((2, 2 - half, 2 + half))
    assert np.isnan(interval([4.0])[1:]).all()


def test_pairing_removes_what_seeds_differ_in():
    both = frame(a=[10, 20, 30], b=[9, 18.5, 29])
    (change,) = differences(both, [("a", "b")]).itertuples()
    assert change.mean == pytest.approx(3.5 / 3)
    assert 0 < change.low < change.high < 2.5
    spread = means(both)
    assert (spread["high"] - spread["low"]).min() > 40


def test_only_seeds_of_both_arms_are_compared():
    uneven = frame(a=[1, 2, 3], b=[0, 1])
    (change,) = differences(uneven, [("a", "b")]).itertuples()
    assert (change.seeds, change.mean) == (2, 1)
    assert differences(uneven, [("a", "missing")]).empty


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([5.0, 5.1, 4.9], "holds"),
        ([-5.0, -5.1, -4.9], "refuted"),
        ([1.0, -1.0, 0.5], "open: the interval includes the margin"),
        ([5.0], "open: one seed"),
    ],
)
def test_a_claim_can_fail(values, verdict):
    numbers = frame(a=values, b=[0.0] * len(values))
    claim = Claim(words="a is better", arm="a", other="b")
    (line,) = check([claim], numbers).itertuples()
    assert line.verdict == verdict
    assert check([Claim(words="?", arm="a", other="c")], numbers).empty


def test_rows_of_a_table():
    numbers = frame(a=[1.0, 3.0], b=[1.0, 1.0])
    summary = pd.concat([means(numbers), differences(numbers, [("a", "b")])])
    table = table_rows(summary, {"a": {"AP_r": 9.0}}, status="trend at demo scale", prefix="dino: ")
    table = checked_table(table, "table4_versus_detic").set_index("row")
    assert list(table.index) == ["dino: a", "dino: b", "dino: a - b"]
    assert table.loc["dino: a", "paper"] == 9
    assert np.isnan(table.loc["dino: b", "paper"])
    assert table.loc["dino: a - b", "ours"] == 1
    assert table.loc["dino: a - b", "ci_low"] < 0 < table.loc["dino: a - b", "ci_high"]


def test_findings_say_what_became_of_each_claim():
    claims = (
        Claim(words="A is better", arm="a", other="b"),
        Claim(words="C is better", arm="c", other="b"),  # was not run
    )
    numbers = frame(a=[3.0, 4.0, 5.0], b=[1.0, 2.0, 3.1])
    (finding,) = findings(check(claims, numbers), "dino: ")
    assert finding["claim"] == "dino: A is better"
    assert finding["difference"] == "+2.0 AP_r [1.82, 2.11]"
    assert (finding["seeds"], finding["verdict"]) == ("3", "holds")
    assert in_words([finding]).startswith("- **holds**: dino: A is better (+2.0 AP_r")
    assert findings(check(claims[1:], numbers)) == []


def test_a_finding_of_one_seed_has_no_interval():
    checked = check([Claim(words="w", arm="a", other="b")], frame(a=[3.0], b=[1.0]))
    (finding,) = findings(checked)
    assert (finding["difference"], finding["verdict"]) == ("+2.0 AP_r", "open: one seed")


def test_the_numbers_behind_a_table_give_its_means():
    both = frame(a=[10.0, 20.0], b=[9.0, 18.5])
    rows = per_seed({"dino: ": both, "other: ": both[both["arm"] == "a"]})
    assert list(rows) == ["dino: a", "dino: b", "other: a"]
    assert rows["dino: b"] == {"AP_r": {"0": 9.0, "1": 18.5}}


def test_gain_follows_the_teacher_in_one_group_and_not_across_groups():
    groups = {"r": (np.arange(20), 50 + np.arange(20)), "f": (80 + np.arange(3), np.arange(3))}
    classes = pd.concat(
        pd.DataFrame({"group": group, "teacher": teacher, "gain": gain})
        for group, (teacher, gain) in groups.items()
    )
    table = gain_correlation(classes.astype({"teacher": float, "gain": float}))
    assert table.loc["r", "rank_correlation"] == pytest.approx(1)
    assert table["classes"].to_dict() == {"all": 23, "r": 20, "f": 3}
    assert table.loc["f", ["rank_correlation", "low", "high"]].isna().all()
    whole = table.loc["all"]
    assert whole.low < whole.rank_correlation < whole.high < 0.95


def test_the_interval_of_a_correlation_covers_none_where_there_is_none():
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        teacher, gain = generator.normal(size=(2, 30))
        classes = pd.DataFrame({"group": "r", "teacher": teacher, "gain": gain})
        row = gain_correlation(classes).loc["all"]
        covered += row.low < 0 < row.high
    assert 182 <= covered <= 198  # 95 % of 200, give or take


def test_learning_curves_of_each_detector_against_steps_and_cpu_seconds():
    rows = [
        {"detector": detector, "run": arm, "seed": seed, "step": step, "cpu_seconds": cost * step,
         "metric": metric, "value": gain * step + seed}
        for detector, gain in (("dino", 1.0), ("centernet2", 2.0))
        for arm, cost in (("baseline", 1.0), ("richsem", 3.0))
        for seed in (0, 2)
        for step in (10, 20)
        for metric in ("AP", "AP_r", "AP_c")
    ]  # fmt: skip
    axes = curves_figure(pd.DataFrame(rows)).axes
    titles = ["dino: AP", "dino: AP_r", "centernet2: AP", "centernet2: AP_r"]
    found = [ax.get_title(loc="left") or ax.get_title() for ax in axes]
    assert found == [title for title in titles for _ in range(2)]
    (_, by_steps), (_, by_cost) = (ax.get_lines() for ax in axes[4:6])
    assert by_steps.get_label() == "richsem"
    assert by_steps.get_xydata().tolist() == [[10, 21], [20, 41]]
    assert by_cost.get_xydata().tolist() == [[30, 21], [60, 41]]


def test_a_claim_about_classes_that_a_split_lacks_is_left_out():
    claim = Claim(words="w", arm="a", other="b", metric="AP_f")
    assert check([claim], frame(a=[1, 2], b=[0, 1])).empty


def test_nothing_is_reproduced_where_nothing_was_published():
    paper = {"a": {"AP_r": 3.0}}
    rows = table_rows(means(frame(a=[1, 2], b=[0, 1])), paper, status="reproduced")
    assert rows.set_index("row")["status"].to_dict() == {"a": "reproduced", "b": "ours only"}
    assert len(checked_table(rows, "table4_versus_detic")) == 2


def test_a_caption_says_whether_there_are_intervals():
    assert words(5) == "5 seeds, 95 % intervals over seeds"
    assert words(1) == "one seed, no intervals"


def test_costs_are_compared_within_a_set():
    costs = {"x: short": 10.0, "x: long": 16.0, "y: short": 20.0, "y: long": 30.0}
    runs = {
        (arm, 0): SimpleNamespace(history=[{"step": 5, "cpu_seconds": seconds}])
        for arm, seconds in costs.items()
    }
    assert cost_frame(runs)["times_the_first"].tolist() == [1.0, 1.6, 1.0, 1.5]
    plain = {(arm.replace("x: ", ""), 0): run for (arm, _), run in runs.items() if arm < "y"}
    assert cost_frame(plain)["times_the_first"].tolist() == [1.0, 1.6]
