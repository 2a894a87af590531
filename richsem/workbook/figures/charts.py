"""The workbook's figures, from numbers alone: nothing here computes a result."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from PIL import Image

from richsem.workbook.figures.style import (
    GROUP_COLORS,
    GROUP_MARKERS,
    GROUP_NAMES,
    GROUPS,
    SERIES_COLORS,
    SERIES_LINES,
    SERIES_MARKERS,
)

_HATCHES = {"r": "///", "c": "...", "f": ""}


def frequency_figure(frame: pd.DataFrame) -> Figure:
    """Figure 3: instances per category on a log scale, categories sorted, coloured by group.

    The ratio above each panel is that of its most to its least frequent category.

    Args:
        frame: Columns dataset, category, group ("r", "c", "f"), instances.
    """
    names = list(dict.fromkeys(frame["dataset"]))
    fig, axes = plt.subplots(1, len(names), figsize=(3.6 * len(names), 3.1), squeeze=False)
    for ax, name in zip(axes[0], names, strict=True):
        part = frame[(frame["dataset"] == name) & (frame["instances"] > 0)]
        part = part.sort_values("instances", ascending=False).reset_index(drop=True)
        for group in reversed(GROUPS):
            rows = part[part["group"] == group]
            if rows.empty:
                continue
            ax.bar(
                rows.index, rows["instances"], width=1.0, color=GROUP_COLORS[group],
                hatch=_HATCHES[group] if len(part) < 200 else "", edgecolor="white",
                linewidth=0.0, label=f"{GROUP_NAMES[group]} ({len(rows)})",
            )  # fmt: skip
        ratio = part["instances"].max() / part["instances"].min()
        ax.set(yscale="log", title=name, xlabel="categories, most frequent first")
        ax.set_ylim(bottom=min(0.8, 0.8 * part["instances"].min()))
        ax.set_title(f"{ratio:,.0f} : 1", loc="right", fontweight="normal", fontsize="medium")
        ax.legend(loc="upper right", handlelength=1.2)
        ax.grid(axis="x", visible=False)
    axes[0][0].set_ylabel("instances")
    return fig


def noise_figure(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Figure 1: accuracy against the noise scale, one panel per way of reading a region.

    Args:
        curves: Panel title -> output of `zero_shot.noise_curve`.
    """
    fig, axes = plt.subplots(1, len(curves), figsize=(4.4 * len(curves), 3.4), sharey=True)
    for ax, (title, curve) in zip(np.atleast_1d(axes), curves.items(), strict=True):
        for i, (k, part) in enumerate(curve.groupby("k")):
            ax.plot(
                part["scale"], part["accuracy"], color=SERIES_COLORS[i], marker=SERIES_MARKERS[i],
                linestyle=SERIES_LINES[i], markersize=5, label=f"top-{k}",
            )  # fmt: skip
            ax.fill_between(
                part["scale"], part["ci_low"], part["ci_high"], color=SERIES_COLORS[i], alpha=0.25,
                linewidth=0,
            )  # fmt: skip
        ax.set(title=title, xlabel="noise scale of the box", ylim=(0, 100))
        ax.legend(loc="lower left")
    np.atleast_1d(axes)[0].set_ylabel("class-averaged accuracy (%)")
    return fig


def relative_noise_figure(curves: Mapping[str, pd.DataFrame], k: int) -> Figure:
    """The share of the clean accuracy that is left, all ways of reading in one panel."""
    fig, ax = plt.subplots(figsize=(5.2, 3.4))
    for i, (title, curve) in enumerate(curves.items()):
        part = curve[curve["k"] == k]
        ax.plot(
            part["scale"], part["relative"], color=SERIES_COLORS[i], marker=SERIES_MARKERS[i],
            linestyle=SERIES_LINES[i], markersize=5, label=title,
        )  # fmt: skip
    ax.set(xlabel="noise scale of the box", ylabel=f"top-{k}, relative to clean boxes")
    ax.set_ylim(0, 1.05)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.legend(loc="lower left")
    return fig


def probe_figure(frame: pd.DataFrame) -> Figure:
    """Accuracy of the scarcity probe per frequency group and training data.

    Args:
        frame: Columns data, group, accuracy.
    """
    fig, ax = plt.subplots(figsize=(5.6, 3.2))
    datas = list(dict.fromkeys(frame["data"]))
    width = 0.8 / len(datas)
    for i, data in enumerate(datas):
        part = frame[frame["data"] == data].set_index("group").loc[list(GROUPS)]
        x = np.arange(len(GROUPS)) + (i - (len(datas) - 1) / 2) * width
        bars = ax.bar(
            x, part["accuracy"], width, label=data, color=SERIES_COLORS[i], edgecolor="black",
            linewidth=0.6, hatch=("", "///", "...")[i % 3],
        )  # fmt: skip
        ax.bar_label(bars, fmt="%.0f", padding=1, fontsize=8)
    ax.set_xticks(range(len(GROUPS)), [GROUP_NAMES[g] for g in GROUPS])
    ax.set(ylabel="class-averaged accuracy (%)", ylim=(0, 100))
    ax.legend(loc="upper left")
    ax.grid(axis="x", visible=False)
    return fig


def accuracy_by_group_figure(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Top-k accuracy per frequency group with intervals: is the teacher fair to the rare?

    Args:
        tables: Panel title -> output of `zero_shot.accuracy_table`.
    """
    fig, axes = plt.subplots(1, len(tables), figsize=(3.8 * len(tables), 3.2), sharey=True)
    for ax, (title, table) in zip(np.atleast_1d(axes), tables.items(), strict=True):
        ks = sorted(table["k"].unique())
        for i, group in enumerate(g for g in GROUPS if g in set(table["group"])):
            part = table[table["group"] == group].set_index("k").loc[ks]
            error = [part["accuracy"] - part["ci_low"], part["ci_high"] - part["accuracy"]]
            ax.errorbar(
                np.arange(len(ks)) + 0.12 * (i - 1), part["accuracy"], yerr=error, capsize=3,
                color=GROUP_COLORS[group], marker=GROUP_MARKERS[group], linestyle="none",
                label=GROUP_NAMES[group],
            )  # fmt: skip
        ax.set_xticks(range(len(ks)), [f"top-{k}" for k in ks])
        ax.set(title=title, ylim=(0, 100))
        ax.legend(loc="upper left")
    np.atleast_1d(axes)[0].set_ylabel("class-averaged accuracy (%)")
    return fig


def soft_label_figure(
    image: Image.Image,
    boxes: Mapping[str, Sequence[float]],
    labels: Mapping[str, tuple[Sequence[str], np.ndarray]],
    true_name: str,
) -> Figure:
    """One image with some boxes and the ten most likely classes the teacher sees in each.

    Args:
        image: The scene.
        boxes: Title -> box xyxy in pixels.
        labels: Title -> (names, probabilities) by falling probability.
        true_name: Class whose bar is highlighted.
    """
    fig, axes = plt.subplots(1, 1 + len(boxes), figsize=(3.2 * (1 + len(boxes)), 2.9))
    axes[0].imshow(image)
    axes[0].set(title=f"a {true_name}", xticks=[], yticks=[])
    axes[0].grid(visible=False)
    for i, (title, (left, top, right, bottom)) in enumerate(boxes.items()):
        corners = ([left, right, right, left, left], [top, top, bottom, bottom, top])
        axes[0].plot(*corners, color="white", linewidth=3.2)
        axes[0].plot(*corners, color=SERIES_COLORS[i], linestyle=SERIES_LINES[i], linewidth=1.8)
        names, probabilities = labels[title]
        ax, shown = axes[i + 1], slice(0, 10)
        own = [name == true_name for name in names[shown]]
        bars = ax.barh(range(len(own)), probabilities[shown], color=SERIES_COLORS[i], alpha=0.45)
        for bar, hit in zip(bars, own, strict=True):
            bar.set(alpha=1.0 if hit else 0.45, hatch="//" if hit else "", edgecolor="white")
        ax.set_yticks(range(len(own)), names[shown])
        ax.invert_yaxis()
        ax.set(title=title, xlim=(0, 1), xlabel="probability")
        ax.grid(axis="y", visible=False)
    return fig
