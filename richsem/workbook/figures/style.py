"""One look for all figures: colour-blind safe, with markers and line styles saying the same."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

_COLORS = sns.color_palette("colorblind").as_hex()
SERIES_COLORS = tuple(_COLORS[i] for i in (0, 1, 2, 4, 5, 7))

# Inches of a published figure: in a column of 3.4 its smallest letters, of 8 points, have 5.4.
WIDTH = 5.0

_LONGEST = 32  # letters of a class name beside bars

GROUPS = ("r", "c", "f")
GROUP_NAMES = {"r": "rare", "c": "common", "f": "frequent", "all": "all"}
# Methods as their papers write them; their arms and recipes are named in small letters.
_NAMES = {"centernet2": "CenterNet2", "detic": "Detic", "dino": "DINO", "richsem": "RichSem"}
_PARTS = ("color", "marker", "linestyle", "hatch")
# How groups, and a chart's series by their place, are drawn.
_LOOKS = {
    "r": (_COLORS[3], "^", "-", "///"),
    "c": (_COLORS[1], "s", "--", "..."),
    "f": (_COLORS[0], "o", "-.", ""),
    "all": ("#333333", "D", ":", "xx"),
    0: (SERIES_COLORS[0], "o", "-", ""),
    1: (SERIES_COLORS[1], "s", "--", "///"),
    2: (SERIES_COLORS[2], "^", "-.", "..."),
    3: (SERIES_COLORS[3], "D", ":", "xx"),
    4: (SERIES_COLORS[4], "v", (0, (5, 1, 1, 1)), "\\\\\\"),
    5: (SERIES_COLORS[5], "P", (0, (1, 1)), "++"),
}


def apply_style() -> None:
    """Use the workbook's style for every figure made from here on."""
    sns.set_theme(context="notebook", style="ticks", palette="colorblind", font_scale=0.85)
    plt.style.use(Path(__file__).with_suffix(".mplstyle"))


def printed(name: str) -> str:
    """A metric or an arm as it is printed: the r of AP_r, or APr, below the line; RichSem."""
    name = re.sub(rf"\b({'|'.join(_NAMES)})\b(?!-)", lambda found: _NAMES[found[0]], name)
    return re.sub(r"AP_?([rcf])$", r"AP$_\1$", name)


def look_of(of: str | int, *parts: str) -> dict[str, Any]:
    """How a frequency group, or a chart's series by its place, is drawn.

    `parts` are some of color, marker, linestyle and hatch; the first three if none is named.
    """
    own = dict(zip(_PARTS, _LOOKS[of if of in _LOOKS else of % 6], strict=True))
    return {part: own[part] for part in parts or _PARTS[:3]}


def parts_of(
    frame: pd.DataFrame, by: str, order: Sequence[Any] = ()
) -> list[tuple[str | int, str, pd.DataFrame]]:
    """What `look_of` takes, name and rows of each value: groups from rare to all, others as come.

    With an `order` of all values of a figure, each of them looks alike in all panels.
    """
    parts = dict(list(frame.groupby(by, sort=False)))
    if by == "group":
        return [
            (group, GROUP_NAMES[group], parts[group]) for group in GROUP_NAMES if group in parts
        ]
    places = {value: place for place, value in enumerate(order if len(order) else parts)}
    return [(places[value], printed(str(value)), part) for value, part in parts.items()]


def lines(
    ax: Axes,
    frame: pd.DataFrame,
    x: str,
    y: str,
    by: str,
    *,
    band: Sequence[str] = (),  # columns that a band is drawn between
    order: Sequence[Any] = (),  # see `parts_of`
    **look: Any,  # replaces parts of the usual look: lines of many points need no markers
) -> None:
    """A line for each value of the column `by`, told apart by colour, dashes and marker."""
    for of, name, part in parts_of(frame, by, order):
        own = look_of(of) | {"label": name, "markersize": 5} | look
        ax.plot(part[x], part[y], **own)
        if band:
            edges = (part[column] for column in band)
            ax.fill_between(part[x], *edges, color=own["color"], alpha=0.25, linewidth=0)


def points(ax: Axes, frame: pd.DataFrame, x: str, y: str, by: str, **look: Any) -> None:
    """A point for each row, told apart by the column `by`; of groups, the rare are on top."""
    look = {"s": 26, "alpha": 0.8, "edgecolor": "white", "linewidth": 0.4} | look
    for place, (of, name, part) in enumerate(parts_of(frame, by)):
        own = look_of(of, "color", "marker") | {"label": name, "zorder": 2 - 0.1 * place}
        ax.scatter(part[x], part[y], **own | look)


def share_bars(ax: Axes, shares: pd.DataFrame, looks: Mapping[str, dict[str, str]]) -> None:
    """A bar from 0 to 1 for each row, made of its columns; shares of 6 % and more are written.

    `looks` are colour and hatch by column; those of a series are used where there is none.
    """
    pale = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    written = {"label_type": "center", "fontsize": 8, "fontweight": "bold", "bbox": pale}
    rows, ends = range(len(shares)), shares.cumsum(axis=1)
    for place, (name, widths) in enumerate(shares.items()):
        own = looks.get(name, look_of(place, "color", "hatch")) | {"edgecolor": "white"}
        bars = ax.barh(rows, widths, 0.7, ends[name] - widths, label=name, **own)
        ax.bar_label(bars, [f"{width:.0%}" if width >= 0.06 else "" for width in widths], **written)
    ax.set(xlim=(0, 1), ylim=(len(shares) - 0.4, -0.6))
    ax.set_yticks(rows, map(printed, map(str, shares.index)))
    ax.xaxis.set_major_formatter(PercentFormatter(1.0))
    ax.grid(axis="y", visible=False)


def cut(name: str) -> str:
    """A class name that leaves room for the bars beside it."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 3]}..."


def probability_bars(
    ax: Axes, names: Sequence[str], values: Sequence[float], series: int = 0, marked: str = ""
) -> None:
    """Bars from the likeliest class down; if one is `marked`, it is hatched and the others pale."""
    color = SERIES_COLORS[series % 6]
    drawn = ax.barh(range(len(names)), values, 0.7, color=color, edgecolor="white")
    for bar, name in zip(drawn, names if marked else (), strict=False):
        bar.set(alpha=1.0 if name == marked else 0.45, hatch="//" if name == marked else "")
    ax.set_yticks(range(len(names)), map(cut, names))
    ax.set(xlim=(0, 1.02), ylim=(len(names) - 0.5, -0.5), xlabel="probability")
    ax.grid(axis="y", visible=False)
