"""One look for all figures: colour-blind safe, with markers and line styles saying the same."""

from typing import Any

import seaborn as sns

_COLORS = sns.color_palette("colorblind").as_hex()

GROUPS = ("r", "c", "f")
GROUP_NAMES = {"r": "rare", "c": "common", "f": "frequent", "all": "all"}
GROUP_COLORS = {"r": _COLORS[3], "c": _COLORS[1], "f": _COLORS[0], "all": "#333333"}
GROUP_MARKERS = {"r": "^", "c": "s", "f": "o", "all": "D"}
GROUP_LINES = {"r": "-", "c": "--", "f": "-.", "all": ":"}

SERIES_COLORS = tuple(_COLORS[i] for i in (0, 1, 2, 4, 5, 7))
SERIES_MARKERS = ("o", "s", "^", "D", "v", "P")
SERIES_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)), (0, (1, 1)))

SEQUENTIAL = "viridis"

# A published value is always hollow and never joined with our own, which is filled.
OURS: dict[str, Any] = {"markersize": 6, "markeredgewidth": 1.2}
PAPER: dict[str, Any] = {**OURS, "markerfacecolor": "none", "linestyle": "none"}

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
