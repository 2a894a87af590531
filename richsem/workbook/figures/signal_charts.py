"""Pictures of soft labels and losses, from numbers alone: nothing here computes a result."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
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

_SHOWN = 7  # classes in a bar chart
_HARD = {"fill": False, "edgecolor": "black", "linewidth": 1.3, "linestyle": (0, (4, 2))}


class _View(Protocol):
    """What is shown of an object; see `richsem.workbook.inspector.View`."""

    crop: Image.Image
    true_name: str
    names: tuple[str, ...]
    probabilities: np.ndarray


def hard_and_soft_figure(views: Sequence[_View], columns: int = 2) -> Figure:
    """Objects, each beside its soft label (bars) and its hard label (dashed outline)."""
    rows = -(-len(views) // columns)
    grid = {"width_ratios": [1, 1.5] * columns}
    fig, axes = plt.subplots(
        rows, 2 * columns, figsize=(5.4 * columns, 2.2 * rows), gridspec_kw=grid, squeeze=False
    )
    for ax in axes.flat[2 * len(views) :]:
        ax.axis("off")
    for i, seen in enumerate(views):
        picture, ax = axes.flat[2 * i], axes.flat[2 * i + 1]
        picture.imshow(seen.crop, interpolation="bicubic")
        picture.axis("off")
        names = list(seen.names[:_SHOWN])
        values = list(seen.probabilities[:_SHOWN])
        if seen.true_name not in names:  # the hard label must be somewhere
            names[-1] = seen.true_name
            values[-1] = seen.probabilities[seen.names.index(seen.true_name)]
        _bars(ax, names, values, SERIES_COLORS[0])
        ax.barh(names.index(seen.true_name), 1.0, **_HARD)
        ax.set_title(seen.true_name, fontsize="medium")
    return fig


def bars_figure(
    labels: Mapping[str, tuple[Sequence[str], np.ndarray]], marked: str = "", columns: int = 4
) -> Figure:
    """Small multiples of class probabilities.

    Args:
        labels: Title -> (names, probabilities), in the order in which they are drawn.
        marked: A class whose bar is hatched; by default each panel's title, if it is a class.
        columns: Panels per row.
    """
    rows = -(-len(labels) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(3.3 * columns, 2.2 * rows), squeeze=False)
    for ax in axes.flat[len(labels) :]:
        ax.axis("off")
    for ax, (title, (names, values)) in zip(axes.flat, labels.items(), strict=False):
        own = marked or title
        bars = _bars(ax, names[:_SHOWN], values[:_SHOWN], SERIES_COLORS[0])
        for bar, name in zip(bars, names, strict=False):
            bar.set(alpha=1.0 if name == own else 0.45)
            bar.set(hatch="//" if name == own else "", edgecolor="white")
        ax.set_title(title, fontsize="medium")
    return fig


def response_figure(
    cosines: np.ndarray, responses: Mapping[str, np.ndarray], names: Sequence[str], own: int
) -> Figure:
    """What a step on one class does to the others, against the likeness of their texts.

    Args:
        cosines: Of each class's text feature with that of the class [C].
        responses: Kind of classifier -> relative change of each logit [C].
        names: [C].
        own: The class that the step was made for.
    """
    fig, ax = plt.subplots(figsize=(7.0, 3.6))
    others = np.flatnonzero(np.arange(len(names)) != own)
    for i, (kind, change) in enumerate(responses.items()):
        ax.scatter(
            cosines[others], change[others], s=26, color=SERIES_COLORS[i], marker=SERIES_MARKERS[i],
            alpha=0.75, edgecolor="white", linewidth=0.4, label=kind,
        )  # fmt: skip
    last = list(responses.values())[-1]
    shown = np.inf
    for i in others[np.argsort(-cosines[others])[:8]]:
        if shown - cosines[i] > 0.05 * np.ptp(cosines[others]):  # names must not overlap
            shown, place = cosines[i], {"xytext": (4, -9), "textcoords": "offset points"}
            ax.annotate(names[i], (cosines[i], last[i]), **place, fontsize=8)
    ax.axhline(0, color="black", linewidth=0.8)
    ax.margins(x=0.09)
    ax.set(xlabel=f'cosine of the class\'s text with "{names[own]}"', ylabel="change of its logit")
    ax.set_title(f'one step raises "{names[own]}" by 1', fontsize="medium")
    ax.legend(loc="upper left", handlelength=1.0)
    return fig


def pull_figure(
    names: Sequence[str],
    paths: Mapping[str, np.ndarray],
    targets: Mapping[str, np.ndarray],
    steps: Sequence[int],
    start: float,
) -> Figure:
    """Students on their way to their targets: one row per target, one column per step.

    Args:
        names: The K classes that are shown.
        paths: Row title -> probabilities [T, K], one row of numbers per entry of `steps`.
        targets: Row title -> the target [K]; a zero lies beyond the axis.
        steps: [T].
        start: Probability of every class before the first step; bars begin here.
    """
    size = (2.3 * len(steps) + 1.2, 2.5 * len(paths))
    fig, axes = plt.subplots(
        len(paths), len(steps), figsize=size, sharex=True, sharey=True, squeeze=False
    )
    rows = np.arange(len(names))
    for i, (row, (title, path)) in enumerate(zip(axes, paths.items(), strict=True)):
        for ax, step, values in zip(row, steps, path, strict=True):
            bars = ax.barh(rows, values - start, left=start, color=SERIES_COLORS[i], height=0.7)
            for bar, value in zip(bars, values, strict=True):
                bar.set(alpha=1.0 if value > start else 0.45, edgecolor="white")
                bar.set_hatch("" if value > start else "//")
            ax.axvline(start, color="black", linewidth=0.8)
            known = targets[title] > 0
            ax.plot(
                targets[title][known], rows[known], linestyle="none", marker="D", markersize=6,
                markerfacecolor="white", markeredgecolor="black", label="target",
            )  # fmt: skip
            ax.grid(axis="y", visible=False)
            if not i:
                ax.set_title(f"{step} step{'s' * (step != 1)}", fontsize="medium")
        row[0].set_ylabel(title, fontweight="bold")
    axes[0, 0].set_yticks(rows, names)
    axes[0, 0].invert_yaxis()
    least = min(float(path.min()) for path in paths.values())
    axes[0, 0].set(xscale="log", xlim=(least / 2, 2.0))
    fig.supxlabel("probability (bars begin where every class began)", fontsize="medium")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right")
    return fig


def soft_count_figure(frame: pd.DataFrame) -> Figure:
    """Objects that speak for each class: as annotated, and as the teacher shares them out.

    Args:
        frame: Columns group, hard, own, others, one row per class.
    """
    fig, ax = plt.subplots(figsize=(6.2, 4.0))
    for group in reversed(GROUPS):
        part = frame[frame["group"] == group]
        if part.empty:
            continue
        look = {"color": GROUP_COLORS[group], "marker": GROUP_MARKERS[group], "linewidth": 1.0}
        soft = part["own"] + part["others"]
        ax.scatter(part["hard"], soft, s=34, label=f"{GROUP_NAMES[group]}: soft", **look)
        look |= {"facecolors": "none", "edgecolors": look.pop("color")}
        ax.scatter(part["hard"], part["hard"], s=26, label=f"{GROUP_NAMES[group]}: hard", **look)
    ax.set(xscale="log", yscale="log")
    ax.set(xlabel="annotated objects of the class", ylabel="objects that speak for it")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.0)
    return fig


def focal_figure(
    probability: np.ndarray, curves: Mapping[str, np.ndarray], shares: pd.DataFrame
) -> Figure:
    """The focal loss of one positive, and who makes the sum over all queries and classes.

    Args:
        probability: That the student gives to the right class, rising [P].
        curves: Name of a loss -> its values [P].
        shares: One row per loss, one column per kind of logit; rows sum to 1.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.5), width_ratios=[1, 1.15])
    for i, (name, values) in enumerate(curves.items()):
        left.plot(
            probability, values, color=SERIES_COLORS[i], linestyle=SERIES_LINES[i], label=name
        )
    left.set(xlabel="probability of the right answer", ylabel="loss", ylim=(0, 5), xlim=(0, 1))
    left.set_title("one logit", fontsize="medium")
    left.legend()
    start = np.zeros(len(shares))
    for i, (kind, values) in enumerate(shares.items()):
        bars = right.barh(
            range(len(shares)), values, left=start, color=SERIES_COLORS[i], label=kind,
            hatch=("", "//", "..")[i % 3], edgecolor="white", linewidth=0.6,
        )  # fmt: skip
        words = [f"{value:.0%}" if value > 0.07 else "" for value in values]
        text = {"fontweight": "bold", "fontsize": 8, "color": "black"}
        pale = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        right.bar_label(bars, words, label_type="center", bbox=pale, **text)
        start = start + values.to_numpy()
    for text in right.texts:
        text.set_visible(bool(text.get_text()))
    right.set_yticks(range(len(shares)), list(shares.index))
    right.invert_yaxis()
    right.set(xlim=(0, 1), xlabel="share of the summed loss")
    right.xaxis.set_major_formatter(PercentFormatter(1.0))
    right.set_title("all logits of an image", fontsize="medium")
    right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, handlelength=1.4)
    right.grid(axis="y", visible=False)
    return fig


def federated_figure(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """How often a class is drawn as a negative, and how many "no" it hears per "yes".

    Args:
        tables: Name of a set -> columns group, images, present, absent, drawn and seen.
    """
    fig, axes = plt.subplots(
        len(tables), 2, figsize=(10.5, 3.3 * len(tables)), squeeze=False, width_ratios=[1, 1]
    )
    for (left, right), (name, table) in zip(axes, tables.items(), strict=True):
        table = table[table["images"] > 0].sort_values("images")
        left.plot(table["images"], table["drawn"], color="black", linewidth=1.0, label="calculated")
        _by_group(left, table, "seen", "drawn")
        left.set(ylabel="share of steps", ylim=(0, None))
        left.set_title(f"{name}: steps that say only no", fontsize="medium")
        for column, words, style in (("absent", "all classes", 1), ("drawn", "federated", 0)):
            ratio = table[column] / table["present"]
            right.plot(
                table["images"], ratio, color=SERIES_COLORS[style], linestyle=SERIES_LINES[style],
                label=words, linewidth=2.0,
            )  # fmt: skip
        right.set(yscale="log", ylabel="steps no : steps yes")
        right.set_title(f'{name}: "no" per "yes"', fontsize="medium")
        for ax in (left, right):
            ax.set(xscale="log", xlabel="training images of the class")
            ax.legend(handlelength=2.0)
    return fig


def answers_figure(
    images: Sequence[Image.Image],
    boxes: Sequence[np.ndarray],
    answers: Mapping[str, Sequence[int]],
    titles: Sequence[str],
) -> Figure:
    """Which box answers for an image's label, under each rule.

    Args:
        images: The pictures.
        boxes: Candidates of each picture, xyxy in pixels [n, 4].
        answers: Rule -> number of the box that answers in each picture.
        titles: The label of each picture.
    """
    fig, axes = plt.subplots(1, len(images), figsize=(3.0 * len(images), 3.5), squeeze=False)
    for i, ax in enumerate(axes[0]):
        ax.imshow(images[i], interpolation="bicubic")
        for box in boxes[i]:
            _outline(ax, box, color="white", linewidth=1.2)
        for place, (rule, chosen) in enumerate(answers.items()):
            look = {"color": SERIES_COLORS[place], "linestyle": SERIES_LINES[place]}
            inset = place * max(images[i].size) / 70  # two rules may choose one box
            _outline(ax, boxes[i][chosen[i]], inset, color="white", linewidth=4.0)
            _outline(ax, boxes[i][chosen[i]], inset, linewidth=2.2, label=rule, **look)
        ax.set_title(titles[i], fontsize="medium")
        ax.axis("off")
    handles, words = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, words, loc="outside lower center", ncols=len(answers))
    return fig


def _bars(ax: Axes, names: Sequence[str], values: Sequence[float], color: str) -> list[Rectangle]:
    bars = ax.barh(range(len(names)), values, color=color, height=0.7)
    ax.set_yticks(range(len(names)), names)
    if not ax.yaxis_inverted():
        ax.invert_yaxis()
    ax.set(xlim=(0, 1.02), xlabel="probability")
    ax.grid(axis="y", visible=False)
    return list(bars)


def _by_group(ax: Axes, table: pd.DataFrame, column: str, words: str) -> None:
    for group in GROUPS:
        part = table[table["group"] == group]
        if len(part):
            ax.scatter(
                part["images"], part[column], s=16, color=GROUP_COLORS[group], alpha=0.8,
                marker=GROUP_MARKERS[group], label=f"{GROUP_NAMES[group]}, {words}", linewidth=0,
            )  # fmt: skip


def _outline(ax: Axes, box: np.ndarray, inset: float = 0.0, **look: object) -> None:
    left, top, right, bottom = box
    size = (max(right - left - 2 * inset, 1), max(bottom - top - 2 * inset, 1))
    edge = {"edgecolor": look.pop("color"), "fill": False, "clip_on": False}
    ax.add_patch(Rectangle((left + inset, top + inset), *size, **edge, **look))
