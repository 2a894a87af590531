"""Figures of several seeds: arms side by side, learning curves and drop ratios with intervals."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from richsem.workbook.figures.style import (
    GROUP_COLORS,
    GROUP_MARKERS,
    GROUP_NAMES,
    GROUPS,
    SERIES_COLORS,
    SERIES_LINES,
    SERIES_MARKERS,
)


def arms_figure(frame: pd.DataFrame, summary: pd.DataFrame, metrics: Sequence[str]) -> Figure:
    """Every seed as a thin line over the arms, and each arm's mean with its interval.

    Args:
        frame: Columns arm, seed, metric, value.
        summary: Columns arm, metric, mean, low, high.
        metrics: One panel each.
    """
    arms = list(dict.fromkeys(frame["arm"]))
    fig, axes = plt.subplots(1, len(metrics), figsize=(3.6 * len(metrics), 3.4), squeeze=False)
    for ax, metric in zip(axes[0], metrics, strict=True):
        part = frame[frame["metric"] == metric]
        for _, rows in part.groupby("seed"):
            values = rows.set_index("arm")["value"].reindex(arms)
            ax.plot(range(len(arms)), values, color="#bbbbbb", linewidth=0.8, zorder=1)
        rows = summary[summary["metric"] == metric].set_index("arm").reindex(arms)
        for i, (mean, low, high) in enumerate(
            zip(rows["mean"], rows["low"], rows["high"], strict=True)
        ):
            ax.errorbar(
                i, mean, yerr=_bars(mean, low, high), fmt=SERIES_MARKERS[i % 6], capsize=4,
                color=SERIES_COLORS[i % 6], markersize=6, zorder=2,
            )  # fmt: skip
        ax.set_xticks(range(len(arms)), arms, rotation=30, ha="right")
        ax.set(title=metric, ylabel="percent", xlim=(-0.5, len(arms) - 0.5))
    return fig


def curves_figure(curves: pd.DataFrame, metrics: Sequence[str] = ("AP", "AP_r")) -> Figure:
    """Learning curves of several runs per arm: mean and range, against steps and CPU seconds.

    Args:
        curves: Columns detector, run (the arm), seed, step, cpu_seconds, metric, value.
        metrics: One row of panels for each of them and each detector.
    """
    panels = [(name, metric) for name in curves["detector"].unique() for metric in metrics]
    fig, axes = plt.subplots(len(panels), 2, figsize=(9.0, 2.7 * len(panels)), squeeze=False)
    labels = {"step": "optimiser steps", "cpu_seconds": "CPU seconds"}
    order = {arm: i for i, arm in enumerate(curves["run"].unique())}
    for (name, metric), row in zip(panels, axes, strict=True):
        part = curves[(curves["detector"] == name) & (curves["metric"] == metric)]
        for arm, rows in part.groupby("run", sort=False):
            i = order[arm]
            found = rows.groupby("step").agg(
                cpu_seconds=("cpu_seconds", "mean"),
                mean=("value", "mean"),
                low=("value", "min"),
                high=("value", "max"),
            )
            for ax, x in zip(row, (found.index, found["cpu_seconds"]), strict=True):
                ax.fill_between(x, found["low"], found["high"], color=SERIES_COLORS[i], alpha=0.18)
                ax.plot(
                    x, found["mean"], color=SERIES_COLORS[i], linestyle=SERIES_LINES[i],
                    marker=SERIES_MARKERS[i], markersize=5, label=arm,
                )  # fmt: skip
        for ax, label in zip(row, labels.values(), strict=True):
            ax.set(title=f"{name}: {metric}", xlabel=label, ylabel="percent")
            ax.set_ylim(0, 1.08 * part["value"].max() if len(part) else None)
    axes[0][0].legend(loc="lower right")
    return fig


def lines_figure(
    summary: pd.DataFrame,
    panels: Sequence[Sequence[str]],
    titles: Sequence[str],
    metrics: Sequence[str] = ("AP", "AP_r"),
) -> Figure:
    """Means with bands against the share of dropped annotations, supplement Figure 2.

    A thin line marks what a panel's first arm reaches with the fewest annotations dropped: an arm
    above it makes up for those that it lacks.

    Args:
        summary: Columns arm, drop, metric, mean, low, high.
        panels: The arms of each panel.
        titles: Of the panels.
        metrics: One row of panels each.
    """
    size = (4.5 * len(panels), 3.0 * len(metrics) + 0.2)
    fig, axes = plt.subplots(
        len(metrics), len(panels), figsize=size, sharex=True, sharey="row", squeeze=False
    )
    order = list(dict.fromkeys(arm for arms in panels for arm in arms))
    for metric, row in zip(metrics, axes, strict=True):
        part = summary[summary["metric"] == metric].sort_values("drop", kind="stable")
        for ax, arms, title in zip(row, panels, titles, strict=True):
            for arm in arms:
                rows, i = part[part["arm"] == arm], order.index(arm)
                ax.fill_between(
                    rows["drop"], rows["low"], rows["high"], color=SERIES_COLORS[i], alpha=0.18
                )
                ax.plot(
                    rows["drop"], rows["mean"], color=SERIES_COLORS[i], linestyle=SERIES_LINES[i],
                    marker=SERIES_MARKERS[i], label=arm,
                )  # fmt: skip
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
    for group in reversed(GROUPS):
        rows = classes[classes["group"] == group]
        ax.scatter(
            rows["teacher"], rows["gain"], marker=GROUP_MARKERS[group], s=24, alpha=0.85,
            color=GROUP_COLORS[group], edgecolor="white", linewidth=0.4, label=GROUP_NAMES[group],
        )  # fmt: skip
    ax.set(xlabel="boxes that the teacher names right, percent", ylabel="gain of AP, points")
    # Above the points, which fill the whole of the picture.
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(GROUPS))
    return fig


def _bars(mean: float, low: float, high: float) -> np.ndarray | None:
    return None if np.isnan(low) else np.array([[mean - low], [high - mean]])
