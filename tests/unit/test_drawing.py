"""Pictures with boxes: what is drawn where, and in which style."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image
from workbook_toys import outlines, titles

from richsem.workbook.figures import drawing as pictures

BOXES = np.array([[2, 3, 12, 9], [20, 1, 38, 25]], dtype=np.float32)


@pytest.fixture
def ax():
    with plt.style.context("default"):  # whatever style an earlier test has set
        yield plt.figure().add_subplot()
    plt.close("all")


def picture(width=40, height=30, value=128):
    return Image.new("RGB", (width, height), (value,) * 3)


def test_boxes_lie_at_their_pixels_and_need_no_names(ax):
    pictures.draw_boxes(ax, picture(), BOXES, ["a", "b"])
    assert [r.get_bbox().extents.tolist() for r in outlines(ax)] == BOXES.tolist()
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 40), (30, 0))
    pictures.draw_boxes(ax, np.zeros((30, 40, 3), np.uint8), BOXES)
    assert len(ax.texts) == 2  # the first two have names
    pictures.draw_boxes(ax, picture(), np.zeros((0, 4)), [], rare=np.zeros(0, bool))
    assert len(outlines(ax)) == 4


def test_a_box_that_begins_above_the_image_shows_its_name(ax):
    pictures.draw_boxes(ax, picture(), np.array([[3.0, -0.6, 12, 9]]), ["swimsuit"])
    (name,) = ax.texts
    assert name.get_tightbbox(ax.figure.canvas.get_renderer()) is not None and name.xy[1] == 0


def test_rare_is_red_solid_and_on_top_others_are_black_dashed(ax):
    pictures.draw_boxes(ax, picture(), BOXES, ["a", "b"], rare=np.array([True, False]))
    other, rare = outlines(ax)
    assert rare.get_bbox().extents.tolist() == BOXES[0].tolist()
    assert (to_hex(rare.get_ec()), rare.get_linestyle()) == ("#d62728", "solid")
    assert to_hex(other.get_ec()) == "#000000" and other.get_linestyle() != "solid"
    colors = {t.get_text(): to_hex(t.get_color()) for t in ax.texts}
    assert colors == {"a": "#d62728", "b": "#000000"}


@pytest.mark.parametrize("value", [0, 255])
def test_a_box_can_be_seen_on_black_and_on_white(ax, value):
    ax.set_position((0, 0, 1, 1))
    pictures.draw_boxes(ax, picture(value=value), BOXES[1:])
    ax.figure.canvas.draw()
    gray = np.asarray(ax.figure.canvas.buffer_rgba())[..., :3].mean(-1)
    # Three fifths of an outline of 84 units, 1.2 points wide, are half a percent of 40 by 30.
    assert (np.abs(gray - value) > 100).mean() > 0.003


def test_names_are_readable_inside_and_below_each_other_at_one_place(ax):
    boxes = [[0, 0, 10, 10], [30, 20, 40, 30]]
    pictures.draw_boxes(ax, picture(), boxes, ["car_(automobile)", "right"])
    first, second = ax.texts
    assert first.get_text() == "car (automobile)"
    assert (first.get_va(), second.get_va()) == ("top", "bottom")  # no room above the first
    assert (first.get_ha(), second.get_ha()) == ("left", "right")
    pictures.draw_boxes(ax, picture(), [[2, 10, 12, 20], [2, 10, 13, 20], [30, 10, 38, 20]], "abc")
    first, second, other = (t.get_position()[1] for t in ax.texts[2:])
    assert first == other == 10 and second >= first + 1.5


def test_a_sheet_has_rows_of_columns_and_empty_places(ax):
    images = [picture(), picture(20, 50), np.zeros((10, 10, 3), np.uint8)]
    fig = pictures.contact_sheet(
        images, columns=2,
        boxes=[BOXES, BOXES[:0], BOXES[:1]],
        labels=[["a", "b"], [], ["c"]],
        rare=[np.array([True, False]), np.zeros(0, bool), np.array([True])],
        titles=["one", "", "three"],
    )  # fmt: skip
    assert [len(outlines(ax)) for ax in fig.axes] == [2, 0, 1, 0]
    assert titles(fig) == ["one", "", "three", ""]
    fig.canvas.draw()
    plain = pictures.contact_sheet([picture()] * 7, columns=6)
    assert len(plain.axes) == 12 and plain.get_size_inches()[0] <= 12.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": 0}, "needs images and columns"),
        ({"columns": 2, "titles": ["a"]}, "titles has 1 entries for 2 images"),
        ({"columns": 2, "boxes": [BOXES]}, "boxes has 1 entries"),
        ({"columns": 2, "boxes": [BOXES] * 2, "labels": [["a"]] * 2}, "2 boxes, 1 labels"),
    ],
)
def test_lists_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        pictures.contact_sheet([picture()] * 2, **options)
