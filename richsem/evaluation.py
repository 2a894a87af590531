"""Box AP by the LVIS and the COCO protocol, each with an official and a fast backend.

LVIS is federated: a detection counts only on images where its class is annotated or listed as
absent, an unmatched one is ignored where the class is not exhaustively annotated, and each image
keeps its 300 best detections. COCO judges every class on every image and keeps 100 detections per
image and class. `official` is the `lvis` package and pycocotools; `fast` is hotcoco, which gives
the same numbers (a test compares them).
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import types
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from richsem.data import reading
from richsem.data.reading import DataError, Integer, first_few

Record = dict[str, Any]
Backend = Literal["auto", "official", "fast"]

LVIS_MAX_DETS, COCO_MAX_DETS = 300, 100
_PRECISION = ("AP", "AP50", "AP75", "APs", "APm", "APl")
_RECALL = ("ARs", "ARm", "ARl")
LVIS_METRICS = (*_PRECISION, "APr", "APc", "APf", "AR", *_RECALL)
COCO_METRICS = (*_PRECISION, "AR1", "AR10", "AR100", *_RECALL)


@dataclass(frozen=True, kw_only=True, eq=False)
class Detections:
    """Scored boxes of a whole data set as flat arrays."""

    image_id: np.ndarray  # [D], ids of the annotation file
    category_id: np.ndarray  # [D], ids of the annotation file (not contiguous labels)
    bbox_xywh: np.ndarray  # [D, 4], (x, y, width, height) in pixels of the original image
    score: np.ndarray  # [D], higher is better

    def __post_init__(self) -> None:
        for field in ("image_id", "category_id"):
            object.__setattr__(self, field, np.asarray(getattr(self, field), dtype=np.int64))
        boxes = np.asarray(self.bbox_xywh, dtype=np.float64).reshape(-1, 4)
        object.__setattr__(self, "bbox_xywh", boxes)
        object.__setattr__(self, "score", np.asarray(self.score, dtype=np.float64))
        columns = ("image_id", "category_id", "score")
        lengths = {field: len(getattr(self, field)) for field in columns}
        if set(lengths.values()) != {len(boxes)}:
            raise ValueError(f"detections have {len(boxes)} boxes but lengths {lengths}")
        if not (np.isfinite(boxes).all() and np.isfinite(self.score).all()):
            raise ValueError("detections contain boxes or scores that are NaN or infinite")

    def __len__(self) -> int:
        return len(self.score)

    def to_list(self) -> list[Record]:
        """Return the result format of COCO and LVIS: one JSON-ready dict per detection."""
        columns = (self.image_id, self.category_id, self.bbox_xywh, self.score)
        keys = ("image_id", "category_id", "bbox", "score")
        rows = zip(*(values.tolist() for values in columns), strict=True)
        return [dict(zip(keys, row, strict=True)) for row in rows]

    def best_per_image(self, max_dets: int) -> Detections:
        """Keep the `max_dets` best of each image; ties go to the earlier one, order is kept."""
        return self.select(best_of_each(self.image_id, self.score, max_dets))

    def select(self, rows: np.ndarray) -> Detections:
        """Keep some of the detections, by position or by a mask."""
        return Detections(**{name: values[rows] for name, values in vars(self).items()})


def best_of_each(group: np.ndarray, score: np.ndarray, most: int) -> np.ndarray:
    """Rows of the `most` best scores of each group, in the order of the rows."""
    order = np.lexsort((-score, group))  # stable: equal scores stay in order
    ordered = group[order]
    rank = np.arange(len(order)) - np.searchsorted(ordered, ordered, side="left")
    return np.sort(order[rank < most])


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """Average precision of one set of detections."""

    protocol: str  # "lvis" or "coco"
    ground_truth: str  # name of the annotation file
    max_dets: int  # detections kept, per image (LVIS) or per image and class (COCO)
    backend: str  # "official" or "fast", the one that ran
    num_images: int
    # The 13 LVIS or 12 COCO numbers in [0, 1]; NaN where no ground truth falls into a group (the
    # official code prints -1 there).
    metrics: Mapping[str, float]
    per_category: Mapping[int, float]  # AP by category id, where there is ground truth


def evaluate_lvis(
    ground_truth: Path | str | Mapping[str, Any],
    detections: Detections,
    *,
    backend: Backend = "auto",
    image_ids: Collection[int] | None = None,
) -> EvaluationResult:
    """Evaluate boxes by the LVIS protocol.

    Args:
        ground_truth: an LVIS annotation file, or its content (never changed).
        detections: ids as in the file; the 300 best per image are kept for either backend.
        backend: "auto" takes the fast one when it is installed.
        image_ids: judge these images only; all of the file by default.
    """
    name, truth = _ground_truth(ground_truth, image_ids, federated=True)
    return _judged("lvis", name, truth, detections.best_per_image(LVIS_MAX_DETS), backend)


def evaluate_coco(
    ground_truth: Path | str | Mapping[str, Any],
    detections: Detections,
    *,
    backend: Backend = "auto",
    image_ids: Collection[int] | None = None,
) -> EvaluationResult:
    """Evaluate boxes by the COCO protocol; arguments and errors as in `evaluate_lvis`.

    Crowd regions are ignored as usual. The cap of 100 is per image and class and lies in the
    protocol, so detections are not cut beforehand.
    """
    name, truth = _ground_truth(ground_truth, image_ids, federated=False)
    return _judged("coco", name, truth, detections, backend)


# --- what both protocols share -----------------------------------------------------------------


def _judged(
    protocol: str, name: str, truth: Record, detections: Detections, backend: Backend
) -> EvaluationResult:
    _check_ids(detections, truth, name)
    if backend not in ("auto", "official", "fast"):
        raise ValueError(f'backend is {backend!r}, expected "auto", "official" or "fast"')
    if backend == "auto":
        backend = "fast" if importlib.util.find_spec("hotcoco") else "official"
    if backend == "fast":
        found, precision = _fast(protocol, truth, detections)
    else:
        official = _lvis_official if protocol == "lvis" else _coco_official
        found, precision = official(truth, detections)
    values = {key.partition("@")[0]: float(value) for key, value in found.items()}
    names = LVIS_METRICS if protocol == "lvis" else COCO_METRICS
    return EvaluationResult(
        protocol=protocol,
        ground_truth=name,
        max_dets=LVIS_MAX_DETS if protocol == "lvis" else COCO_MAX_DETS,
        backend=backend,
        num_images=len(truth["images"]),
        metrics={key: values[key] if values[key] > -1 else float("nan") for key in names},
        per_category=_per_category(precision, truth),
    )


class _TruthImage(msgspec.Struct, gc=False):
    id: Integer
    height: int | msgspec.UnsetType = msgspec.UNSET
    width: int | msgspec.UnsetType = msgspec.UNSET
    neg_category_ids: list[Integer] | msgspec.UnsetType = msgspec.UNSET
    not_exhaustive_category_ids: list[Integer] | msgspec.UnsetType = msgspec.UNSET


class _TruthCategory(msgspec.Struct):
    id: Integer
    name: str = ""
    frequency: str | msgspec.UnsetType = msgspec.UNSET


class _TruthBox(msgspec.Struct, gc=False):
    image_id: Integer
    category_id: Integer
    bbox: reading.Box
    area: Any = msgspec.UNSET
    iscrowd: Any = 0


class _Truth(msgspec.Struct):
    images: list[_TruthImage]
    categories: list[_TruthCategory]
    annotations: list[_TruthBox]


def _ground_truth(
    source: Path | str | Mapping[str, Any], image_ids: Collection[int] | None, *, federated: bool
) -> tuple[str, Record]:
    """What an evaluator reads, as records of its own: the backends write into them."""
    if isinstance(source, Mapping):
        path = Path("ground truth in memory")
        truth = reading.convert(dict(source), _Truth, str(path))
    else:
        path = Path(source)
        truth, _ = reading.read(path, _Truth)
    reading.unique_ids(truth.images, f"{path}: images")
    reading.unique_ids(truth.categories, f"{path}: categories")
    if federated:
        for field in ("neg_category_ids", "not_exhaustive_category_ids"):
            reading.require(truth.images, field, f"{path}: images")
        reading.require(truth.categories, "frequency", f"{path}: categories")
    if image_ids is not None:
        _restrict(truth, image_ids, path)
    if not truth.annotations:
        raise DataError(f"{path}: no annotations to evaluate against. Check the file or the split.")
    return path.name, {
        "images": msgspec.to_builtins(truth.images),
        "categories": msgspec.to_builtins(sorted(truth.categories, key=lambda row: row.id)),
        # Numbered from 1: the official matchers take id 0 for "not matched".
        "annotations": [_box_record(n, box) for n, box in enumerate(truth.annotations, start=1)],
    }


def _restrict(truth: _Truth, image_ids: Collection[int], path: Path) -> None:
    wanted = {int(image_id) for image_id in image_ids}
    unknown = sorted(wanted - {image.id for image in truth.images})
    if unknown:
        raise DataError(
            f"{path}: image_ids name {len(unknown)} images that the file does not list "
            f"({first_few(unknown)}). Evaluate against the file the images come from."
        )
    truth.images = [image for image in truth.images if image.id in wanted]
    truth.annotations = [box for box in truth.annotations if box.image_id in wanted]


def _box_record(number: int, box: _TruthBox) -> Record:
    return {
        "id": number,
        "image_id": box.image_id,
        "category_id": box.category_id,
        "bbox": list(box.bbox),
        "area": box.bbox[2] * box.bbox[3] if box.area is msgspec.UNSET else box.area,
        "iscrowd": box.iscrowd,
    }


def _check_ids(detections: Detections, truth: Record, name: str) -> None:
    given = {"image": detections.image_id, "category": detections.category_id}
    for (noun, ids), key in zip(given.items(), ("images", "categories"), strict=True):
        listed = np.array([record["id"] for record in truth[key]])
        reading.detected_positions(ids, listed, noun, name)


def _per_category(precision: np.ndarray, truth: Record) -> dict[int, float]:
    """Average precision [T, R, C] (-1: no ground truth) over thresholds and recall points."""
    present = (precision > -1).all(axis=(0, 1))
    means = precision.mean(axis=(0, 1))
    ids = [category["id"] for category in truth["categories"]]
    return {ids[k]: float(means[k]) for k in np.flatnonzero(present)}


def _detection_records(detections: Detections) -> list[Record]:
    records = detections.to_list()
    for number, record in enumerate(records, start=1):
        area = record["bbox"][2] * record["bbox"][3]
        record.update(id=number, area=area, iscrowd=0)
    return records


# --- fast backend ------------------------------------------------------------------------------


def _hotcoco() -> types.ModuleType:
    try:
        import hotcoco
    except ImportError as error:
        raise ImportError(
            'backend="fast" needs hotcoco: pip install "richsem[fast]", or use backend="official"'
        ) from error
    return hotcoco


def _fast(protocol: str, truth: Record, found: Detections) -> tuple[dict, np.ndarray]:
    hotcoco = _hotcoco()
    rows = np.column_stack((found.image_id, found.bbox_xywh, found.score, found.category_id))
    if protocol == "lvis":
        gt = hotcoco.LVIS(truth)
        evaluator = hotcoco.LVISEval(gt, hotcoco.LVISResults(gt, rows, max_dets=-1), "bbox")
    else:
        gt = hotcoco.COCO(truth)
        evaluator = hotcoco.COCOeval(gt, gt.load_res(rows), "bbox")
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator.run()
    return evaluator.get_results(), np.asarray(evaluator.eval["precision"])[:, :, :, 0, -1]


# --- official backends -------------------------------------------------------------------------


def _coco_official(truth: Record, detections: Detections) -> tuple[dict, np.ndarray]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        sides = []
        for records in (truth["annotations"], _detection_records(detections)):
            side = COCO()
            side.dataset = {**truth, "annotations": records}
            side.createIndex()
            sides.append(side)
        evaluator = COCOeval(*sides, iouType="bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    metrics = dict(zip(COCO_METRICS, evaluator.stats, strict=True))
    return metrics, evaluator.eval["precision"][:, :, :, 0, -1]


def _lvis_official(truth: Record, detections: Detections) -> tuple[dict, np.ndarray]:
    lvis = _import_lvis()
    gt = _indexed(lvis.LVIS, truth)
    dt = _indexed(lvis.LVISResults, {**truth, "annotations": _detection_records(detections)})
    evaluator = lvis.LVISEval(gt, dt, iou_type="bbox")
    evaluator.evaluate = types.MethodType(_evaluate_occurring_pairs, evaluator)
    evaluator.run()
    return evaluator.get_results(), evaluator.eval["precision"][:, :, :, 0]


def _indexed(cls: Callable, dataset: Record) -> Any:
    """Make an LVIS object from memory: its constructors read files or change the caller's list."""
    indexed = cls.__new__(cls)
    indexed.logger = logging.getLogger(cls.__module__)
    indexed.dataset = dataset
    indexed._create_index()
    return indexed


class _SparseRows(dict):
    """Stands in for upstream's list of results per (category, area, image): mostly None."""

    def __missing__(self, key: int) -> None:
        """Answer None for a pair without boxes."""


def _evaluate_occurring_pairs(self: Any) -> None:
    """Replace LVISEval.evaluate: visit only the (image, category) pairs that have boxes.

    Upstream visits every pair for every area range, 95 million calls on the full val set. Matching,
    accumulation and summary remain upstream's code.
    """
    params = self.params
    self._prepare()
    column_of = {image_id: i for i, image_id in enumerate(params.img_ids)}
    row_of = {category_id: i for i, category_id in enumerate(params.cat_ids)}
    self.eval_imgs = _SparseRows()
    for pair in sorted(set(self._gts) | set(self._dts)):
        self.ious[pair] = self.compute_iou(*pair)
        first = row_of[pair[1]] * len(params.area_rng)
        for area, bounds in enumerate(params.area_rng):
            place = (first + area) * len(params.img_ids) + column_of[pair[0]]
            self.eval_imgs[place] = self.evaluate_img(*pair, bounds)
        del self.ious[pair]


def _import_lvis() -> types.ModuleType:
    """Import `lvis` on demand and repair what its release 0.5.3 does to others.

    It needs OpenCV, installs a root log handler, and uses `np.float`, which numpy removed. The
    name `np` is replaced inside its one module; numpy itself is left alone.
    """
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        import lvis
        import lvis.eval as lvis_eval
    except ImportError as error:
        raise ImportError(
            f'backend="official" cannot load lvis ({error}). If a system library such as libGL is '
            "missing: apt install libgl1, or replace opencv-python by opencv-python-headless; or "
            'use backend="fast" (pip install "richsem[fast]").'
        ) from error
    finally:
        root.handlers[:], root.level = handlers, level
    if lvis_eval.np is np and not hasattr(np, "float"):
        lvis_eval.np = types.SimpleNamespace(**vars(np), float=float)
    return lvis
