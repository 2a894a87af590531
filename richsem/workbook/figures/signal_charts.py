"""Pictures of soft labels and losses, from numbers alone: nothing here computes a result."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from richsem.workbook.figures import drawing, style
from richsem.workbook.zero_shot import View

_SHOWN = 7  # classes in a bar chart
_HARD = {"fill": False, "edgecolor": "black", "linewidth": 1.3, "linestyle": (0, (4, 2))}


def hard_and_soft_figure(views: Sequence[View]) -> Figure:
    """Objects, each beside its soft label (bars) and its hard label (dashed outline)."""
    fig, axes = drawing.grid(2 * len(views), (2.7, 2.2), 4, width_ratios=(1, 1.5, 1, 1.5))
    for seen, picture, ax in zip(views, axes[::2], axes[1::2], strict=True):
        drawing.show(picture, seen.crop)
        names, values = list(seen.names[:_SHOWN]), list(seen.probabilities[:_SHOWN])
        if seen.true_name not in names:  # the hard label must be somewhere
            names[-1] = seen.true_name
            values[-1] = seen.probabilities[seen.names.index(seen.true_name)]
        style.probability_bars(ax, names, values)
        ax.barh(names.index(seen.true_name), 1.0, **_HARD)
        ax.set_title(seen.true_name, **drawing.TITLE)
    return fig


def label_figure(soft: Mapping[str, tuple[Sequence[str], np.ndarray]], marked: str = "") -> Figure:
    """Small multiples of class probabilities: title -> (names, probabilities) as they are drawn.

    The bar of one class is hatched: that of `marked`, or else of each title that is a class.
    """
    fig, axes = drawing.grid(len(soft), (3.3, 2.2), 4)
    for ax, (title, (names, values)) in zip(axes, soft.items(), strict=True):
        style.probability_bars(ax, names[:_SHOWN], values[:_SHOWN], marked=marked or title)
        ax.set_title(title, **drawing.TITLE)
    return fig


def response_figure(
    cosines: np.ndarray,  # of each class's text feature with that of the class [C]
    responses: Mapping[str, np.ndarray],  # kind of classifier -> relative change of each logit [C]
    names: Sequence[str],  # [C]
    own: int,  # the class that the step was made for
) -> Figure:
    """What a step on one class does to the others, against the likeness of their texts."""
    fig, ax = plt.subplots(figsize=(7.0, 3.6))
    frame = pd.DataFrame({"cosine": cosines, **responses}, index=list(names)).drop(names[own])
    tidy = frame.melt("cosine", var_name="kind", value_name="change")
    style.points(ax, tidy, "cosine", "change", "kind")
    shown = np.inf
    for name, row in frame.nlargest(8, "cosine").iterrows():
        if shown - row["cosine"] > 0.05 * np.ptp(frame["cosine"]):  # names must not overlap
            shown, beside = row["cosine"], {"xytext": (4, -9), "textcoords": "offset points"}
            ax.annotate(name, (shown, row.iloc[-1]), **beside, fontsize=8)
    ax.axhline(0, color="black", linewidth=0.8)
    ax.margins(x=0.09)
    ax.set(xlabel=f'cosine of the class\'s text with "{names[own]}"', ylabel="change of its logit")
    ax.set_title(f'one step raises "{names[own]}" by 1')
    ax.legend(loc="upper left", handlelength=1.0)
    return fig


def pull_figure(
    names: Sequence[str],  # the K classes that are shown
    paths: Mapping[str, np.ndarray],  # title of a row -> probabilities after each step [T, K]
    targets: Mapping[str, np.ndarray],  # title of a row -> target [K]; a zero is beyond the axis
    steps: Sequence[int],  # [T]
    start: float,  # probability of every class before the first step; bars begin here
) -> Figure:
    """Students on their way to their targets: one row per target, one column per step."""
    shape = {"figsize": (2.6 * len(steps), 2.5 * len(paths)), "squeeze": False}
    fig, axes = plt.subplots(len(paths), len(steps), sharex=True, sharey=True, **shape)
    rows = np.arange(len(names))
    for color, row, (title, path) in zip(style.SERIES_COLORS, axes, paths.items(), strict=False):
        known = targets[title] > 0
        for ax, values, step in zip(row, path, steps, strict=True):
            words = f"{step} step{'s' * (step != 1)}"
            ax.set_title(f"{title}: {words}" if ax is row[0] else words)
            bars = ax.barh(rows, values - start, 0.7, left=start, color=color, edgecolor="white")
            for bar, value in zip(bars, values, strict=True):
                grows = value > start
                bar.set(alpha=1.0 if grows else 0.45, hatch="" if grows else "//")
            ax.axvline(start, color="black", linewidth=0.8)
            look = {"linestyle": "none", "markerfacecolor": "white", "markeredgecolor": "black"}
            ax.plot(targets[title][known], rows[known], "D", label="target", **look)
            ax.grid(axis="y", visible=False)
    axes[0, 0].set_yticks(rows, map(style.cut, names))
    axes[0, 0].invert_yaxis()
    least = min(float(path.min()) for path in paths.values())
    # Two decades at a time: seldom another axis, which takes most of a move's time.
    axes[0, 0].set(xscale="log", xlim=(100 ** np.floor(np.log10(least / 2) / 2), 2.0))
    axes[0, 0].minorticks_off()
    fig.supxlabel("probability (bars begin where every class began)", fontsize="medium")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right")
    return fig


def soft_count_figure(frame: pd.DataFrame) -> Figure:  # columns group, hard, own, others
    """Objects that speak for each class: as annotated, and as the teacher shares them out."""
    fig, ax = plt.subplots(figsize=(6.2, 4), subplot_kw={"xscale": "log", "yscale": "log"})
    frame = frame.assign(soft=frame["own"] + frame["others"])
    for group, name, part in reversed(style.parts_of(frame, "group")):
        color, marker, _ = style.look_of(group).values()
        look = {"marker": marker, "edgecolor": color, "linewidth": 1.0}
        for kind, fill, area in (("soft", color, 34), ("hard", "none", 26)):
            look |= {"facecolor": fill, "s": area, "label": f"{name}: {kind}"}
            ax.scatter(part["hard"], part[kind], **look)
    ax.set(xlabel="annotated objects of the class", ylabel="objects that speak for it")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.0)
    return fig


def focal_figure(
    probability: np.ndarray,  # that the student gives to the right class, rising [P]
    curves: Mapping[str, np.ndarray],  # name of a loss -> its values [P]
    shares: pd.DataFrame,  # a row per loss, a column per kind of logit; rows sum to 1
) -> Figure:
    """The focal loss of one positive, and who makes the sum over all queries and classes."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.5), width_ratios=[1, 1.15])
    for place, (name, values) in enumerate(curves.items()):
        left.plot(probability, values, label=name, **style.look_of(place, "color", "linestyle"))
    left.set(xlabel="probability of the right answer", ylabel="loss", ylim=(0, 5), xlim=(0, 1))
    left.set_title("one logit")
    left.legend()
    style.share_bars(right, shares, {})
    right.legend(handlelength=1.4, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)
    right.set(xlabel="share of the summed loss", title="all logits of an image")
    return fig


def federated_figure(tables: Mapping[str, pd.DataFrame]) -> Figure:  # of `signals.federated_tables`
    """How often a class is drawn as a negative, and how many "no" it hears per "yes"."""
    fig, axes = drawing.grid(2 * len(tables), (5.25, 3.3), 2)
    for left, right, (name, table) in zip(axes[::2], axes[1::2], tables.items(), strict=True):
        table = table[table["images"] > 0].sort_values("images")
        left.plot(table["images"], table["drawn"], color="black", linewidth=1.0, label="calculated")
        style.points(left, table, "images", "seen", "group", s=16)
        left.set(title=f"{name}: steps that say only no", ylabel="share of steps", ylim=(0, None))
        labels = {"absent": "all classes", "drawn": "federated"}
        for place, (column, words) in enumerate(labels.items()):
            look = style.look_of(place, "color", "linestyle") | {"linewidth": 2.0, "label": words}
            right.plot(table["images"], table[column] / table["present"], **look)
        right.set(title=f'{name}: "no" per "yes"', ylabel="steps no : steps yes", yscale="log")
        for ax in (left, right):
            ax.set(xscale="log", xlabel="training images of the class")
            ax.legend(handlelength=2.0)
    return fig
