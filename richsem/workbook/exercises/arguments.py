"""Arguments: the last exercise of each notebook, judged by the points that a good one names."""

import re
from typing import Any

# Of each notebook the points that a good argument names; of the words of a point one is enough.
_TABLE = """
00: rare, tail; frequent, head, common, majority
01: same, equal, as many, balanced, constant, scarce; hard, difficult
02: context, around, beyond, outside, receptive, neighbo, beside, surround;
    cut, lose, lost, part, missing, half, nothing, throw, gone
03: double, duplicate, twice, several, same object, many; suppress, nms, remove, filter, delete
04: one object, one thing, single, portrait; several, many, scene, other, two; clip, soft, teacher
05: like, similar, resembl, relative, alike; wrong, mistake, error, confus, noise, temperature
06: portrait, one object, single, alone; scene, other, several, crowd, many; soft, clip, teacher
07: compute, longer, twice, double, cost, equal; seed, repeat, chance; label, control, soft, clip
08: verified, annotated, looked, checked, federated, not listed;
    false, wrong, error, mistake, ignore, not count; protocol, rules, cap
09: label; hard label, control, shuffled, without soft, without clip; soft, clip, teacher
10: again, second, retrain, repeat, another training, more seeds;
    chance, noise, rounding, luck, spread; claims, margin
11: label; frequent, cost, pay, lose; portrait, scene, object-centric, boxes
12: activation, pixel, mosaic; accumul, at a time, one image, one mosaic, smaller, fewer;
    state, weight, parameter, shard
13: rule, chose, pick, select; lose, loss, worse, fewer, others, opposite, whole, average;
    score, threshold, wrong box, false, clutter
14: margin, zero, close, interval, bound, just; many, chance, multiple, claims, luck;
    seed, again, train, repeat, second
15: few, two, box, small; seed, chance, luck, repeat, noise; teacher, clip, knows
16: background, empty, unmatched, no object, nothing; negative, spare, "no", say no
17: look, pixel, image, picture, see; box, object, instance, each
18: one box, single box, same box, largest; several, many, other, both
19: luck, pick, overfit, chance, select; drawn, drawing, one program, real, start
"""
POINTS = {
    number: [re.split(r",\s+", words) for words in re.split(r";\s+", points)]
    for number, points in re.findall(r"^(\d\d): (.*(?:\n    .*)*)", _TABLE, re.MULTILINE)
}


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
