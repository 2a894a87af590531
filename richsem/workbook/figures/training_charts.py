"""Figures of training runs: losses, learning curves, classes, and images side by side."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from richsem.workbook.figures.pictures import draw_arrow, draw_boxes
from richsem.workbook.figures.style import (
    GROUP_COLORS,
    GROUP_MARKERS,
    GROUP_NAMES,
    GROUPS,
    SERIES_COLORS,
    SERIES_MARKERS,
)
from richsem.workbook.qualitative import Panel

_METRIC_NAMES = {"AP": "AP", "APr": "AP of rare classes", "AP_r": "AP_r"}
# Those of `style.SERIES_LINES`, as seaborn takes them: lengths of dashes and gaps.
_DASHES = ("", (4, 1.6), (6, 1.6, 1, 1.6), (1, 1.6), (5, 1, 1, 1), (1, 1))


def loss_figure(history: pd.DataFrame) -> Figure:
    """Total loss by kind of batch, and the soft-label term, against steps.

    Args:
        history: Columns run, step, kind, term, value.
    """
    fig, axes = plt.subplots(1, 2, figsize=(9.0, 3.2))
    history = history.assign(line=history["run"] + ", " + history["kind"])
    for ax, term, title in zip(axes, ("total", "soft"), ("total", "soft labels"), strict=True):
        part = history[history["term"] == term]
        series_lines(ax, part, "step", "value", "line", history["line"].unique())
        ax.set(title=title, xlabel="optimiser steps", ylabel="mean loss", ylim=(0, None))
        if len(part):
            ax.legend(loc="upper right")
    return fig


def curves_figure(curves: pd.DataFrame) -> Figure:
    """AP and rare AP against steps and against CPU seconds; of several seeds mean and range.

    Args:
        curves: Columns run, step, cpu_seconds, metric, value, and detector if there are several:
            a row of panels for each detector and metric.
    """
    if "detector" not in curves:
        curves = curves.assign(detector="")
    groups = curves.groupby(["detector", "run", "metric", "step"])
    curves = curves.assign(cpu_seconds=groups["cpu_seconds"].transform("mean"))
    names = [name for name in _METRIC_NAMES if name in set(curves["metric"])] or ["AP"]
    panels = [(name, metric) for name in curves["detector"].unique() for metric in names]
    fig, axes = plt.subplots(len(panels), 2, figsize=(9.0, 2.8 * len(panels)), squeeze=False)
    for (name, metric), row in zip(panels, axes, strict=True):
        part = curves[(curves["detector"] == name) & (curves["metric"] == metric)]
        title = f"{name}: " * bool(name) + _METRIC_NAMES[metric]
        top = 1.08 * part["value"].max() if len(part) else None
        labels = {"step": "optimiser steps", "cpu_seconds": "CPU seconds"}
        for ax, (x, label) in zip(row, labels.items(), strict=True):
            series_lines(ax, part, x, "value", "run", order=curves["run"].unique())
            ax.set(title=title, xlabel=label, ylabel="percent", ylim=(0, top))
    axes[0][0].legend(loc="lower right")
    return fig


def class_figure(classes: pd.DataFrame, first: str, second: str) -> Figure:
    """AP of each class under two runs, by frequency group.

    Args:
        classes: Columns named as the runs, and group.
        first: Run on the x axis.
        second: Run on the y axis.
    """
    fig, ax = plt.subplots(figsize=(4.6, 4.4))
    ax.plot([0, 100], [0, 100], color="#999999", linewidth=0.8, zorder=0)
    up = (classes[second] > classes[first]).groupby(classes["group"])
    notes = {group: f" ({part.sum()} of {len(part)} up)" for group, part in up}
    scatter_groups(ax, classes, first, second, notes)
    ax.set(xlabel=f"AP, {first}", ylabel=f"AP, {second}", xlim=(0, 100), ylim=(0, 100))
    ax.set_aspect("equal")
    ax.legend(loc="lower right", fontsize=8)
    return fig


def scatter_groups(
    ax: Axes, frame: pd.DataFrame, x: str, y: str, notes: Mapping[str, str] | None = None
) -> None:
    """Two columns against each other, a marker and a colour per frequency group, rare on top."""
    for group in reversed(GROUPS):
        rows = frame[frame["group"] == group]
        label = GROUP_NAMES[group] + (notes or {}).get(group, "")
        look = {"color": GROUP_COLORS[group], "marker": GROUP_MARKERS[group], "alpha": 0.85}
        ax.scatter(rows[x], rows[y], s=24, edgecolor="white", linewidth=0.4, label=label, **look)


def side_by_side(rows: Sequence[Sequence[Panel]]) -> Figure:
    """One image per row, one source of boxes per column.

    A title stands above a panel unless it repeats the one of the row above.
    """
    size = (2.9 * len(rows[0]), 2.75 * len(rows) + 0.3)
    fig, axes = plt.subplots(len(rows), len(rows[0]), figsize=size, squeeze=False)
    for i, (row, own_axes) in enumerate(zip(rows, axes, strict=True)):
        for j, (panel, ax) in enumerate(zip(row, own_axes, strict=True)):
            draw_boxes(ax, panel.image, panel.boxes_xyxy, panel.names, rare=panel.rare)
            for box in panel.arrows_xyxy:
                draw_arrow(ax, box)
            if not i or panel.title != rows[i - 1][j].title:
                ax.set_title(panel.title, fontsize=9)
    return fig


def series_lines(
    ax: Axes, frame: pd.DataFrame, x: str, y: str, name: str, order: Sequence[str] = ()
) -> None:
    """A line per series, told apart by colour, dashes and marker; bands are ranges of equal x.

    Args:
        ax: Where.
        frame: Columns x, y and name.
        x: Column.
        y: Column.
        name: Column that says which series a value belongs to.
        order: All series of the figure, so that each looks the same in all panels.
    """
    order = list(order) if len(order) else list(frame[name].unique())
    present = [series for series in order if series in set(frame[name])]  # for the legend
    looks = {"palette": SERIES_COLORS, "markers": SERIES_MARKERS, "dashes": _DASHES}
    chosen = {
        key: {series: look[i % len(look)] for i, series in enumerate(order)}
        for key, look in looks.items()
    }
    sns.lineplot(
        frame, x=x, y=y, hue=name, style=name, hue_order=present, style_order=present, ax=ax,
        markersize=6, markeredgewidth=0, errorbar=("pi", 100), **chosen,
    )  # fmt: skip
    if ax.legend_:
        ax.legend_.remove()
