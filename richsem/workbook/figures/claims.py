"""Every claim as a point with its interval, against the margin that it has to clear."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from richsem.workbook.figures import style

_BLUE, _RED = style.SERIES_COLORS[0], style.look_of("r")["color"]
# Verdict -> colour, marker, line and face of its mark: three cues beside the colour.
LOOKS = {
    "holds": (_BLUE, "o", "-", _BLUE),
    "open": ("#666666", "D", (0, (2, 1.5)), "white"),
    "refuted": (_RED, "X", "-", _RED),
}
_LINE, _HEADING = 0.21, 1.7  # inches of a claim; what a heading takes, in claims


def kind_of(verdict: str) -> str:
    """Which of `LOOKS` a verdict is: "open: one seed" is open."""
    return verdict.partition(":")[0]


def claims_figure(claims: pd.DataFrame) -> Figure:  # of `report.claims`, one version of each
    """A line per claim, by table: the mean difference, its interval, and a tick at its margin."""
    if claims.empty:
        raise ValueError("no claims to draw: run notebooks 09 to 11 first")
    y, places, headings = 0.0, [], {}
    for result, part in claims.groupby("result", sort=False):
        headings[result] = y
        places += [y + _HEADING - 0.7 + i for i in range(len(part))]
        y += len(part) + _HEADING - 0.3
    fig, ax = plt.subplots(figsize=(10.5, _LINE * y + 0.9))
    for place, line in zip(places, claims.itertuples(), strict=True):
        color, marker, dashes, face = LOOKS[kind_of(line.verdict)]
        if pd.notna(line.low):
            ax.plot([line.low, line.high], [place, place], color=color, linestyle=dashes, lw=2)
        ax.plot(line.mean, place, marker, color=color, mfc=face, mew=1.5, ms=6.5)
        ax.vlines(line.margin, place - 0.4, place + 0.4, color="black", lw=1.2)
    for result, place in headings.items():
        across = ax.get_yaxis_transform()
        ax.text(-0.012, place, result, transform=across, ha="right", va="center", weight="bold")
    ax.set_yticks(places, claims["claim"], fontsize=7.5)
    ax.set(ylim=(y - 0.4, -0.8), xlabel="difference in points of AP, with its 95 % interval")
    ax.grid(axis="y", visible=False)
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    kinds = claims["verdict"].map(kind_of).value_counts()
    for kind, (color, marker, dashes, face) in LOOKS.items():
        look = {"color": color, "marker": marker, "linestyle": dashes, "mfc": face, "lw": 2}
        ax.plot([], [], **look, label=f"{kind}: {kinds.get(kind, 0)}")
    ax.vlines([], 0, 0, color="black", lw=1.2, label="margin to clear")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4)
    return fig
