"""Differences between arms as points with intervals, and short runs beside long ones."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from richsem.workbook.figures import style

METRICS = {"AP_r": "r", "AP_f": "f", "AP": "all"}  # and the group whose look each has


def differences_figure(changes: pd.DataFrame, other: str) -> Figure:
    """Paired differences (arm, metric, mean, low, high), under the names that their rows have.

    A line for each metric; a point is filled where its interval leaves out zero.
    """
    names = list(changes["arm"].unique())
    fig, ax = plt.subplots(figsize=(style.WIDTH, 0.42 * len(names) + 0.8))
    ax.axvline(0, color="black", linewidth=0.9, zorder=1)
    for row in range(1, len(names)):
        ax.axhline(row - 0.5, color="#d0d0d0", linewidth=0.7, zorder=0)
    for place, (metric, group) in enumerate(METRICS.items()):
        color, marker, _ = style.look_of(group).values()
        for line in changes[changes["metric"] == metric].itertuples():
            row = names.index(line.arm) + 0.25 * (place - 1)
            face = color if line.low > 0 or line.high < 0 else "w"
            ax.plot([line.low, line.high], [row, row], color=color, linewidth=1.4)
            ax.plot(line.mean, row, marker, color=color, markerfacecolor=face, markersize=5)
        ax.plot([], [], f"{marker}-", color=color, label=style.printed(metric))
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, handlelength=1.8)
    ax.set_yticks(range(len(names)), map(style.printed, names))
    ax.set(ylim=(len(names) - 0.5, -0.5), xlabel=f"points over {other}")
    ax.grid(axis="y", visible=False)
    return fig


def orders_figure(both: pd.DataFrame) -> Figure:  # arm, metric, short, full
    """Arms in the order of their means in short and in full runs; lines cross where they differ."""
    fig, axes = plt.subplots(len(METRICS), 1, figsize=(4.4, 2.1 * len(METRICS)))
    for ax, (metric, group) in zip(axes, METRICS.items(), strict=True):
        part = both[both["metric"] == metric]
        look = style.look_of(group, "color", "marker")
        ranks = part[["short", "full"]].rank(method="first")
        for line, (left, right) in zip(part.itertuples(), ranks.to_numpy(), strict=True):
            ax.plot([0, 1], [left, right], **look)
            ax.text(-0.06, left, f"{line.short:.1f}", ha="right", va="center")
            ax.text(1.06, right, f"{line.full:.1f}  {style.printed(line.arm)}", va="center")
        ax.set(title=style.printed(metric), xlim=(-0.3, 2.1), yticks=[])
        ax.set_xticks([0, 1], ["a quarter of the steps", "all steps"])
        ax.spines[:].set_visible(False)
        ax.grid(visible=False)
    return fig
