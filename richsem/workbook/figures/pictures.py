"""Pictures with boxes: rare classes solid and red, the others dashed black (as in Figure 4)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from richsem.workbook.figures import drawing

_RED = "#d62728"
_LINE = 0.055  # of the image's height: a name in a panel of a sheet
_ARROW, _ARROW_LENGTH = "#ffd500", 0.17  # of the image's side
_PANEL_INCHES = 12.0  # width of a sheet of six columns or more; fewer columns have larger panels


def contact_sheet(
    images: Sequence[drawing.Pixels],
    *,
    columns: int,
    boxes: Sequence[np.ndarray] | None = None,
    labels: Sequence[Sequence[str]] | None = None,
    rare: Sequence[np.ndarray] | None = None,
    titles: Sequence[str] | None = None,
) -> Figure:
    """Images in rows of `columns`, with their boxes if there are any.

    Args:
        images: PIL images or arrays [H, W, 3].
        columns: Images per row.
        boxes: Per image xyxy [n, 4] in absolute pixels.
        labels: Per image the n names; boxes without names if absent.
        rare: Per image a mask [n] of the boxes of rare classes.
        titles: Per image; an empty one takes no room.
    """
    if not images or columns < 1:
        raise ValueError(f"a sheet needs images and columns, got {len(images)} and {columns}")
    per_image = {"boxes": boxes, "labels": labels, "rare": rare, "titles": titles}
    for name, values in per_image.items():
        if values is not None and len(values) != len(images):
            raise ValueError(f"{name} has {len(values)} entries for {len(images)} images")
    side = min(_PANEL_INCHES / columns, 2.6)
    fig, axes = drawing.grid(len(images), columns, (side, side + 0.25 * bool(titles)))
    for i, (ax, image) in enumerate(zip(axes, images, strict=True)):
        own = {name: None if v is None else v[i] for name, v in per_image.items()}
        title = own.pop("titles")
        draw_boxes(ax, image, own.pop("boxes"), **own)
        if title:
            ax.set_title(title, **drawing.TITLE)
    return fig


def draw_boxes(
    ax: Axes,
    image: drawing.Pixels,
    boxes_xyxy: np.ndarray | None = None,
    labels: Sequence[str] | None = None,
    *,
    rare: np.ndarray | None = None,
) -> None:
    """Shows an image with boxes whose lines and names can be read on any background.

    Args:
        ax: Where to draw; its coordinates become the image's pixels.
        image: PIL image or array [H, W, 3].
        boxes_xyxy: [n, 4] in absolute pixels.
        labels: n names.
        rare: Mask [n] of the boxes of rare classes.
    """
    drawing.show(ax, image)
    boxes = np.reshape([] if boxes_xyxy is None else boxes_xyxy, (-1, 4)).astype(float)
    is_rare = np.zeros(len(boxes), dtype=bool) if rare is None else np.asarray(rare, dtype=bool)
    names = [""] * len(boxes) if labels is None else list(labels)
    if not len(boxes) == len(names) == len(is_rare):
        raise ValueError(f"{len(boxes)} boxes, {len(names)} labels, {len(is_rare)} entries of rare")
    written: list[tuple[float, float]] = []
    for i in np.argsort(is_rare, kind="stable"):  # rare ones on top
        look = (_RED, 1.8, "solid") if is_rare[i] else ("black", 1.2, drawing.DASHED)
        drawing.outline(ax, boxes[i], *look, clip=False)
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
    """Writes the name above the box, or inside it where the image ends; never beyond the sides.

    Boxes that share a corner have their names below each other: `written` are the places taken.
    """
    left, top, right, _ = box
    width, height = ax.get_xlim()[1], ax.get_ylim()[0]
    leftmost = (left + right) / 2 < width / 2
    x, y = max(left, 0.0) if leftmost else min(right, width), top
    while any(abs(x - a) < 0.2 * width and abs(y - b) < _LINE * height for a, b in written):
        y += _LINE * height
    written.append((x, y))
    look = {"fontweight": "bold", "color": _RED} if rare else {"fontweight": "normal"}
    sides = {"ha": "left" if leftmost else "right", "va": "bottom" if top > 0.1 * height else "top"}
    drawing.write(ax, (x, y), name, fontsize=6.5, **sides, **look)
