"""Pictures with boxes: what is drawn where, and in which style."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image
from workbook_toys import outlines, titles

from richsem.workbook.figures import drawing as pictures
from richsem.workbook.panels import Panel

BOXES = np.array([[2, 3, 12, 9], [20, 1, 38, 25]], dtype=np.float32)


@pytest.fixture
def ax():
    with plt.style.context("default"):  # whatever style an earlier test has set
        yield plt.figure().add_subplot()
    plt.close("all")


def picture(width=40, height=30, value=128):
    return Image.new("RGB", (width, height), (value,) * 3)


def draw(ax, image, boxes, names=("", ""), rare=(False, False)):
    kinds = ["rare" if own else "other" for own in (*rare, *[False] * len(boxes))][: len(boxes)]
    pictures.draw_panel(ax, Panel(image=image, boxes_xyxy=boxes, names=names, kinds=kinds))


def test_boxes_lie_at_their_pixels_and_need_no_names(ax):
    draw(ax, picture(), BOXES, ["a", "b"])
    assert [r.get_bbox().extents.tolist() for r in outlines(ax)] == BOXES.tolist()
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 40), (30, 0))
    draw(ax, np.zeros((30, 40, 3), np.uint8), BOXES)
    assert len(ax.texts) == 2  # the first two have names
    draw(ax, picture(), np.zeros((0, 4)), [])
    assert len(outlines(ax)) == 4


def test_a_box_that_begins_above_the_image_shows_its_name(ax):
    draw(ax, picture(), np.array([[3.0, -0.6, 12, 9]]), ["swimsuit"])
    (name,) = ax.texts
    assert name.get_tightbbox(ax.figure.canvas.get_renderer()) is not None and name.xy[1] == 0


def test_rare_is_red_solid_and_on_top_others_are_black_dashed(ax):
    draw(ax, picture(), BOXES, ["a", "b"], rare=[True, False])
    other, rare = outlines(ax)
    assert rare.get_bbox().extents.tolist() == BOXES[0].tolist()
    assert (to_hex(rare.get_ec()), rare.get_linestyle()) == ("#d62728", "solid")
    assert to_hex(other.get_ec()) == "#000000" and other.get_linestyle() != "solid"
    colors = {t.get_text(): to_hex(t.get_color()) for t in ax.texts}
    assert colors == {"a": "#d62728", "b": "#000000"}
    draw(ax, picture(), BOXES[[0, 0, 0]], ["a", "b", "c"], rare=[True, False, False])
    assert [to_hex(r.get_ec()) for r in outlines(ax)[2:]] == ["#000000", "#d62728"]  # shared


@pytest.mark.parametrize("value", [0, 255])
def test_a_box_can_be_seen_on_black_and_on_white(ax, value):
    ax.set_position((0, 0, 1, 1))
    draw(ax, picture(value=value), BOXES[1:], [""])
    ax.figure.canvas.draw()
    gray = np.asarray(ax.figure.canvas.buffer_rgba())[..., :3].mean(-1)
    # Three fifths of an outline of 84 units, 1.2 points wide, are half a percent of 40 by 30.
    assert (np.abs(gray - value) > 100).mean() > 0.003


def test_names_are_readable_inside_and_below_each_other_at_one_place(ax):
    boxes = [[0, 0, 10, 10], [30, 20, 40, 30]]
    draw(ax, picture(), boxes, ["car_(automobile)", "right"])
    first, second = ax.texts
    assert first.get_text() == "car (automobile)"
    assert (first.get_va(), second.get_va()) == ("top", "bottom")  # no room above the first
    assert (first.get_ha(), second.get_ha()) == ("left", "right")
    draw(ax, picture(), [[2, 10, 12, 20], [2, 10, 13, 20], [30, 10, 38, 20]], "abc")
    draw(ax, picture(), [[1, 25, 9, 29], [3, 25, 14, 29]], ["a longer name", "another one"])
    ys = [t.xy[1] for t in ax.texts[2:]]
    assert ys[0] == ys[2] < ys[1] and ys[3] < ys[4]


def test_a_sheet_has_rows_of_columns_and_empty_places(ax):
    known = {"boxes_xyxy": BOXES, "names": ["a", "b"], "kinds": ["rare", "other"]}
    sheet = [Panel(image=picture(), title="one", **known), Panel(image=picture(20, 50))]
    fig = pictures.panel_figure([*sheet, Panel(image=np.zeros((9, 9, 3), np.uint8))], columns=2)
    assert [len(outlines(ax)) for ax in fig.axes] == [2, 0, 0, 0]
    assert titles(fig) == ["one", "", "", ""]
    fig.canvas.draw()
    plain = pictures.panel_figure([Panel(image=picture())] * 7, columns=6, side=2.0)
    assert len(plain.axes) == 12 and plain.get_size_inches()[0] <= 12.5
