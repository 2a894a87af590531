"""Published numbers, for reference only, and the rows that set them beside ours.

No code may show them as ours. Source: supplement of "Learning from Rich Semantics and Coarse
Locations for Long-tailed Object Detection" (NeurIPS 2023).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from richsem.data import catalog
from richsem.data.reading import DataError
from richsem.evaluation import EvaluationResult
from richsem.workbook.results import TABLE_COLUMNS

# Table 1: systems on LVIS v1 val, percent. A value that is not stated is left out. Backbone
# and detector data are what they were pre-trained on.
TABLE1 = {
    "ViTDet, ViT-H": {"parameters (M)": 692, "AP": 53.4, "backbone data": "ImageNet-1k"},
    "EVA, Cascade Mask R-CNN": {
        "parameters (M)": 1100, "AP": 62.2, "AP_r": 55.1,
        "backbone data": "merged-30M", "detector data": "Objects365",
    },
    "InternImage-H, DINO": {
        "parameters (M)": 2200, "AP": 63.2,
        "backbone data": "Laion-400M, YFCC-15M, CC12M", "detector data": "Objects365",
    },
    "RichSem, FocalNet-H DINO": {
        "parameters (M)": 747, "AP": 61.2, "AP_r": 61.2,
        "backbone data": "ImageNet-22k", "detector data": "Objects365",
    },
}  # fmt: skip

# Table 2: CLIP-RN50 on true LVIS boxes, percent, top-k per box; of all images of v1 val.
LVIS_V1_VAL_IMAGES = 19_809
TABLE2 = {
    1: {"all": 16.2, "r": 16.7, "c": 16.4, "f": 15.7},
    5: {"all": 29.6, "r": 29.9, "c": 29.3, "f": 29.8},
    10: {"all": 33.9, "r": 33.1, "c": 33.7, "f": 34.6},
}

# LVIS v1 train as released: classes per frequency group.
LVIS_V1_GROUPS = {"r": 337, "c": 461, "f": 405}

# Table 3: AP by the COCO protocol, R50.
TABLE3 = {
    "visual_genome": {"baseline": {"AP": 7.3, "AP50": 11.9}, "richsem": {"AP": 7.8, "AP50": 12.3}},
    "openimages": {"baseline": {"AP": 38.9}, "richsem": {"AP": 41.0}},
}

# Table 4: LVIS v1 val, R50. Rows of DINO are box AP; those of CenterNet2 equal Detic's published
# mask AP digit for digit.
TABLE4 = {
    "dino": {
        "baseline": {"AP": 32.2, "AP_r": 24.1},
        "detic": {"AP": 33.8, "AP_r": 26.9},
        "richsem": {"AP": 35.0, "AP_r": 30.4},
    },
    "centernet2": {
        "baseline": {"AP": 31.5, "AP_r": 25.6},
        "detic": {"AP": 33.2, "AP_r": 29.7},
        "richsem": {"AP": 33.5, "AP_r": 31.0},
    },
}

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
