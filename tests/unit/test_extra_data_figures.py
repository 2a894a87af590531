"""Pictures of targets and schedules: what is drawn where, in which style, without warnings."""

import numpy as np
import pandas as pd
import pytest
import torch
from figure_checks import assert_complete, assert_drawn, outlines, words
from matplotlib.colors import to_hex

from richsem.data.sampling import alternate
from richsem.data.transforms import Picture
from richsem.workbook.figures import extra_data
from richsem.workbook.figures.extra_data import TargetPanel
from richsem.workbook.figures.style import SERIES_COLORS

pytestmark = pytest.mark.usefixtures("figure_style")
BOXES = [[0, 0, 40, 30], [0, 0, 40, 30], [20, 1, 38, 25]]


def picture(labels=(1, 0, -1)):
    boxes = torch.tensor(BOXES[: len(labels)], dtype=torch.float32)
    image = torch.full((3, 30, 40), 128, dtype=torch.uint8)
    return Picture(image=image, boxes_xyxy=boxes, labels=torch.tensor(labels))


def panel(**words):
    return TargetPanel.of_target(picture(), ["hot_dog", "cat"], **words)


def fits():
    rng = np.random.default_rng(0)
    kinds = [(source, stage) for source in ("portraits", "scenes") for stage in ("whole", "tile")]
    rows = [(*kind, iou) for kind in kinds for iou in rng.random(30)]
    return pd.DataFrame(rows, columns=["source", "stage", "iou"])


def sizes():
    side = np.random.default_rng(0).random(40)
    return pd.DataFrame({"what": ["scenes", "mosaics"] * 20, "side": side})


def shows():
    rows = [(name, n, n * k) for k, name in ((1, "once"), (2, "t = 1")) for n in (0, 1, 10, 100)]
    return pd.DataFrame(rows, columns=["sampling", "images", "shows"])


def turns():
    rows = [(f"1 : {b}", step, *alternate(step, (1, b))) for b in (0, 1, 4) for step in range(8)]
    return pd.DataFrame(rows, columns=["ratio", "step", "extra", "place"])


def drops(groups="rcf"):
    classes = [(g, 3 * g + i, group) for g, group in enumerate(groups) for i in range(3)]
    rows = [
        (ratio, category, group, max(1, round((1 - ratio) * 10**g)))
        for ratio in (0.0, 0.5, 0.9)
        for g, category, group in classes
    ]
    return pd.DataFrame(rows, columns=["ratio", "category", "group", "instances"])


def switches():
    terms = {"boxes": True, "class": False, "soft": True}
    return pd.DataFrame({"unlabelled": terms, "detection": dict.fromkeys(terms, True)})


FIGURES = {
    "panels": lambda: extra_data.panel_figure([panel(title="a", note="b\nc")] * 3, columns=2),
    "panels in named rows": lambda: extra_data.panel_figure(
        [panel()] * 4, columns=2, row_names=["one", "two"]
    ),
    "supervision": lambda: extra_data.supervision_figure(
        {"unlabelled": panel(), "detection": panel()}, switches()
    ),
    "IoU": lambda: extra_data.iou_figure(fits()),
    "IoU of one kind": lambda: extra_data.iou_figure(fits()[:60]),
    "yardstick": lambda: extra_data.yardstick_figure(
        pd.DataFrame({"scale": [0.0, 1.0], "iou": [1.0, 0.4]}), {"scenes": 0.1, "tiles": 0.5}
    ),
    "sizes": lambda: extra_data.size_figure(sizes()),
    "shows": lambda: extra_data.shows_figure(shows()),
    "timeline": lambda: extra_data.timeline_figure(turns()),
    "drop": lambda: extra_data.drop_figure(drops()),
    "drop without rare classes": lambda: extra_data.drop_figure(drops("cf")),
}


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_a_figure_is_drawn_without_warnings_and_can_be_closed(draw):
    assert_drawn(draw)


def test_every_public_figure_function_is_drawn_here():
    assert_complete(extra_data, FIGURES)


def test_equal_boxes_share_an_outline_and_unknown_classes_a_question_mark():
    ax = extra_data.panel_figure([panel()], columns=1).axes[0]
    assert [line.get_bbox().extents.tolist() for line in outlines(ax)] == [BOXES[0], BOXES[2]]
    assert {line.get_linestyle() for line in outlines(ax)} == {"solid"}
    assert words(ax) == ["cat\nhot dog", "?"]


def test_known_objects_are_dashed_and_coarse_boxes_solid():
    ax = extra_data.panel_figure([TargetPanel.of_known(picture((0, 0, 1)))], columns=1).axes[0]
    looks = {
        tuple(line.get_bbox().extents): (to_hex(line.get_ec()), line.get_linestyle() == "solid")
        for line in outlines(ax)
    }
    assert looks == {
        tuple(BOXES[0]): (SERIES_COLORS[1], True),
        tuple(BOXES[2]): (SERIES_COLORS[0], False),
    }


def test_switches_are_told_in_words():
    fig = extra_data.supervision_figure({"unlabelled": panel(), "detection": panel()}, switches())
    below = fig.axes[2:]
    assert [words(ax) for ax in below] == [["on", "off", "on"], ["on", "on", "on"]]


def test_the_timeline_counts_each_sets_own_steps():
    ax = extra_data.timeline_figure(turns()).axes[0]
    bars = [bar for own in ax.containers for bar in own]
    shown = sorted(
        (round(bar.get_y() + 0.35), bar.get_x(), text.get_text(), bool(bar.get_hatch()))
        for bar, text in zip(bars, ax.texts, strict=True)
    )
    numbers, extra = zip(*(own[2:] for own in shown[8:16]), strict=True)  # of the second ratio
    assert numbers == tuple("00112233")
    assert extra == (False, True) * 4


def test_classes_are_in_the_order_of_the_first_ratio():
    lines = extra_data.drop_figure(drops()).axes[0].lines
    assert lines[0].get_ydata().tolist() == [100] * 3 + [10] * 3 + [1] * 3
    assert lines[2].get_ydata().tolist() == [10] * 3 + [1] * 6


@pytest.mark.parametrize(("panels", "rows"), [(0, ()), (3, ("one",))])
def test_impossible_sheets_are_refused(panels, rows):
    with pytest.raises(ValueError, match="panels"):
        extra_data.panel_figure([panel()] * panels, columns=2, row_names=rows)
