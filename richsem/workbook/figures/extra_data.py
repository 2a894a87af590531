"""Pictures of what a detector is given: coarse boxes, mosaics, schedules; nothing is computed."""

from collections.abc import Mapping
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from richsem.workbook.figures import drawing, style
from richsem.workbook.panels import Panel


def supervision_figure(panels: Mapping[str, Panel], switches: pd.DataFrame) -> Figure:
    """One image at every level of supervision and, below, whether each loss term is on there.

    The terms are the lines of `switches`, the levels its columns, named as in `panels`.
    """
    fig = plt.figure(figsize=(1.3 * len(panels) + 1.3, 3.6))
    places = fig.add_gridspec(2, len(panels), height_ratios=(1.05, 1))
    for place, (level, panel) in enumerate(panels.items()):
        drawing.draw_panel(fig.add_subplot(places[0, place]), replace(panel, title=level))
    words = np.where(switches[list(panels)], "on", "off")
    look = {"cmap": ["#f2f2f2", style.SERIES_COLORS[0]], "linewidths": 2, "fmt": "", "cbar": False}
    look |= {"annot": words, "xticklabels": False}
    sns.heatmap(switches[list(panels)], **look, ax=fig.add_subplot(places[1, :]))
    return fig


def iou_figure(frame: pd.DataFrame) -> Figure:  # columns source (rows), stage (columns), iou
    """Histograms of how well coarse boxes fit the objects, with the median of each."""
    sources, stages = (list(dict.fromkeys(frame[name])) for name in ("source", "stage"))
    panels = [(source, stage) for source in sources for stage in stages]
    shared = {"sharex": True, "sharey": "row"}
    fig, axes = drawing.grid(len(panels), (2.7, 1.6), len(stages), 0.4, **shared)
    for ax, (source, stage) in zip(axes, panels, strict=True):
        values = frame.query("source == @source and stage == @stage")["iou"]
        look = style.look_of(sources.index(source), "color") | {"edgecolor": "white"}
        bins = {"bins": 20, "binrange": (0, 1), "stat": "proportion"}
        sns.histplot(values, **bins, **look, ax=ax)
        median = values.median()
        ax.axvline(median, color="black", linestyle="--", linewidth=1.4)
        x, side = (0.03, "left") if median > 0.5 else (0.97, "right")
        ax.text(x, 0.92, f"median {median:.2f}", transform=ax.transAxes, ha=side, va="top", size=9)
        ax.set(xlabel="IoU of coarse and true box", ylabel=f"{source}\nshare of objects")
        ax.set_title(stage if source == sources[0] else "")
        ax.label_outer()
    return fig


def yardstick_figure(curve: pd.DataFrame, levels: Mapping[str, float]) -> Figure:  # scale, iou
    """The median IoU of each kind of coarse box, laid on the noise scale of Figure 1."""
    fig, ax = plt.subplots(figsize=(5.4, 3.0))
    ax.plot(curve["scale"], curve["iou"], color="black", marker="o", label="shifted true boxes")
    for i, (name, iou) in enumerate(levels.items()):
        look = style.look_of(i, "color") | style.look_of(1 + i % 5, "linestyle")
        ax.axhline(iou, linewidth=1.8, label=f"{name}: {iou:.2f}", **look)
    ax.set(xlabel="noise scale of a box", ylabel="median IoU with the true box", ylim=(0, 1.02))
    ax.legend(loc="upper right")
    return fig


def size_figure(frame: pd.DataFrame) -> Figure:  # columns what (kind), side
    """Side of objects, as part of that of the image that the detector sees, by kind of image."""
    fig, ax = plt.subplots(figsize=(5.4, 2.9))
    for place, (what, own) in enumerate(frame.groupby("what", sort=False)["side"]):
        numbers, edges = np.histogram(own, np.linspace(0, 1, 26))
        look = style.look_of(place, "color", "linestyle") | {"baseline": None, "linewidth": 1.5}
        ax.stairs(numbers / len(own), edges, label=f"{what} (median {own.median():.2f})", **look)
    ax.set(xlabel="side of the object / side of the image", ylabel="share of objects")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1))
    return fig


def shows_figure(frame: pd.DataFrame) -> Figure:  # columns sampling, images, shows
    """How often an epoch shows a class, against its images; the first way of sampling is a line."""
    fig, ax = plt.subplots(figsize=(5.2, 3.3))
    frame = frame[frame["images"] > 0]
    first = frame["sampling"].iloc[0]
    line = frame[frame["sampling"] == first].sort_values("images", kind="stable")
    ax.plot(line["images"], line["shows"], color="black", linewidth=1.2, label=first)
    style.points(ax, frame[frame["sampling"] != first], "images", "shows", "sampling", s=40)
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
        look = style.look_of(int(extra), "color", "hatch") | {"edgecolor": "white", "linewidth": 0}
        label = "extra batch" if extra else "detection batch"
        lines = part["ratio"].map(ratios.index)
        bars = ax.barh(lines, 0.92, 0.7, left=part["step"] - 0.46, label=label, **look)
        numbers = {"label_type": "center", "fontsize": 9, "path_effects": drawing.HALO}
        ax.bar_label(bars, part["place"], **numbers)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, handlelength=2, handleheight=1.4)
    ax.set_yticks(range(len(ratios)), ratios)
    ax.set_xticks(range(num_steps))
    ax.set(xlabel="optimiser step", ylim=(len(ratios) - 0.5, -0.5), xlim=(-0.6, num_steps - 0.4))
    ax.grid(visible=False)
    return fig
