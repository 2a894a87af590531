"""Pictures of soft labels and losses are drawn from plain numbers, without warnings."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from figure_checks import assert_complete, assert_drawn
from PIL import Image

from richsem.workbook.figures import signal_charts

pytestmark = pytest.mark.usefixtures("figure_style")
NAMES = tuple(f"class {i}" for i in range(12))
FALLING = np.linspace(0.3, 0.0, 12)
PICTURE = Image.new("RGB", (40, 30))


def view(true=0, count=12):
    return SimpleNamespace(
        crop=PICTURE, true_name=NAMES[true], names=NAMES[:count], probabilities=FALLING[:count]
    )


def steps_table(groups="rcf"):
    table = pd.DataFrame({"images": [0, *np.geomspace(2, 900, 8)]})
    share = table["images"] / 1000
    table["group"] = [groups[i % len(groups)] for i in range(9)]
    return table.assign(present=share, absent=1 - share, drawn=0.2 * share, seen=0.2 * share)


def counts(groups="rcf"):
    rows = [(group, 5.0 * n, 1.0, 20.0) for n, group in enumerate(groups, start=1)]
    return pd.DataFrame(rows, columns=["group", "hard", "own", "others"])


def pulled():
    path = np.array([[0.5, 0.5], [0.9, 0.1], [0.999, 0.001]])
    targets = {"hard": np.array([1.0, 0.0]), "soft": np.array([0.7, 0.3])}
    paths = {"hard": path, "soft": path}
    return signal_charts.pull_figure(NAMES[:2], paths, targets, [0, 1, 8], 0.5)


def focal():
    shares = pd.DataFrame({"easy": [0.9, 0.02], "hard": [0.1, 0.98]}, index=["BCE", "focal"])
    p = np.linspace(0.01, 0.99, 5)
    curves = {"BCE": -np.log(p), "focal": -((1 - p) ** 2) * np.log(p)}
    return signal_charts.focal_figure(p, curves, shares)


def answers():
    boxes = np.array([[2, 2, 20, 20], [5, 5, 9, 9]])
    chosen = {"largest": [0, 0], "score": [1, 0]}
    return signal_charts.answers_figure([PICTURE] * 2, [boxes, boxes[:1]], chosen, ["a", "b"])


FIGURES = {
    "hard and soft": lambda: signal_charts.hard_and_soft_figure([view(), view(3), view()]),
    "a true class far behind": lambda: signal_charts.hard_and_soft_figure([view(11)]),
    "of few classes": lambda: signal_charts.hard_and_soft_figure([view(count=3)]),
    "bars": lambda: signal_charts.bars_figure({name: (NAMES, FALLING) for name in NAMES[:5]}),
    "bars of one": lambda: signal_charts.bars_figure(
        {"t": (NAMES[:2], FALLING[:2])}, marked=NAMES[0]
    ),
    "response": lambda: signal_charts.response_figure(
        FALLING, {"linear": np.zeros(12), "text": FALLING}, NAMES, 0
    ),
    "pull": pulled,
    "soft counts": lambda: signal_charts.soft_count_figure(counts()),
    "soft counts without rare classes": lambda: signal_charts.soft_count_figure(counts("cf")),
    "focal": focal,
    "federated": lambda: signal_charts.federated_figure(
        {"a": steps_table(), "b": steps_table("cf")}
    ),
    "answers": answers,
}


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_a_figure_is_drawn_without_warnings_and_can_be_closed(draw):
    assert_drawn(draw)


def test_every_public_figure_function_is_drawn_here():
    assert_complete(signal_charts, FIGURES)


def test_the_hard_label_is_shown_even_if_the_teacher_thinks_otherwise():
    fig = signal_charts.hard_and_soft_figure([view(11)])
    ticks = [text.get_text() for text in fig.axes[1].get_yticklabels()]
    assert ticks[-1] == NAMES[11] and len(ticks) == 7


def test_every_rule_outlines_its_box():
    fig = answers()
    outlines = [patch for patch in fig.axes[0].patches if patch.get_linewidth() == 2.2]
    assert [patch.get_xy()[0] for patch in outlines] == pytest.approx([2, 5], abs=1)


def test_a_student_s_bars_begin_at_the_start():
    bars = pulled().axes[1].patches  # after one step
    assert [bar.get_x() for bar in bars] == [0.5, 0.5]
    assert [bar.get_width() for bar in bars] == pytest.approx([0.4, -0.4])
