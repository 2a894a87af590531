"""Figures of runs: learning curves, arms, classes, verdicts, costs; nothing here is computed."""

from collections.abc import Mapping, Sequence
from itertools import chain, product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from richsem.workbook import error_verdicts as verdicts
from richsem.workbook.figures import charts, drawing, style
from richsem.workbook.study import mean_interval

_BLUE, _ORANGE, _GREEN, _PURPLE, _BROWN, _ = style.SERIES_COLORS
_LOOKS = {
    verdicts.CORRECT: {"color": _BLUE},
    verdicts.WRONG_CLASS: {"color": _ORANGE, "hatch": "///"},
    verdicts.BAD_LOCATION: {"color": _GREEN, "hatch": "\\\\\\"},
    verdicts.BOTH: {"color": _BROWN, "hatch": "xxx"},
    verdicts.DUPLICATE: {"color": _PURPLE, "hatch": "..."},
    verdicts.BACKGROUND: {"color": "#4d4d4d"},
    verdicts.MISSED: {"color": "#c9c9c9", "hatch": "---"},
    verdicts.NOT_VERIFIED: {"color": "#d9d9d9"},
    verdicts.NOT_EXHAUSTIVE: {"color": "#d9d9d9", "hatch": "ooo"},
}
_CURVES = ("AP", "APr", "AP_r")  # metrics that have learning curves


def curves_figure(curves: pd.DataFrame) -> Figure:  # run, step, cpu_seconds, metric, value
    """AP and rare AP against steps and CPU seconds, by detector; mean and range of seeds."""
    curves = curves.assign(detector=curves.get("detector", ""))
    seeds = curves.groupby(["detector", "run", "metric", "step"], sort=False)
    curves = seeds.mean().assign(low=seeds["value"].min(), high=seeds["value"].max()).reset_index()
    names = [name for name in _CURVES if name in set(curves["metric"])] or ["AP"]
    panels = list(product(curves["detector"].unique(), names, ("step", "cpu_seconds")))
    fig, axes = drawing.grid(len(panels), (style.WIDTH / 2, 1.6), 2, 0.8)
    look = {"band": ("low", "high"), "order": curves["run"].unique()}
    for ax, (name, metric, x) in zip(axes, panels, strict=True):
        part = curves[(curves["detector"] == name) & (curves["metric"] == metric)]
        title = style.printed(f"{name}: " * bool(name) + metric)
        top = part["high"].max()  # NaN of none
        ends = (0.95 * part["low"].min(), 1.03 * top) if top > 0 else (0, None)
        style.lines(ax, part, x, "value", "run", **look)
        ax.set(title=title, ylabel="percent", ylim=ends)
    axes[-2].set_xlabel("optimiser steps")
    axes[-1].set_xlabel("CPU seconds")
    drawing.legend_below(fig, axes[0])
    return fig


def classes_figure(classes: pd.DataFrame, first: str, second: str) -> Figure:
    """AP of each class under two runs (columns, beside group), by frequency group."""
    fig, ax = plt.subplots(figsize=(4.6, 4.4))
    ax.plot([0, 100], [0, 100], color="#999999", linewidth=0.8, zorder=0)
    style.points(ax, classes, first, second, "group")
    words = [
        f"{name} ({(part[second] > part[first]).sum()} of {len(part)} up)"
        for _, name, part in style.parts_of(classes, "group")
    ]
    ax.set(xlabel=f"AP, {first}", ylabel=f"AP, {second}", xlim=(0, 100), ylim=(0, 100))
    ax.set_aspect("equal")
    ax.legend(ax.collections, words, loc="lower right", fontsize=8)
    return fig


def arms_figure(frame: pd.DataFrame, metrics: Sequence[str]) -> Figure:  # arm, seed, metric, value
    """Every seed as a thin line over the arms, and each arm's mean with its 95 % interval."""
    known = [metric for metric in metrics if metric in set(frame["metric"])]
    fig, axes = drawing.grid(len(known), (3.6, 3.4))
    for ax, metric in zip(axes, known, strict=True):
        part = frame[frame["metric"] == metric]
        arms = part["arm"].unique()
        values = part.pivot(index="arm", columns="seed", values="value").loc[arms]
        ax.plot(values.to_numpy(), color="#bbbbbb", linewidth=0.8, zorder=1)
        for place, (_, own) in enumerate(values.iterrows()):
            mean, *ends = mean_interval(own.dropna())
            color, marker, _ = style.look_of(place).values()
            ax.plot([place, place], ends, "_-", color=color, markersize=8, linewidth=1.5)
            ax.plot(place, mean, marker, color=color, markersize=6)
        ax.set_xticks(range(len(arms)), map(style.printed, arms), rotation=30, ha="right")
        ax.grid(axis="x", visible=False)
        ax.set(title=style.printed(metric), ylabel="percent", xlim=(-0.5, len(arms) - 0.5))
    return fig


def scarce_figure(
    summary: pd.DataFrame,  # columns arm, drop, metric, mean, low, high
    panels: Mapping[str, Sequence[str]],  # the arms of each panel, by its title
) -> Figure:
    """Means with bands against the share of dropped annotations, supplement Figure 2.

    A thin line marks what a panel's first arm reaches with the fewest annotations dropped: an arm
    above it makes up for those that it lacks.
    """
    cells = list(product(("AP", "AP_r"), panels.values()))
    size, shared = (style.WIDTH / len(panels), 2.3), {"sharex": True, "sharey": "row"}
    fig, axes = drawing.grid(len(cells), size, len(panels), **shared)
    look = {"band": ("low", "high"), "order": list(dict.fromkeys(chain(*panels.values())))}
    for ax, (metric, arms) in zip(axes, cells, strict=True):
        rows = summary[(summary["metric"] == metric) & summary["arm"].isin(arms)]
        rows = rows.sort_values("drop", kind="stable")
        style.lines(ax, rows, "drop", "mean", "arm", **look)
        for level in rows.loc[rows["arm"] == arms[0], "mean"][:1]:
            ax.axhline(level, color="#555555", linewidth=0.9, zorder=1)
        ax.set(ylabel=f"{style.printed(metric)}, percent")
        ax.xaxis.set_major_formatter("{x:.0%}")
        ax.label_outer()
    for ax, title in zip(axes, panels, strict=False):
        ax.set_title(title)
        ax.legend(loc="lower left", handlelength=2.2)
    fig.supxlabel("share of annotations dropped", fontsize="medium")
    return fig


def gain_figure(classes: pd.DataFrame) -> Figure:  # columns group, teacher, gain
    """Gain of each class, points of AP, against percent of its boxes that the teacher names."""
    fig, ax = plt.subplots(figsize=(5.2, 3.6))
    ax.axhline(0, color="#555555", linewidth=0.8, zorder=1)
    style.points(ax, classes, "teacher", "gain", "group")
    ax.set(xlabel="boxes that the teacher names right, percent", ylabel="gain of AP, points")
    # Above the points, which fill the whole of the picture.
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return fig


def precision_recall_figure(curves: Mapping[str, pd.DataFrame], title: str) -> Figure:
    """Precision against recall of one class, a curve (columns recall, precision) per judgement.

    The pale line is what was measured, the strong one the highest precision at that recall or more,
    of which the average precision is the mean.
    """
    fig, ax = plt.subplots(figsize=(5.4, 3.6))
    for i, (name, curve) in enumerate(curves.items()):
        envelope = curve["precision"][::-1].cummax()[::-1]
        look = style.look_of(i, "color", "linestyle")
        ax.plot(curve["recall"], curve["precision"], alpha=0.35, linewidth=1, **look)
        recall, highest = [0.0, *curve["recall"]], [envelope.max(), *envelope]
        ax.plot(recall, highest, linewidth=2.2, label=name, **look)
    ax.set(title=title, xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.04))
    ax.legend(loc="best")
    return fig


def class_ap_figure(frame: pd.DataFrame) -> Figure:
    """AP of every class (columns group, ap): points for each group, means as bars."""
    groups = {group: (name, part) for group, name, part in style.parts_of(frame, "group")}
    fig, ax = plt.subplots(figsize=(6.8, 0.95 * len(groups) + 1.0))
    spread = 0.5 * ((np.arange(len(frame)) * 0.618034) % 1 - 0.5)  # of points, never at random
    place = frame["group"].map(list(groups).index) + spread
    style.points(ax, frame.assign(place=place), "ap", "place", "group", s=16, zorder=3)
    for place, (_, part) in enumerate(groups.values()):
        mean = part["ap"].mean()
        ax.plot([mean, mean], [place - 0.4, place + 0.4], color="black", linewidth=2, zorder=4)
        ax.text(mean, place - 0.42, f"mean {mean:.1f}", ha="center", va="bottom", fontsize=8.5)
    ax.set_yticks(range(len(groups)), [f"{name} ({len(part)})" for name, part in groups.values()])
    ax.set(xlabel="AP", ylabel="", ylim=(len(groups) - 0.45, -0.75))
    ax.set_xlim(0, max(10.0, min(100.0, 1.1 * frame["ap"].max())))
    return fig


def calibration_figure(frame: pd.DataFrame) -> Figure:  # columns group, score, correct, number
    """How often a detection is right against its score, and how many detections there are."""
    fig, (ax, below) = plt.subplots(2, sharex=True, figsize=(5.4, 4.8), height_ratios=(2.4, 1))
    ax.plot([0, 1], [0, 1], color="#888888", linewidth=1, label="score = share correct")
    style.lines(ax, frame, "score", "correct", "group")
    style.lines(below, frame, "score", "number", "group")
    ax.set(ylabel="share correct", ylim=(0, 1.02), xlim=(0, 1))
    below.set(xlabel="score", ylabel="detections", yscale="log")
    ax.legend(loc="upper left")
    return fig


def scaling_figure(frame: pd.DataFrame) -> Figure:  # of `scaling.figure_frame`
    """Published precision against size; parameters by part; cost of an image against its size."""
    layout = [["published"] * 2, ["parts"] * 2, ["gflop", "activations"]]
    fig, places = plt.subplot_mosaic(layout, figsize=(style.WIDTH, 7), height_ratios=(1, 0.9, 0.9))
    ax, ladder, *below = places.values()
    hollow = {"markerfacecolor": "none", "markeredgewidth": 1.4, "markersize": 8, "linestyle": ""}
    for panel, group, name in (("AP", "all", "AP"), ("AP_r", "r", "AP of rare classes")):
        part = frame[frame["panel"] == panel]
        look = style.look_of(group) | hollow
        ax.plot(part["x"], part["y"], label=f"{name}, published", **look)
    beside = {"xytext": (9, -3), "textcoords": "offset points", "va": "top", "fontsize": 8}
    for row in frame[frame["panel"] == "AP"].itertuples():
        ax.annotate(row.system.split(",")[0], (row.x, row.y), **beside)
    ax.set(xscale="log", xlabel="parameters (millions, published)", ylabel="percent")
    ax.set(title="quoted, not reproduced", xlim=(550, 3600), ylim=(50, 66))
    ax.set_xticks([600, 1000, 2000], ["600", "1,000", "2,000"])
    ax.minorticks_off()
    ax.legend(loc="lower right", fontsize=8, handlelength=1.2)

    rows = frame[frame["panel"].isin(["backbone", "rest"])]
    parts = rows.pivot(index="x", columns="panel", values="y").set_axis(rows["system"].unique())
    parts.columns = ["backbone", "DINO and heads"]
    parts.plot.bar(ax=ladder, stacked=True, color=style.SERIES_COLORS, width=0.8, ec="white")
    plt.setp(ladder.containers[-1], hatch="///")
    sums = [f"{number:.0f}" for number in parts.sum(axis=1)]  # a library's own may be the parts'
    ladder.bar_label(ladder.containers[-1], sums, fontsize=8)
    plt.setp(ladder.get_xticklabels(), rotation=30, ha="right", rotation_mode="anchor")
    ladder.set(ylabel="parameters (millions)", xlabel="", title="RichSem on a ladder, counted")
    ladder.grid(axis="x", visible=False)
    ladder.legend(loc="upper left", handlelength=1.4)

    names = (("arithmetic", "GFLOP, forward pass"), ("activations", "GB, for backward pass"))
    for ax, panel, (title, label) in zip(below, layout[-1], names, strict=True):
        style.lines(ax, frame[frame["panel"] == panel], "x", "y", "system")
        ax.set(xlabel="megapixels of the image", xlim=(0, None), ylim=(0, None))
        ax.set(ylabel=label, title=f"{title}, counted")
    drawing.legend_below(fig, ax)
    return fig


def growth_figure(frame: pd.DataFrame) -> Figure:  # of `growth.measured`
    """Seconds of each part of the work against what grows; grey: in proportion to the smallest."""
    looks = {"xscale": "log", "yscale": "log", "ylabel": "seconds", "size": (5.2, 2.4)}
    looks |= {"panel": "grows", "columns": 1}
    fig = charts.lines_figure(frame, "size", "seconds", "part", **looks)
    for ax, (_, panel) in zip(fig.axes, frame.groupby("grows", sort=False), strict=True):
        for _, part in panel.groupby("part"):
            sizes, first = part["size"], part.iloc[0]
            ax.plot(sizes, first["seconds"] * sizes / first["size"], color="0.8", zorder=0)
        ax.set_xticks(sorted({*panel["size"]}), [f"{n:,}" for n in sorted({*panel["size"]})])
        ax.tick_params(axis="x", labelrotation=45)
        ax.minorticks_off()
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig


def parts_figure(shares: pd.DataFrame, xlabel: str) -> Figure:
    """A bar for each row, of shares (0 to 1) of its parts; those invisible in all are "others"."""
    small = shares.columns[(shares < 0.01).all()]
    others = shares[small].sum(axis=1)
    shares = shares.drop(columns=small)
    shares = shares.assign(others=others) if others.max() >= 0.01 else shares
    fig, ax = plt.subplots(figsize=(7.4, 0.47 * len(shares) + 1.5))
    style.share_bars(ax, shares, _LOOKS)
    ax.legend(handlelength=1.4, loc="lower left", bbox_to_anchor=(0, 1), ncols=4)
    ax.set_xlabel(xlabel)
    return fig
