"""Figures of what larger backbones cost; computes nothing."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from richsem.workbook.figures.style import GROUP_COLORS, GROUP_MARKERS, SERIES_COLORS
from richsem.workbook.figures.training_charts import series_lines

_PRECISION = {"AP": ("all", "AP"), "AP_r": ("r", "AP of rare classes")}
_COSTS = {
    "gflop": ("GFLOP of a forward pass", "arithmetic"),
    "activations": ("GB kept for the backward pass", "memory of activations"),
}


def scaling_figure(frame: pd.DataFrame) -> Figure:
    """Published precision against size; parameters by part; cost of an image against its size.

    Args:
        frame: Columns panel ("AP", "AP_r", "backbone", "rest", "gflop", "activations"), system, x,
            y and kind.
    """
    fig, axes = plt.subplots(2, 2, figsize=(9.6, 7.0))
    _published(axes[0][0], frame)
    _parameters(axes[0][1], frame)
    for ax, (panel, (label, title)) in zip(axes[1], _COSTS.items(), strict=True):
        _cost(ax, frame[frame["panel"] == panel])
        ax.set(ylabel=label, title=f"{title}, counted")
    return fig


def stacked_figure(parts: pd.DataFrame, label: str) -> Figure:
    """Amounts of each part (columns) as stacked bars, one bar per system (rows).

    Parts that are invisible in every bar are summed as "others".
    """
    small = parts.columns[(parts.div(parts.sum(axis=1), axis=0) < 0.01).all()]
    parts = parts.drop(columns=small).assign(others=parts[small].sum(axis=1))
    fig, ax = plt.subplots(figsize=(7.2, 0.42 * len(parts) + 1.2))
    _stack(parts, "barh", ax)
    ax.invert_yaxis()
    ax.set(xlabel=label, ylabel="")
    ax.grid(axis="y", visible=False)
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), handlelength=1.4)
    return fig


def _stack(parts: pd.DataFrame, kind: str, ax: Axes) -> None:
    colors = [SERIES_COLORS[i % len(SERIES_COLORS)] for i in range(parts.shape[1])]
    parts.plot(kind=kind, stacked=True, ax=ax, color=colors, width=0.8, edgecolor="white")
    for i, bars in enumerate(ax.containers):
        for bar in bars:
            bar.set_hatch(("", "///", "...", "xx", "\\\\\\", "++", "oo")[i % 7])


def _published(ax: Axes, frame: pd.DataFrame) -> None:
    for panel, (group, name) in _PRECISION.items():
        part = frame[frame["panel"] == panel]
        ax.plot(
            part["x"], part["y"], marker=GROUP_MARKERS[group], color=GROUP_COLORS[group],
            markerfacecolor="none", markeredgewidth=1.4, markersize=8, linestyle="none",
            label=f"{name}, published",
        )  # fmt: skip
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


def _cost(ax: Axes, part: pd.DataFrame) -> None:
    series_lines(ax, part, "x", "y", "system")
    ax.set(xlabel="size of the image (megapixels)", xlim=(0, None), ylim=(0, None))
    ax.legend(loc="upper left")
