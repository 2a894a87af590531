"""Pictures of judged detections: verdicts, curves and what errors cost; nothing is computed."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from richsem.workbook import error_verdicts as verdicts
from richsem.workbook.figures import drawing, style
from richsem.workbook.judging import Example

_BLUE, _ORANGE, _GREEN, _PURPLE, _BROWN, _ = style.SERIES_COLORS
_LOOKS = {  # colour and hatch
    verdicts.CORRECT: (_BLUE, ""),
    verdicts.WRONG_CLASS: (_ORANGE, "///"),
    verdicts.BAD_LOCATION: (_GREEN, "\\\\\\"),
    verdicts.BOTH: (_BROWN, "xxx"),
    verdicts.DUPLICATE: (_PURPLE, "..."),
    verdicts.BACKGROUND: ("#4d4d4d", ""),
    verdicts.MISSED: ("#c9c9c9", "---"),
    verdicts.NOT_VERIFIED: ("#d9d9d9", ""),
    verdicts.NOT_EXHAUSTIVE: ("#d9d9d9", "ooo"),
}
_IGNORED = ("#555555", (0, (1, 1.2)), "?")
_BOXES = {  # how a detection is outlined and marked: right, wrong or not counted
    verdicts.CORRECT: (_BLUE, "solid", "+"),
    verdicts.NOT_VERIFIED: _IGNORED,
    verdicts.NOT_EXHAUSTIVE: _IGNORED,
}
_WRONG = ("#b35900", (0, (4, 2)), "x")


def examples_figure(
    examples: Sequence[Example], columns: int, *, name_objects: bool = False, side: float = 2.7
) -> Figure:
    """Images with objects (thin black lines) and detections.

    Correct ones are blue, solid and marked "+"; wrong ones brown, dashed, "x"; those that are not
    counted grey, dotted, "?". Detections at the same place share a box and list their names. The
    names of objects are written if these are to be named; `side` is in inches.
    """
    fig, axes = drawing.grid(len(examples), columns, (side, side + 0.3))
    for ax, example in zip(axes, examples, strict=True):
        drawing.show(ax, example.image, example.title, origin=example.origin)
        ax.set_anchor("N")
        for box, name in zip(example.objects, example.object_names, strict=True):
            drawing.outline(ax, box, "black", 0.9)
            if name_objects:
                below = {"xytext": (1, 1), "textcoords": "offset points", "va": "bottom"}
                drawing.write(ax, (box[0], box[3]), name, **below)
        _draw_detections(ax, example)
    return fig


def verdict_figure(shares: pd.DataFrame, xlabel: str) -> Figure:
    """A bar per row of `shares`, made of the share (0 to 1) of each verdict (columns)."""
    fig, ax = plt.subplots(figsize=(8.2, 0.52 * len(shares) + 1.7))
    shown = shares.loc[:, shares.max() > 0.005]  # narrower bars would not be seen
    style.share_bars(ax, shown, *zip(*(_LOOKS[verdict] for verdict in shown), strict=True))
    ax.set_xlabel(xlabel)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, handlelength=1.4)
    return fig


def precision_recall_figure(curves: Mapping[str, pd.DataFrame], title: str) -> Figure:
    """Precision against recall of one class, a curve (columns recall, precision) per judgement.

    The pale line is what was measured, the strong one the highest precision at that recall or more,
    of which the average precision is the mean.
    """
    fig, ax = plt.subplots(figsize=(5.4, 3.6))
    for i, (name, curve) in enumerate(curves.items()):
        envelope = curve["precision"][::-1].cummax()[::-1]
        look = {"color": style.SERIES_COLORS[i], "linestyle": style.SERIES_LINES[i]}
        ax.plot(curve["recall"], curve["precision"], alpha=0.35, linewidth=1, **look)
        recall, highest = [0.0, *curve["recall"]], [envelope.max(), *envelope]
        ax.plot(recall, highest, linewidth=2.2, label=name, **look)
    ax.set(title=title, xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.04))
    ax.legend(loc="best")
    return fig


def cap_figure(frame: pd.DataFrame, xlabel: str) -> Figure:
    """AP of each frequency group against the detections kept (columns cap, group and ap)."""
    fig, ax = plt.subplots(figsize=(5.8, 3.5))
    style.lines(ax, frame, "cap", "ap", "group")
    ax.set(xscale="log", xlabel=xlabel, ylabel="AP", ylim=(0, None))
    ax.set_xticks(sorted(frame["cap"].unique()), sorted(frame["cap"].unique()))
    ax.minorticks_off()
    ax.legend(loc="best")
    return fig


def class_ap_figure(frame: pd.DataFrame) -> Figure:
    """AP of every class (columns group, ap): a violin for each group, points, means as bars."""
    groups = [group for group in style.GROUPS if group in set(frame["group"])]
    fig, ax = plt.subplots(figsize=(6.8, 0.95 * len(groups) + 1.0))
    sns.violinplot(
        frame, x="ap", y="group", hue="group", order=groups, palette=style.GROUP_COLORS, cut=0,
        inner=None, density_norm="width", linewidth=0, alpha=0.25, legend=False, ax=ax,
    )  # fmt: skip
    spread = 0.5 * ((np.arange(len(frame)) * 0.618034) % 1 - 0.5)  # of points, never at random
    place = frame["group"].map(groups.index) + spread
    style.points(ax, frame.assign(place=place), "ap", "place", "group", s=16, zorder=3)
    for place, mean in enumerate(frame.groupby("group")["ap"].mean()[groups]):
        ax.plot([mean, mean], [place - 0.4, place + 0.4], color="black", linewidth=2, zorder=4)
        ax.text(mean, place - 0.42, f"mean {mean:.1f}", ha="center", va="bottom", fontsize=8.5)
    names = [f"{style.GROUP_NAMES[g]} ({(frame['group'] == g).sum()})" for g in groups]
    ax.set_yticks(range(len(groups)), names)
    ax.set(xlabel="AP", ylabel="", ylim=(len(groups) - 0.45, -0.75))
    ax.set_xlim(0, max(10.0, min(100.0, 1.1 * frame["ap"].max())))
    return fig


def lost_figure(frame: pd.DataFrame) -> Figure:
    """AP points that each kind of error costs each group (columns error, group and lost)."""
    fig, ax = plt.subplots(figsize=(8.4, 3.5))
    style.bars(ax, frame, "error", "lost", "group", digits=1)
    ax.set_ylabel("AP50 points to be gained")
    return fig


def calibration_figure(frame: pd.DataFrame) -> Figure:  # columns group, score, correct, number
    """How often a detection is right against its score, and how many detections there are."""
    shape = {"sharex": True, "figsize": (5.4, 4.8), "height_ratios": (2.4, 1)}
    fig, (ax, below) = plt.subplots(2, 1, **shape)
    ax.plot([0, 1], [0, 1], color="#888888", linewidth=1, label="score = share correct")
    style.lines(ax, frame, "score", "correct", "group")
    style.lines(below, frame, "score", "number", "group")
    ax.set(ylabel="share correct", ylim=(0, 1.02), xlim=(0, 1))
    below.set(xlabel="score", ylabel="detections", yscale="log")
    ax.legend(loc="upper left")
    return fig


def _draw_detections(ax: Axes, example: Example) -> None:
    """Each place once, in the look of its first verdict; names below each other in its corner."""
    lines = dict.fromkeys(example.places, 0)  # names written at each place so far
    marked = zip(example.places, example.verdicts, example.names, strict=True)
    for i, (place, verdict, name) in enumerate(marked):
        color, line, mark = _BOXES.get(verdict, _WRONG)
        box = example.boxes[place]
        if place == i:
            drawing.outline(ax, box, color, 2.0, line)
        corner = {"xytext": (1, -8 * lines[place]), "textcoords": "offset points", "va": "top"}
        drawing.write(ax, (box[0], box[1]), f"{mark} {name}", color=color, **corner)
        lines[place] += 1
