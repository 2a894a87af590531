"""The explorer: every control reaches the view, and no box is asked for that is not there."""

from types import SimpleNamespace

import ipywidgets
import numpy as np
import pytest
from PIL import Image

from richsem.workbook.figures.widgets import attention_explorer, soft_label_explorer

BOXES = (3, 0, 1, 5)


def views(calls):
    """Stands for `RegionInspector.view` and remembers what it was asked."""

    def view(image, box, *, scale, seed, mode):
        assert box < BOXES[image], "no such box"
        calls.append((image, box, scale, seed, mode))
        picture = Image.new("RGB", (60, 40), (40 * image, 40 * box, int(100 * scale)))
        names = ("dog", "fish & chips", *(f"class {i}" for i in range(20)))
        label = {"names": names, "probabilities": np.linspace(0.5, 0.01, 22)}
        places = {"true_box": (1.0, 2.0, 30.0, 20.0), "moved_box": (2.0, 3.0, 31.0, 22.0)}
        crop = picture.crop((0, 0, 10, 10))
        return SimpleNamespace(image=picture, crop=crop, true_name=names[1], **places, **label)

    return view


def inside(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from inside(child)


def opened(widget, calls):
    """An explorer with its controls by name, its pictures and the text that changes."""
    parts = list(inside(widget))
    controls = {p.description: p for p in parts if hasattr(p, "options") or hasattr(p, "max")}
    pictures = [part for part in parts if isinstance(part, ipywidgets.Image)]
    text = [part for part in parts if isinstance(part, ipywidgets.HTML)][-1]
    return SimpleNamespace(calls=calls, controls=controls, pictures=pictures, text=text)


@pytest.fixture
def explorer():
    calls = []
    return opened(soft_label_explorer(views(calls), BOXES), calls)


def test_something_is_shown_at_once_with_the_true_class_and_its_rank(explorer):
    assert explorer.calls == [(0, 0, 0.0, 0, "roi")]
    assert all(bytes(picture.value).startswith(b"\x89PNG") for picture in explorer.pictures)
    assert list(explorer.controls["image"].options) == [0, 2, 3]  # those with boxes
    text = explorer.text.value
    assert "number 2" in text and "&#10003; fish &amp; chips" in text
    assert (text.count("&#10003;"), text.count("<tr>")) == (1, 10)
    calls = []
    soft_label_explorer(views(calls), (0, 0, 1, 5))  # begins at the first image with a box
    assert calls[0][:2] == (2, 0)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("image", 3, (3, 0, 0.0, 0, "roi")), ("box", 2, (0, 2, 0.0, 0, "roi")),
        ("noise scale", 0.5, (0, 0, 0.5, 0, "roi")), ("noise seed", 4, (0, 0, 0.0, 4, "roi")),
        ("region", "crop", (0, 0, 0.0, 0, "crop")),
    ],
)  # fmt: skip
def test_a_control_updates_the_view_once(explorer, name, value, expected):
    before = [bytes(picture.value) for picture in explorer.pictures]
    explorer.controls[name].value = value
    assert explorer.calls[1:] == [expected]
    if name in ("image", "box", "noise scale"):
        assert [bytes(picture.value) for picture in explorer.pictures] != before


def test_an_image_with_fewer_boxes_moves_the_box(explorer):
    explorer.controls["box"].value = 2
    explorer.controls["image"].value = 2
    assert explorer.controls["box"].value == explorer.controls["box"].max == 0
    assert explorer.calls[2:] == [(2, 0, 0.0, 0, "roi")]
    explorer.controls["image"].value = 3
    explorer.controls["box"].value = 4
    assert explorer.calls[-1][:2] == (3, 4)


def test_an_image_without_boxes_and_a_detector_without_layers_are_refused():
    for boxes, image in (((0, 3), 0), ((0, 0), None), ((1, 2), 5)):
        with pytest.raises(ValueError, match="no box"):
            soft_label_explorer(views([]), boxes, image=image)
    with pytest.raises(ValueError, match="at least one layer"):
        attention_explorer(lambda layer, number: None, {})


@pytest.fixture
def looking():
    calls = []

    def panel(layer, number):
        calls.append((layer, number))
        reference = np.array([9.0, 9.0, 30.0, 20.0])[: 2 if layer == "encoder" else 4]
        look = {"locations": np.full((2, 3, 2, 2), 20.0), "weights": np.full((2, 3, 2), 1 / 6)}
        image = np.full((40, 60, 3), number / 10)
        return SimpleNamespace(image=image, reference=reference, **look)

    return opened(attention_explorer(panel, {"encoder": 8, "decoder": 4}), calls)


def test_the_first_query_of_the_first_layer_is_shown_and_another_is_another_picture(looking):
    assert looking.calls == [("encoder", 0)]
    assert bytes(looking.pictures[0].value).startswith(b"\x89PNG")
    assert looking.text.value.count("33 %") == 3
    before = bytes(looking.pictures[0].value)
    looking.controls["query"].value = 7
    assert looking.calls[1:] == [("encoder", 7)] and bytes(looking.pictures[0].value) != before


@pytest.mark.parametrize(("query", "expected"), [(2, ("decoder", 2)), (7, ("decoder", 3))])
def test_a_layer_with_fewer_queries_moves_the_query(looking, query, expected):
    looking.controls["query"].value = query
    looking.controls["layer"].value = "decoder"
    assert looking.controls["query"].max == 3 and looking.calls[2:] == [expected]
