"""Figures of several seeds: arms side by side, shares of dropped annotations, gains by class."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from richsem.workbook import intervals
from richsem.workbook.figures.style import SERIES_COLORS, SERIES_MARKERS
from richsem.workbook.figures.training_charts import scatter_groups, series_lines


def arms_figure(frame: pd.DataFrame, metrics: Sequence[str]) -> Figure:
    """Every seed as a thin line over the arms, and each arm's mean with its 95 % interval.

    Args:
        frame: Columns arm, seed, metric, value.
        metrics: One panel each.
    """
    fig, axes = plt.subplots(1, len(metrics), figsize=(3.6 * len(metrics), 3.4), squeeze=False)
    for ax, metric in zip(axes[0], metrics, strict=True):
        part = frame[frame["metric"] == metric]
        names = part["arm"].unique()
        seeds = {"units": "seed", "estimator": None, "color": "#bbbbbb", "linewidth": 0.8}
        sns.lineplot(part, x="arm", y="value", sort=False, zorder=1, ax=ax, **seeds)
        sns.pointplot(
            part, x="arm", y="value", hue="arm", errorbar=intervals.ends, linestyles="none",
            palette=[SERIES_COLORS[i % 6] for i in range(len(names))],
            markers=[SERIES_MARKERS[i % 6] for i in range(len(names))],
            markersize=6, linewidth=1.5, capsize=0.15, zorder=2, legend=False, ax=ax,
        )  # fmt: skip
        plt.setp(ax.get_xticklabels(), rotation=30, ha="right")
        ax.set(title=metric, ylabel="percent", xlabel="", xlim=(-0.5, len(names) - 0.5))
    return fig


def lines_figure(
    summary: pd.DataFrame, panels: Sequence[Sequence[str]], titles: Sequence[str]
) -> Figure:
    """Means with bands against the share of dropped annotations, supplement Figure 2.

    A thin line marks what a panel's first arm reaches with the fewest annotations dropped: an arm
    above it makes up for those that it lacks.

    Args:
        summary: Columns arm, drop, metric, mean, low, high.
        panels: The arms of each panel.
        titles: Of the panels.
    """
    metrics, size = ("AP", "AP_r"), (4.5 * len(panels), 6.2)
    fig, axes = plt.subplots(
        len(metrics), len(panels), figsize=size, sharex=True, sharey="row", squeeze=False
    )
    order = list(dict.fromkeys(arm for arms in panels for arm in arms))
    for metric, row in zip(metrics, axes, strict=True):
        part = summary[summary["metric"] == metric].sort_values("drop", kind="stable")
        for ax, arms, title in zip(row, panels, titles, strict=True):
            rows = part[part["arm"].isin(arms)]
            for arm, own in rows.groupby("arm"):
                color = SERIES_COLORS[order.index(arm)]
                ax.fill_between(own["drop"], own["low"], own["high"], color=color, alpha=0.18)
            series_lines(ax, rows, "drop", "mean", "arm", order)
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


def gain_figure(classes: pd.DataFrame) -> Figure:
    """Gain of each class against how well the teacher names it.

    Args:
        classes: Columns group, teacher (percent of its boxes named right) and gain (points of AP).
    """
    fig, ax = plt.subplots(figsize=(5.2, 3.6))
    ax.axhline(0, color="#999999", linewidth=0.8, zorder=0)
    scatter_groups(ax, classes, "teacher", "gain")
    ax.set(xlabel="boxes that the teacher names right, percent", ylabel="gain of AP, points")
    # Above the points, which fill the whole of the picture.
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return fig
