"""Figures of runs: losses, learning curves, arms over seeds, classes, images, and what runs cost.

Nothing here computes a result.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from richsem.workbook.comparison import BoxPanel
from richsem.workbook.figures import drawing, style
from richsem.workbook.study import mean_interval

_METRIC_NAMES = {"AP": "AP", "APr": "AP of rare classes", "AP_r": "AP_r"}
_HATCHES = ("", "///", "...", "xx", "\\\\\\", "++", "oo")


def _scatter_groups(
    ax: Axes, frame: pd.DataFrame, x: str, y: str, notes: Mapping[str, str] | None = None
) -> None:
    """Two columns against each other, a marker and a colour per frequency group, rare on top."""
    for group in reversed(style.GROUPS):
        label = style.GROUP_NAMES[group] + (notes or {}).get(group, "")
        style.points(ax, frame[frame["group"] == group], x, y, "group", label=label)


def loss_figure(history: pd.DataFrame) -> Figure:  # columns run, step, kind, term, value
    """Terms of the loss by kind of batch against steps: classes and boxes, then soft labels."""
    fig, axes = plt.subplots(1, 3, figsize=(11.0, 3.2))
    history = history.assign(line=history["run"] + ", " + history["kind"])
    terms = {"class": "classes", "giou": "boxes (GIoU)", "soft": "soft labels"}
    for ax, (term, title) in zip(axes, terms.items(), strict=True):
        part = history[history["term"] == term]
        style.lines(ax, part, "step", "value", "line", order=history["line"].unique())
        ax.set(title=title, xlabel="optimiser steps", ylim=(0, None))
    axes[0].set_ylabel("mean loss, without its weight")
    drawing.legend_below(fig, axes[0])
    return fig


def curves_figure(curves: pd.DataFrame) -> Figure:  # run, step, cpu_seconds, metric, value
    """AP and rare AP against steps and CPU seconds, by detector; mean and range of seeds."""
    if "detector" not in curves:
        curves = curves.assign(detector="")
    seeds = curves.groupby(["detector", "run", "metric", "step"], sort=False)
    curves = seeds.mean().assign(low=seeds["value"].min(), high=seeds["value"].max()).reset_index()
    names = [name for name in _METRIC_NAMES if name in set(curves["metric"])] or ["AP"]
    panels = [(name, metric) for name in curves["detector"].unique() for metric in names]
    fig, axes = plt.subplots(len(panels), 2, figsize=(9.0, 2.3 * len(panels)), squeeze=False)
    for (name, metric), row in zip(panels, axes, strict=True):
        part = curves[(curves["detector"] == name) & (curves["metric"] == metric)]
        title = f"{name}: " * bool(name) + _METRIC_NAMES[metric]
        ends = (0.95 * part["low"].min(), 1.03 * part["high"].max()) if len(part) else (0, None)
        labels = {"step": "optimiser steps", "cpu_seconds": "CPU seconds"}
        for ax, (x, label) in zip(row, labels.items(), strict=True):
            known = {"band": ("low", "high"), "order": curves["run"].unique()}
            style.lines(ax, part, x, "value", "run", **known)
            ax.set(title=title, xlabel=label, ylabel="percent", ylim=ends)
    drawing.legend_below(fig, axes[0][0])
    return fig


def class_figure(classes: pd.DataFrame, first: str, second: str) -> Figure:
    """AP of each class under two runs (columns, beside group), by frequency group."""
    fig, ax = plt.subplots(figsize=(4.6, 4.4))
    ax.plot([0, 100], [0, 100], color="#999999", linewidth=0.8, zorder=0)
    up = (classes[second] > classes[first]).groupby(classes["group"])
    notes = {group: f" ({part.sum()} of {len(part)} up)" for group, part in up}
    _scatter_groups(ax, classes, first, second, notes)
    ax.set(xlabel=f"AP, {first}", ylabel=f"AP, {second}", xlim=(0, 100), ylim=(0, 100))
    ax.set_aspect("equal")
    ax.legend(loc="lower right", fontsize=8)
    return fig


def side_by_side(rows: Sequence[Sequence[BoxPanel]]) -> Figure:
    """An image per row, boxes of a source per column; titles as in the row above are left out."""
    size = (2.9 * len(rows[0]), 2.75 * len(rows) + 0.3)
    fig, axes = plt.subplots(len(rows), len(rows[0]), figsize=size, squeeze=False)
    for i, (row, own_axes) in enumerate(zip(rows, axes, strict=True)):
        for j, (panel, ax) in enumerate(zip(row, own_axes, strict=True)):
            drawing.draw_boxes(ax, panel.image, panel.boxes_xyxy, panel.names, rare=panel.rare)
            for box in panel.arrows_xyxy:
                drawing.draw_arrow(ax, box)
            if not i or panel.title != rows[i - 1][j].title:
                ax.set_title(panel.title, fontsize=9)
    return fig


def arms_figure(frame: pd.DataFrame, metrics: Sequence[str]) -> Figure:  # arm, seed, metric, value
    """Every seed as a thin line over the arms, and each arm's mean with its 95 % interval."""
    fig, axes = plt.subplots(1, len(metrics), figsize=(3.6 * len(metrics), 3.4), squeeze=False)
    for ax, metric in zip(axes[0], metrics, strict=True):
        part = frame[frame["metric"] == metric]
        names = part["arm"].unique()
        seeds = {"units": "seed", "estimator": None, "color": "#bbbbbb", "linewidth": 0.8}
        sns.lineplot(part, x="arm", y="value", sort=False, zorder=1, ax=ax, **seeds)
        sns.pointplot(
            part, x="arm", y="value", hue="arm", linestyles="none",
            errorbar=lambda values: mean_interval(values)[1:],
            palette=[style.SERIES_COLORS[i % 6] for i in range(len(names))],
            markers=[style.SERIES_MARKERS[i % 6] for i in range(len(names))],
            markersize=6, linewidth=1.5, capsize=0.15, zorder=2, legend=False, ax=ax,
        )  # fmt: skip
        plt.setp(ax.get_xticklabels(), rotation=30, ha="right")
        ax.set(title=metric, ylabel="percent", xlabel="", xlim=(-0.5, len(names) - 0.5))
    return fig


def lines_figure(
    summary: pd.DataFrame,  # columns arm, drop, metric, mean, low, high
    panels: Mapping[str, Sequence[str]],  # the arms of each panel, by its title
) -> Figure:
    """Means with bands against the share of dropped annotations, supplement Figure 2.

    A thin line marks what a panel's first arm reaches with the fewest annotations dropped: an arm
    above it makes up for those that it lacks.
    """
    metrics, size = ("AP", "AP_r"), (4.5 * len(panels), 6.2)
    shared = {"sharex": True, "sharey": "row", "squeeze": False}
    fig, axes = plt.subplots(len(metrics), len(panels), figsize=size, **shared)
    order = list(dict.fromkeys(arm for arms in panels.values() for arm in arms))
    for metric, row in zip(metrics, axes, strict=True):
        part = summary[summary["metric"] == metric].sort_values("drop", kind="stable")
        for ax, (title, arms) in zip(row, panels.items(), strict=True):
            rows = part[part["arm"].isin(arms)]
            style.lines(ax, rows, "drop", "mean", "arm", band=("low", "high"), order=order)
            first = part.loc[part["arm"] == arms[0], "mean"]
            if len(first):
                ax.axhline(first.iloc[0], color="#555555", linewidth=0.9, zorder=1)
            ax.set(title=f"{title}: {metric}", ylabel="percent")
    for ax in axes[-1]:
        ax.set_xlabel("share of annotations dropped")
        ax.xaxis.set_major_formatter("{x:.0%}")
    for ax in axes[0]:
        ax.legend(loc="lower left")
    return fig


def gain_figure(classes: pd.DataFrame) -> Figure:  # columns group, teacher, gain
    """Gain of each class, points of AP, against percent of its boxes that the teacher names."""
    fig, ax = plt.subplots(figsize=(5.2, 3.6))
    ax.axhline(0, color="#999999", linewidth=0.8, zorder=0)
    _scatter_groups(ax, classes, "teacher", "gain")
    ax.set(xlabel="boxes that the teacher names right, percent", ylabel="gain of AP, points")
    # Above the points, which fill the whole of the picture.
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return fig


def scaling_figure(frame: pd.DataFrame) -> Figure:  # of `scaling.figure_frame`
    """Published precision against size; parameters by part; cost of an image against its size."""
    fig, axes = plt.subplots(2, 2, figsize=(9.6, 7.0))
    _published(axes[0][0], frame)
    _parameters(axes[0][1], frame)
    for ax, panel, label, title in (
        (axes[1][0], "gflop", "GFLOP of a forward pass", "arithmetic"),
        (axes[1][1], "activations", "GB kept for the backward pass", "memory of activations"),
    ):
        style.lines(ax, frame[frame["panel"] == panel], "x", "y", "system")
        ax.set(xlabel="size of the image (megapixels)", xlim=(0, None), ylim=(0, None))
        ax.set(ylabel=label, title=f"{title}, counted")
        ax.legend(loc="upper left")
    return fig


def stacked_figure(parts: pd.DataFrame, label: str) -> Figure:
    """Amounts of parts (columns) of systems (rows); those invisible in all bars are "others"."""
    small = parts.columns[(parts.div(parts.sum(axis=1), axis=0) < 0.01).all()]
    others = parts[small].sum(axis=1)
    parts = parts.drop(columns=small)
    if others.any():
        parts = parts.assign(others=others)
    fig, ax = plt.subplots(figsize=(7.2, 0.42 * len(parts) + 1.2))
    _stack(parts, "barh", ax)
    ax.invert_yaxis()
    ax.set(xlabel=label, ylabel="")
    ax.grid(axis="y", visible=False)
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), handlelength=1.4)
    return fig


def _stack(parts: pd.DataFrame, kind: str, ax: Axes) -> None:
    colors = [style.SERIES_COLORS[i % 6] for i in range(parts.shape[1])]
    parts.plot(kind=kind, stacked=True, ax=ax, color=colors, width=0.8, edgecolor="white")
    for i, bars in enumerate(ax.containers):
        plt.setp(bars, hatch=_HATCHES[i % 7])


def _published(ax: Axes, frame: pd.DataFrame) -> None:
    hollow = {"markerfacecolor": "none", "markeredgewidth": 1.4, "markersize": 8, "linestyle": ""}
    for panel, group, name in (("AP", "all", "AP"), ("AP_r", "r", "AP of rare classes")):
        part = frame[frame["panel"] == panel]
        look = {"marker": style.GROUP_MARKERS[group], "color": style.GROUP_COLORS[group]}
        ax.plot(part["x"], part["y"], label=f"{name}, published", **hollow, **look)
    for row in frame[frame["panel"] == "AP"].itertuples():
        right = row.x > 2 * frame["x"].median() and row.x == frame["x"].max()
        ax.annotate(
            row.system.split(",")[0], (row.x, row.y), xytext=(-9 if right else 9, -3), fontsize=8,
            textcoords="offset points", ha="right" if right else "left", va="top",
        )  # fmt: skip
    ax.set(xscale="log", xlabel="parameters (millions, published)", ylabel="percent")
    ax.set(title="quoted, not reproduced", xlim=(550, 3000), ylim=(50, 66))
    ax.set_xticks([600, 1000, 2000], ["600", "1,000", "2,000"])
    ax.minorticks_off()
    ax.legend(loc="lower right", fontsize=8, handlelength=1.2)


def _parameters(ax: Axes, frame: pd.DataFrame) -> None:
    rows = frame[frame["panel"].isin(["backbone", "rest"])]
    parts = rows.pivot(index="x", columns="panel", values="y")
    parts.index = rows["system"].unique()
    _stack(parts.set_axis(["backbone", "DINO and heads"], axis=1), "bar", ax)
    ax.bar_label(ax.containers[-1], [f"{total:.0f}" for total in parts.sum(axis=1)], fontsize=8)
    plt.setp(ax.get_xticklabels(), rotation=40, ha="right")
    ax.set(ylabel="parameters (millions)", xlabel="", title="RichSem on a ladder, counted")
    ax.grid(axis="x", visible=False)
    ax.legend(loc="upper left", handlelength=1.4)
