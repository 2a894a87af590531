"""The workbook's figures, from numbers alone: nothing here computes a result."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from PIL import Image

from richsem.workbook.figures import drawing, style


def frequency_figure(frame: pd.DataFrame) -> Figure:  # columns dataset, category, group, instances
    """Figure 3: instances by category and group, and the ratio of the most to the least of them."""
    names = list(dict.fromkeys(frame["dataset"]))
    fig, axes = drawing.grid(len(names), len(names), (3.6, 3.1))
    for ax, name in zip(axes, names, strict=True):
        _tail(ax, frame[frame["dataset"] == name], name)
    axes[0].set_ylabel("instances")
    return fig


def own_tail_figure(frame: pd.DataFrame) -> Figure:  # of `own_study.tail_frame`
    """Figure 3 of one set, and below it what each class gains; lines are the means of groups."""
    fig, (top, low) = plt.subplots(2, 1, figsize=(8.0, 5.6), sharex=True)
    _tail(top, frame, frame["dataset"].iloc[0])
    top.set(xlabel="", ylabel="instances")
    low.axhline(0, color="#999999", linewidth=0.8, zorder=0)
    for group, part in frame.dropna(subset="gain").groupby("group", sort=False):
        mean, points = part["gain"].mean(), part.rename_axis("place").reset_index()
        label = f"{style.GROUP_NAMES[group]}: {mean:+.1f} on average"
        style.points(low, points, "place", "gain", "group", label=label)
        look = {"color": style.GROUP_COLORS[group], "linestyle": style.GROUP_LINES[group]}
        low.hlines(mean, part.index.min(), part.index.max(), linewidth=2, **look)
    low.set(xlabel="categories, most frequent first", ylabel="gain of AP, points")
    low.xaxis.set_major_formatter(lambda place, _: f"{place + 1:.0f}")
    low.xaxis.get_major_locator().set_params(integer=True)
    low.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3)  # above the points
    return fig


def _tail(ax: Axes, frame: pd.DataFrame, title: str) -> None:
    part = frame[frame["instances"] > 0].sort_values("instances", ascending=False, kind="stable")
    part = part.reset_index(drop=True)
    for group, rows in part.groupby("group", sort=False):
        hatch = style.GROUP_HATCHES[group] if len(part) < 200 else ""
        look = {"color": style.GROUP_COLORS[group], "hatch": hatch, "edgecolor": "white"}
        label = f"{style.GROUP_NAMES[group]} ({len(rows)})"
        ax.bar(rows.index, rows["instances"], 1.0, linewidth=0.0, label=label, **look)
    most, least = part["instances"].max(), part["instances"].min()
    ax.set(yscale="log", title=title, xlabel="categories, most frequent first")
    ax.set_ylim(bottom=min(0.8, 0.8 * least))
    ax.set_title(f"{most / least:,.0f} : 1", loc="right", fontweight="normal", fontsize=10)
    ax.legend(loc="upper right", handlelength=1.2)
    ax.grid(axis="x", visible=False)


def noise_figure(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Figure 1: accuracy against the noise scale, a panel per `zero_shot.noise_curve`, by title."""
    fig, axes = drawing.grid(len(curves), len(curves), (4.4, 3.4), sharey=True)
    for ax, (title, curve) in zip(axes, curves.items(), strict=True):
        curve = curve.assign(k=[f"top-{k}" for k in curve["k"]])
        style.lines(ax, curve, "scale", "accuracy", "k", band=("ci_low", "ci_high"))
        ax.set(title=title, xlabel="noise scale of the box", ylim=(0, 100))
        ax.legend(loc="lower left")
    axes[0].set_ylabel("class-averaged accuracy (%)")
    return fig


def relative_noise_figure(curves: Mapping[str, pd.DataFrame], k: int) -> Figure:
    """The share of the clean accuracy that is left, all ways of reading in one panel."""
    fig, ax = plt.subplots(figsize=(5.2, 3.4))
    frame = pd.concat(curves, names=["reading"]).reset_index(level=0)
    style.lines(ax, frame[frame["k"] == k], "scale", "relative", "reading")
    ax.set(xlabel="noise scale of the box", ylabel=f"top-{k}, relative to clean boxes")
    ax.set_ylim(0, 1.05)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.legend(loc="lower left")
    return fig


def probe_figure(frame: pd.DataFrame) -> Figure:
    """Accuracy of the scarcity probe by frequency group (columns data, group and accuracy)."""
    fig, ax = plt.subplots(figsize=(5.6, 3.2))
    named = frame.assign(group=frame["group"].map(style.GROUP_NAMES))
    style.bars(ax, named, "group", "accuracy", "data")
    ax.set(ylabel="class-averaged accuracy (%)", ylim=(0, 100))
    return fig


def accuracy_by_group_figure(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Top-k accuracy of each group with intervals, a panel per `zero_shot.accuracy_table`."""
    fig, axes = drawing.grid(len(tables), len(tables), (3.8, 3.2), sharey=True)
    for ax, (title, table) in zip(axes, tables.items(), strict=True):
        ks = sorted(table["k"].unique())
        for i, group in enumerate(g for g in style.GROUPS if g in set(table["group"])):
            part = table[table["group"] == group].set_index("k").loc[ks]
            error = [part["accuracy"] - part["ci_low"], part["ci_high"] - part["accuracy"]]
            places = np.arange(len(ks)) + 0.12 * (i - 1)  # beside each other
            look = style.look_of("group", group, i) | {"linestyle": "none", "capsize": 3}
            ax.errorbar(places, part["accuracy"], yerr=error, **look)
        ax.set_xticks(range(len(ks)), [f"top-{k}" for k in ks])
        ax.set(title=title, ylim=(0, 100))
        ax.legend(loc="upper left")
    axes[0].set_ylabel("class-averaged accuracy (%)")
    return fig


def soft_label_figure(
    image: Image.Image,
    boxes: Mapping[str, Sequence[float]],  # title -> box xyxy in pixels
    labels: Mapping[str, tuple[Sequence[str], np.ndarray]],  # title -> (names, probabilities)
    true_name: str,  # class whose bar is highlighted
) -> Figure:
    """One image with some boxes and the ten most likely classes the teacher sees in each."""
    fig, axes = drawing.grid(1 + len(boxes), 1 + len(boxes), (3.2, 2.9))
    drawing.show(axes[0], image, f"annotated: {true_name}")
    for i, (ax, (title, box)) in enumerate(zip(axes[1:], boxes.items(), strict=True)):
        color, line = style.SERIES_COLORS[i], style.SERIES_LINES[i]
        drawing.outline(axes[0], box, color, 1.8, line, clip=False)
        names, probabilities = labels[title]
        style.probability_bars(ax, names[:10], probabilities[:10], color, true_name)
        ax.set(title=title)
    return fig
