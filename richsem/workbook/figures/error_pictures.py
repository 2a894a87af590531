"""Pictures of judged detections: verdicts, curves and what errors cost; nothing is computed."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import PercentFormatter

from richsem.workbook.error_verdicts import (
    BACKGROUND,
    BAD_LOCATION,
    BOTH,
    CORRECT,
    DUPLICATE,
    MISSED,
    NOT_EXHAUSTIVE,
    NOT_VERIFIED,
    WRONG_CLASS,
)
from richsem.workbook.figures.style import (
    GROUP_COLORS,
    GROUP_LINES,
    GROUP_MARKERS,
    GROUP_NAMES,
    SERIES_COLORS,
    SERIES_LINES,
)

_BLUE, _ORANGE, _GREEN, _PURPLE, _BROWN, _GREY = SERIES_COLORS
_LOOKS = {  # colour and hatch
    CORRECT: (_BLUE, ""),
    WRONG_CLASS: (_ORANGE, "///"),
    BAD_LOCATION: (_GREEN, "\\\\\\"),
    BOTH: (_BROWN, "xxx"),
    DUPLICATE: (_PURPLE, "..."),
    BACKGROUND: ("#4d4d4d", ""),
    MISSED: ("#c9c9c9", "---"),
    NOT_VERIFIED: ("#d9d9d9", ""),
    NOT_EXHAUSTIVE: ("#d9d9d9", "ooo"),
}
_IGNORED = ("#555555", (0, (1, 1.2)), "?")
_BOXES = {  # how a detection is outlined and marked: right, wrong or not counted
    CORRECT: (_BLUE, "solid", "+"),
    NOT_VERIFIED: _IGNORED,
    NOT_EXHAUSTIVE: _IGNORED,
}
_WRONG = ("#b35900", (0, (4, 2)), "x")
_TRUE = ("black", "solid")


class _Example(Protocol):
    """What is shown; see `richsem.workbook.judging.Example`."""

    image: np.ndarray
    origin: tuple[int, int]
    objects: np.ndarray
    object_names: list[str]
    boxes: np.ndarray
    places: list[int]
    verdicts: list[str]
    names: list[str]
    title: str


def examples_figure(
    examples: Sequence[_Example], columns: int, *, name_objects: bool = False, side: float = 2.7
) -> Figure:
    """Images with objects (thin black lines) and detections.

    Correct ones are blue, solid and marked "+"; wrong ones brown, dashed, "x"; those that are not
    counted grey, dotted, "?". Detections at the same place share a box and list their names.

    Args:
        examples: Row by row.
        columns: Pictures per row.
        name_objects: Whether the objects' names are written, too.
        side: Inches of a picture.
    """
    rows = -(-len(examples) // columns)
    size = (side * columns, (side + 0.3) * rows)
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, example in zip(axes.flat, examples, strict=False):
        height, width = example.image.shape[:2]
        left, top = example.origin
        extent = (left, left + width, top + height, top)
        ax.imshow(example.image, extent=extent, interpolation="bicubic")
        for i, box in enumerate(example.objects):
            _outline(ax, box, *_TRUE, 0.9)
            if name_objects:
                _write(ax, box, example.object_names[i], "black", below=True)
        _draw_detections(ax, example)
        ax.set(xlim=extent[:2], ylim=extent[2:])
        ax.set_title(example.title, fontsize=9)
        ax.set_anchor("N")
    return fig


def verdict_figure(shares: pd.DataFrame, xlabel: str) -> Figure:
    """One bar per line, made of the shares of each verdict.

    Args:
        shares: Index names the bars; one column per verdict, values 0 to 1.
        xlabel: What the shares are shares of.
    """
    fig, ax = plt.subplots(figsize=(8.2, 0.52 * len(shares) + 1.7))
    places, left = np.arange(len(shares)), np.zeros(len(shares))
    for verdict in shares.columns[shares.max() > 0]:
        values = shares[verdict].to_numpy()
        color, hatch = _LOOKS[verdict]
        ax.barh(
            places, values, 0.7, left=left, color=color, hatch=hatch, edgecolor="white",
            linewidth=0.6, label=verdict,
        )  # fmt: skip
        for place, start, value in zip(places, left, values, strict=True):
            if value >= 0.06:
                text = ax.text(start + value / 2, place, f"{value:.0%}", ha="center", va="center")
                text.set(fontsize=8, path_effects=[withStroke(linewidth=2.4, foreground="white")])
        left = left + values
    ax.set_yticks(places, shares.index)
    ax.invert_yaxis()
    ax.set(xlabel=xlabel, xlim=(0, 1))
    ax.xaxis.set_major_formatter(PercentFormatter(1.0))
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, handlelength=1.4)
    ax.grid(axis="y", visible=False)
    return fig


def precision_recall_figure(curves: Mapping[str, pd.DataFrame], title: str) -> Figure:
    """Precision against recall of one class, a curve per judgement.

    Args:
        curves: Label -> columns recall and precision.
        title: The class.
    """
    fig, ax = plt.subplots(figsize=(5.4, 3.6))
    for i, (name, curve) in enumerate(curves.items()):
        envelope = curve["precision"][::-1].cummax()[::-1]
        look = {"color": SERIES_COLORS[i], "linestyle": SERIES_LINES[i]}
        ax.plot(curve["recall"], curve["precision"], alpha=0.35, linewidth=1, **look)
        recall, highest = [0.0, *curve["recall"]], [envelope.max(), *envelope]
        ax.plot(recall, highest, linewidth=2.2, label=name, **look)
    ax.set(title=title, xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.04))
    ax.legend(loc="best")
    return fig


def cap_figure(frame: pd.DataFrame, xlabel: str) -> Figure:
    """AP of each frequency group against the number of detections kept.

    Args:
        frame: Columns cap, group, ap.
        xlabel: Of what the cap is.
    """
    fig, ax = plt.subplots(figsize=(5.8, 3.5))
    for group, part in frame.groupby("group", sort=False):
        ax.plot(part["cap"], part["ap"], label=GROUP_NAMES[group], **_group_look(group))
    ax.set(xscale="log", xlabel=xlabel, ylabel="AP", ylim=(0, None))
    ax.set_xticks(sorted(frame["cap"].unique()), sorted(frame["cap"].unique()))
    ax.minorticks_off()
    ax.legend(loc="best")
    return fig


def class_ap_figure(frame: pd.DataFrame, xlabel: str = "AP") -> Figure:
    """AP of every class: a violin and a point per class in each frequency group, mean as a bar.

    Args:
        frame: Columns group, ap.
        xlabel: Names the protocol.
    """
    groups = [group for group in "rcf" if group in set(frame["group"])]
    fig, ax = plt.subplots(figsize=(6.8, 0.95 * len(groups) + 1.0))
    sns.violinplot(
        frame, x="ap", y="group", hue="group", order=groups, palette=GROUP_COLORS, inner=None,
        cut=0, density_norm="width", linewidth=0, alpha=0.25, legend=False, ax=ax,
    )  # fmt: skip
    for place, group in enumerate(groups):
        values = frame.loc[frame["group"] == group, "ap"].to_numpy()
        shift = 0.5 * ((np.arange(len(values)) * 0.618034) % 1 - 0.5)  # spread, never at random
        ax.scatter(
            values, place + shift, s=16, color=GROUP_COLORS[group], marker=GROUP_MARKERS[group],
            edgecolor="white", linewidth=0.4, zorder=3,
        )  # fmt: skip
        mean = values.mean()
        ax.plot([mean, mean], [place - 0.4, place + 0.4], color="black", linewidth=2, zorder=4)
        ax.text(mean, place - 0.42, f"mean {mean:.1f}", ha="center", va="bottom", fontsize=8.5)
    labels = [f"{GROUP_NAMES[g]} ({(frame['group'] == g).sum()})" for g in groups]
    ax.set_yticks(range(len(groups)), labels)
    ax.set(xlabel=xlabel, ylabel="", ylim=(len(groups) - 0.45, -0.75))
    ax.set_xlim(0, max(10.0, min(100.0, 1.1 * frame["ap"].max())))
    return fig


def lost_figure(frame: pd.DataFrame) -> Figure:
    """AP points that each kind of error costs, bars by frequency group.

    Args:
        frame: Columns error, group, lost.
    """
    errors, groups = (list(dict.fromkeys(frame[name])) for name in ("error", "group"))
    fig, ax = plt.subplots(figsize=(8.4, 3.5))
    width = 0.84 / len(groups)
    for i, group in enumerate(groups):
        part = frame[frame["group"] == group].set_index("error")["lost"].reindex(errors)
        x = np.arange(len(errors)) + (i - (len(groups) - 1) / 2) * width
        bars = ax.bar(
            x, part, width, color=GROUP_COLORS[group], label=GROUP_NAMES[group], edgecolor="white",
            hatch={"r": "///", "c": "...", "f": "", "all": "xx"}[group], linewidth=0.4,
        )  # fmt: skip
        ax.bar_label(bars, fmt="%.1f", padding=1, fontsize=7)
    ax.set_xticks(range(len(errors)), errors)
    ax.set_ylabel("AP50 points to be gained")
    ax.legend(loc="upper right", ncols=2)
    ax.grid(axis="x", visible=False)
    return fig


def calibration_figure(frame: pd.DataFrame) -> Figure:
    """How often a detection is right against its score, and how many detections there are.

    Args:
        frame: Columns group, score, correct, number.
    """
    fig, (ax, below) = plt.subplots(
        2, 1, figsize=(5.4, 4.8), sharex=True, height_ratios=(2.4, 1)
    )  # fmt: skip
    ax.plot([0, 1], [0, 1], color="#888888", linewidth=1, label="score = share correct")
    for group, part in frame.groupby("group", sort=False):
        label = GROUP_NAMES[group]
        ax.plot(part["score"], part["correct"], label=label, **_group_look(group))
        below.plot(part["score"], part["number"], **_group_look(group))
    ax.set(ylabel="share correct", ylim=(0, 1.02), xlim=(0, 1))
    below.set(xlabel="score", ylabel="detections", yscale="log")
    ax.legend(loc="upper left")
    return fig


def _group_look(group: str) -> dict[str, Any]:
    return {
        "color": GROUP_COLORS[group],
        "marker": GROUP_MARKERS[group],
        "linestyle": GROUP_LINES[group],
        "markersize": 5,
    }


def _outline(ax: Axes, box: np.ndarray, color: str, line: Any, width: float) -> None:
    left, top, right, bottom = box
    shape = {"xy": (left, top), "width": right - left, "height": bottom - top, "fill": False}
    for look in (
        {"edgecolor": "white", "linewidth": width + 1.4, "alpha": 0.8},
        {"edgecolor": color, "linewidth": width, "linestyle": line},
    ):
        ax.add_patch(Rectangle(**shape, **look, joinstyle="miter"))


def _draw_detections(ax: Axes, example: _Example) -> None:
    lines = dict.fromkeys(example.places, 0)  # names written at each place so far
    marked = zip(example.places, example.verdicts, example.names, strict=True)
    for i, (place, verdict, name) in enumerate(marked):
        color, line, mark = _BOXES.get(verdict, _WRONG)
        if place == i:
            _outline(ax, example.boxes[i], color, line, 2.0)
        _write(ax, example.boxes[place], f"{mark} {name}", color, row=lines.setdefault(place, 0))
        lines[place] += 1


def _write(
    ax: Axes, box: np.ndarray, name: str, color: str, *, row: int = 0, below: bool = False
) -> None:
    """A name in the upper left corner of a box, so many rows down; or in the lower corner."""
    corner, shift = (box[0], box[1]), (1, -8 * row)
    if below:
        corner, shift = (box[0], box[3]), (1, 1)
    text = ax.annotate(
        name.replace("_", " "), corner, shift, textcoords="offset points", annotation_clip=True,
        fontsize=7, fontweight="bold", color=color, ha="left", va="bottom" if below else "top",
    )  # fmt: skip
    text.set_path_effects([withStroke(linewidth=2.2, foreground="white")])
    text.set_in_layout(False)  # a long name must not shrink the pictures
