"""The workbook's figures, from numbers alone: nothing here computes a result."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from richsem.workbook.figures import drawing, style
from richsem.workbook.zero_shot import View


def frequency_figure(frame: pd.DataFrame) -> Figure:  # columns dataset, category, group, instances
    """Figure 3: instances by category and group, and the ratio of the most to the least of them."""
    names = list(dict.fromkeys(frame["dataset"]))
    fig, axes = drawing.grid(len(names), (style.WIDTH, 1.9), 1)
    for ax, name in zip(axes, names, strict=True):
        tail(ax, frame[frame["dataset"] == name], name)
    fig.supxlabel("categories, most frequent first", fontsize="medium")
    return fig


def own_tail_figure(frame: pd.DataFrame) -> Figure:  # of `own_study.tail_frame`
    """Figure 3 of one set, and below it what each class gains; lines are the means of groups."""
    fig, (top, low) = plt.subplots(2, 1, figsize=(style.WIDTH, 4.6), sharex=True)
    tail(top, frame, frame["dataset"].iloc[0])
    low.axhline(0, color="#555555", linewidth=0.8, zorder=1)
    frame = frame.dropna(subset="gain").rename_axis("place").reset_index()
    for group, name, part in reversed(style.parts_of(frame, "group")):
        mean, look = part["gain"].mean(), style.look_of(group, "color", "linestyle")
        style.points(low, part, "place", "gain", "group", label=f"{name}: {mean:+.1f}")
        low.hlines(mean, part["place"].min(), part["place"].max(), linewidth=2, **look)
    low.set(xlabel="categories, most frequent first", ylabel="gain of AP, points")
    low.xaxis.set_major_formatter(lambda place, _: f"{place + 1:.0f}")
    low.xaxis.get_major_locator().set_params(integer=True)
    look = {"ncols": 3, "handlelength": 1.0, "title": "mean gain"}
    low.legend(loc="lower center", bbox_to_anchor=(0.5, 1), **look)  # above the points
    return fig


def tail(ax: Axes, frame: pd.DataFrame, title: str) -> None:
    """Bars of `instances` by `group`, from the most frequent class down, and the tail's length."""
    part = frame[frame["instances"] > 0].sort_values("instances", ascending=False, kind="stable")
    part = part.reset_index(drop=True)
    groups, most, least = part["group"], part["instances"].max(), part["instances"].min()
    for group, number in groups.value_counts(sort=False).items():
        look = style.look_of(group, "color", *(["hatch"] if len(part) < 200 else []))
        look |= {"edgecolor": "white", "linewidth": 0, "fill": True}
        look |= {"label": f"{style.GROUP_NAMES[group]} ({number})"}
        heights = part["instances"].where(groups == group)
        ax.stairs(heights, np.arange(len(part) + 1) - 0.5, **look)  # drawn faster than bars
    ax.set(yscale="log", title=title, ylabel="instances")
    ax.set_ylim(bottom=min(0.8, 0.8 * least))
    ax.set_title(f"{most / least:,.0f} : 1", loc="right", fontweight="normal", fontsize=10)
    ax.legend(loc="upper right", handlelength=1.2)
    ax.grid(axis="x", visible=False)


def lines_figure(
    frame: pd.DataFrame,
    x: str,
    y: str,
    by: str,
    *,
    panel: str = "",  # column with the titles of panels
    columns: int = 0,  # of panels; by default all stand beside each other
    size: tuple[float, float] = (5.2, 3.4),  # of a panel, inches
    loc: str = "best",  # of the first panel's legend
    band: Sequence[str] = (),  # columns that a band is drawn between
    look: Mapping[str, Any] | None = None,  # of the lines, see `style.lines`
    **axes: Any,  # what is set on the axes: labels, limits, scales, ticks
) -> Figure:
    """A line for each value of the column `by`; panels share x with a label, and y with limits."""
    parts = dict(list(frame.groupby(panel, sort=False))) if panel else {"": frame}
    shared = {"sharex": "xlabel" in axes, "sharey": "ylim" in axes}
    fig, places = drawing.grid(len(parts), size, columns, **shared)
    look = {"band": band, "order": frame[by].unique()} | (look or {})
    for ax, (title, part) in zip(places, parts.items(), strict=True):
        style.lines(ax, part, x, y, by, **look)
        ax.set(title=style.printed(title), **axes)
        if "ylim" in axes or (columns == 1 and "xlabel" in axes):
            ax.label_outer()
        if "xticks" in axes:
            ax.minorticks_off()
        if axes.get("yscale") == "log":
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.yaxis.set_major_formatter("{x:g}")
            ax.yaxis.set_minor_formatter(NullFormatter())
    places[0].legend(loc=loc)
    return fig


def bars_figure(
    frame: pd.DataFrame,
    x: str,
    y: str,
    by: str,
    *,
    size: tuple[float, float] = (5.6, 3.2),  # inches
    digits: int = 0,  # of the heights, which are written above
    **axes: Any,  # what is set on the axes
) -> Figure:
    """Bars for each value of `x`, one beside another by the column `by`."""
    fig, ax = plt.subplots(figsize=size)
    kinds, parts = list(frame[x].unique()), style.parts_of(frame.dropna(subset=y), by)
    for place, (of, _, part) in enumerate(parts):
        width = 0.84 / len(parts)
        left = part[x].map(kinds.index) - 0.42 + place * width
        look = style.look_of(of, "color", "hatch") | {"edgecolor": "white", "align": "edge"}
        bars = ax.bar(left, part[y], width, **look)
        ax.bar_label(bars, fmt=f"%.{digits}f", padding=1, fontsize=8)
    ax.legend(ax.containers, [name for _, name, _ in parts], handlelength=1.8)
    ax.set_xticks(range(len(kinds)), [style.printed(str(kind)) for kind in kinds])
    ax.grid(axis="x", visible=False)
    ax.set(**{"xlim": (-0.5, len(kinds) - 0.5), "ylabel": y} | axes)
    return fig


def soft_label_figure(views: Mapping[str, View]) -> Figure:
    """One image with a box per view, and by title the ten classes likeliest in each."""
    fig, (scene, *axes) = drawing.grid(1 + len(views), (3.2, 2.9))
    first = next(iter(views.values()))
    drawing.show(scene, first.image, f"annotated: {first.true_name}")
    for i, (ax, (title, seen)) in enumerate(zip(axes, views.items(), strict=True)):
        look = style.look_of(i, "color", "linestyle")
        drawing.outline(scene, seen.moved_box, width=1.8, clip_on=False, **look)
        style.probability_bars(ax, seen.names[:10], seen.probabilities[:10], i, seen.true_name)
        ax.set(title=title)
    return fig


def view_figure(seen: View, given: str = "what CLIP is given") -> Figure:
    """A box as annotated (white) and as CLIP is asked about it, its pixels and its soft label."""
    fig, (scene, crop, ax) = drawing.grid(3, (3.0, 3.0), width_ratios=(1.2, 0.7, 1.1))
    names, values = seen.names[:10], seen.probabilities[:10]
    drawing.show(scene, seen.image)
    for box, color in ((seen.true_box, "white"), (seen.moved_box, style.SERIES_COLORS[1])):
        drawing.outline(scene, box, color, 2.0, halo=("black", 0.6))
    drawing.show(crop, seen.crop, given)
    style.probability_bars(ax, names, values, 1, seen.true_name)
    ax.bar_label(ax.containers[0], [f"{value:.0%}" for value in values], padding=2, fontsize=8)
    plt.setp(ax.get_yticklabels(), in_layout=False)  # names of any length have the same room
    fig.set_layout_engine("constrained", wspace=0.35)
    rank = seen.names.index(seen.true_name) + 1
    ax.set_title(f"{seen.true_name} is number {rank}", **drawing.TITLE)
    return fig
