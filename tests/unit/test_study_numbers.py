"""What is read off the runs of Table 4, Figure 2, Table 3 and the kinds, from known numbers."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from workbook_toys import frame_of

from richsem.data.categories import Category
from richsem.data.corrupt import drop_annotations
from richsem.workbook import results, studies, study_numbers, supplement


def test_gain_follows_the_teacher_in_one_group_and_not_across_groups():
    groups = {"r": (np.arange(20), 50 + np.arange(20)), "f": (80 + np.arange(3), np.arange(3))}
    classes = pd.concat(
        pd.DataFrame({"group": group, "teacher": teacher, "gain": gain})
        for group, (teacher, gain) in groups.items()
    )
    table = study_numbers.gain_correlation(classes.astype({"teacher": float, "gain": float}))
    assert table.loc["r", "rank_correlation"] == pytest.approx(1)
    assert table["classes"].to_dict() == {"all": 23, "r": 20, "f": 3}
    assert table.loc["f", ["rank_correlation", "low", "high"]].isna().all()
    whole = table.loc["all"]
    assert whole.low < whole.rank_correlation < whole.high < 0.95


# AP in percent: (arm, drop) -> one value per seed.
VALUES = {
    ("baseline", 0.0): (20, 24, 22), ("soft labels", 0.0): (21, 25, 23.5),
    ("RichSem", 0.0): (30, 30, 31), ("baseline", 0.5): (10, 12, 11),
    ("soft labels", 0.5): (14, 16.5, 15), ("RichSem", 0.5): (23, 27.5, 25),
    ("long baseline", 0.0): (23, 28, 25),
}  # fmt: skip
FIGURE2 = studies.figure2("demo")


@pytest.fixture
def frame():
    runs = {}
    for point, values in VALUES.items():
        for seed, value in enumerate(values):
            result = SimpleNamespace(metrics={"AP": value / 100, "APr": value / 200})
            runs[point, seed] = SimpleNamespace(result=result)
    return study_numbers.drop_frame(FIGURE2, runs)


def test_means_and_gains_are_by_drop_and_growth_beside_what_dropping_costs(frame):
    assert len(frame) == 42
    means = study_numbers.means_by_drop(frame).set_index(["arm", "drop", "metric"])
    assert means.loc[("baseline", 0.5, "AP"), "mean"] == pytest.approx(11)
    assert means.loc[("baseline", 0.5, "AP_r"), "mean"] == pytest.approx(5.5)
    assert means["seeds"].eq(3).all()
    pairs = [("soft labels", "baseline"), ("long baseline", "baseline")]
    gains = study_numbers.study.differences(frame, pairs, study_numbers.BY_DROP)
    gains = gains.set_index(["arm", "drop", "metric"])["mean"]
    assert gains["soft labels - baseline", 0.0, "AP"] == pytest.approx(3.5 / 3)
    assert gains["soft labels - baseline", 0.5, "AP"] == pytest.approx(12.5 / 3)
    assert set(gains["long baseline - baseline"].index) == {(0.0, "AP"), (0.0, "AP_r")}
    growth = study_numbers.gain_change(frame)
    assert growth.index.tolist() == ["AP", "AP_r"]
    expected = {"baseline": 22, "cost": 11, "gain_all": 3.5 / 3, "gain_fewest": 12.5 / 3}
    for name, value in expected.items():
        assert growth[name].tolist() == pytest.approx([value, value / 2])
    assert growth.loc["AP", "change"] == pytest.approx(3)
    assert growth.loc["AP", "low"] < 3 < growth.loc["AP", "high"]
    for part in (frame[frame["drop"] == 0.0], frame[frame["arm"] != "soft labels"]):
        assert study_numbers.gain_change(part).empty


def test_claims_compare_gains_and_halves(frame):
    found = FIGURE2.findings(study_numbers.contrasts(frame))
    # Growth of the gain: 4 - 1, 4.5 - 1, 4 - 1.5. Half against all: 3, 3.5, 3.
    assert [f.verdict[:5] for f in found] == ["holds"] * 4 + ["open:"] * 2
    assert [f.difference.split(" [")[0] for f in found] == [
        "+3.0 AP", "+1.5 AP_r", "+3.2 AP", "+1.6 AP_r", "-0.2 AP", "-0.1 AP_r",
    ]  # fmt: skip
    # Those about points that were not run are left out.
    complete = study_numbers.contrasts(frame[frame["drop"] == 0.0])
    assert complete.empty and FIGURE2.findings(complete) == []
    without = study_numbers.contrasts(frame[frame["arm"] != "RichSem"])
    assert len(FIGURE2.findings(without)) == 2


def test_what_dropping_leaves(tiny_set):
    sets = {ratio: drop_annotations(tiny_set, ratio) for ratio in (0.0, 0.5, 0.9)}
    kept = study_numbers.kept_frame(sets)
    assert kept["boxes"].tolist() == [8, 4, 4]  # four classes keep one box each
    assert kept["images"].tolist() == [5, 5, 5]
    assert kept["classes with one box"].tolist() == [1, 4, 4]
    assert kept["part of the row above"].all()
    # The file states no counts; dropping writes them.
    assert kept["stated counts agree"].tolist() == [False, True, True]
    boxes = study_numbers.boxes_of_classes(sets).groupby("ratio")["instances"].sum()
    assert boxes.tolist() == [8, 4, 4]


def test_the_claim_of_table_3_is_judged_at_equal_steps_and_at_equal_compute():
    ours = {"baseline": 0, "long baseline": 3, "richsem": 2}
    keys = [(key, arm) for key in ("visual_genome", "openimages") for arm in ours]
    values = {f"{key}: {arm}": ours[arm] + np.array([10, 11, 12.1]) for key, arm in keys}
    findings = studies.table3("demo").findings(frame_of(values, "AP"))
    claims = [
        f"Unlabelled extra images help on {name}{compute}"
        for compute in ("", " at equal compute")
        for name in ("MiniVG", "MiniOpenImages")
    ]
    assert [finding.claim for finding in findings] == claims
    words = study_numbers.on_all(findings)
    assert "steps: **yes**" in words and "compute: **not shown**" in words
    verdicts = ("holds", "open", "open", "holds")
    mixed = [results.Finding("a", "b", "1", verdict, "before") for verdict in verdicts]
    assert study_numbers.on_all(mixed).count("**not shown**") == 2


@pytest.mark.parametrize(
    ("common", "statuses"), [(0, ["ours only"]), (3, ["not run", "ours only"])]
)
def test_the_table_of_kinds_quotes_nothing_and_knows_when_labels_are_of_no_use(common, statuses):
    values = {arm: (1, 2) for arm in (*studies.BASELINES, *supplement.KINDS)}
    frame = frame_of(values | {"o365_box": (3, 5)}, "AP", "AP_r")
    rows = study_numbers.kind_rows(studies.kinds("demo"), frame, "paper", common=common)
    rows = results.checked_table(rows, "extra_data_kinds")
    assert rows["paper"].isna().all() and sorted(set(rows["status"])) == statuses
    assert {"cc_unl - baseline", "cc_unl - long baseline"} <= set(rows["row"])
    rows = rows[rows["metric"] == "AP"].set_index("row")
    assert rows.loc["o365", "status"] == statuses[0]
    assert common or rows.loc["o365", "ours"] == rows.loc["o365_box", "ours"] == 4
    words = study_numbers.kind_words(embedded=True, common=common)
    boxes = {"extra data": "MiniO365, boxes only", "annotation": "boxes without labels"}
    assert words["o365_box"] == boxes
    assert ("not run" if common else "so the run of o365_box") in words["o365"]["annotation"]
    assert set(words) == {*values, "o365"}


def test_classes_in_common_are_found_by_name(monkeypatch, tiny_set):
    monkeypatch.setattr(study_numbers, "open_boxes", lambda *args, **options: tiny_set)
    monkeypatch.setattr(study_numbers, "data_root", lambda data: None)
    mine = [Category(id=7, name="Cat"), Category(id=9, name="boat")]
    config = supplement.table4_run("dino", "baseline", "smoke")
    assert study_numbers.classes_in_common(config, mine) == (["cat"], 4)
    assert study_numbers.classes_in_common(config, mine[1:]) == ([], 4)
