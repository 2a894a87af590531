"""Arguments: the last exercise of each notebook, judged by the points that a good one names."""

import re
from pathlib import Path
from typing import Any

import msgspec

# Of each notebook the points that a good argument names; of the words of a point one is enough.
POINTS = msgspec.toml.decode(Path(__file__).with_suffix(".toml").read_bytes())


def argue(answer: Any, *, notebook: str) -> str | None:
    """The hint is the number of points that were not found: an argument is for people to judge."""
    text = re.sub("['*\u2018\u2019\u201c\u201d]", '"', str(answer).lower())  # a word in any marks
    if len(text.split()) < 15:
        return "an argument takes a sentence or two (15 words at least)."
    points = POINTS[notebook]
    found = sum(any(word in text for word in words) for words in points)
    if found == len(points):
        return None
    return (
        f"a good answer names {len(points)} points, yours seems to name {found}; "
        "compare it with a neighbour's before you open the solution."
    )


argue.right = "**It names what matters.** Whether it holds, the solution and a neighbour tell."
