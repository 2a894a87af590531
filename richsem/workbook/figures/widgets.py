"""Explorers for a live notebook: second views of a static figure that stands above them."""

import html
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import ipywidgets as widgets
import numpy as np
from PIL import Image, ImageDraw

from richsem.workbook.figures.style import SERIES_COLORS

_SIDE = 320  # pixels of the pictures


class _View(Protocol):
    """What the explorer shows; see `richsem.workbook.inspector.View`."""

    image: Image.Image
    crop: Image.Image
    true_box: tuple[float, ...]
    moved_box: tuple[float, ...]
    true_name: str
    names: tuple[str, ...]
    probabilities: np.ndarray


def soft_label_explorer(
    view: Callable[..., _View], boxes_per_image: Sequence[int], *, image: int | None = None
) -> widgets.Widget:
    """Sliders over image, box, noise scale and noise seed; the soft label follows at once.

    Args:
        view: `RegionInspector.view`, called with (image, box, scale=, seed=, mode=).
        boxes_per_image: Number of boxes of each image.
        image: The image shown first; by default the first one with a box.

    Raises:
        ValueError: This image, or every image, has no box.
    """
    usable = [i for i, number in enumerate(boxes_per_image) if number]
    image = next(iter(usable), None) if image is None else image
    if image not in usable:
        raise ValueError(f"image {image} has no box to explore; {len(usable)} images have one")
    controls = {
        "image": widgets.SelectionSlider(options=usable, value=image, description="image"),
        "box": widgets.IntSlider(0, 0, boxes_per_image[image] - 1, description="box"),
        "scale": widgets.FloatSlider(0.0, min=0.0, max=2.0, step=0.05, description="noise scale"),
        "seed": widgets.IntSlider(0, 0, 20, description="noise seed"),
        "mode": widgets.ToggleButtons(options=["roi", "crop"], description="region"),
    }
    scene, crop = widgets.Image(width=_SIDE), widgets.Image(width=_SIDE // 2)
    bars = widgets.HTML()

    def update(_: Any = None) -> None:
        seen = view(**{name: control.value for name, control in controls.items()})
        scene.value, crop.value = _png(_outlined(seen)), _png(seen.crop.resize((_SIDE // 2,) * 2))
        bars.value = _bars(seen)

    def choose_image(change: Any) -> None:
        box = controls["box"]
        before, box.max = box.value, boxes_per_image[change.new] - 1
        if box.value == before:  # or it was moved below the new maximum, which updates
            update()

    controls["image"].observe(choose_image, names="value")
    for name in ("box", "scale", "seed", "mode"):
        controls[name].observe(update, names="value")
    update()
    pictures = widgets.HBox([scene, widgets.VBox([widgets.HTML("what CLIP is given"), crop]), bars])
    return widgets.VBox([widgets.HBox([widgets.VBox(list(controls.values()))]), pictures])


class _Attention(Protocol):
    """What the attention explorer shows; see `detector_parts.AttentionPanel`."""

    image: np.ndarray
    locations: np.ndarray
    weights: np.ndarray
    reference: np.ndarray


def attention_explorer(
    panel: Callable[[str, int], _Attention], numbers: Mapping[str, int]
) -> widgets.Widget:
    """A choice of layers and a slider over their tokens or queries; the points follow at once.

    Args:
        panel: Called with a layer's name and a number below that of its queries.
        numbers: Layer -> number of its queries.

    Raises:
        ValueError: There is no layer.
    """
    if not numbers:
        raise ValueError("an explorer needs at least one layer to look at")
    layer = widgets.ToggleButtons(options=list(numbers), description="layer")
    number = widgets.IntSlider(0, 0, numbers[layer.value] - 1, description="query")
    picture, words = widgets.Image(width=2 * _SIDE), widgets.HTML()

    def update(_: Any = None) -> None:
        seen = panel(layer.value, number.value)
        picture.value, words.value = _png(_with_points(seen)), _level_words(seen.weights)

    def choose_layer(change: Any) -> None:
        before, number.max = number.value, numbers[change.new] - 1
        if number.value == before:  # or it was moved below the new maximum, which updates
            update()

    layer.observe(choose_layer, names="value")
    number.observe(update, names="value")
    update()
    return widgets.VBox([layer, number, widgets.HBox([picture, words])])


def _with_points(seen: _Attention) -> Image.Image:
    """The image with a query's reference and its points, an ellipse of the weight's area each."""
    height, width = seen.image.shape[:2]
    factor = 2 * _SIDE / max(height, width)
    size = (round(width * factor), round(height * factor))
    pixels = (255 * np.clip(seen.image, 0, 1)).astype(np.uint8)
    picture = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    reference = factor * seen.reference
    if len(reference) == 2:
        reference = np.concatenate([reference - 4, reference + 4])
    draw.rectangle(reference.tolist(), outline="white", width=3)
    average = seen.weights[0].size  # weights of a head sum to 1
    for level in range(seen.weights.shape[1]):
        places = factor * seen.locations[:, level].reshape(-1, 2)
        for (x, y), weight in zip(places, seen.weights[:, level].ravel(), strict=True):
            radius = 7 * float(weight * average) ** 0.5
            circle = (x - radius, y - radius, x + radius, y + radius)
            draw.ellipse(circle, fill=SERIES_COLORS[level], outline="white")
    return picture


def _level_words(weights: np.ndarray) -> str:
    """The share of the attention that goes to each level, in the colours of the points."""
    shares = weights.sum(-1).mean(0)
    rows = [
        f'<tr><td style="color:{SERIES_COLORS[level]}">&#9679;</td><td>level {level}</td>'
        f"<td>{100 * share:.0f} %</td></tr>"
        for level, share in enumerate(shares)
    ]
    return f'<div style="padding-left:12px">attention<table>{"".join(rows)}</table></div>'


def _outlined(seen: _View) -> Image.Image:
    factor = _SIDE / max(seen.image.size)
    size = (round(seen.image.width * factor), round(seen.image.height * factor))
    picture = seen.image.resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    for box, color in ((seen.true_box, "white"), (seen.moved_box, SERIES_COLORS[1])):
        draw.rectangle([factor * value for value in box], outline=color, width=3)
    return picture


def _bars(seen: _View) -> str:
    """The ten best classes as a bar list; the true one is marked with a tick, not colour alone."""
    rows = []
    for name, probability in zip(seen.names[:10], seen.probabilities[:10], strict=False):
        true = name == seen.true_name
        color = SERIES_COLORS[2] if true else SERIES_COLORS[0]
        rows.append(
            f'<tr><td style="text-align:right;padding-right:6px">{"&#10003; " * true}'
            f"{html.escape(name)}</td>"
            f'<td><div style="background:{color};height:12px;width:{180 * probability + 1:.0f}px">'
            f"</div></td><td>{100 * probability:.0f} %</td></tr>"
        )
    rank = seen.names.index(seen.true_name) + 1
    title = f"soft label; the true class, <b>{html.escape(seen.true_name)}</b>, is number {rank}"
    return f'<div style="padding-left:12px">{title}<table>{"".join(rows)}</table></div>'


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
