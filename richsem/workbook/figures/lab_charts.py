"""Differences between arms as points with intervals, and short runs beside long ones."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from richsem.workbook.figures import style

METRICS = {"AP_r": "r", "AP_f": "f", "AP": "all"}  # and the group whose look each has


def differences_figure(changes: pd.DataFrame, other: str) -> Figure:
    """Paired differences (arm, metric, mean, low, high) to one arm, a row for each of the others.

    A point is filled where its interval leaves out zero.
    """
    changes = changes[changes["arm"].str.endswith(f" - {other}")]
    arms = changes["arm"].str.removesuffix(f" - {other}")
    names = list(arms.unique())
    size = (8.6, 0.34 * len(names) + 1.3)
    fig, axes = plt.subplots(1, len(METRICS), figsize=size, sharey=True)
    for ax, (metric, group) in zip(axes, METRICS.items(), strict=True):
        color, marker = style.GROUP_COLORS[group], style.GROUP_MARKERS[group]
        ax.axvline(0, color="#777777", linewidth=0.9, zorder=0)
        part = changes[changes["metric"] == metric]
        for line, name in zip(part.itertuples(), arms[part.index], strict=True):
            row, clear = names.index(name), line.low > 0 or line.high < 0
            ax.plot([line.low, line.high], [row, row], color=color, linewidth=1.4)
            ax.plot(line.mean, row, marker, color=color, markerfacecolor=color if clear else "w")
        ax.set(title=metric, xlabel=f"points over {other}")
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    return fig


def orders_figure(both: pd.DataFrame) -> Figure:  # arm, metric, short, full
    """Every arm's mean in short runs against that in full ones, by metric; equal orders rise."""
    fig, axes = plt.subplots(1, len(METRICS), figsize=(9.0, 3.3))
    for ax, (metric, group) in zip(axes, METRICS.items(), strict=True):
        part = both[both["metric"] == metric]
        color, marker = style.GROUP_COLORS[group], style.GROUP_MARKERS[group]
        ax.plot(part["full"], part["short"], marker, color=color)
        for number, line in enumerate(part.sort_values("short").itertuples()):
            place = {
                "textcoords": "offset points",
                "xytext": (5, -9 if number % 2 else 4),
                "size": 7,
            }
            ax.annotate(line.arm, (line.full, line.short), **place)
        ax.margins(x=0.25, y=0.12)
        ax.set(title=metric, xlabel="all steps", ylabel="a quarter of the steps")
    return fig


def map_figure(points: pd.DataFrame) -> Figure:
    """Differences of two methods (cause, right, metric, mean, low, high) against right choices."""
    fig, axes = plt.subplots(1, 2, figsize=(9.0, 3.5), sharey=True)
    for ax, metric in zip(axes, ("AP_r", "AP"), strict=True):
        ax.axhline(0, color="#777777", linewidth=0.9, zorder=0)
        part = points[points["metric"] == metric].sort_values(["cause", "right"])
        style.lines(ax, part, "right", "mean", "cause", band=("low", "high"))
        ax.set(title=metric, xlabel="part of the choices that are right")
    axes[0].set_ylabel("RichSem less Detic (points)")
    axes[0].legend(title="moved by")
    return fig
