"""Every figure is drawn from plain numbers, without warnings, also where some are missing."""

import numpy as np
import pandas as pd
import pytest
from figure_checks import assert_complete, assert_drawn
from PIL import Image

from richsem.workbook.figures import charts
from richsem.workbook.zero_shot import accuracy_table, noise_curve

pytestmark = pytest.mark.usefixtures("figure_style")


def tail(groups="rcf", name="LVIS"):
    rng = np.random.default_rng(0)
    counts = {"r": 5, "c": 50, "f": 900}
    rows = [(name, i, g, int(rng.integers(0, counts[g]))) for g in groups for i in range(20)]
    return pd.DataFrame(rows, columns=["dataset", "category", "group", "instances"])


def curve(best=30):
    ranks = np.random.default_rng(0).integers(0, best, (3, 2, 60))
    return noise_curve(ranks, np.arange(60) % 7, (0.0, 0.5, 1.0))


def table(groups="rcf"):
    groups = np.array(list(groups))
    labels = np.arange(60) % len(groups)
    return accuracy_table(np.random.default_rng(0).integers(0, 20, 60), labels, groups)


def probe_frame(datas=("LVIS", "+ INet")):
    rows = [(data, group, 50.0) for data in datas for group in "rcf"]
    return pd.DataFrame(rows, columns=["data", "group", "accuracy"])


def soft_label(count):
    names = [f"class {i}" for i in range(count)]
    box, label = (2, 3, 30, 20), (tuple(names), np.full(count, 1 / count))
    boxes, labels = {"clean": box, "noise 0.5": box}, {"clean": label, "noise 0.5": label}
    return Image.new("RGB", (64, 48)), boxes, labels, names[1]


FIGURES = {
    "frequency": lambda: charts.frequency_figure(pd.concat([tail(), tail(name="VG")])),
    "frequency of one set without rare classes": lambda: charts.frequency_figure(tail("cf")),
    "frequency of many classes": lambda: charts.frequency_figure(pd.concat([tail("rrrccccfffff")])),
    "noise": lambda: charts.noise_figure({"roi": curve(), "crop": curve()}),
    "noise of one way": lambda: charts.noise_figure({"roi": curve()}),
    "relative noise": lambda: charts.relative_noise_figure({"roi": curve(), "crop": curve()}, 5),
    "probe": lambda: charts.probe_figure(probe_frame()),
    "probe of one data set": lambda: charts.probe_figure(probe_frame(["LVIS"])),
    "accuracy by group": lambda: charts.accuracy_by_group_figure({"roi": table(), "crop": table()}),
    "accuracy without rare classes": lambda: charts.accuracy_by_group_figure({"roi": table("cf")}),
    "soft label": lambda: charts.soft_label_figure(*soft_label(30)),
    "soft label of few classes": lambda: charts.soft_label_figure(*soft_label(4)),
}


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_a_figure_is_drawn_without_warnings_and_can_be_closed(draw):
    assert_drawn(draw)


def test_every_public_figure_function_is_drawn_here():
    assert_complete(charts, FIGURES)


def test_categories_are_shown_from_the_most_frequent():
    fig = charts.frequency_figure(tail())
    bars = sorted((bar.get_x(), bar.get_height()) for bar in fig.axes[0].patches)
    heights = [height for _, height in bars]
    assert heights == sorted(heights, reverse=True)
    assert len(heights) == (tail()["instances"] > 0).sum()


def test_groups_are_told_apart_without_colour():
    fig = charts.accuracy_by_group_figure({"roi": table()})
    markers = {container[0].get_marker() for container in fig.axes[0].containers}
    assert len(markers) == 3
    lines = charts.noise_figure({"roi": curve()}).axes[0].lines
    assert len({line.get_marker() for line in lines}) == len(lines) == 2


def test_the_true_class_is_marked():
    fig = charts.soft_label_figure(*soft_label(12))
    hatches = [bar.get_hatch() for bar in fig.axes[1].patches]
    assert [i for i, hatch in enumerate(hatches) if hatch] == [1]
    assert len(hatches) == 10


def test_the_drawn_numbers_are_the_given_ones():
    given = curve()
    line = charts.noise_figure({"roi": given}).axes[0].lines[1]
    expected = given[given["k"] == 10]
    np.testing.assert_array_equal(line.get_xdata(), expected["scale"])
    np.testing.assert_array_equal(line.get_ydata(), expected["accuracy"])
