"""Means, intervals and paired differences over seeds, on numbers worked out by hand."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from workbook_toys import frame_of

from richsem import paths
from richsem.workbook import report, results, studies, study, supplement
from richsem.workbook.results import checked_table
from richsem.workbook.study import Claim, Study, differences, mean_interval, means


def test_intervals_by_hand_of_correlations_and_of_pairs():
    mean, low, high = mean_interval([1.0, 2.0, 3.0])
    half = 4.302652729911275 / np.sqrt(3)  # t(0.975, 2 degrees) * s / sqrt(n), s = 1
    assert (mean, low, high) == pytest.approx((2, 2 - half, 2 + half))
    assert mean_interval([2.0] * 3) == (2, 2, 2) and np.isnan(mean_interval([4.0])[1:]).all()
    draws = np.random.default_rng(0).normal(size=(200, 2, 30))
    covered = [low < 0 < high for _, low, high in (study.rank_correlation(*xy) for xy in draws)]
    assert 182 <= sum(covered) <= 198  # 95 % of 200, give or take
    # Pairing removes what seeds differ in.
    both = frame_of(dict(a=[10, 20, 30], b=[9, 18.5, 29]), "AP_r")
    (change,) = differences(both, [("a", "b")]).itertuples()
    assert change.mean == pytest.approx(3.5 / 3) and 0 < change.low < change.high < 2.5
    spread = means(both)
    assert (spread["high"] - spread["low"]).min() > 40
    # Only seeds of both arms are compared.
    uneven = frame_of(dict(a=[1, 2, 3], b=[0, 1]), "AP_r")
    (change,) = differences(uneven, [("a", "b"), ("a", "missing")]).itertuples()
    assert (change.seeds, change.mean) == (2, 1)


def test_rows_of_a_table_are_set_by_set_beside_the_papers_values():
    numbers = frame_of({"x: a": [1, 3], "y: a": [2, 2], "x: b": [1, 1]}, "AP_r")
    pairs = [("x: a", "x: b"), ("x: a", "x: c")]  # c was not run
    paper = {"x: a": {"AP_r": 9.0}, "y: a": {"AP_r": 8.0}}
    one = Study(arms={}, pairs=pairs, paper=paper, other_quantity="y")
    table = checked_table(one.rows(numbers, "paper"), "table4_versus_detic").set_index("row")
    assert list(table.index) == ["x: a", "x: b", "x: a - b", "y: a"]
    assert table["paper"].dropna().to_dict() == {"x: a": 9, "y: a": 8}
    gain = table.loc["x: a - b"]
    assert gain["ours"] == 1 and gain["ci_low"] < 0 < gain["ci_high"]
    # Nothing is reproduced where nothing was published, or something else.
    assert table["status"].tolist() == ["reproduced", *["ours only"] * 3]
    assert set(one.rows(numbers, "demo")["status"]) == {"trend at demo scale"}


@pytest.mark.parametrize(
    ("values", "difference", "verdict"),
    [
        ([3.0, 4.0, 5.0], "+2.0 AP_r [1.82, 2.11]", "holds"),
        ([-3.0, -2.0, -1.0], "-4.0 AP_r [-4.18, -3.89]", "refuted"),
        ([2.0, 1.0, 4.0], "+0.3 AP_r [-2.50, 3.10]", "open: the interval includes the margin"),
        ([3.0], "+2.0 AP_r", "open: one seed"),
    ],
)
def test_findings_say_what_became_of_each_claim(values, difference, verdict):
    claims = (
        Claim(words="A is better", arm="a", other="b"),
        Claim(words="C is better", arm="c", other="b"),  # was not run
        Claim(words="Frequent ones gain", arm="a", other="b", metric="AP_f"),  # has no such classes
    )
    numbers = frame_of(dict(a=values, b=[1.0, 2.0, 3.1][: len(values)]), "AP_r")
    found = Study(arms={}, claims=claims).findings(numbers)
    (one,) = found
    assert one[:5] == ("A is better", difference, str(len(values)), verdict, "before")
    told = f"{one.mean:+.1f} AP_r" + (f" [{one.low:.2f}, {one.high:.2f}]" if one.low else "")
    assert (told, one.margin) == (difference, 0.0)
    assert study.in_words(found) == f"- **{verdict}**: A is better ({difference})"
    late = study.in_words([found[0]._replace(stated="after")])
    assert late.endswith("; *added after results were seen*")
    ends = [f"{verdict.startswith(end):d}" for end in ("holds", "refuted", "open")]
    assert [sign for sign in study.tally(found) if sign.isdigit()] == ["1", *ends]


def test_numbers_behind_a_table_costs_caption_and_changes_in_words():
    both = frame_of(dict(a=[10.0, 20.0], b=[9.0, 18.5]), "AP_r")
    rows = study.per_seed(both)
    assert list(rows) == ["a", "b"] and rows["b"] == {"AP_r": {"0": 9.0, "1": 18.5}}
    captions = [study.caption(seeds) for seeds in (5, 1)]
    assert captions == ["5 seeds, 95 % intervals over seeds", "one seed, no intervals"]
    costs, runs = {"x: short": 10.0, "x: long": 16.0, "y: short": 20.0, "y: long": 30.0}, {}
    for arm, seconds in costs.items():
        runs[arm, 0] = SimpleNamespace(history=[{"step": 5, "cpu_seconds": seconds}])
    assert study.cost_frame(runs)["times_the_first"].tolist() == [1.0, 1.6, 1.0, 1.5]
    plain = {(arm.replace("x: ", ""), 0): run for (arm, _), run in runs.items() if arm < "y"}
    assert study.cost_frame(plain)["times_the_first"].tolist() == [1.0, 1.6]
    numbers = frame_of(dict(a=[3.0, 4.0, 5.0], b=[1.0, 2.0, 3.1]), "AP_r")
    steps = {"more": ("a", "b"), "less": ("b", "a"), "not run": ("c", "b")}
    more, less = study.changes_in_words(numbers, steps).split("\n")
    assert more == "- **more**: +2.0 AP_r [1.8, 2.1] (more)"
    assert less == "- **less**: -2.0 AP_r [-2.1, -1.8] (less)"
    named = differences(numbers, steps)  # under the words of each pair
    assert dict(zip(named["arm"], named["mean"].round(1), strict=True)) == {"more": 2, "less": -2}
    own = study.over(differences(numbers, [("a", "b"), ("b", "a")]), "b")
    assert (own["arm"].tolist(), own["mean"].round(1).tolist()) == (["a"], [2])
    alone = study.changes_in_words(numbers[numbers["seed"] == 0], {"one": ("a", "b")})
    assert alone == "- **one**: +2.0 AP_r (open)"


def claims_of(number):
    return [Claim(words=f"claim {i}", arm=f"a{i}", other="b") for i in range(number)]


def test_one_claim_is_judged_as_it_is_and_several_by_wider_intervals():
    values = {f"a{i}": [3.0, 4.0, 5.0, 6.5] for i in range(4)} | {"b": [1.0, 2.5, 3.1, 4.0]}
    numbers = frame_of(values, "AP_r")
    (one,) = study.corrected(claims_of(1), numbers).itertuples()
    _, low, high = mean_interval([2.0, 1.5, 1.9, 2.5])
    assert (one.low, one.high) == pytest.approx((low, high))
    assert (one.low_all, one.high_all, one.sees_all) == (one.low, one.high, one.sees)
    four = study.corrected(claims_of(4), numbers)
    for name in ("low", "high", "sees"):
        assert four[name].tolist() == pytest.approx([getattr(one, name)] * 4)
    assert (four["high_all"] - four["low_all"] > 1.5 * (one.high - one.low)).all()
    assert (four["sees_all"] > four["sees"]).all() and set(four["verdict"]) == {"holds"}
    assert "95 % for all 4" in study.corrected_in_words(four)
    # Nothing is seen with one seed, and arms that were not run are left out.
    alone = study.corrected(claims_of(2), numbers[numbers["seed"] == 0])
    assert alone["verdict_all"].tolist() == ["open"] * 2 and alone["sees"].isna().all()
    assert study.corrected_in_words(alone).startswith("One seed")
    assert len(study.corrected(claims_of(9), numbers)) == 4


def test_corrected_intervals_miss_in_one_table_of_twenty_and_plain_ones_much_more_often():
    rng, missed = np.random.default_rng(0), []
    for _ in range(60):
        values = {f"a{i}": rng.normal(size=5) for i in range(6)}  # claims share b: they depend
        table = study.corrected(claims_of(6), frame_of(values | {"b": rng.normal(size=5)}, "AP_r"))
        missed.append([(table[name] != "open").any() for name in ("verdict", "verdict_all")])
    plain, every = np.mean(missed, axis=0)
    assert plain > 0.12 and every < 0.1  # of 0.26 if they did not depend, and 0.05


def test_the_report_judges_all_claims_of_a_result_at_once_as_its_notebook_does():
    every = report.claims(report.gather("demo"))
    shipped = report.at_once(every[every["run"] == "shipped"])
    assert len(shipped) > 90 and set(shipped["verdict"]) == {"holds", "open", "refuted"}
    stated = every.loc[shipped.index, "verdict"].str.partition(":")[0]
    assert shipped["verdict"].tolist() == stated.tolist()
    for name, one in SHIPPED.items():
        own = shipped[shipped["id"] == name]
        again = study.corrected(one.claims, study.shipped_numbers(name))
        assert own["verdict_all"].tolist() == again["verdict_all"].tolist()
        for column in ("low_all", "high_all", "sees", "sees_all"):
            assert own[column].tolist() == pytest.approx(again[column].tolist(), abs=1e-3)


@pytest.mark.parametrize(("seeds", "bar"), [(2, 12.7), (5, 2.776), (5, 5.0), (10, 2.262)])
def test_the_smallest_effect_is_seen_in_four_of_five_repetitions(seeds, bar):
    draws = np.random.default_rng(1).normal(size=(20_000, seeds))
    draws += study.smallest_shift(seeds, bar) / np.sqrt(seeds)
    t = draws.mean(axis=1) / (draws.std(axis=1, ddof=1) / np.sqrt(seeds))
    assert (t > bar).mean() == pytest.approx(0.8, abs=0.012)


SHIPPED = {
    "table4_versus_detic": studies.table4("demo", controls=supplement.CONTROLS),
    "table3_other_datasets": studies.table3("demo"),
    "extra_data_kinds": studies.kinds("demo"),
}


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_tables_follow_from_their_own_numbers(name):
    one, files = SHIPPED[name], results.output_paths(name, "demo", paths.SHIPPED)
    record = json.loads(files[-1].read_bytes())
    numbers = study.shipped_numbers(name)
    numbers = pd.concat(numbers[numbers["arm"] == arm] for arm in one.arms)
    pairs = zip(one.findings(numbers), record["findings"], strict=True)
    assert all(found._asdict() | shipped == found._asdict() for found, shipped in pairs)
    shipped = pd.read_csv(files[1]).set_index(["row", "metric"])
    ours = one.rows(numbers, "demo").set_index(["row", "metric"])
    assert {row for row, _ in set(shipped.index) - set(ours.index)} <= {"o365"}
    columns = ["paper", "ours", "ci_low", "ci_high", "num_seeds"]
    expected = shipped.loc[ours.index, columns]
    np.testing.assert_allclose(ours[columns].astype(float), expected.astype(float), rtol=1e-12)
