"""Figures of what larger backbones cost; computes nothing."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from richsem.workbook.figures.style import (
    GROUP_COLORS,
    GROUP_MARKERS,
    SERIES_COLORS,
    SERIES_LINES,
    SERIES_MARKERS,
)

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
    left = pd.Series(0.0, index=parts.index)
    for i, name in enumerate(parts):
        ax.barh(
            range(len(parts)), parts[name], left=left, label=name, edgecolor="white",
            color=SERIES_COLORS[i % len(SERIES_COLORS)], linewidth=0.6,
            hatch=("", "///", "...", "xx", "\\\\\\", "++", "oo")[i % 7],
        )  # fmt: skip
        left += parts[name]
    ax.set_yticks(range(len(parts)), parts.index)
    ax.invert_yaxis()
    ax.set_xlabel(label)
    ax.grid(axis="y", visible=False)
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), handlelength=1.4)
    return fig


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
    backbone, rest = (frame[frame["panel"] == name] for name in ("backbone", "rest"))
    bottom = backbone["y"].to_numpy()
    ax.bar(backbone["x"], bottom, color=SERIES_COLORS[0], label="backbone", edgecolor="white")
    ax.bar(
        rest["x"], rest["y"], bottom=bottom, color=SERIES_COLORS[1], label="DINO and heads",
        hatch="///", edgecolor="white",
    )  # fmt: skip
    for x, height in zip(rest["x"], bottom + rest["y"].to_numpy(), strict=True):
        ax.annotate(f"{height:.0f}", (x, height), ha="center", va="bottom", fontsize=8)
    ax.set_xticks(backbone["x"].to_numpy(), backbone["system"], rotation=40, ha="right")
    ax.set(ylabel="parameters (millions)", title="RichSem on a ladder, counted")
    ax.grid(axis="x", visible=False)
    ax.legend(loc="upper left", handlelength=1.4)


def _cost(ax: Axes, part: pd.DataFrame) -> None:
    for i, (system, rows) in enumerate(part.groupby("system", sort=False)):
        ax.plot(
            rows["x"], rows["y"], color=SERIES_COLORS[i], marker=SERIES_MARKERS[i],
            linestyle=SERIES_LINES[i], markersize=5, label=system,
        )  # fmt: skip
    ax.set(xlabel="size of the image (megapixels)", xlim=(0, None), ylim=(0, None))
    ax.legend(loc="upper left")
