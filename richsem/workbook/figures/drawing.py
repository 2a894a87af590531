"""Drawing on pictures: bare axes, images in pixels, outlines and words that any ground can bear."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image

Pixels = Image.Image | np.ndarray
HALO = (withStroke(linewidth=2.2, foreground="white"),)  # makes words readable on any ground
DASHED = (0, (3, 2))
TITLE = {"fontsize": 9}


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
