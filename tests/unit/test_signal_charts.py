"""Pictures of soft labels and losses are drawn from plain numbers, without warnings."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from richsem.workbook.figures import signal_charts
from richsem.workbook.figures.style import apply_style

NAMES = tuple(f"class {i}" for i in range(12))
FALLING = np.linspace(0.3, 0.0, 12)
PICTURE = Image.new("RGB", (40, 30))


def view(true=0, count=12):
    return SimpleNamespace(
        crop=PICTURE, true_name=NAMES[true], names=NAMES[:count], probabilities=FALLING[:count]
    )


def steps_table(groups="rcf"):
    images = np.array([0, *np.geomspace(2, 900, 8)])
    share = images / 1000
    return pd.DataFrame(
        {
            "group": [groups[i % len(groups)] for i in range(9)],
            "images": images,
            "present": share,
            "absent": 1 - share,
            "drawn": 0.2 * share,
            "seen": 0.2 * share,
        }
    )


def counts(groups="rcf"):
    rows = [(group, 5.0 * n, 1.0, 20.0) for n, group in enumerate(groups, start=1)]
    return pd.DataFrame(rows, columns=["group", "hard", "own", "others"])


def pulled():
    path = np.array([[0.5, 0.5], [0.9, 0.1], [0.999, 0.001]])
    targets = {"hard": np.array([1.0, 0.0]), "soft": np.array([0.7, 0.3])}
    return signal_charts.pull_figure(
        NAMES[:2], {"hard": path, "soft": path}, targets, [0, 1, 8], 0.5
    )


def focal():
    shares = pd.DataFrame({"easy": [0.9, 0.02], "hard": [0.1, 0.98]}, index=["BCE", "focal"])
    p = np.linspace(0.01, 0.99, 5)
    return signal_charts.focal_figure(
        p, {"BCE": -np.log(p), "focal": -((1 - p) ** 2) * np.log(p)}, shares
    )


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


@pytest.fixture(autouse=True)
def style():
    apply_style()
    plt.close("all")
    yield
    plt.close("all")


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_a_figure_is_drawn_without_warnings(draw):
    fig = draw()
    assert isinstance(fig, Figure)
    fig.canvas.draw()


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
    assert [(bar.get_x(), bar.get_width()) for bar in bars] == [
        (0.5, pytest.approx(0.4)),
        (0.5, pytest.approx(-0.4)),
    ]
