"""Pictures of what a detector is given: coarse boxes, mosaics, schedules; nothing is computed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke

from richsem.data.transforms import Picture
from richsem.workbook.figures.style import (
    GROUP_COLORS,
    GROUP_LINES,
    GROUP_MARKERS,
    GROUP_NAMES,
    GROUPS,
    SERIES_COLORS,
    SERIES_LINES,
    SERIES_MARKERS,
)

_WIDTH = 8.0  # inches of a row of five panels or more; fewer have panels of at most `_LARGEST`
_LARGEST = 1.5
_TARGET = {"edgecolor": SERIES_COLORS[1], "linewidth": 2.2, "linestyle": "solid"}
_TRUE = {"edgecolor": SERIES_COLORS[0], "linewidth": 1.8, "linestyle": (0, (3, 2))}
_OFF = "#777777"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One image with the boxes of its target, and those of its objects where these are known.

    Attributes:
        image: [H, W, 3].
        boxes_xyxy: The target in pixels [N, 4].
        names: What each box is called; equal boxes share one outline and list their names.
        true_boxes: Boxes of the objects in pixels [K, 4], which training does not know.
        title: Above the image.
        note: Below the image.
    """

    image: np.ndarray
    boxes_xyxy: np.ndarray | Sequence = ()
    names: Sequence[str] = ()
    true_boxes: np.ndarray | Sequence = ()
    title: str = ""
    note: str = ""

    @classmethod
    def of_target(cls, picture: Picture, names: Sequence[str], **words: str) -> "Panel":
        """A target whose labels are positions in `names`, with "?" for an unknown class."""
        called = ["?" if label < 0 else names[label] for label in picture.labels.tolist()]
        return cls(
            image=_pixels(picture), boxes_xyxy=picture.boxes_xyxy.numpy(), names=called, **words
        )

    @classmethod
    def of_known(cls, picture: Picture, **words: str) -> "Panel":
        """Coarse boxes (label 0) and the objects that are known to be in them (all others)."""
        coarse = picture.labels == 0
        boxes, objects = (picture.boxes_xyxy[rows].numpy() for rows in (coarse, ~coarse))
        return cls(image=_pixels(picture), boxes_xyxy=boxes, true_boxes=objects, **words)


def panel_figure(panels: Sequence[Panel], *, columns: int, row_names: Sequence[str] = ()) -> Figure:
    """Panels in rows: target boxes solid and orange, objects dashed and blue.

    Args:
        panels: Row by row.
        columns: Panels per row.
        row_names: A heading above each row.

    Raises:
        ValueError: No panels, or another number of headings than rows.
    """
    rows = -(-len(panels) // columns)
    if not panels or (row_names and len(row_names) != rows):
        raise ValueError(f"{len(panels)} panels in {rows} rows with {len(row_names)} headings")
    side = min(_WIDTH / columns, _LARGEST)
    parts = [panels[row * columns : (row + 1) * columns] for row in range(rows)]
    heights = [side + _text_height(part) + 0.3 * bool(row_names) for part in parts]
    fig = plt.figure(figsize=(side * columns, sum(heights)))
    for row, sub in enumerate(np.atleast_1d(fig.subfigures(rows, 1, height_ratios=heights))):
        _draw_row(sub, parts[row], columns)
        if row_names:
            sub.suptitle(row_names[row], x=0.01, ha="left", fontsize=10, fontweight="bold")
    return fig


def supervision_figure(panels: Mapping[str, Panel], switches: pd.DataFrame) -> Figure:
    """One image at every level of supervision and, below, the loss terms that each switches on.

    Args:
        panels: Level -> its picture.
        switches: Whether each term (line) is on at each level (column, named as in `panels`).
    """
    size = (1.3 * len(panels) + 1.3, 3.3)
    fig, axes = plt.subplots(
        2, len(panels), figsize=size, height_ratios=(1.05, 1), sharey="row", squeeze=False
    )
    for column, (level, panel) in enumerate(panels.items()):
        _draw_panel(axes[0, column], panel)
        axes[0, column].set_title(level, fontsize=10, loc="center")
        _draw_switches(axes[1, column], switches[level])
    return fig


def iou_figure(frame: pd.DataFrame) -> Figure:
    """Histograms of how well coarse boxes fit the objects, with the median of each.

    Args:
        frame: Columns source (lines of panels), stage (columns of panels), iou.
    """
    sources, stages = (list(dict.fromkeys(frame[name])) for name in ("source", "stage"))
    size = (2.7 * len(stages), 1.6 * len(sources) + 0.4)
    fig, axes = plt.subplots(
        len(sources), len(stages), figsize=size, sharex=True, sharey="row", squeeze=False
    )
    for row, source in enumerate(sources):
        for column, stage in enumerate(stages):
            values = frame[(frame["source"] == source) & (frame["stage"] == stage)]["iou"]
            ax = axes[row, column]
            _draw_histogram(ax, values.to_numpy(), SERIES_COLORS[row % len(SERIES_COLORS)])
            if row == 0:
                ax.set_title(stage)
        axes[row, 0].set_ylabel(f"{source}\nshare of objects")
    for ax in axes[-1]:
        ax.set_xlabel("IoU of coarse and true box")
    return fig


def yardstick_figure(curve: pd.DataFrame, levels: Mapping[str, float]) -> Figure:
    """The fit of coarse boxes, laid on the noise scale of Figure 1.

    Args:
        curve: Columns scale and iou, the median IoU of boxes shifted at each noise scale.
        levels: Median IoU of each kind of coarse box.
    """
    fig, ax = plt.subplots(figsize=(5.4, 3.0))
    ax.plot(curve["scale"], curve["iou"], color="black", marker="o", label="shifted true boxes")
    for i, (name, iou) in enumerate(levels.items()):
        style = {"color": SERIES_COLORS[i % 6], "linestyle": SERIES_LINES[1 + i % 5]}
        ax.axhline(iou, linewidth=1.8, label=f"{name}: {iou:.2f}", **style)
    ax.set(xlabel="noise scale of a box", ylabel="median IoU with the true box", ylim=(0, 1.02))
    ax.legend(loc="upper right")
    return fig


def size_figure(frame: pd.DataFrame) -> Figure:
    """How large objects are in the image that the detector sees, a curve per kind of image.

    Args:
        frame: Columns what, side (square root of the object's share of the image).
    """
    fig, ax = plt.subplots(figsize=(5.4, 2.9))
    edges = np.linspace(0, 1, 26)
    for i, (name, part) in enumerate(frame.groupby("what", sort=False)):
        weights = np.full(len(part), 1 / len(part))
        ax.hist(
            part["side"], edges, weights=weights, histtype="step", linewidth=2.2,
            color=SERIES_COLORS[i % 6], linestyle=SERIES_LINES[i % 4],
            label=f"{name} (median {part['side'].median():.2f})",
        )  # fmt: skip
    ax.set(xlabel="side of the object / side of the image", ylabel="share of objects", xlim=(0, 1))
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1))
    return fig


def shows_figure(frame: pd.DataFrame) -> Figure:
    """How often an epoch shows a class, against how many images it has; both axes logarithmic.

    Args:
        frame: Columns sampling, images, shows: a line per class and way of sampling. The first way
            is drawn as a line, the others as points.
    """
    fig, ax = plt.subplots(figsize=(5.2, 3.3))
    for i, (name, part) in enumerate(frame.groupby("sampling", sort=False)):
        part = part[part["images"] > 0].sort_values("images")
        look = {"linestyle": "none", "marker": SERIES_MARKERS[i % 6], "alpha": 0.75}
        if i == 0:
            look = {"linestyle": "-", "linewidth": 1.2, "color": "black"}
        else:
            look |= {"color": SERIES_COLORS[(i - 1) % 6], "markersize": 5}
        ax.plot(part["images"], part["shows"], label=name, **look)
    ax.set(xscale="log", yscale="log", xlabel="training images with the class")
    ax.set_ylabel("images with the class per epoch")
    ax.legend(loc="upper left")
    return fig


def timeline_figure(frame: pd.DataFrame) -> Figure:
    """Which set serves each optimiser step, a line per ratio; numbers count the set's own steps.

    Args:
        frame: Columns ratio, step, extra (bool), place (the set's own step).
    """
    ratios = list(dict.fromkeys(frame["ratio"]))
    num_steps = int(frame["step"].max()) + 1
    fig, ax = plt.subplots(figsize=(0.46 * num_steps + 1.8, 0.55 * len(ratios) + 0.8))
    for record in frame.itertuples(index=False):
        line = ratios.index(record.ratio)
        color, hatch = (SERIES_COLORS[1], "///") if record.extra else (SERIES_COLORS[0], "")
        ax.bar(record.step, 0.7, bottom=line - 0.35, width=0.92, color=color, hatch=hatch,
               edgecolor="white", linewidth=0)  # fmt: skip
        text = ax.text(record.step, line, str(record.place), ha="center", va="center", fontsize=9)
        text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
    kinds = {"detection batch": (SERIES_COLORS[0], ""), "extra batch": (SERIES_COLORS[1], "///")}
    ax.legend(
        [Patch(facecolor=c, hatch=h, edgecolor="white", lw=0) for c, h in kinds.values()],
        kinds, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, handlelength=2, handleheight=1.4,
    )  # fmt: skip
    ax.set_yticks(range(len(ratios)), ratios)
    ax.set_xticks(range(num_steps))
    ax.set(xlabel="optimiser step", ylim=(len(ratios) - 0.5, -0.5), xlim=(-0.6, num_steps - 0.4))
    ax.grid(visible=False)
    return fig


def drop_figure(frame: pd.DataFrame) -> Figure:
    """What is left of the long tail when annotations are dropped.

    Args:
        frame: Columns ratio, category, group, instances: a line per class and drop ratio. The
            first ratio gives the order of the classes.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.8, 2.9), width_ratios=(1.5, 1))
    ratios = list(dict.fromkeys(frame["ratio"]))
    table = frame.pivot(index="category", columns="ratio", values="instances")
    table = table.sort_values(ratios[0], ascending=False, kind="stable")
    for i, ratio in enumerate(ratios):
        left.plot(
            np.arange(len(table)), table[ratio], color=SERIES_COLORS[i % 6],
            linestyle=SERIES_LINES[i % 4], drawstyle="steps-mid", label=f"{ratio:.0%} dropped",
        )  # fmt: skip
    left.set(yscale="log", xlabel="classes, most frequent first", ylabel="instances")
    left.set_ylim(bottom=0.8)
    left.legend(loc="upper right")
    for group in [g for g in GROUPS if g in set(frame["group"])]:
        medians = frame[frame["group"] == group].groupby("ratio")["instances"].median()
        right.plot(
            medians.index, medians, color=GROUP_COLORS[group], marker=GROUP_MARKERS[group],
            linestyle=GROUP_LINES[group], label=GROUP_NAMES[group],
        )  # fmt: skip
    right.set(yscale="log", xlabel="share of annotations dropped", ylabel="instances, median class")
    right.set_ylim(bottom=0.8)
    right.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=3, handlelength=1.8, columnspacing=1.0
    )
    return fig


def _pixels(picture: Picture) -> np.ndarray:
    return picture.image.permute(1, 2, 0).numpy()


def _text_height(panels: Sequence[Panel]) -> float:
    """Inches of the longest title and note of a row."""
    lines = max(panel.note.count("\n") + 1 if panel.note else 0 for panel in panels)
    return 0.16 * lines + 0.24 * any(panel.title for panel in panels)


def _draw_row(part: SubFigure, panels: Sequence[Panel], columns: int) -> None:
    axes = part.subplots(1, columns, squeeze=False)[0]
    for ax in axes[len(panels) :]:
        ax.axis("off")
    for ax, panel in zip(axes, panels, strict=False):
        _draw_panel(ax, panel)


def _draw_panel(ax: Axes, panel: Panel) -> None:
    height, width = panel.image.shape[:2]
    ax.imshow(panel.image, extent=(0, width, height, 0), interpolation="bicubic")
    ax.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
    ax.set_anchor("N")
    ax.grid(visible=False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    boxes = np.reshape(panel.boxes_xyxy, (-1, 4)).astype(float)
    names = list(panel.names) or [""] * len(boxes)
    shared: dict[tuple[float, ...], list[str]] = {}
    for box, name in zip(boxes.tolist(), names, strict=True):
        shared.setdefault(tuple(box), []).append(name)
    for box in np.reshape(panel.true_boxes, (-1, 4)).astype(float):
        _outline(ax, box, _TRUE)
    for box, own in shared.items():
        _outline(ax, box, _TARGET)
        _write_names(ax, box, [name for name in own if name])
    ax.set_title(panel.title, fontsize=9)
    ax.set_xlabel(panel.note, fontsize=7.5)


def _outline(ax: Axes, box: Sequence[float], look: dict[str, Any]) -> None:
    left, top, right, bottom = box
    shape = {"xy": (left, top), "width": right - left, "height": bottom - top, "fill": False}
    halo = {"edgecolor": "white", "linewidth": look["linewidth"] + 1.6, "alpha": 0.85}
    for kind in (halo, look):  # white below, so that lines stand out on dark pictures too
        ax.add_patch(Rectangle(**shape, **kind, joinstyle="miter", clip_on=False))


def _write_names(ax: Axes, box: Sequence[float], names: Sequence[str]) -> None:
    """Writes the names of a box into its upper corner on the side where there is more room."""
    left, top, right, _ = box
    width = ax.get_xlim()[1]
    leftmost = (left + right) / 2 <= width / 2
    text = ax.text(
        left + 0.02 * width if leftmost else right - 0.02 * width,
        top + 0.02 * ax.get_ylim()[0],
        "\n".join(name.replace("_", " ") for name in names),
        ha="left" if leftmost else "right",
        va="top",
        fontsize=7,
        fontweight="bold",
    )
    text.set_path_effects([withStroke(linewidth=2.2, foreground="white")])
    text.set_in_layout(False)  # a long name must not shrink the pictures


def _draw_switches(ax: Axes, switches: pd.Series) -> None:
    places = np.arange(len(switches))
    for place, is_on in zip(places, switches.to_numpy(dtype=bool), strict=True):
        color = SERIES_COLORS[0] if is_on else "none"
        ax.scatter(0, place, s=80, facecolor=color, edgecolor=SERIES_COLORS[0] if is_on else _OFF)
        word = "on" if is_on else "off"
        ax.text(0.3, place, word, va="center", fontsize=8.5, color="black" if is_on else _OFF)
    ax.set(xlim=(-1.0, 1.4), xticks=[], ylim=(len(places) - 0.4, -0.6))
    ax.set_yticks(places, switches.index)
    ax.tick_params(length=0)
    ax.grid(visible=False)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _draw_histogram(ax: Axes, values: np.ndarray, color: str) -> None:
    weights = np.full(len(values), 1 / max(1, len(values)))
    edges = np.linspace(0, 1, 21)
    ax.hist(values, edges, weights=weights, color=color, alpha=0.8, edgecolor="white")
    median = float(np.median(values))
    ax.axvline(median, color="black", linestyle="--", linewidth=1.4)
    side = {"ha": "left", "x": 0.03} if median > 0.5 else {"ha": "right", "x": 0.97}
    ax.text(y=0.92, s=f"median {median:.2f}", va="top", transform=ax.transAxes, fontsize=9, **side)
