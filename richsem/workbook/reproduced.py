"""Reproduced or not: every number of one's own run beside the shipped one.

The interval of a mean says where that mean lies, not where the next one will. With half width h
over n seeds, the mean of m other seeds lies within h sqrt(1 + n / m) of it with the same
confidence (the prediction interval for equal variances). A number without an interval is counted
and not measured: it must be the same to the digits shown. One of a single training is not judged:
nothing says where that of another one would lie, not even with the same seed on another processor.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from richsem.workbook import results

# What the columns of results with intervals are called, by the names used here.
_NAMES = {
    "ours": "value", "mean": "value", "accuracy": "value",
    "ci_low": "low", "ci_high": "high", "num_seeds": "seeds",
}  # fmt: skip
_KEYS = (  # which number it is
    "row", "arm", "cause", "labels", "saw", "drop", "shift", "level",
    "mode", "k", "scale", "metric",
)  # fmt: skip


def compared(profile: str, own: Path | None = None) -> pd.DataFrame:
    """All numbers that both the results in `own` (default: the user's) and the shipped ones state.

    Columns: result, number (which one), shipped, yours, seeds (of yours), low and high (where yours
    may lie), inside.
    """
    frames = [pd.DataFrame(columns=["result", "number", "shipped", "yours", "inside"])]
    for name in results.writers("figure", "table"):
        found = results.find(name, profile, own)
        if len(found) == 2:
            frames.append(_judged(name, _numbers(found["shipped"]), _numbers(found["yours"])))
    return pd.concat([frame for frame in frames if len(frame)] or frames, ignore_index=True)


def _numbers(record: Path) -> pd.DataFrame:
    """The numbers of one result that can be judged, and the digits after the point that count."""
    frame = pd.read_csv(record.with_suffix(".csv")).rename(columns=_NAMES)
    if not {"value", "low", "high"} <= set(frame):
        return pd.DataFrame()
    keys = [key for key in _KEYS if key in frame]
    frame["number"] = frame[keys].astype(str).agg(", ".join, axis=1)
    content = json.loads(record.read_bytes())
    frame["decimals"] = content.get("decimals", 1)
    frame["trained"] = bool(content["provenance"]["inputs"].get("runs"))
    frame["seeds"] = frame.get("seeds", pd.Series(1, frame.index))
    return frame.dropna(subset="value").set_index("number")


def _judged(name: str, shipped: pd.DataFrame, yours: pd.DataFrame) -> pd.DataFrame:
    """Whether each number of `yours` lies where another run of the `shipped` ones would."""
    if shipped.empty or yours.empty:
        return pd.DataFrame()
    shipped = shipped[shipped["low"].notna() | ~shipped["trained"]]
    both = shipped.join(yours[["value", "seeds"]].add_suffix("_yours"), how="inner")
    wider = np.sqrt(1 + both["seeds"] / both["seeds_yours"].clip(lower=1))
    digit = 10.0 ** -both["decimals"]  # what rounding hides
    below, above = (both["value"] - both["low"]) * wider, (both["high"] - both["value"]) * wider
    table = pd.DataFrame({"result": name, "number": both.index, "shipped": both["value"]})
    table["yours"], table["seeds"] = both["value_yours"], both["seeds_yours"]
    table["low"] = both["value"] - below.fillna(0) - digit
    table["high"] = both["value"] + above.fillna(0) + digit
    return table.assign(inside=table["yours"].between(table["low"], table["high"]))


def in_words(frame: pd.DataFrame) -> str:
    """How many numbers lie where they should, and which ones do not; nothing without numbers."""
    if frame.empty:
        return ""
    outside = frame[~frame["inside"].astype(bool)]
    words = (
        f"{len(frame) - len(outside)} of {len(frame)} numbers lie where another run of the shipped "
        "results would lie in 95 of 100 cases"
    )
    lines = [
        f"  {one.result}: {one.number}: {one.yours:.1f}, expected {one.low:.1f} to {one.high:.1f}"
        for one in outside.itertuples()
    ]
    return "\n".join([f"{words}{'; not:' if lines else '.'}", *lines])
