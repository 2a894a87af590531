"""Pictures of judged detections: everything drawn is named."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from figure_checks import legend, words

from richsem.workbook import error_verdicts as verdicts
from richsem.workbook.figures import error_pictures as pictures

pytestmark = pytest.mark.usefixtures("figure_style")


def test_examples_have_boxes_of_three_kinds():
    example = SimpleNamespace(
        image=np.zeros((20, 30, 3), dtype=np.uint8),
        origin=(100, 50),
        objects=np.array([[105, 55, 115, 65]]),
        object_names=["red_boat"],
        boxes=np.array([[105, 55, 116, 65], [100, 50, 105, 60], [110, 60, 120, 70]]),
        places=[0, 1, 1],
        verdicts=[verdicts.CORRECT, verdicts.WRONG_CLASS, verdicts.NOT_VERIFIED],
        names=["red_boat 0.90", "dog 0.50", "cat 0.20"],
        title="one",
    )
    fig = pictures.examples_figure([example, example, example], columns=2, name_objects=True)
    ax = fig.axes[0]
    assert words(ax) == ["red boat", "+ red boat 0.90", "x dog 0.50", "? cat 0.20"]
    assert [text.xyann[1] for text in ax.texts[1:]] == [0, 0, -8]  # two names at one place
    assert len({text.get_color() for text in ax.texts}) == 4
    assert len(ax.patches) == 2 * 3  # with their halos: an object, two places
    assert len({str(patch.get_linestyle()) for patch in ax.patches[3::2]}) == 2
    assert ax.get_xlim() == (100, 130)
    assert ax.get_ylim() == (70, 50)
    assert len(pictures.examples_figure([example], 1).axes[0].texts) == 3


def test_shares_fill_their_bars():
    shares = pd.DataFrame(
        1 / 9, index=["LVIS", "COCO"], columns=[*verdicts.VERDICTS, verdicts.MISSED]
    )
    ax = pictures.verdict_figure(shares, "share").axes[0]
    assert legend(ax) == [*verdicts.VERDICTS, verdicts.MISSED]
    assert max(patch.get_x() + patch.get_width() for patch in ax.patches) == pytest.approx(1)
    assert words(ax) == ["11%"] * 18
    shares[verdicts.MISSED] = 0.0
    assert verdicts.MISSED not in legend(pictures.verdict_figure(shares, "share").axes[0])


def test_curves_are_named():
    curve = pd.DataFrame({"recall": [0.5, 0.5, 1.0], "precision": [1.0, 0.5, 2 / 3]})
    ax = pictures.precision_recall_figure({"LVIS": curve, "COCO": curve}, "dog").axes[0]
    assert legend(ax) == ["LVIS", "COCO"]
    envelope = ax.lines[1].get_ydata()
    assert list(envelope) == pytest.approx([1, 1, 2 / 3, 2 / 3])


def test_groups_differ_by_more_than_colour():
    frame = pd.DataFrame(
        {"cap": [10, 300] * 3, "group": list("rrffcc"), "ap": np.arange(6.0), "error": "both"}
    )
    ax = pictures.cap_figure(frame, "kept").axes[0]
    assert legend(ax) == ["rare", "common", "frequent"]
    assert len({line.get_marker() for line in ax.lines}) == 3
    assert [text.get_text() for text in ax.get_xticklabels()] == ["10", "300"]


def test_a_point_and_a_mean_per_class():
    frame = pd.DataFrame({"group": list("rrffff"), "ap": [10.0, 30, 50, 50, 60, 80]})
    ax = pictures.class_ap_figure(frame).axes[0]
    assert words(ax) == ["mean 20.0", "mean 60.0"]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["rare (2)", "frequent (4)"]
    assert sum(len(c.get_offsets()) for c in ax.collections if len(c.get_offsets()) > 1) >= 6
    one = pd.DataFrame({"group": ["f"], "ap": [10.0]})
    assert words(pictures.class_ap_figure(one).axes[0]) == ["mean 10.0"]


def test_costs_by_error_and_group():
    frame = pd.DataFrame(
        [{"error": e, "group": g, "lost": 1.25} for e in verdicts.ERRORS for g in ("r", "f", "all")]
    )
    ax = pictures.lost_figure(frame).axes[0]
    assert [text.get_text() for text in ax.get_xticklabels()] == list(verdicts.ERRORS)
    assert len(ax.patches) == 3 * len(verdicts.ERRORS)
    assert legend(ax) == ["rare", "frequent", "all"]


def test_calibration_shows_numbers_below():
    frame = pd.DataFrame(
        {"group": ["r", "r"], "score": [0.1, 0.9], "correct": [0.0, 1.0], "number": [100, 3]}
    )
    above, below = pictures.calibration_figure(frame).axes
    assert legend(above) == ["score = share correct", "rare"]
    assert below.lines[0].get_ydata().tolist() == [100, 3]
