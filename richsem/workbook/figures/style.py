"""One look for all figures: colour-blind safe, with markers and line styles saying the same."""

import re
from collections.abc import Sequence
from itertools import cycle
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

_COLORS = sns.color_palette("colorblind").as_hex()

GROUPS = ("r", "c", "f")
GROUP_NAMES = {"r": "rare", "c": "common", "f": "frequent", "all": "all"}
GROUP_COLORS = {"r": _COLORS[3], "c": _COLORS[1], "f": _COLORS[0], "all": "#333333"}
GROUP_MARKERS = {"r": "^", "c": "s", "f": "o", "all": "D"}
GROUP_LINES = {"r": "-", "c": "--", "f": "-.", "all": ":"}
GROUP_HATCHES = {"r": "///", "c": "...", "f": "", "all": "xx"}

SERIES_COLORS = tuple(_COLORS[i] for i in (0, 1, 2, 4, 5, 7))
SERIES_MARKERS = ("o", "s", "^", "D", "v", "P")
SERIES_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)), (0, (1, 1)))
SERIES_HATCHES = ("", "///", "...", "xx", "\\\\\\", "++")

SEQUENTIAL = "viridis"

_RC = {
    "figure.constrained_layout.use": True,
    "figure.dpi": 110,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.handlelength": 3.0,  # room for a dash pattern beside the marker
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture on every machine
}


def apply_style() -> None:
    """Use the workbook's style for every figure made from here on."""
    sns.set_theme(context="notebook", style="ticks", palette="colorblind", font_scale=0.85, rc=_RC)


def metric_name(metric: str) -> str:
    """A metric as it is printed: the group of AP_r, or APr, stands below the line."""
    return re.sub(r"AP_?([rcf])$", r"AP$_\1$", metric)


def look_of(by: str, value: Any, place: int) -> dict[str, Any]:
    """How a frequency group, or else the `place`-th series of a chart, is drawn and named."""
    if by == "group":
        look = {"label": GROUP_NAMES[value], "color": GROUP_COLORS[value]}
        return look | {"marker": GROUP_MARKERS[value], "linestyle": GROUP_LINES[value]}
    look = {"label": metric_name(str(value)), "color": SERIES_COLORS[place % 6]}
    return look | {"marker": SERIES_MARKERS[place % 6], "linestyle": SERIES_LINES[place % 6]}


def lines(
    ax: Axes,
    frame: pd.DataFrame,
    x: str,
    y: str,
    by: str,
    *,
    band: Sequence[str] = (),  # columns that a band is drawn between
    order: Sequence[str] = (),  # all series of the figure, so that each looks alike in all panels
    **look: Any,  # replaces parts of the usual look: lines of many points need no markers
) -> None:
    """A line for each value of the column `by`, told apart by colour, dashes and marker."""
    places = list(order)
    for place, (value, part) in enumerate(parts_of(frame, by)):
        own = look_of(by, value, places.index(value) if places else place)
        own = {"markersize": 5} | own | look
        ax.plot(part[x], part[y], **own)
        if band:
            edges = (part[name] for name in band)
            ax.fill_between(part[x], *edges, color=own["color"], alpha=0.25, linewidth=0)


def points(ax: Axes, frame: pd.DataFrame, x: str, y: str, by: str, **look: Any) -> None:
    """A point for each row, told apart by the column `by`; of groups, the rare are on top."""
    look = {"s": 26, "alpha": 0.8, "edgecolor": "white", "linewidth": 0.4} | look
    for place, (value, part) in enumerate(parts_of(frame, by)):
        own = look_of(by, value, place) | {"linestyle": "-"}  # of the markers' edges
        ax.scatter(part[x], part[y], **own | {"zorder": 2 - 0.1 * place} | look)


def share_bars(ax: Axes, shares: pd.DataFrame, looks: Sequence[tuple[str, str]] = ()) -> None:
    """A bar from 0 to 1 for each row, made of its columns; shares of 6 % and more are written.

    `looks` are colour and hatch of each column, by default those of a series.
    """
    pale = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    written = {"label_type": "center", "fontsize": 8, "fontweight": "bold", "bbox": pale}
    looks = looks or list(zip(SERIES_COLORS, SERIES_HATCHES, strict=True))
    rows, ends = range(len(shares)), shares.cumsum(axis=1).to_numpy().T
    for (name, widths), end, look in zip(shares.items(), ends, cycle(looks), strict=False):
        own = {"color": look[0], "hatch": look[1], "edgecolor": "white", "label": name}
        bars = ax.barh(rows, widths, 0.7, end - widths, **own)
        words = [f"{value:.0%}" if value >= 0.06 else "" for value in widths]
        for text in ax.bar_label(bars, words, **written):
            text.set_visible(bool(text.get_text()))
    ax.set(xlim=(0, 1), ylim=(len(shares) - 0.4, -0.6))
    ax.set_yticks(rows, shares.index)
    ax.xaxis.set_major_formatter(PercentFormatter(1.0))
    ax.grid(axis="y", visible=False)


def probability_bars(
    ax: Axes, names: Sequence[str], values: Sequence[float], color: str, marked: str | None = None
) -> None:
    """Bars from the likeliest class down; if one is `marked`, it is hatched and the others pale."""
    drawn = ax.barh(range(len(names)), values, 0.7, color=color, edgecolor="white")
    if marked is not None:
        for bar, name in zip(drawn, names, strict=True):
            bar.set(alpha=1.0 if name == marked else 0.45, hatch="//" if name == marked else "")
    ax.set_yticks(range(len(names)), names)
    ax.set(xlim=(0, 1.02), ylim=(len(names) - 0.5, -0.5), xlabel="probability")
    ax.grid(axis="y", visible=False)


def parts_of(frame: pd.DataFrame, by: str) -> list[tuple[Any, pd.DataFrame]]:
    """The rows of each value: frequency groups from rare to all, others as they come."""
    parts = dict(list(frame.groupby(by, sort=False)))
    order = [g for g in GROUP_NAMES if g in parts] if by == "group" else parts
    return [(value, parts[value]) for value in order]
