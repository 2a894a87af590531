"""Drawing on pictures: bare axes, images in pixels, outlines and words that any ground can bear."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image

Pixels = Image.Image | np.ndarray  # [H, W, 3]
HALO = (withStroke(linewidth=2.2, foreground="white"),)  # makes words readable on any ground
DASHED = (0, (3, 2))
TITLE = {"fontsize": 9}
_RED = "#d62728"
_LINE = 0.055  # of the image's height: a name in a panel of a sheet
_ARROW, _ARROW_LENGTH = "#ffd500", 0.17  # of the image's side
_CANVAS_INCHES = 5.0  # longer side of a picture of its own: its words grow with it
_READABLE = 512  # pixels that this side has at least
_PANEL_INCHES = 12.0  # width of a sheet of six columns or more; fewer columns have larger panels


def grid(
    number: int, columns: int, panel: tuple[float, float], extra: float = 0.0, **layout: Any
) -> tuple[Figure, list[Axes]]:
    """Axes for `number` panels of (width, height) inches, row by row, and `extra` inches below.

    `layout` goes to `pyplot.subplots`: which axes are shared, ratios of widths.
    """
    rows = -(-number // columns)
    size = (panel[0] * columns, panel[1] * rows + extra)
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, **layout)
    for ax in axes.flat[number:]:
        ax.axis("off")
    return fig, list(axes.flat[:number])


def canvas(size: tuple[int, int]) -> tuple[Figure, Axes]:
    """One panel without margins, as many pixels wide and high as a picture, for saving as it is.

    Small pictures are enlarged by a whole factor, so that names fit in.
    """
    longer = max(size)
    dpi = longer * math.ceil(_READABLE / longer) / _CANVAS_INCHES
    scale = _CANVAS_INCHES / longer
    sides = (size[0] * scale, size[1] * scale)
    fig = plt.figure(figsize=sides, dpi=dpi, layout="none")
    return fig, fig.add_axes((0, 0, 1, 1))


def show(ax: Axes, image: Pixels, title: str = "", *, origin: tuple[int, int] = (0, 0)) -> None:
    """Shows an image [H, W, 3] without ticks; the axes' coordinates become its pixels.

    The left upper corner is at `origin`, for a part that is cut out of a larger image.
    """
    pixels = np.asarray(image)
    (height, width), (left, top) = pixels.shape[:2], origin
    extent = (left, left + width, top + height, top)
    ax.imshow(pixels, extent=extent, interpolation="bicubic")
    ax.set(xlim=extent[:2], ylim=extent[2:])
    strip(ax)
    ax.set_title(title, **TITLE)


def strip(ax: Axes) -> None:
    """Takes away all that a picture does not need."""
    ax.set(xticks=[], yticks=[])
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)


def outline(
    ax: Axes,
    box: Sequence[float] | np.ndarray,
    color: Any,
    width: float,
    line: Any = "solid",
    *,
    label: str | None = None,
    halo: Any = ("white", 0.85),
    alpha: float = 1.0,
    clip: bool = True,
) -> None:
    """Draws a box xyxy over a wider line of the colour `halo`, which shows it on any ground.

    A line that is not to `clip` shows in its full width on the edge of the axes, too.
    """
    left, top, right, bottom = (float(value) for value in box)
    looks = (
        {"edgecolor": halo, "linewidth": width + 1.6},
        {"edgecolor": color, "linewidth": width, "alpha": alpha, "linestyle": line, "label": label},
    )
    for look in looks:  # the halo is not dashed, so that dashes stand out on dark pictures too
        shape = Rectangle((left, top), right - left, bottom - top, fill=False, **look)
        shape.set(joinstyle="miter", clip_on=clip)
        ax.add_patch(shape)


def write(ax: Axes, place: tuple[float, float], words: str, **look: Any) -> None:
    """Writes words with a white rim at a place; underscores become spaces."""
    look = {"fontsize": 7, "fontweight": "bold", "annotation_clip": True} | look
    text = ax.annotate(words.replace("_", " "), place, path_effects=HALO, **look)
    text.set_in_layout(False)  # a long name must not shrink the pictures


def legend_below(fig: Figure, ax: Axes) -> None:
    """One row of the names that `ax` gives to its artists, below all panels."""
    handles, words = ax.get_legend_handles_labels()
    fig.legend(handles, words, loc="outside lower center", ncols=len(words), handlelength=1.8)


def contact_sheet(
    images: Sequence[Pixels],
    *,
    columns: int,
    boxes: Sequence[np.ndarray] | None = None,  # per image xyxy [n, 4] in absolute pixels
    labels: Sequence[Sequence[str]] | None = None,  # per image the n names
    rare: Sequence[np.ndarray] | None = None,  # per image a mask [n] of the boxes of rare classes
    titles: Sequence[str] | None = None,  # per image; an empty one takes no room
) -> Figure:
    """Images in rows of `columns`, with their boxes if there are any."""
    if not images or columns < 1:
        raise ValueError(f"a sheet needs images and columns, got {len(images)} and {columns}")
    per_image = {"boxes": boxes, "labels": labels, "rare": rare, "titles": titles}
    for name, values in per_image.items():
        if values is not None and len(values) != len(images):
            raise ValueError(f"{name} has {len(values)} entries for {len(images)} images")
    side = min(_PANEL_INCHES / columns, 2.6)
    fig, axes = grid(len(images), columns, (side, side + 0.25 * bool(titles)))
    for i, (ax, image) in enumerate(zip(axes, images, strict=True)):
        own = {name: None if v is None else v[i] for name, v in per_image.items()}
        title = own.pop("titles")
        draw_boxes(ax, image, own.pop("boxes"), **own)
        if title:
            ax.set_title(title, **TITLE)
    return fig


def draw_boxes(
    ax: Axes,
    image: Pixels,
    boxes_xyxy: np.ndarray | None = None,  # [n, 4] in absolute pixels
    labels: Sequence[str] | None = None,  # n names
    *,
    rare: np.ndarray | None = None,  # mask [n] of the boxes of rare classes
) -> None:
    """Shows an image with boxes: of rare classes solid and red, others dashed, as in Figure 4."""
    show(ax, image)
    boxes = np.reshape([] if boxes_xyxy is None else boxes_xyxy, (-1, 4)).astype(float)
    is_rare = np.zeros(len(boxes), dtype=bool) if rare is None else np.asarray(rare, dtype=bool)
    names = [""] * len(boxes) if labels is None else list(labels)
    if not len(boxes) == len(names) == len(is_rare):
        raise ValueError(f"{len(boxes)} boxes, {len(names)} labels, {len(is_rare)} entries of rare")
    written: list[tuple[float, float]] = []
    for i in np.argsort(is_rare, kind="stable"):  # rare ones on top
        look = (_RED, 1.8, "solid") if is_rare[i] else ("black", 1.2, DASHED)
        outline(ax, boxes[i], *look, clip=False)
        if names[i]:
            _name(ax, boxes[i], names[i], is_rare[i], written)


def draw_arrow(ax: Axes, box_xyxy: np.ndarray) -> None:
    """Points at a box from the side where there is most room; may begin outside of the image."""
    left, top, right, bottom = np.asarray(box_xyxy, dtype=float)
    width, height = ax.get_xlim()[1], ax.get_ylim()[0]
    x, y = (left + right) / 2, (top + bottom) / 2
    tips = {(left, y): (-1, 0), (right, y): (1, 0), (x, bottom): (0, 1), (x, top): (0, -1)}
    rooms = (left / width, 1 - right / width, 1 - bottom / height, top / height)
    tip, way = list(tips.items())[int(np.argmax(rooms))]
    tail = (tip[0] + _ARROW_LENGTH * width * way[0], tip[1] + _ARROW_LENGTH * height * way[1])
    look = {"facecolor": _ARROW, "edgecolor": "black", "linewidth": 0.8, "mutation_scale": 16}
    shape = {"arrowstyle": "simple", "shrinkA": 0, "shrinkB": 1, "clip_on": False, "zorder": 5}
    ax.add_patch(FancyArrowPatch(tail, tip, **shape, **look))


def _name(
    ax: Axes, box: np.ndarray, name: str, rare: bool, written: list[tuple[float, float]]
) -> None:
    """Writes the name above the box, or inside it where the image ends; never beyond an edge.

    Boxes that share a corner have their names below each other: `written` are the places taken.
    """
    left, top, right, _ = box
    width, height = ax.get_xlim()[1], ax.get_ylim()[0]
    leftmost = (left + right) / 2 < width / 2
    x, y = max(left, 0.0) if leftmost else min(right, width), max(top, 0.0)
    while any(abs(x - a) < 0.2 * width and abs(y - b) < _LINE * height for a, b in written):
        y += _LINE * height
    written.append((x, y))
    look = {"fontweight": "bold", "color": _RED} if rare else {"fontweight": "normal"}
    sides = {"ha": "left" if leftmost else "right", "va": "bottom" if top > 0.1 * height else "top"}
    write(ax, (x, y), name, fontsize=6.5, **sides, **look)
