"""Explorers for a live notebook: second views of a static figure that stands above them."""

import html
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as widgets
import numpy as np
from PIL import Image, ImageDraw

from richsem.workbook.figures.detector_parts import AttentionPanel
from richsem.workbook.figures.style import SERIES_COLORS
from richsem.workbook.zero_shot import View

_SIDE = 320  # pixels of the pictures


def soft_label_explorer(
    view: Callable[..., View], boxes_per_image: Sequence[int], *, image: int | None = None
) -> widgets.Widget:
    """Sliders over image, box, noise scale and noise seed; the soft label follows at once.

    `view` is `RegionInspector.view`; `image`, by default the first one with a box, is shown first.
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
    bars, given = widgets.HTML(), widgets.HTML()
    whats = {"crop": "what CLIP is given", "roi": "the box (CLIP reads it off its map of all)"}

    def update(_: Any = None) -> None:
        seen = view(**{name: control.value for name, control in controls.items()})
        picture, draw, factor = _enlarged(seen.image, _SIDE)
        for place, color in ((seen.true_box, "white"), (seen.moved_box, SERIES_COLORS[1])):
            draw.rectangle([factor * value for value in place], outline=color, width=3)
        scene.value, crop.value = _png(picture), _png(seen.crop.resize((_SIDE // 2,) * 2))
        bars.value, given.value = _bars(seen), whats[controls["mode"].value]

    _limit(controls["box"], controls["image"], boxes_per_image, update)
    for name in ("box", "scale", "seed", "mode"):
        controls[name].observe(update, names="value")
    update()
    pictures = widgets.HBox([scene, widgets.VBox([given, crop]), bars])
    return widgets.VBox([widgets.HBox([widgets.VBox(list(controls.values()))]), pictures])


def attention_explorer(
    panel: Callable[[str, int], AttentionPanel],  # of a layer's name and a query's number
    numbers: Mapping[str, int],  # layer -> number of its queries
) -> widgets.Widget:
    """A choice of layers and a slider over their tokens or queries; the points follow at once."""
    if not numbers:
        raise ValueError("an explorer needs at least one layer to look at")
    layer = widgets.ToggleButtons(options=list(numbers), description="layer")
    number = widgets.IntSlider(0, 0, numbers[layer.value] - 1, description="query")
    picture, words = widgets.Image(width=2 * _SIDE), widgets.HTML()

    def update(_: Any = None) -> None:
        seen = panel(layer.value, number.value)
        picture.value, words.value = _png(_with_points(seen)), _level_words(seen.weights)

    _limit(number, layer, numbers, update)
    number.observe(update, names="value")
    update()
    return widgets.VBox([layer, number, widgets.HBox([picture, words])])


def _limit(
    slider: widgets.IntSlider, choice: widgets.Widget, numbers: Any, update: Callable[[], None]
) -> None:
    """Keeps a slider below `numbers` of what is chosen, and updates once at each choice."""

    def choose(change: Any) -> None:
        before, slider.max = slider.value, numbers[change.new] - 1
        if slider.value == before:  # or it was moved below the new maximum, which updates
            update()

    choice.observe(choose, names="value")


def _enlarged(image: Image.Image, side: int) -> tuple[Image.Image, ImageDraw.ImageDraw, float]:
    """The image with a longer side of so many pixels, what draws on it, and how much it grew."""
    factor = side / max(image.size)
    size = (round(image.width * factor), round(image.height * factor))
    picture = image.resize(size, Image.Resampling.BICUBIC)
    return picture, ImageDraw.Draw(picture), factor


def _with_points(seen: AttentionPanel) -> Image.Image:
    """The image with a query's reference and its points, an ellipse of the weight's area each."""
    pixels = (255 * np.clip(seen.image, 0, 1)).astype(np.uint8)
    picture, draw, factor = _enlarged(Image.fromarray(pixels), 2 * _SIDE)
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
        f'<td style="color:{SERIES_COLORS[level]}">&#9679;</td><td>level {level}</td>'
        f"<td>{100 * share:.0f} %</td>"
        for level, share in enumerate(shares)
    ]
    return _table("attention", rows)


def _bars(seen: View) -> str:
    """The ten best classes as a bar list; the true one is marked with a tick, not colour alone."""
    rows = []
    for name, probability in zip(seen.names[:10], seen.probabilities[:10], strict=False):
        true = name == seen.true_name
        color = SERIES_COLORS[2] if true else SERIES_COLORS[0]
        width = f"{180 * probability + 1:.0f}px"
        rows.append(
            f'<td style="text-align:right;padding-right:6px">{"&#10003; " * true}'
            f'{html.escape(name)}</td><td><div style="background:{color};height:12px;'
            f'width:{width}"></div></td><td>{100 * probability:.0f} %</td>'
        )
    rank = seen.names.index(seen.true_name) + 1
    title = f"soft label; the true class, <b>{html.escape(seen.true_name)}</b>, is number {rank}"
    return _table(title, rows)


def _table(title: str, rows: Sequence[str]) -> str:
    lines = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<div style="padding-left:12px">{title}<table>{lines}</table></div>'


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
