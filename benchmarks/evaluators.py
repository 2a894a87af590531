"""The evaluators on one set of made-up detections: how long they take, and that they agree.

`lvis` and `pycocotools` as they are published are the baselines. `official` visits only the pairs
of image and class that have boxes; `fast` is hotcoco. All numbers of all ways must be equal.
"""

from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd

from benchmarks.timing import Runs, now, show
from richsem import evaluation, lvis_package
from richsem.evaluation import Detections, EvaluationResult, evaluate

SIDE = 600.0  # pixels


def main(repeats: int = 1, images: int = 100, detections: int = 200) -> None:
    """Prints seconds of processor time; 2,000 images take about five minutes."""
    for classes, ways in ((1203, _lvis_ways), (80, _coco_ways)):
        compare(ways(*made_up(1, 10, classes)), 1)  # imports the packages
        table = compare(ways(*made_up(images, detections, classes)), repeats)
        sizes = f"{images:,} images, {detections} detections each, {classes:,} classes"
        show(f"{sizes}; shortest of {repeats}", table)


def compare(ways: Runs, repeats: int) -> pd.DataFrame:
    """One line per way; the first way is the baseline of time and numbers."""
    first, *_ = ways
    results, times = {}, dict.fromkeys(ways, float("inf"))
    for name in repeats * [*ways]:
        start = now()
        results[name] = ways[name]()
        times[name] = min(times[name], now() - start)
    table = pd.DataFrame({"seconds": times}).rename_axis("")
    table[f"times faster than {first}"] = times[first] / table["seconds"]
    table["AP"] = [100 * results[name].metrics["AP"] for name in ways]
    gaps = [difference(results[first], results[name]) for name in ways]
    table["largest difference"] = [f"{gap:.0e}" for gap in gaps]
    for name, gap in zip(ways, gaps, strict=True):
        if not gap <= 1e-12:
            raise ValueError(f"{name} differs from {first} by {gap:g}")
    return table.reset_index()


def difference(one: EvaluationResult, other: EvaluationResult) -> float:
    """Largest difference of any metric or class AP; infinite where only one has a number."""
    left, right = (pd.Series({**r.metrics, **r.per_category}).dropna() for r in (one, other))
    equal = set(left.index) == set(right.index)
    return float((left - right[left.index]).abs().max()) if equal else float("inf")


def made_up(images: int, detections: int, classes: int) -> tuple[dict[str, Any], Detections]:
    """A federated file with a long tail; so many detections per image in the mean, half near."""
    rng = np.random.default_rng(0)
    tail = 1 / np.arange(10, classes + 10)
    draw = partial(rng.choice, np.arange(1, classes + 1), p=tail / tail.sum())
    crowds = rng.integers(1, 6, 4 * images)  # four classes per image, so many boxes of each
    image_ids, labels = np.arange(4, 4 * images + 4) // 4, draw(4 * images)
    objects = pd.DataFrame({"image_id": image_ids, "category_id": labels})
    objects = objects.loc[objects.index.repeat(crowds)].reset_index(drop=True)
    boxes = _boxes(rng, len(objects))
    records = []
    for image, shown in objects.groupby("image_id")["category_id"].unique().items():
        absent = np.setdiff1d(draw(12), shown)
        partly = shown[rng.random(len(shown)) < 0.1]
        lists = {"neg_category_ids": absent, "not_exhaustive_category_ids": partly}
        sizes = {"id": image, "width": int(SIDE), "height": int(SIDE)}
        records.append({**sizes, **{name: ids.tolist() for name, ids in lists.items()}})
    near, others = rng.integers(len(objects), size=(2, images * detections // 2))
    moved = boxes[near] * rng.normal(1, 0.1, (len(near), 4))
    found = Detections(
        image_id=objects["image_id"].to_numpy()[np.concatenate([near, others])],
        category_id=np.concatenate([objects["category_id"][near], draw(len(others))]),
        bbox_xywh=np.concatenate([moved, _boxes(rng, len(others))]),
        score=rng.random(2 * len(near)).round(3),  # with ties
    )
    objects = objects.assign(id=objects.index + 1, bbox=boxes.tolist(), area=boxes[:, 2:].prod(1))
    groups = ["fcr"[3 * c // classes] for c in range(classes)]
    categories = [{"id": c, "name": str(c), "frequency": g} for c, g in enumerate(groups, 1)]
    annotations = objects.to_dict("records")
    return {"images": records, "annotations": annotations, "categories": categories}, found


def _boxes(rng: np.random.Generator, number: int) -> np.ndarray:
    """Boxes xywh [number, 4]."""
    corners = rng.uniform(0, 0.7 * SIDE, (number, 2))
    return np.concatenate([corners, rng.uniform(8, 0.3 * SIDE, (number, 2))], axis=1)


def _lvis_ways(*case: Any) -> Runs:
    ours = {name: partial(evaluate, "lvis", *case, backend=name) for name in ("official", "fast")}
    return {"lvis": partial(_published_lvis, *case), **ours}


def _coco_ways(*case: Any) -> Runs:
    names = {"pycocotools": "official", "fast": "fast"}
    return {way: partial(evaluate, "coco", *case, backend=name) for way, name in names.items()}


def _published_lvis(*case: Any) -> EvaluationResult:
    """`official` with the package's own loop over all images and classes."""
    loop = lvis_package.import_lvis().LVISEval.evaluate
    with mock.patch.object(evaluation, "evaluate_occurring_pairs", loop):
        return evaluate("lvis", *case, backend="official")
