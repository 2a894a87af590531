"""Figure 2's runs, data and claims, from numbers that are known."""

import numpy as np
import pytest

from richsem.data.corrupt import drop_annotations
from richsem.evaluation import Detections, EvaluationResult
from richsem.operations.store import Judged
from richsem.recipes.dino_recipes import baseline
from richsem.workbook import annotation_drop, supplement
from richsem.workbook.figures import seed_charts
from richsem.workbook.study import check

NOTHING = Detections(
    image_id=np.zeros(0, int),
    category_id=np.zeros(0, int),
    bbox_xywh=np.zeros((0, 4)),
    score=np.zeros(0),
)


def judged(ap):
    result = EvaluationResult(
        protocol="lvis", ground_truth="x", max_dets=300, backend="fast", num_images=1,
        metrics={"AP": ap, "APr": ap / 2}, per_category={},
    )  # fmt: skip
    return Judged(config=baseline("smoke"), result=result, detections=NOTHING, history=[])


# AP in percent: (arm, drop) -> one value per seed.
VALUES = {
    ("baseline", 0.0): (20, 24, 22),
    ("soft labels", 0.0): (21, 25, 23.5),
    ("RichSem", 0.0): (30, 30, 31),
    ("baseline", 0.5): (10, 12, 11),
    ("soft labels", 0.5): (14, 16.5, 15),
    ("RichSem", 0.5): (23, 27.5, 25),
    ("long baseline", 0.0): (23, 28, 25),
}


@pytest.fixture
def frame():
    runs = {
        (point, seed): judged(value / 100)
        for point, values in VALUES.items()
        for seed, value in enumerate(values)
    }
    return annotation_drop.drop_frame(annotation_drop.figure2("demo"), runs)


def test_runs_are_the_points_of_the_figure_and_share_those_of_table_4():
    configs = annotation_drop.figure2("demo", (0.0, 0.5)).runs(range(2))
    assert len(configs) == 3 * 2 * 2 + 2
    assert configs[("long baseline", 0.0), 1] == supplement.control("long baseline", seed=1)
    for wrong in ((0.5,), (0.0, 1.0)):
        with pytest.raises(ValueError, match=r"DROPS is .* and 0 among them"):
            annotation_drop.figure2("demo", wrong)
    assert configs[("baseline", 0.0), 1] == supplement.table4("dino", "baseline", seed=1)
    assert configs[("RichSem", 0.0), 1] == supplement.table4("dino", "richsem", seed=1)
    assert configs[("soft labels", 0.0), 0] == supplement.control("soft labels alone")
    half = configs[("baseline", 0.5), 1].data
    assert (half.drop, half.drop_seed) == (0.5, 1)
    hard = annotation_drop.figure2("demo", (0.0,), hard=True).arms
    assert hard["hard labels", 0.0](0) == supplement.control("hard labels")
    smoke, demo, paper = map(annotation_drop.default_drops, ("smoke", "demo", "paper"))
    assert smoke == (0.0, 0.5) and set(smoke) < set(demo) < set(paper) and len(paper) == 5
    assert {drop for _, drop in annotation_drop.figure2("demo").arms} == set(demo)


def test_means_and_gains_are_by_drop(frame):
    assert len(frame) == 42
    means = annotation_drop.points(frame).set_index(["arm", "drop", "metric"])
    assert means.loc[("baseline", 0.5, "AP"), "mean"] == pytest.approx(11)
    assert means.loc[("baseline", 0.5, "AP_r"), "mean"] == pytest.approx(5.5)
    assert means["seeds"].eq(3).all()
    gains = annotation_drop.gains(frame, ["baseline", "soft labels"]).set_index(["metric", "drop"])
    assert gains.loc[("AP", 0.0), "mean"] == pytest.approx(3.5 / 3)
    assert gains.loc[("AP", 0.5), "mean"] == pytest.approx(12.5 / 3)


def test_claims_compare_gains_and_halves(frame):
    found = check(annotation_drop.CLAIMS, annotation_drop.contrasts(frame))
    # Growth of the gain: 4 - 1, 4.5 - 1, 4 - 1.5. Half against all: 3, 3.5, 3.
    assert [f["verdict"][:5] for f in found] == ["holds"] * 4 + ["open:"] * 2
    assert [f["difference"].split(" [")[0] for f in found] == [
        "+3.0 AP", "+1.5 AP_r", "+3.2 AP", "+1.6 AP_r", "-0.2 AP", "-0.1 AP_r",
    ]  # fmt: skip


def test_claims_about_points_that_were_not_run_are_left_out(frame):
    complete = annotation_drop.contrasts(frame[frame["drop"] == 0.0])
    assert complete.empty and check(annotation_drop.CLAIMS, complete) == []
    without = annotation_drop.contrasts(frame[frame["arm"] != "RichSem"])
    assert len(check(annotation_drop.CLAIMS, without)) == 2


def test_growth_of_the_gain_beside_what_dropping_costs(frame):
    growth = annotation_drop.growth(frame)
    assert growth.index.tolist() == ["AP", "AP_r"]
    expected = {"baseline": 22, "cost": 11, "gain_all": 3.5 / 3, "gain_fewest": 12.5 / 3}
    for name, value in expected.items():
        assert growth.loc["AP", name] == pytest.approx(value)
        assert growth.loc["AP_r", name] == pytest.approx(value / 2)
    assert growth.loc["AP", "change"] == pytest.approx(3)
    assert growth.loc["AP", "low"] < 3 < growth.loc["AP", "high"]
    assert annotation_drop.growth(frame[frame["drop"] == 0.0]).empty
    assert annotation_drop.growth(frame[frame["arm"] != "soft labels"]).empty


def test_what_dropping_leaves(tiny_set):
    sets = {ratio: drop_annotations(tiny_set, ratio) for ratio in (0.0, 0.5, 0.9)}
    kept = annotation_drop.kept_frame(sets)
    assert kept["boxes"].tolist() == [8, 4, 4]  # four classes keep one box each
    assert kept["images"].tolist() == [5, 5, 5]
    assert kept["classes with one box"].tolist() == [1, 4, 4]
    assert kept["part of the row above"].all()
    # The file states no counts; dropping writes them.
    assert kept["stated counts agree"].tolist() == [False, True, True]
    boxes = annotation_drop.boxes_of_classes(sets).groupby("ratio")["instances"].sum()
    assert boxes.tolist() == [8, 4, 4]


def test_figure_2_is_drawn_with_and_without_bands(frame):
    for part in (frame, frame[frame["seed"] == 0]):
        panels = [["baseline", "soft labels"], ["baseline", "RichSem"]]
        fig = seed_charts.lines_figure(annotation_drop.points(part), panels, ["(a)", "(b)"])
        assert [ax.get_title() or ax.get_title(loc="left") for ax in fig.axes] == [
            "(a): AP", "(b): AP", "(a): AP_r", "(b): AP_r",
        ]  # fmt: skip
        assert fig.axes[1].get_legend_handles_labels()[1] == ["baseline", "RichSem"]
        lines = fig.axes[1].get_lines()
        assert lines[1].get_ydata()[0] > lines[0].get_ydata()[0]
