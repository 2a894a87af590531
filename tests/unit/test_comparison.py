"""Runs side by side: curves, and examples by a rule, with arrows where one run alone finds."""

from dataclasses import replace
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.patches import FancyArrowPatch
from PIL import ImageOps
from workbook_toys import found_among, opened, titles

from richsem.recipes import dino_recipes
from richsem.workbook import comparison
from richsem.workbook.figures import drawing, explorers


def rows(run_seconds):
    losses = {"detection": {"total": 2.0, "soft": 1.0}}
    first = {"step": 2, "cpu_seconds": run_seconds, "losses": losses}
    return [first, {**first, "step": 4, "cpu_seconds": 2 * run_seconds, "metrics": {"AP": 0.5}}]


def test_steps_count_detection_batches_and_histories_become_tidy_tables():
    changed = comparison.pair("demo", seed=1, steps=10)
    # Judged at its end, if not before: there is a curve.
    assert [one.train.judge_every for one in changed.values()] == [10, 20]
    assert [config.train.steps for config in changed.values()] == [10, 20]
    recipes = {"baseline": dino_recipes.baseline, "RichSem": dino_recipes.richsem}
    known = {"seed": 1, "root": "real"}
    own = {name: recipe("paper", **known) for name, recipe in recipes.items()}
    assert comparison.pair("paper", **known) == own
    frame = comparison.history_frame({"a": rows(1.0), "b": rows(3.0)})
    assert len(frame) == 8 and set(frame["term"]) == {"total", "soft"}
    curves = comparison.curve_frame({"a": rows(1.0), "b": rows(3.0)})
    columns = ["run", "step", "cpu_seconds", "value"]
    assert curves[columns].values.tolist() == [["a", 4, 2.0, 50.0], ["b", 4, 6.0, 50.0]]


def side_by_side(dataset, *found):
    """Two runs that found these annotated boxes: (image, box number, score, category id)."""
    runs = {name: found_among(dataset, own) for name, own in zip(AT, found, strict=True)}
    return comparison.SideBySide.of(dataset, runs)


def arrows(rows):
    return [sum(len(panel.arrows_xyxy) for panel in column) for column in zip(*rows, strict=True)]


AT = {"baseline": 0.3, "RichSem": 0.3}


@pytest.fixture
def side(tiny_set):
    """Class 1 is rare: the first box of image 0, the second of images 3 and 4."""
    baseline = [(4, 1, 0.9, 1), (0, 0, 0.2, 1), (3, 1, 0.8, 2)]
    return side_by_side(tiny_set, baseline, [(0, 0, 0.5, 1), (3, 1, 0.8, 1), (0, 1, 0.7, 1)])


def test_outcomes_ranking_by_the_gain_and_clutter(side):
    assert [len(found) for found in side.shown(AT).values()] == [2, 3]  # those that reach the score
    right = dict(zip(side.detections["baseline"].score, side.right["baseline"], strict=True))
    assert right == {0.9: True, 0.8: False, 0.2: True}
    outcomes = side.outcomes(AT)
    assert outcomes["image"].tolist() == [0, 3, 4]
    kinds = [comparison.UNSEEN, comparison.MISNAMED, comparison.FOUND]
    assert outcomes["baseline"].tolist() == kinds
    ranked = comparison.ranking(outcomes)
    assert ranked.index.tolist() == [0, 3, 4]  # two gains in the order of images, then the loss
    assert ranked[["gain", "objects"]].to_numpy().tolist() == [[1, 1], [1, 1], [-1, 1]]
    clutter = side.clutter(AT)
    assert clutter["boxes per image"].tolist() == [0.4, 0.6]
    assert clutter.loc["RichSem", "right, percent"] == pytest.approx(200 / 3)
    assert clutter.loc["baseline", "right of the rare, percent"] == 100


def test_images_are_chosen_at_both_ends_by_one_rule():
    ranked = pd.DataFrame({"gain": [0.5, 0.5, 0.0, -0.5, -0.5, -1.0]}, index=[3, 8, 1, 2, 9, 4])
    assert comparison.ends(ranked, 3) == ([3, 8, 1], [4, 2, 9])
    assert comparison.ends(ranked, 20) == ([3, 8, 1, 2, 9, 4], [4, 2, 9, 1, 3, 8])
    with pytest.raises(ValueError, match="no image of this split has an object of a rare class"):
        comparison.ends(ranked[:0], 1)


def test_differences_are_told_in_words():
    table = comparison.difference_table(comparison.pair("demo"))
    assert table.loc["detector.semantic"].tolist() == ["no", "yes"]
    assert table.loc["data.extra.key"].tolist() == ["-", "inet_lvis"]
    assert "data.extra.transform.flip" not in table.index  # of a part that the baseline lacks
    changes = comparison.against_paper("demo")
    assert changes.loc["classes in a class loss (0: all, not federated)"].tolist() == ["50", "0"]
    assert changes.loc["encoder layers"].tolist() == ["6", "1"]
    assert comparison.against_paper("paper").empty


def test_arrows_point_at_what_only_one_run_finds_and_boxes_become_a_table(tiny_set, side):
    seen, outcomes = side.shown(AT), side.outcomes(AT)
    rows = comparison.examples(tiny_set, seen, outcomes, [0, 4])
    words = [("annotated", ""), ("baseline", "0 of 1 rare"), ("RichSem", "1 of 1 rare")]
    assert [(panel.title, panel.note) for panel in rows[0]] == words and arrows(rows) == [0, 1, 1]
    np.testing.assert_allclose(rows[0][2].arrows_xyxy, tiny_set.boxes_of(0)[0][:1])
    fig = drawing.panel_figure([panel for row in rows for panel in row], columns=3, side=2.9)
    drawn = [sum(isinstance(patch, FancyArrowPatch) for patch in ax.patches) for ax in fig.axes]
    assert drawn == [0, 0, 1, 0, 1, 0]
    fig.canvas.draw()
    assert titles(fig) == ["annotated", "baseline", "RichSem", "", "", ""]  # once per column
    # An object that both find gets no arrow.
    both = seen | {"baseline": seen["RichSem"]}
    outcomes = outcomes.assign(baseline=outcomes["RichSem"])
    assert arrows(comparison.examples(tiny_set, both, outcomes, [0, 3])) == [0, 0, 0]
    for least, number in ((0.3, 5), (2.0, 3)):
        at = dict.fromkeys(AT, least)
        rows = comparison.examples(tiny_set, side.shown(at), side.outcomes(at), [0])
        frame = comparison.box_frame(tiny_set, rows, [0])
        assert len(frame) == number
        assert frame.loc[frame["panel"] == "annotated", "rare"].tolist() == [True, False, False]
    assert set(frame["image_id"]) == {1}


def test_runs_are_compared_at_equally_many_wrong_boxes(tiny_set):
    few = [(0, 0, 0.6, 1), (3, 1, 0.5, 2), (4, 1, 0.4, 2)]
    more = [(0, 0, 0.2, 1), (3, 1, 0.3, 1), (4, 1, 0.25, 2), (4, 1, 0.1, 1)]
    side = side_by_side(tiny_set, few, more)
    assert [wrong.tolist() for wrong in side.wrong.values()] == [[0.5, 0.4], [0.25]]
    assert side.thresholds(0.45, alike=False) == {"baseline": 0.45, "RichSem": 0.45}
    # One wrong box of the baseline reaches 0.45, none 0.55; RichSem has one in all.
    assert side.thresholds(0.45)["RichSem"] == 0.0
    none = side.thresholds(0.55)
    assert 0.25 < none["RichSem"] < 0.251
    (line,) = side.by_class(none).to_dict("records")
    third = dict.fromkeys(AT, pytest.approx(1 / 3))
    assert line == {"objects": 3, "images": 3, "gain": 0.0} | third


def test_runs_are_explored_by_class_in_the_order_of_their_gain(tiny_set, monkeypatch):
    side = side_by_side(tiny_set, [(0, 1, 0.7, 2)], [(0, 0, 0.5, 1), (3, 1, 0.8, 1)])
    config = comparison.pair("smoke")["baseline"]
    config = replace(config, data=replace(config.data, root="real"))
    fig = explorers.compared_figure(side, config, score=0.6, alike=False)
    (heading,) = {sub.get_suptitle() for sub in fig.subfigs}
    assert heading == "1 of 3, gain +100%; baseline from 0.60, RichSem from 0.60"
    assert titles(fig) == ["annotated", "baseline", "RichSem"]
    plt.close(fig)
    draw = mock.Mock(side_effect=lambda *_, **chosen: plt.figure())
    monkeypatch.setattr(explorers, "compared_figure", draw)
    controls, _ = opened(explorers.compared_explorer(side, config))
    assert [words for words, _ in controls["class"].options][1].endswith("(+67%)")
    controls["class"].value = controls["class"].options[1][1]
    controls["place"].value, controls["score"].value = 2, 0.5
    controls["compare at"].value = False
    assert controls["place"].max == 2
    assert list(draw.call_args.kwargs.values()) == [controls["class"].value, 2, 0.5, False]


def test_only_pictures_of_the_benchmark_are_drawn_larger(tiny_set, side, monkeypatch):
    rows = comparison.examples(tiny_set, side.shown(AT), side.outcomes(AT), [0])
    config = comparison.pair("smoke")["baseline"]
    real = replace(config, data=replace(config.data, root="real"))
    assert comparison.sharper(rows, [0], tiny_set, real) == rows
    larger = mock.Mock(side_effect=lambda *given: ImageOps.scale(given[-1], 2))
    monkeypatch.setattr(comparison, "drawn_larger", larger)
    ((_, _, panel),) = comparison.sharper(rows, [0], tiny_set, config)
    asked = (config.data.benchmark, tiny_set.image_root.name, 0)  # of file 1.png
    assert [call.args[:3] for call in larger.call_args_list] == [asked]
    np.testing.assert_allclose(panel.boxes_xyxy, 2 * rows[0][2].boxes_xyxy)
    np.testing.assert_allclose(panel.arrows_xyxy, 2 * rows[0][2].arrows_xyxy)
    assert panel.image.width == 2 * rows[0][2].image.width and panel.title == rows[0][2].title
