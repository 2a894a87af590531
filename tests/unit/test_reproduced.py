"""A run of one's own beside the shipped results: what lies where it should, and what does not."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from richsem import paths
from richsem.workbook import reproduced, results

NAME = "table4_versus_detic"


@pytest.fixture
def both(tmp_path, monkeypatch):
    """Folders of one's own and of the shipped results, with a function that writes a table."""
    monkeypatch.setattr(paths, "FIGURES", tmp_path / "own")
    monkeypatch.setattr(paths, "SHIPPED", tmp_path / "shipped")

    def write(folder, rows, runs=()):
        (folder / "demo").mkdir(parents=True, exist_ok=True)
        names = ["row", "metric", "ours", "ci_low", "ci_high", "num_seeds"]
        pd.DataFrame(rows, columns=names).to_csv(folder / "demo" / f"{NAME}.csv", index=False)
        (folder / "demo" / f"{NAME}.json").write_text(
            json.dumps({"decimals": 1, "provenance": {"inputs": {"runs": runs}}})
        )

    return write


def of_mean(values):
    """A row of the table: the mean of some seeds with its 95 % interval."""
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return [np.mean(values), np.mean(values) - half, np.mean(values) + half, len(values)]


@pytest.mark.parametrize("seeds", [1, 3])
def test_19_of_20_runs_with_other_seeds_lie_inside(both, seeds):
    rng = np.random.default_rng(0)
    rows = [str(row) for row in range(2000)]
    both(paths.SHIPPED, [[row, "AP", *of_mean(rng.normal(30, 20, 5))] for row in rows])
    mine = [[row, "AP", rng.normal(30, 20, seeds).mean(), None, None, seeds] for row in rows]
    both(paths.FIGURES, mine)
    assert reproduced.compared("demo")["inside"].mean() == pytest.approx(0.95, abs=0.015)


def test_a_number_is_known_by_what_was_asked_for_not_by_what_was_measured_beside_it(tmp_path):
    name = "fig_when_detic"
    (shipped,) = results.find(name, "demo", tmp_path).values()
    (tmp_path / "demo").mkdir()
    shutil.copy(shipped, tmp_path / "demo")
    frame = pd.read_csv(shipped.with_suffix(".csv"))
    frame.assign(right=frame["right"] / 2).to_csv(tmp_path / "demo" / f"{name}.csv", index=False)
    found = reproduced.compared("demo", tmp_path)
    assert len(found) == found["number"].nunique() == len(frame) and found["inside"].all()


def test_what_lies_elsewhere_is_named_and_nothing_said_where_nothing_was_run(both):
    both(paths.SHIPPED, [["a", "AP", 30.0, 29.0, 31.0, 5]])
    assert reproduced.in_words(reproduced.compared("demo")) == ""
    assert reproduced.in_words(reproduced.compared("demo", paths.SHIPPED)) == ""
    shipped = [["a", "AP", 30.0, 29.0, 31.0, 5], ["boxes", "count", 7.0, None, None, 1]]
    both(paths.SHIPPED, [*shipped, ["not run", "AP", None, None, None, 0]])
    both(paths.FIGURES, [["a", "AP", 33.0, None, None, 1], ["boxes", "count", 8.0, None, None, 1]])
    words = reproduced.in_words(reproduced.compared("demo"))
    assert words.startswith("0 of 2 numbers")
    assert f"{NAME}: a, AP: 33.0, expected 27.5 to 32.5" in words
    assert f"{NAME}: boxes, count: 8.0, expected 6.9 to 7.1" in words


def test_a_single_training_is_no_measure_of_another(both):
    both(paths.SHIPPED, [["a", "AP", 30.0, None, None, 1], ["b", "AP", 9.0, 8.0, 10.0, 3]], ["run"])
    both(
        paths.FIGURES, [["a", "AP", 33.0, None, None, 1], ["b", "AP", 9.0, None, None, 1]], ["run"]
    )
    assert reproduced.in_words(reproduced.compared("demo")).startswith("1 of 1 numbers")


def test_the_shipped_results_reproduce_themselves(tmp_path, monkeypatch):
    shutil.copytree(paths.SHIPPED / "demo", tmp_path / "demo")
    monkeypatch.setattr(paths, "FIGURES", tmp_path)
    found = reproduced.compared("demo")
    assert found["inside"].all()
    assert {NAME, "table2_zero_shot", "fig2_annotation_drop"} <= {*found["result"]}
    assert not found.duplicated(["result", "number"]).any()  # else one was held against another
