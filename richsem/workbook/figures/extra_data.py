"""Pictures of what a detector is given: coarse boxes, mosaics, schedules; nothing is computed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from richsem.data.transforms import Picture
from richsem.workbook.figures import drawing, style

_WIDTH = 8.0  # inches of a row of five panels or more; fewer have panels of at most `_LARGEST`
_LARGEST = 1.5
_OFF = "#777777"


@dataclass(frozen=True, kw_only=True)
class TargetPanel:
    """One image with the boxes of its target, and those of its objects where these are known."""

    image: np.ndarray  # [H, W, 3]
    boxes_xyxy: np.ndarray | Sequence = ()  # the target in pixels [N, 4]
    names: Sequence[str] = ()  # of each box; equal boxes share one outline and list their names
    true_boxes: np.ndarray | Sequence = ()  # objects in pixels [K, 4], which training does not know
    title: str = ""  # above the image
    note: str = ""  # below the image

    @classmethod
    def of_target(cls, picture: Picture, names: Sequence[str], **words: str) -> "TargetPanel":
        """A target whose labels are positions in `names`, with "?" for an unknown class."""
        called = ["?" if label < 0 else names[label] for label in picture.labels.tolist()]
        boxes = picture.boxes_xyxy.numpy()
        return cls(image=_pixels(picture), boxes_xyxy=boxes, names=called, **words)

    @classmethod
    def of_known(cls, picture: Picture, **words: str) -> "TargetPanel":
        """Coarse boxes (label 0) and the objects that are known to be in them (all others)."""
        coarse = picture.labels == 0
        boxes, objects = (picture.boxes_xyxy[rows].numpy() for rows in (coarse, ~coarse))
        return cls(image=_pixels(picture), boxes_xyxy=boxes, true_boxes=objects, **words)


def panel_figure(
    panels: Sequence[TargetPanel], *, columns: int, row_names: Sequence[str] = ()
) -> Figure:
    """Panels in rows, perhaps with headings: targets solid and orange, objects dashed and blue."""
    rows = -(-len(panels) // columns)
    if not panels or (row_names and len(row_names) != rows):
        raise ValueError(f"{len(panels)} panels in {rows} rows with {len(row_names)} headings")
    side = min(_WIDTH / columns, _LARGEST)
    parts = [panels[row * columns : (row + 1) * columns] for row in range(rows)]
    heights = [side + _text_height(part) + 0.3 * bool(row_names) for part in parts]
    fig = plt.figure(figsize=(side * columns, sum(heights)))
    for row, sub in enumerate(np.atleast_1d(fig.subfigures(rows, 1, height_ratios=heights))):
        axes = sub.subplots(1, columns, squeeze=False)[0]
        for ax in axes[len(parts[row]) :]:
            ax.axis("off")
        for ax, panel in zip(axes, parts[row], strict=False):
            _draw_panel(ax, panel)
        if row_names:
            sub.suptitle(row_names[row], x=0.01, ha="left", fontsize=10, fontweight="bold")
    return fig


def supervision_figure(panels: Mapping[str, TargetPanel], switches: pd.DataFrame) -> Figure:
    """One image at every level of supervision and, below, whether each loss term is on there.

    The terms are the lines of `switches`, the levels its columns, named as in `panels`.
    """
    size = (1.3 * len(panels) + 1.3, 3.3)
    shape = {"height_ratios": (1.05, 1), "sharey": "row", "squeeze": False}
    fig, axes = plt.subplots(2, len(panels), figsize=size, **shape)
    for above, below, (level, panel) in zip(*axes, panels.items(), strict=True):
        _draw_panel(above, panel)
        above.set_title(level, fontsize=10, loc="center")
        _draw_switches(below, switches[level])
    return fig


def iou_figure(frame: pd.DataFrame) -> Figure:  # columns source (rows), stage (columns), iou
    """Histograms of how well coarse boxes fit the objects, with the median of each."""
    sources, stages = (list(dict.fromkeys(frame[name])) for name in ("source", "stage"))
    panels = [(source, stage) for source in sources for stage in stages]
    shared = {"sharex": True, "sharey": "row"}
    fig, axes = drawing.grid(len(panels), len(stages), (2.7, 1.6), 0.4, **shared)
    for ax, (source, stage) in zip(axes, panels, strict=True):
        values = frame.query("source == @source and stage == @stage")["iou"]
        look = {"color": style.SERIES_COLORS[sources.index(source) % 6], "edgecolor": "white"}
        bins = {"bins": 20, "binrange": (0, 1), "stat": "proportion"}
        sns.histplot(values, **bins, **look, ax=ax)
        median = values.median()
        ax.axvline(median, color="black", linestyle="--", linewidth=1.4)
        side = {"ha": "left", "x": 0.03} if median > 0.5 else {"ha": "right", "x": 0.97}
        words = {"va": "top", "transform": ax.transAxes, "fontsize": 9}
        ax.text(y=0.92, s=f"median {median:.2f}", **side, **words)
        ax.set(xlabel="IoU of coarse and true box", ylabel=f"{source}\nshare of objects")
        ax.set_title(stage if source == sources[0] else "")
        ax.label_outer()
    return fig


def yardstick_figure(curve: pd.DataFrame, levels: Mapping[str, float]) -> Figure:  # scale, iou
    """The median IoU of each kind of coarse box, laid on the noise scale of Figure 1."""
    fig, ax = plt.subplots(figsize=(5.4, 3.0))
    ax.plot(curve["scale"], curve["iou"], color="black", marker="o", label="shifted true boxes")
    for i, (name, iou) in enumerate(levels.items()):
        look = {"color": style.SERIES_COLORS[i % 6], "linestyle": style.SERIES_LINES[1 + i % 5]}
        ax.axhline(iou, linewidth=1.8, label=f"{name}: {iou:.2f}", **look)
    ax.set(xlabel="noise scale of a box", ylabel="median IoU with the true box", ylim=(0, 1.02))
    ax.legend(loc="upper right")
    return fig


def size_figure(frame: pd.DataFrame) -> Figure:  # columns what (kind), side
    """Side of objects, as part of that of the image that the detector sees, by kind of image."""
    fig, ax = plt.subplots(figsize=(5.4, 2.9))
    for i, (name, sides) in enumerate(frame.groupby("what", sort=False)["side"]):
        look = {"color": style.SERIES_COLORS[i % 6], "linestyle": style.SERIES_LINES[i % 6]}
        look |= {"linewidth": 2.2, "label": f"{name} (median {sides.median():.2f})"}
        share = np.full(len(sides), 1 / len(sides))
        ax.hist(sides, np.linspace(0, 1, 26), weights=share, histtype="step", **look)
    ax.set(xlabel="side of the object / side of the image", ylabel="share of objects", xlim=(0, 1))
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1))
    return fig


def shows_figure(frame: pd.DataFrame) -> Figure:  # columns sampling, images, shows
    """How often an epoch shows a class, against its images; the first way of sampling is a line."""
    fig, ax = plt.subplots(figsize=(5.2, 3.3))
    frame = frame[frame["images"] > 0]
    first = frame["sampling"] == frame["sampling"].iloc[0]
    line = frame[first].sort_values("images", kind="stable")
    name = line["sampling"].iloc[0]
    ax.plot(line["images"], line["shows"], color="black", linewidth=1.2, label=name)
    style.points(ax, frame[~first], "images", "shows", "sampling", s=40)
    ax.set(xscale="log", yscale="log", xlabel="training images with the class")
    ax.set_ylabel("images with the class per epoch")
    ax.legend(loc="upper left")
    return fig


def timeline_figure(frame: pd.DataFrame) -> Figure:  # ratio, step, extra (bool), place
    """Which set serves each optimiser step, a line per ratio; numbers count the set's own steps."""
    ratios = list(dict.fromkeys(frame["ratio"]))
    num_steps = int(frame["step"].max()) + 1
    fig, ax = plt.subplots(figsize=(0.46 * num_steps + 1.8, 0.55 * len(ratios) + 0.8))
    for extra, part in frame.groupby("extra"):
        look = {"color": style.SERIES_COLORS[int(extra)], "hatch": "///" if extra else ""}
        look |= {"label": "extra batch" if extra else "detection batch", "edgecolor": "white"}
        lines = part["ratio"].map(ratios.index)
        bars = ax.barh(lines, 0.92, 0.7, left=part["step"] - 0.46, linewidth=0, **look)
        numbers = {"label_type": "center", "fontsize": 9, "path_effects": drawing.HALO}
        ax.bar_label(bars, part["place"], **numbers)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, handlelength=2, handleheight=1.4)
    ax.set_yticks(range(len(ratios)), ratios)
    ax.set_xticks(range(num_steps))
    ax.set(xlabel="optimiser step", ylim=(len(ratios) - 0.5, -0.5), xlim=(-0.6, num_steps - 0.4))
    ax.grid(visible=False)
    return fig


def drop_figure(frame: pd.DataFrame) -> Figure:  # columns ratio, category, group, instances
    """What dropping annotations leaves of the long tail; the first ratio gives the order."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.8, 2.9), width_ratios=(1.5, 1))
    ratios = list(dict.fromkeys(frame["ratio"]))
    table = frame.pivot(index="category", columns="ratio", values="instances")[ratios]
    table = table.sort_values(ratios[0], ascending=False, kind="stable").reset_index(drop=True)
    tidy = table.rename(columns="{:.0%} dropped".format).melt(ignore_index=False).reset_index()
    look = {"marker": "", "drawstyle": "steps-mid"}
    style.lines(left, tidy, "index", "value", "ratio", **look)
    left.set(xlabel="classes, most frequent first", ylabel="instances")
    left.legend(loc="upper right")
    medians = frame.groupby(["group", "ratio"])["instances"].median().reset_index()
    style.lines(right, medians, "ratio", "instances", "group")
    right.set(xlabel="share of annotations dropped", ylabel="instances, median class")
    below = {"loc": "lower left", "bbox_to_anchor": (0, 1), "columnspacing": 1.0}
    right.legend(**below, ncols=3, handlelength=1.8)
    for ax in (left, right):
        ax.set_yscale("log")
        ax.set_ylim(bottom=0.8)
    return fig


def _pixels(picture: Picture) -> np.ndarray:
    return picture.image.permute(1, 2, 0).numpy()


def _text_height(panels: Sequence[TargetPanel]) -> float:
    """Inches of the longest title and note of a row."""
    lines = max(panel.note.count("\n") + 1 if panel.note else 0 for panel in panels)
    return 0.16 * lines + 0.24 * any(panel.title for panel in panels)


def _draw_panel(ax: Axes, panel: TargetPanel) -> None:
    drawing.show(ax, panel.image, panel.title)
    ax.set_anchor("N")
    ax.set_xlabel(panel.note, fontsize=7.5)
    boxes = np.reshape(panel.boxes_xyxy, (-1, 4)).astype(float)
    names = list(panel.names) or [""] * len(boxes)
    shared: dict[tuple[float, ...], list[str]] = {}
    for box, name in zip(boxes.tolist(), names, strict=True):
        shared.setdefault(tuple(box), []).append(name)
    for box in np.reshape(panel.true_boxes, (-1, 4)).astype(float):
        drawing.outline(ax, box, style.SERIES_COLORS[0], 1.8, drawing.DASHED, clip=False)
    for box, own in shared.items():
        drawing.outline(ax, box, style.SERIES_COLORS[1], 2.2, clip=False)
        _write_names(ax, box, [name for name in own if name])


def _write_names(ax: Axes, box: Sequence[float], names: Sequence[str]) -> None:
    """Writes the names of a box into its upper corner on the side where there is more room."""
    left, top, right, _ = box
    width, height = ax.get_xlim()[1], ax.get_ylim()[0]
    leftmost = (left + right) / 2 <= width / 2
    x = left + 0.02 * width if leftmost else right - 0.02 * width
    sides = {"ha": "left" if leftmost else "right", "va": "top"}
    drawing.write(ax, (x, top + 0.02 * height), "\n".join(names), **sides)


def _draw_switches(ax: Axes, switches: pd.Series) -> None:
    """A filled circle and "on", or a hollow one and "off", for each term."""
    for place, is_on in enumerate(switches):
        color, word = (style.SERIES_COLORS[0], "on") if is_on else (_OFF, "off")
        ax.scatter(0, place, s=80, facecolor=color if is_on else "none", edgecolor=color)
        ax.text(0.3, place, word, va="center", fontsize=8.5, color="black" if is_on else _OFF)
    drawing.strip(ax)
    ax.set(xlim=(-1.0, 1.4), ylim=(len(switches) - 0.4, -0.6))
    ax.set_yticks(range(len(switches)), switches.index)
    ax.tick_params(length=0)
