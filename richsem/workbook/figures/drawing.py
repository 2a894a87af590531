"""Drawing on pictures: bare axes, images in pixels, outlines and words that any ground can bear."""

import io
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image

from richsem.workbook.figures.style import SERIES_COLORS
from richsem.workbook.panels import Panel

Pixels = Image.Image | np.ndarray  # [H, W, 3]
HALO = (withStroke(linewidth=2.2, foreground="white"),)  # makes words readable on any ground
DASHED = (0, (3, 2))
TITLE = {"fontsize": 9}
_RED, _BROWN, _GRAY = "#d62728", "#b35900", "#555555"
# Kind of box -> colour, width and line of its outline, and colour of its name.
LOOKS = {
    "rare": (_RED, 1.8, "solid", _RED),  # of a rare class, as in Figure 4
    "other": ("black", 1.2, DASHED, "black"),  # of another class
    "target": (SERIES_COLORS[1], 2.2, "solid", "black"),  # what a detector is told, or finds
    "object": (SERIES_COLORS[0], 1.8, DASHED, "black"),  # what it does not know
    "annotated": ("black", 0.9, "solid", "black"),  # what detections are judged by
    "right": (SERIES_COLORS[0], 2.0, "solid", SERIES_COLORS[0]),
    "wrong": (_BROWN, 2.0, (0, (4, 2)), _BROWN),
    "ignored": (_GRAY, 2.0, (0, (1, 1.2)), _GRAY),
}
_LINE, _LETTER = 0.115, 0.062  # inches of a line of names and, about, of a letter
_ARROW, _ARROW_LENGTH = "#ffd500", 0.17  # of the image's side
_CANVAS_INCHES = 5.0  # longer side of a picture of its own: its words grow with it
_READABLE = 512  # pixels that this side has at least


def grid(
    number: int, panel: tuple[float, float], columns: int = 0, extra: float = 0.0, **layout: Any
) -> tuple[Figure, list[Axes]]:
    """Axes for `number` panels of (width, height) inches, row by row, and `extra` inches below.

    Without `columns` all stand beside each other. `layout` goes to `pyplot.subplots`: which axes
    are shared, ratios of widths.
    """
    columns = columns or number
    rows = -(-number // columns)
    size = (panel[0] * columns, panel[1] * rows + extra)
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, **layout)
    for ax in axes.flat[number:]:
        ax.axis("off")
    return fig, list(axes.flat[:number])


def show(
    ax: Axes, image: Pixels, title: str = "", *, origin: tuple[int, int] = (0, 0), rim: float = 0
) -> None:
    """Shows an image [H, W, 3] without ticks; the axes' coordinates become its pixels.

    The left upper corner is at `origin`, for a part that is cut out of a larger image. A `rim`, in
    parts of the longer side, leaves room for what lies on the edge or beyond.
    """
    pixels = np.asarray(image)
    (height, width), (left, top) = pixels.shape[:2], origin
    right, foot, rim = left + width, top + height, rim * max(height, width)
    ax.imshow(pixels, extent=(left, right, foot, top), interpolation="bicubic")
    ax.set(xlim=(left - rim, right + rim), ylim=(foot + rim, top - rim))
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
    linestyle: Any = "solid",
    *,
    halo: tuple[str, float] = ("white", 0.85),
    **look: Any,
) -> None:
    """Draws a box xyxy over a wider line of the colour `halo`, which shows it on any ground.

    With `clip_on=False` it shows in its full width on the edge of the axes, too.
    """
    left, top, right, bottom = (float(value) for value in box)
    look |= {"edgecolor": color, "linewidth": width, "linestyle": linestyle, "fill": False}
    # The halo is not dashed, so that dashes stand out on dark pictures, too.
    wider = {"linewidth": width + 1.6, "dashes": {"dash_offset": 0, "dash_list": None}}
    look["path_effects"] = [withStroke(foreground=halo[0], alpha=halo[1], **wider)]
    ax.add_patch(Rectangle((left, top), right - left, bottom - top, joinstyle="miter", **look))


def write(ax: Axes, place: tuple[float, float], words: str, **look: Any) -> None:
    """Writes words with a white rim at a place; underscores become spaces."""
    look = {"fontsize": 7, "fontweight": "bold", "annotation_clip": True} | look
    look |= {"path_effects": HALO, "in_layout": False}  # a long name must not shrink the pictures
    ax.annotate(words.replace("_", " "), place, **look)


def legend_below(fig: Figure, ax: Axes) -> None:
    """One row of the names that `ax` gives to its artists, below all panels."""
    handles, words = ax.get_legend_handles_labels()
    looks = {"loc": "outside lower center", "ncols": len(words), "handlelength": 1.8}
    plt.setp(fig.legend(handles, words, **looks).legend_handles, path_effects=[])  # on white


def panel_figure(
    panels: Sequence[Panel], *, columns: int, side: float = 1.5, row_names: Sequence[str] = ()
) -> Figure:
    """Panels of some inches in rows, perhaps with headings; kinds of boxes look as in `LOOKS`.

    A title that stands above the panel in the row before is not repeated.
    """
    rows = -(-len(panels) // max(columns, 1))
    if not panels or columns < 1 or (row_names and len(row_names) != rows):
        raise ValueError(
            f"{len(panels)} panels in {columns} columns, {rows} rows with {len(row_names)} headings"
        )
    above = [*[""] * columns, *(panel.title for panel in panels)]
    panels = [
        replace(panel, title="") if panel.title == before else panel
        for panel, before in zip(panels, above, strict=False)
    ]
    parts = [panels[row * columns : (row + 1) * columns] for row in range(rows)]
    heights = []
    for part in parts:
        lines = max(len(panel.note.splitlines()) for panel in part)
        words = 0.16 * lines + 0.24 * any(panel.title for panel in part) + 0.3 * bool(row_names)
        heights.append(side + words)
    fig = plt.figure(figsize=(side * columns, sum(heights)))
    for row, sub in enumerate(np.atleast_1d(fig.subfigures(rows, 1, height_ratios=heights))):
        axes = sub.subplots(1, columns, squeeze=False)[0]
        for ax in axes[len(parts[row]) :]:
            ax.axis("off")
        for ax, panel in zip(axes, parts[row], strict=False):
            draw_panel(ax, panel)
        if row_names:
            sub.suptitle(row_names[row], x=0.01, ha="left", fontsize=10, fontweight="bold")
    return fig


def alone(panel: Panel) -> bytes:
    """A PNG of a panel without margins, as many pixels wide and high as its picture.

    Small pictures are enlarged by a whole factor, so that names fit in.
    """
    height, width = np.asarray(panel.image).shape[:2]
    scale = _CANVAS_INCHES / max(height, width)
    dpi = math.ceil(_READABLE / max(height, width)) / scale
    fig = plt.figure(figsize=(width * scale, height * scale), dpi=dpi, layout="none")
    draw_panel(fig.add_axes((0, 0, 1, 1)), panel)
    content = io.BytesIO()
    with plt.rc_context({"savefig.bbox": None}):  # the look of figures cuts margins off
        fig.savefig(content, format="png", dpi="figure")
    plt.close(fig)
    return content.getvalue()


def draw_panel(ax: Axes, panel: Panel) -> None:
    """Shows a picture with its boxes, rare ones on top; others at one place share an outline."""
    show(ax, panel.image, panel.title, origin=panel.origin)
    ax.set_anchor("N")
    if panel.note:  # not as a label of the axis, which explorers do not take for words
        ax.text(0.5, -0.03, panel.note, transform=ax.transAxes, fontsize=7.5, ha="center", va="top")
    boxes = np.reshape(panel.boxes_xyxy, (-1, 4)).astype(float).tolist()
    rows = [*zip(boxes, panel.names, panel.kinds, strict=True)]
    (left, right), (foot, top) = ax.get_xlim(), ax.get_ylim()
    written: list[tuple[float, float, float]] = []
    drawn: list[list[float]] = []
    for box, _, kind in sorted(rows, key=lambda row: row[2] == "rare"):
        if box not in drawn or kind == "rare":
            beyond = max(left - box[0], top - box[1], box[2] - right, box[3] - foot)
            outline(ax, box, *LOOKS[kind][:3], clip_on=beyond > 1)  # whole on an edge
            drawn.append(box)
    for box, name, kind in sorted(rows, key=lambda row: row[2] != "rare"):  # the first stay put
        if name:
            _name(ax, box, name, kind, written)
    for box in panel.arrows_xyxy:
        _draw_arrow(ax, box)


def _draw_arrow(ax: Axes, box_xyxy: np.ndarray) -> None:
    """Points at a box from the side where there is most room; may begin outside of the image."""
    left, top, right, bottom = np.asarray(box_xyxy, dtype=float)
    width, height = ax.get_xlim()[1], ax.get_ylim()[0]
    x, y = (left + right) / 2, (top + bottom) / 2
    tips = {(left, y): (-1, 0), (right, y): (1, 0), (x, bottom): (0, 1), (x, top): (0, -1)}
    # Names run above boxes, and inside towards the middle: from there only if there is more room.
    weights = (1, 0.5) if left + right < width else (0.5, 1)
    beside = np.array([left, width - right]) / width * weights
    rooms = (*beside, 1 - bottom / height, 0.4 * top / height)
    tip, way = list(tips.items())[int(np.argmax(rooms))]
    tail = (tip[0] + _ARROW_LENGTH * width * way[0], tip[1] + _ARROW_LENGTH * height * way[1])
    look = {"facecolor": _ARROW, "edgecolor": "black", "linewidth": 0.8, "mutation_scale": 16}
    shape = {"arrowstyle": "simple", "shrinkA": 0, "shrinkB": 1, "clip_on": False, "zorder": 2}
    ax.add_patch(FancyArrowPatch(tail, tip, **shape, **look))


def _name(
    ax: Axes, box: Sequence[float], name: str, kind: str, written: list[tuple[float, float, float]]
) -> None:
    """Writes the name above the box, or inside it where the image ends; never beyond an edge.

    A name that would lie over another one moves down: `written` are the left and right end and the
    middle of those that are there. What detections are judged by has its name at the foot.
    """
    (first, last), (end, begin) = ax.get_xlim(), ax.get_ylim()
    spec = ax.get_subplotspec()  # the axes' own size is not known before all are laid out
    rows = spec.get_gridspec().nrows if spec else 1
    inch = (end - begin) * rows * ax.figure.dpi / ax.figure.bbox.height  # in pixels
    (left, top, right, bottom), line = box, _LINE * inch
    leftmost = left + right < first + last
    at_foot = kind == "annotated"
    inside = not at_foot and top <= begin + 0.1 * (end - begin)
    x = max(left, first) if leftmost else min(right, last)
    y = min(bottom, end) if at_foot else max(top, begin)
    low = x if leftmost else x - _LETTER * len(name) * inch
    high = low + _LETTER * len(name) * inch
    middle = y + line / 2 if inside else y - line / 2
    while any(low < b and a < high and abs(middle - c) < line for a, b, c in written):
        y, middle = y + line, middle + line
    written.append((low, high, middle))
    look = {"color": LOOKS[kind][3], "fontweight": "normal" if kind == "other" else "bold"}
    sides = {"ha": "left" if leftmost else "right", "va": "top" if inside else "bottom"}
    write(ax, (x, y), name, fontsize=6.5, **sides, **look)
