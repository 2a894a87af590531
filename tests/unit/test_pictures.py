"""Pictures with boxes: what is drawn where, and in which style."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from figure_checks import outlines
from matplotlib.colors import to_hex
from PIL import Image

from richsem.workbook.figures import drawing as pictures

BOXES = np.array([[2, 3, 12, 9], [20, 1, 38, 25]], dtype=np.float32)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture
def ax():
    with plt.style.context("default"):  # whatever style an earlier test has set
        yield plt.figure().add_subplot()


def picture(width=40, height=30, value=128):
    return Image.new("RGB", (width, height), (value,) * 3)


def test_boxes_lie_at_their_pixels(ax):
    pictures.draw_boxes(ax, picture(), BOXES, ["a", "b"])
    assert [r.get_bbox().extents.tolist() for r in outlines(ax)] == BOXES.tolist()
    assert ax.get_xlim() == (0, 40)
    assert ax.get_ylim() == (30, 0)


def test_rare_is_red_solid_and_on_top_others_are_black_dashed(ax):
    pictures.draw_boxes(ax, picture(), BOXES, ["a", "b"], rare=np.array([True, False]))
    other, rare = outlines(ax)
    assert rare.get_bbox().extents.tolist() == BOXES[0].tolist()
    assert (to_hex(rare.get_ec()), rare.get_linestyle()) == ("#d62728", "solid")
    assert to_hex(other.get_ec()) == "#000000"
    assert other.get_linestyle() != "solid"
    assert {t.get_text(): to_hex(t.get_color()) for t in ax.texts} == {
        "a": "#d62728",
        "b": "#000000",
    }


@pytest.mark.parametrize("value", [0, 255])
def test_a_box_can_be_seen_on_black_and_on_white(ax, value):
    ax.set_position((0, 0, 1, 1))
    pictures.draw_boxes(ax, picture(value=value), BOXES[1:])
    ax.figure.canvas.draw()
    gray = np.asarray(ax.figure.canvas.buffer_rgba())[..., :3].mean(-1)
    # Three fifths of an outline of 84 units, 1.2 points wide, are half a percent of 40 by 30.
    assert (np.abs(gray - value) > 100).mean() > 0.003


def test_names_are_readable_and_stay_inside(ax):
    boxes = [[0, 0, 10, 10], [30, 20, 40, 30]]
    pictures.draw_boxes(ax, picture(), boxes, ["car_(automobile)", "right"])
    first, second = ax.texts
    assert first.get_text() == "car (automobile)"
    assert (first.get_va(), second.get_va()) == ("top", "bottom")  # no room above the first
    assert (first.get_ha(), second.get_ha()) == ("left", "right")


def test_names_of_one_place_stand_below_each_other(ax):
    pictures.draw_boxes(ax, picture(), [[2, 10, 12, 20], [2, 10, 13, 20], [30, 10, 38, 20]], "abc")
    first, second, other = (t.get_position()[1] for t in ax.texts)
    assert first == other == 10
    assert second >= first + 1.5


def test_boxes_without_names_and_pictures_without_boxes(ax):
    pictures.draw_boxes(ax, np.zeros((30, 40, 3), np.uint8), BOXES)
    assert not ax.texts
    pictures.draw_boxes(ax, picture(), np.zeros((0, 4)), [], rare=np.zeros(0, bool))
    assert len(outlines(ax)) == 2


def test_a_sheet_has_rows_of_columns_and_empty_places(figures):
    images = [picture(), picture(20, 50), np.zeros((10, 10, 3), np.uint8)]
    fig = pictures.contact_sheet(
        images,
        columns=2,
        boxes=[BOXES, BOXES[:0], BOXES[:1]],
        labels=[["a", "b"], [], ["c"]],
        rare=[np.array([True, False]), np.zeros(0, bool), np.array([True])],
        titles=["one", "", "three"],
    )
    assert len(fig.axes) == 4
    assert [len(outlines(ax)) for ax in fig.axes] == [2, 0, 1, 0]
    titles = [ax.get_title() or ax.get_title(loc="left") for ax in fig.axes]
    assert titles == ["one", "", "three", ""]
    fig.canvas.draw()


def test_plain_sheet():
    fig = pictures.contact_sheet([picture()] * 7, columns=6)
    assert len(fig.axes) == 12
    assert fig.get_size_inches()[0] <= 12.5


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
