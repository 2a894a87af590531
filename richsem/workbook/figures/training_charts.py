"""Figures of training runs: losses, learning curves, classes, and images side by side."""

from collections.abc import Sequence
from typing import Protocol

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from richsem.workbook.figures.pictures import draw_arrow, draw_boxes
from richsem.workbook.figures.style import (
    GROUP_COLORS,
    GROUP_MARKERS,
    GROUP_NAMES,
    GROUPS,
    SERIES_COLORS,
    SERIES_LINES,
    SERIES_MARKERS,
)

_METRIC_NAMES = {"AP": "AP", "APr": "AP of rare classes"}


class _Panel(Protocol):
    image: Image.Image
    title: str
    boxes_xyxy: np.ndarray
    names: list[str]
    rare: np.ndarray
    arrows_xyxy: np.ndarray | tuple


def loss_figure(history: pd.DataFrame) -> Figure:
    """Total loss by kind of batch, and the soft-label term, against steps.

    Args:
        history: Columns run, step, kind, term, value.
    """
    fig, axes = plt.subplots(1, 2, figsize=(9.0, 3.2))
    for ax, term, title in zip(axes, ("total", "soft"), ("total", "soft labels"), strict=True):
        part = history[history["term"] == term]
        for i, ((run, kind), rows) in enumerate(part.groupby(["run", "kind"], sort=False)):
            ax.plot(
                rows["step"], rows["value"], color=SERIES_COLORS[i], linestyle=SERIES_LINES[i],
                label=f"{run}, {kind}",
            )  # fmt: skip
        ax.set(title=title, xlabel="optimiser steps", ylabel="mean loss", ylim=(0, None))
        if len(part):
            ax.legend(loc="upper right")
    return fig


def curve_figure(curves: pd.DataFrame) -> Figure:
    """AP and rare AP against steps and against CPU seconds.

    Args:
        curves: Columns run, step, cpu_seconds, metric, value.
    """
    metrics = [name for name in _METRIC_NAMES if name in set(curves["metric"])] or ["AP"]
    fig, axes = plt.subplots(len(metrics), 2, figsize=(9.0, 2.9 * len(metrics)), squeeze=False)
    labels = {"step": "optimiser steps", "cpu_seconds": "CPU seconds"}
    for metric, row in zip(metrics, axes, strict=True):
        part = curves[curves["metric"] == metric]
        for ax, (column, label) in zip(row, labels.items(), strict=True):
            for i, (run, rows) in enumerate(part.groupby("run", sort=False)):
                ax.plot(
                    rows[column], rows["value"], color=SERIES_COLORS[i], linestyle=SERIES_LINES[i],
                    marker=SERIES_MARKERS[i], markersize=5, label=run,
                )  # fmt: skip
            ax.set(title=_METRIC_NAMES[metric], xlabel=label, ylabel="percent", ylim=(0, None))
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
    for group in reversed(GROUPS):
        rows = classes[classes["group"] == group]
        ax.scatter(
            rows[first], rows[second], marker=GROUP_MARKERS[group], s=22, alpha=0.85,
            color=GROUP_COLORS[group], edgecolor="white", linewidth=0.4,
            label=f"{GROUP_NAMES[group]} ({(rows[second] > rows[first]).sum()} of {len(rows)} up)",
        )  # fmt: skip
    ax.set(xlabel=f"AP, {first}", ylabel=f"AP, {second}", xlim=(0, 100), ylim=(0, 100))
    ax.set_aspect("equal")
    ax.legend(loc="lower right", fontsize=8)
    return fig


def side_by_side(rows: Sequence[Sequence[_Panel]]) -> Figure | None:
    """One image per row, one source of boxes per column; None without rows.

    A title stands above a panel unless it repeats the one of the row above.
    """
    if not rows:
        return None
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
