"""The explorer: every control reaches the view, and no box is asked for that is not there."""

from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib import pyplot as plt
from PIL import Image
from workbook_toys import opened, titles, words

from richsem.workbook.figures.charts import view_figure
from richsem.workbook.figures.widgets import attention_explorer, soft_label_explorer

BOXES = (3, 0, 1, 5)


def views(calls):
    """Stands for `RegionInspector.view` and remembers what it was asked."""

    def view(image, box, *, scale, seed, mode, nudge=(0.0, 0.0, 0.0, 0.0)):
        assert box < BOXES[image], "no such box"
        calls.append((image, box, scale, seed, mode, *(nudge if any(nudge) else ())))
        picture = Image.new("RGB", (60, 40), (40 * image, 40 * box, int(100 * scale)))
        names = ("dog", "fish & chips", *(f"class {i}" for i in range(20)))
        label = {"names": names, "probabilities": np.linspace(0.5, 0.01, 22)}
        places = {"true_box": (1.0, 2.0, 30.0, 20.0), "moved_box": (2.0, 3.0, 31.0, 22.0)}
        crop = picture.crop((0, 0, 10, 10))
        return SimpleNamespace(image=picture, crop=crop, true_name=names[1], **places, **label)

    return view


@pytest.fixture
def explorer():
    calls = []
    controls, picture = opened(soft_label_explorer(views(calls), BOXES))
    return SimpleNamespace(calls=calls, controls=controls, picture=picture)


def test_something_is_shown_at_once_and_the_figure_tells_the_rank_of_the_true_class(explorer):
    assert explorer.calls == [(0, 0, 0.0, 0, "roi")]
    assert explorer.picture.value.startswith('<img alt="')
    assert list(explorer.controls["image"].options) == [0, 2, 3]  # those with boxes
    calls = []
    soft_label_explorer(views(calls), (0, 0, 1, 5))
    assert calls[0][:2] == (2, 0)
    fig = view_figure(views([])(0, 0, scale=0.0, seed=0, mode="roi"))
    assert titles(fig)[1:] == ["what CLIP is given", "fish & chips is number 2"]
    assert words(fig.axes[2])[:2] == ["50%", "48%"] and len(fig.axes[2].patches) == 10
    plt.close(fig)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("image", 3, (3, 0, 0.0, 0, "roi")), ("box", 2, (0, 2, 0.0, 0, "roi")),
        ("noise scale", 0.5, (0, 0, 0.5, 0, "roi")), ("noise seed", 4, (0, 0, 0.0, 4, "roi")),
        ("region", "crop", (0, 0, 0.0, 0, "crop")),
        ("y", -0.5, (0, 0, 0.0, 0, "roi", 0.0, -0.5, 0.0, 0.0)),
        ("width", 1.0, (0, 0, 0.0, 0, "roi", 0.0, 0.0, 1.0, 0.0)),
    ],
)  # fmt: skip
def test_a_control_updates_the_view_once(explorer, name, value, expected):
    before = explorer.picture.value
    explorer.controls[name].value = value
    assert explorer.calls[1:] == [expected]
    if name in ("image", "box", "noise scale"):
        assert explorer.picture.value != before


def test_an_image_with_fewer_boxes_moves_the_box(explorer):
    explorer.controls["box"].value = 2
    explorer.controls["image"].value = 2
    assert explorer.controls["box"].value == explorer.controls["box"].max == 0
    assert explorer.calls[2:] == [(2, 0, 0.0, 0, "roi")]
    explorer.controls["image"].value = 3
    explorer.controls["box"].value = 4
    assert explorer.calls[-1][:2] == (3, 4)


def test_a_reset_brings_back_the_start_in_one_picture(explorer):
    first = explorer.picture.value
    moves = {"image": 3, "box": 4, "x": 0.5, "noise seed": 7, "region": "crop"}
    for name, value in moves.items():
        explorer.controls[name].value = value
    before = len(explorer.calls)
    explorer.controls["reset"].click()
    assert explorer.calls[before:] == explorer.calls[:1] and explorer.picture.value == first
    assert explorer.controls["box"].max == BOXES[0] - 1
    explorer.controls["reset"].click()  # nothing has moved since
    assert len(explorer.calls) == before + 1


def test_an_image_without_boxes_and_a_detector_without_layers_are_refused():
    for boxes, image in (((0, 3), 0), ((0, 0), None), ((1, 2), 5)):
        with pytest.raises(ValueError, match="no box"):
            soft_label_explorer(views([]), boxes, image=image)
    with pytest.raises(ValueError, match="at least one layer"):
        attention_explorer(lambda layer, number: None, {})


@pytest.fixture
def looking():
    plt.close("all")
    calls = []

    def draw(layer, number):
        calls.append((layer, number))
        fig, ax = plt.subplots(figsize=(1, 1))
        ax.plot([0, number])
        return fig

    controls, picture = opened(attention_explorer(draw, {"encoder": 8, "decoder": 4}))
    return SimpleNamespace(calls=calls, controls=controls, picture=picture)


def test_the_first_query_of_the_first_layer_is_shown_and_another_is_another_picture(looking):
    assert looking.calls == [("encoder", 0)]
    before = looking.picture.value
    looking.controls["query"].value = 7
    assert looking.calls[1:] == [("encoder", 7)] and looking.picture.value != before
    assert plt.get_fignums() == []


@pytest.mark.parametrize(("query", "expected"), [(2, ("decoder", 2)), (7, ("decoder", 3))])
def test_a_layer_with_fewer_queries_moves_the_query(looking, query, expected):
    looking.controls["query"].value = query
    looking.controls["layer"].value = "decoder"
    assert looking.controls["query"].max == 3 and looking.calls[2:] == [expected]
