"""Published numbers (`reference.toml`), for reference only, and rows that set them beside ours."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from richsem.data import catalog
from richsem.data.reading import DataError
from richsem.evaluation import EvaluationResult
from richsem.workbook.results import TABLE_COLUMNS

_PUBLISHED = msgspec.toml.decode(Path(__file__).with_suffix(".toml").read_bytes())
TABLE1, TABLE3, TABLE4 = (_PUBLISHED[f"table{number}"] for number in (1, 3, 4))
TABLE2 = {int(k): row for k, row in _PUBLISHED["table2"].items()}
LVIS_V1_VAL_IMAGES = _PUBLISHED["lvis_v1_val_images"]
LVIS_V1_GROUPS = _PUBLISHED["lvis_v1_groups"]

_GROUP_METRICS = {"all": "AP", "r": "AP_r", "c": "AP_c", "f": "AP_f"}
_WAYS = {"roi": "RoIAlign on the map", "crop": "crop of each box"}


def table2_rows(
    accuracy: Mapping[str, pd.DataFrame],  # region mode -> `zero_shot.accuracy_table`
    box_ap: Mapping[str, Mapping[int, EvaluationResult]],  # mode -> k -> `zero_shot.box_ap`
    *,
    status: str,  # what our numbers are, in the words of `results`
    beside_paper: bool = True,  # whether published values, LVIS's, say anything beside these
) -> pd.DataFrame:
    """Table 2 for both ways of reading regions and both readings of "AP"."""
    rows = []
    for mode, table in accuracy.items():
        published = TABLE2 if beside_paper and mode == "roi" else {}  # the paper has no crops
        for entry in table.itertuples():
            label = f"top-{entry.k} accuracy, {_WAYS[mode]}"
            paper = published.get(entry.k, {}).get(entry.group)
            values = (paper, entry.accuracy, entry.ci_low, entry.ci_high)
            rows.append((label, _GROUP_METRICS[entry.group], *values))
        for k, result in box_ap.get(mode, {}).items():
            label = f"{result.protocol.upper()} AP with {k} per box, {_WAYS[mode]}"
            for group, metric in _GROUP_METRICS.items():
                ap = 100 * result.metrics.get(metric.replace("_", ""), np.nan)
                paper = published.get(k, {}).get(group) if result.protocol == "lvis" else None
                if not np.isnan(ap):  # as it is of a group without classes
                    rows.append((label, metric, paper, ap, None, None))
    return pd.DataFrame(rows, columns=TABLE_COLUMNS[:6]).assign(num_seeds=1, status=status)


def summary_rows(root: Path | str) -> list[dict[str, Any]]:
    """Measure every set of the catalogue that is below the root: the data-set table.

    Numbers of images, categories and boxes are counted, not claimed; they are None for a set that
    is absent. Columns starting with `reference_` quote the real set.
    """
    stands_for = " (for {})" * catalog.is_rendered(root)
    return [
        {
            "name": catalog.name_below(spec, root) + stands_for.format(spec.name),
            "role": spec.role,
            "supervision": spec.supervision,
            **_measure(spec, root),
            "reference_images": spec.reference_images,
            "reference_categories": spec.reference_categories,
        }
        for spec in catalog.CATALOG
    ]


def _measure(spec: catalog.DatasetSpec, root: Path | str) -> dict[str, int | None]:
    try:
        catalog.locate(spec, root, "train")
    except DataError:
        return dict.fromkeys(("images", "categories", "boxes"))
    if spec.splits:
        dataset = catalog.open_boxes(spec.key, "train", root=root)
        counts, boxes = dataset.instance_counts(), len(dataset.labels)
    else:
        dataset = catalog.open_images(spec.key, root=root)
        counts, boxes = dataset.image_counts(), 0
    categories = 0 if spec.key == "o365_box" else int((counts > 0).sum())
    return {"images": len(dataset), "categories": categories, "boxes": boxes}


def dataset_table(rows: Sequence[Mapping[str, Any]], *, status: str) -> tuple[pd.DataFrame, dict]:
    """The table of data sets and the words beside its rows, from `summary_rows`.

    A set that is not on disk is `not run`; where the real set's size is published it stands in the
    column of the paper.
    """
    records, words = [], {}
    for row in rows:
        name = row["name"]
        words[name] = {"role": row["role"], "supervision": row["supervision"]}
        for metric in ("images", "categories", "boxes"):
            ours, paper = row[metric], row.get(f"reference_{metric}")
            if metric != "images" and ours == 0:
                ours = None  # an unlabelled set has no categories: nothing was measured
                if paper is None:
                    continue
            state = status if ours is not None else "not run" if paper is None else "reference only"
            records.append((name, metric, paper, ours, None, None, int(ours is not None), state))
    return pd.DataFrame(records, columns=list(TABLE_COLUMNS)), words
