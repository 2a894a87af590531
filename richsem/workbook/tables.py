"""Table 2 and the table of data sets as tidy rows, the published values beside ours."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from richsem.evaluation import EvaluationResult
from richsem.workbook import reference
from richsem.workbook.results import TABLE_COLUMNS

_GROUP_METRICS = {"all": "AP", "r": "AP_r", "c": "AP_c", "f": "AP_f"}
_WAYS = {"roi": "RoIAlign on the map", "crop": "crop of each box"}


def table2(
    accuracy: Mapping[str, pd.DataFrame],
    box_ap: Mapping[str, Mapping[int, EvaluationResult]],
    *,
    status: str,
    beside_paper: bool = True,
) -> pd.DataFrame:
    """Rows of supplement Table 2 for both ways of reading regions and both readings of "AP".

    Args:
        accuracy: Region mode -> `zero_shot.accuracy_table`.
        box_ap: Region mode -> k -> `zero_shot.box_ap`.
        status: What our numbers are, in the words of `results`.
        beside_paper: Whether the published values, which are LVIS's, say anything beside these.
    """
    rows = []
    for mode, table in accuracy.items():
        for entry in table.itertuples():
            label = f"top-{entry.k} accuracy, {_WAYS[mode]}"
            paper = _paper_value(mode, entry.k, entry.group)
            values = (paper, entry.accuracy, entry.ci_low, entry.ci_high)
            rows.append((label, _GROUP_METRICS[entry.group], *values))
        for k, result in box_ap.get(mode, {}).items():
            label = f"{result.protocol.upper()} AP with {k} per box, {_WAYS[mode]}"
            rows += _ap_rows(label, mode, k, result)
    frame = pd.DataFrame(rows, columns=TABLE_COLUMNS[:6]).assign(num_seeds=1, status=status)
    if not beside_paper:
        frame["paper"] = None
    return frame


def _ap_rows(label: str, mode: str, k: int, result: EvaluationResult) -> Iterator[tuple]:
    """As above; a group without classes, whose AP is NaN, has no row."""
    for group, key in {"all": "AP", "r": "APr", "c": "APc", "f": "APf"}.items():
        ap = 100 * result.metrics.get(key, np.nan)
        paper = _paper_value(mode, k, group) if result.protocol == "lvis" else None
        if not np.isnan(ap):
            yield label, _GROUP_METRICS[group], paper, ap, None, None


def _paper_value(mode: str, k: int, group: str) -> float | None:
    """The paper reads regions by RoIAlign; crops have no published value."""
    return reference.TABLE2[k][group] if mode == "roi" else None


def datasets(rows: Sequence[Mapping[str, Any]], *, status: str) -> tuple[pd.DataFrame, dict]:
    """Rows of the data-set table and the words beside them, from `catalog.summary_rows`.

    A set that is not on disk is `not run`; where the real set's size is published it stands in the
    column of the paper.
    """
    records, words = [], {}
    for row in rows:
        stands_for = f" (for {row['stands_for']})" if row["stands_for"] else ""
        name = row["name"] + stands_for
        words[name] = {"role": row["role"], "supervision": row["supervision"]}
        for metric in ("images", "categories", "boxes"):
            ours, paper = row[metric], row.get(f"reference_{metric}")
            if metric != "images" and not ours and ours is not None:
                ours = None  # an unlabelled set has no categories: nothing was measured
            state = status if ours is not None else "not run" if paper is None else "reference only"
            if ours is None and paper is None and row[metric] is not None:
                continue
            records.append(
                {"row": name, "metric": metric, "paper": paper, "ours": ours, "status": state}
            )
    frame = pd.DataFrame(records).assign(num_seeds=1)
    frame["num_seeds"] = frame["ours"].notna().astype(int)
    return frame.reindex(columns=list(TABLE_COLUMNS)), words
