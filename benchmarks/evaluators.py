"""The evaluators on one set of made-up detections: how long they take, and that they agree.

`lvis` and `pycocotools` as they are published are the baselines. `official` visits only the pairs
of image and class that have boxes; `fast` is hotcoco. All numbers of all ways must be equal.
"""

from functools import partial
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.timing import Row, now, show
from richsem import evaluation
from richsem.evaluation import Detections, EvaluationResult, evaluate_coco, evaluate_lvis

LARGEST_DIFFERENCE = 1e-12
LVIS_CLASSES, COCO_CLASSES = 1203, 80
SIDE = 600.0  # pixels


def main(repeats: int = 1, images: int = 100, detections: int = 200) -> None:
    """Prints seconds of processor time; 2,000 images take about five minutes.

    Raises:
        ValueError: Two ways give different numbers.
    """
    for classes, ways in ((LVIS_CLASSES, _lvis_ways), (COCO_CLASSES, _coco_ways)):
        for run in ways(*made_up(1, 10, classes)).values():
            run()  # imports the packages
        case = made_up(images, detections, classes)
        show(
            f"{images:,} images, {detections} detections each, {classes:,} classes; shortest of "
            f"{repeats}",
            compare(ways(*case), repeats),
        )


def compare(ways: dict[str, partial], repeats: int) -> list[Row]:
    """One line per way; the first way is the baseline of time and numbers."""
    results: dict[str, EvaluationResult] = {}
    times = dict.fromkeys(ways, float("inf"))
    for _ in range(repeats):
        for name, run in ways.items():
            start = now()
            results[name] = run()
            times[name] = min(times[name], now() - start)
    first, *_ = ways
    rows = []
    for name, result in results.items():
        gap = difference(results[first], result)
        if not gap <= LARGEST_DIFFERENCE:
            raise ValueError(f"{name} differs from {first} by {gap:g}")
        rows.append(
            {
                "": name,
                "seconds": times[name],
                f"times faster than {first}": times[first] / times[name],
                "AP": 100 * result.metrics["AP"],
                "largest difference": f"{gap:.0e}",
            }
        )
    return rows


def difference(one: EvaluationResult, other: EvaluationResult) -> float:
    """Largest difference of any metric or class AP; infinite where only one has a number."""
    left, right = ({**result.metrics, **result.per_category} for result in (one, other))
    if left.keys() != right.keys():
        return float("inf")
    values = np.array([(left[key], right[key]) for key in left])
    gaps = np.abs(values[:, 0] - values[:, 1])
    absent = np.isnan(values).all(axis=1)
    return float(np.nan_to_num(gaps[~absent], nan=np.inf).max())


def made_up(images: int, detections: int, classes: int) -> tuple[dict[str, Any], Detections]:
    """Federated annotations with a long tail of classes, and detections of which half are near.

    Returns:
        The content of an annotation file, and detections.
    """
    rng = np.random.default_rng(0)
    tail = 1 / np.arange(10, classes + 10)
    draw = partial(rng.choice, classes, p=tail / tail.sum())
    categories = [
        {"id": c + 1, "name": str(c), "frequency": "fcr"[3 * c // classes]} for c in range(classes)
    ]
    records, annotations, found = [], [], []
    for image in range(1, images + 1):
        labels = np.repeat(draw(4), rng.integers(1, 6, 4))
        boxes = _boxes(rng, len(labels))
        absent = np.setdiff1d(draw(12), labels)
        own = np.unique(labels)
        records.append(
            {
                "id": image,
                "width": int(SIDE),
                "height": int(SIDE),
                "neg_category_ids": (absent + 1).tolist(),
                "not_exhaustive_category_ids": (own[rng.random(len(own)) < 0.1] + 1).tolist(),
            }
        )
        annotations += [
            {"image_id": image, "category_id": int(c) + 1, "bbox": b.tolist(), "area": b[2] * b[3]}
            for c, b in zip(labels, boxes, strict=True)
        ]
        near = rng.integers(0, len(labels), detections // 2)
        moved = boxes[near] * rng.normal(1, 0.1, (len(near), 4))
        others = detections - len(near)
        found.append(
            (
                np.full(detections, image),
                np.concatenate([labels[near], draw(others)]) + 1,
                np.concatenate([moved, _boxes(rng, others)]),
                rng.random(detections).round(3),  # with ties
            )
        )
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    names = ("image_id", "category_id", "bbox_xywh", "score")
    columns = dict(zip(names, map(np.concatenate, zip(*found, strict=True)), strict=True))
    truth = {"images": records, "annotations": annotations, "categories": categories}
    return truth, Detections(**columns)


def _boxes(rng: np.random.Generator, number: int) -> np.ndarray:
    """Boxes xywh [number, 4]."""
    corners = rng.uniform(0, 0.7 * SIDE, (number, 2))
    return np.concatenate([corners, rng.uniform(8, 0.3 * SIDE, (number, 2))], axis=1)


def _lvis_ways(truth: dict[str, Any], detections: Detections) -> dict[str, partial]:
    return {
        "lvis": partial(_published_lvis, truth, detections),
        "official": partial(evaluate_lvis, truth, detections, backend="official"),
        "fast": partial(evaluate_lvis, truth, detections, backend="fast"),
    }


def _coco_ways(truth: dict[str, Any], detections: Detections) -> dict[str, partial]:
    return {
        "pycocotools": partial(evaluate_coco, truth, detections, backend="official"),
        "fast": partial(evaluate_coco, truth, detections, backend="fast"),
    }


def _published_lvis(truth: dict[str, Any], detections: Detections) -> EvaluationResult:
    """`official` with the package's own loop over all images and classes."""
    loop = evaluation._import_lvis().LVISEval.evaluate
    with mock.patch.object(evaluation, "_evaluate_occurring_pairs", loop):
        return evaluate_lvis(truth, detections, backend="official")
