"""Box and mask AP by the LVIS and the COCO protocol, each by an official and a fast backend.

LVIS is federated: a detection counts only on images where its class is annotated or listed as
absent, an unmatched one is ignored where the class is not exhaustively annotated, and each image
keeps its 300 best detections. COCO judges every class on every image and keeps 100 detections per
image and class. `official` is the `lvis` package and pycocotools; `fast` is hotcoco, which gives
the same numbers (a test compares them).

Both get nothing but what they read, numbered anew, so no other field of a file and no kind of id
matters. Corners are judged as the packages do, called directly: boxes are not clipped; crowd
regions are ignored by COCO and objects like others for LVIS; boxes without area are left out by
LVIS and small objects for COCO, which ignores negative ones. Boxes without a finite area in pixels
have no place (NaN, 1e200) and are left out. Masks are judged beside the boxes where detections and
annotations both have them; detections are cut off at the same score.
"""

import contextlib
import importlib.util
import io
import logging
import types
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from richsem.data import reading
from richsem.data.box_sets import FEDERATED, Annotations, read_annotations
from richsem.data.reading import DataError, DataWarning, first_few
from richsem.lvis_package import evaluate_occurring_pairs, import_lvis

Record = dict[str, Any]
Backend = Literal["auto", "official", "fast"]
Protocol = Literal["lvis", "coco"]

LVIS_MAX_DETS, COCO_MAX_DETS = 300, 100
_PRECISION = ("AP", "AP50", "AP75", "APs", "APm", "APl")
_RECALL = ("ARs", "ARm", "ARl")
LVIS_METRICS = (*_PRECISION, "APr", "APc", "APf", "AR", *_RECALL)
COCO_METRICS = (*_PRECISION, "AR1", "AR10", "AR100", *_RECALL)
MASK = "mask "  # before the names of the same numbers by the overlap of masks


@dataclass(frozen=True, kw_only=True, eq=False)
class Detections:
    """Scored boxes of a whole data set, and masks if there are any, as flat arrays."""

    image_id: np.ndarray  # [D], ids of the annotation file
    category_id: np.ndarray  # [D], ids of the annotation file (not contiguous labels)
    bbox_xywh: np.ndarray  # [D, 4], (x, y, width, height) in pixels of the original image
    score: np.ndarray  # [D], higher is better
    masks: np.ndarray | None = None  # [D], run lengths in the original images (`masks.Runs`)

    def __post_init__(self) -> None:
        for field in ("image_id", "category_id"):
            object.__setattr__(self, field, reading.as_ids(getattr(self, field)))
        boxes = np.asarray(self.bbox_xywh, dtype=np.float64).reshape(-1, 4)
        object.__setattr__(self, "bbox_xywh", boxes)
        object.__setattr__(self, "score", np.asarray(self.score, dtype=np.float64))
        lengths = {name: len(own) for name, own in vars(self).items() if own is not None}
        if set(lengths.values()) != {len(boxes)}:
            raise ValueError(f"detections have {len(boxes)} boxes but lengths {lengths}")
        if not (np.isfinite(boxes).all() and np.isfinite(self.score).all()):
            raise ValueError("detections contain boxes or scores that are NaN or infinite")

    def __len__(self) -> int:
        return len(self.score)

    def to_list(self) -> list[Record]:
        """Return the result format of COCO and LVIS: one JSON-ready dict per detection."""
        keys = {"bbox_xywh": "bbox", "masks": "segmentation"}
        columns = {keys.get(k, k): own.tolist() for k, own in vars(self).items() if own is not None}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def best_per_image(self, max_dets: int) -> "Detections":
        """Keep the `max_dets` best of each image; ties go to the earlier one, order is kept."""
        return self.select(best_of_each(self.image_id, self.score, max_dets))

    def select(self, rows: np.ndarray | slice) -> "Detections":
        """Keep some of the detections, by position or by a mask."""
        columns = {name: own for name, own in vars(self).items() if own is not None}
        return Detections(**{name: values[rows] for name, values in columns.items()})


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
    # official code prints -1 there). Where masks are judged, the same once more after `MASK`.
    metrics: Mapping[str, float]
    per_category: Mapping[int, float]  # box AP by category id, where there is ground truth


def evaluate(
    protocol: Protocol,
    ground_truth: Path | str | Mapping[str, Any],  # annotation file, or its content (never changed)
    detections: Detections,  # ids as in the file
    *,
    backend: Backend = "auto",  # takes the fast one when it is installed
    image_ids: Collection[Any] | None = None,  # judge these images only; all of the file by default
) -> EvaluationResult:
    """Evaluate boxes by a protocol, and masks where both sides have them."""
    masks = detections.masks is not None
    truth = GroundTruth.read(ground_truth, protocol, image_ids, masks=masks)
    return truth.judge(detections, backend)


# --- what both protocols share -----------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class GroundTruth:
    """What detections are judged by, read and checked before anything is detected."""

    protocol: Protocol
    name: str  # of the annotation file
    # Ids of the file, ascending, for equal scores are judged in this order: [N] and [C]. The judges
    # get positions in them, counted from 1.
    image_ids: np.ndarray
    category_ids: np.ndarray
    images: list[Record]
    categories: list[Record]
    # The columns of the annotations, [A]; with masks "segmentation", their run lengths.
    boxes: Mapping[str, np.ndarray]

    @classmethod
    def read(
        cls,
        source: Path | str | Mapping[str, Any],
        protocol: Protocol,
        image_ids: Collection[Any] | None = None,
        *,
        masks: bool = False,
    ) -> "GroundTruth":
        """From an annotation file or its content; a `DataError` says why it cannot judge.

        LVIS asks for a federated file. If it has no frequency groups, those of its own counts are
        taken, with a `DataWarning`. With `masks` the annotations' outlines are read, too, if all
        that are judged have one.
        """
        _loaded("auto", protocol)  # what is not installed is said now, too
        file, federated = read_annotations(source), protocol == "lvis"
        if federated and not file.is_federated:
            raise DataError(
                f"{file.path}: the LVIS protocol needs {' and '.join(FEDERATED)} of all images. "
                "Judge by the COCO protocol (--protocol coco), or add them."
            )
        chosen = file.rows_of(image_ids)
        number = np.zeros(len(file.image_ids), dtype=np.int64)
        number[chosen] = np.arange(1, len(chosen) + 1)
        used = (number[file.box_image] > 0) & _judgeable(file, federated)
        if not used.any():
            raise DataError(
                f"{file.path}: no annotations to evaluate against. Check the file or the split."
            )
        images = [{"id": n} for n in range(1, len(chosen) + 1)]
        outlines = None
        if masks:  # with torch, which judging boxes can do without
            from richsem.data.outlines import Outlines

            outlines = Outlines(source).run_lengths(file, used)
            for record, row in zip(images, chosen.tolist(), strict=True):
                record |= {side: getattr(file.images[row], side) for side in ("height", "width")}
        categories = [{"id": n, "name": str(n)} for n in range(1, len(file.categories) + 1)]
        if federated:
            _add_federation(file, chosen, images, categories)
        return cls(
            protocol=protocol,
            name=file.path.name,
            image_ids=file.image_ids[chosen],
            category_ids=reading.numbers(file.categories, "id"),
            images=images,
            categories=categories,
            boxes={
                "image_id": number[file.box_image[used]],
                "category_id": file.labels[used] + 1,
                "bbox": file.boxes_xywh[used],
                "area": file.areas[used],
                "iscrowd": (file.crowd[used] & (not federated)).astype(np.int64),
                **({} if outlines is None else {"segmentation": outlines}),
            },
        )

    def judge(self, detections: Detections, backend: Backend = "auto") -> EvaluationResult:
        """Average precision of detections, whose ids are those of the file."""
        if backend not in ("auto", "official", "fast"):
            raise ValueError(f'backend is {backend!r}, expected "auto", "official" or "fast"')
        backend = _loaded(backend, self.protocol)
        metrics, precision = self._judged(replace(detections, masks=None), backend)
        # Precision [T, R, C] over thresholds and recall is -1 where a class has no ground truth.
        present = np.flatnonzero((precision > -1).all(axis=(0, 1)))
        means = precision.mean(axis=(0, 1))[present].tolist()
        if "segmentation" in self.boxes and detections.masks is not None:
            by_mask, _ = self._judged(detections, backend)
            metrics |= {f"{MASK}{name}": value for name, value in by_mask.items()}
        return EvaluationResult(
            protocol=self.protocol,
            ground_truth=self.name,
            max_dets=LVIS_MAX_DETS if self.protocol == "lvis" else COCO_MAX_DETS,
            backend=backend,
            num_images=len(self.images),
            metrics=metrics,
            per_category=dict(zip(self.category_ids[present].tolist(), means, strict=True)),
        )

    def _judged(
        self, detections: Detections, backend: Backend
    ) -> tuple[dict[str, float], np.ndarray]:
        """The numbers by the overlap of masks, if there are any, or of boxes; the precision."""
        annotations = _records(**self.boxes)  # new ones: the backends write into them
        truth = {"images": self.images, "categories": self.categories, "annotations": annotations}
        official = _lvis_official if self.protocol == "lvis" else _coco_official
        judge = partial(_fast, self.protocol) if backend == "fast" else official
        found, precision = judge(truth, self._numbered(detections))
        values = {key.partition("@")[0]: float(value) for key, value in found.items()}
        names = LVIS_METRICS if self.protocol == "lvis" else COCO_METRICS
        return {n: values[n] if values[n] > -1 else float("nan") for n in names}, precision

    def _numbered(self, detections: Detections) -> Detections:
        """What the protocol judges of the detections, with the numbers of the records."""
        of = reading.detected_positions
        numbered = replace(
            detections,
            image_id=of(detections.image_id, self.image_ids, "image", self.name) + 1,
            category_id=of(detections.category_id, self.category_ids, "category", self.name) + 1,
        )
        if numbered.masks is not None:
            self._require_sizes(numbered)
        if self.protocol == "coco":
            return numbered
        best = numbered.best_per_image(LVIS_MAX_DETS)
        areas = _sizes(best)
        return best.select((areas > 0) & (areas < np.inf))

    def _require_sizes(self, numbered: Detections) -> None:
        """Refuses masks of another size than their images, which no judge does."""
        for number, mask in zip(numbered.image_id.tolist(), numbered.masks, strict=True):
            size = [self.images[number - 1][side] for side in ("height", "width")]
            if mask["size"] != size and None not in size:
                raise DataError(
                    f"{self.name}: image id {self.image_ids[number - 1]} is {size} (height, width),"
                    f" and a detection has a mask of {mask['size']}. Write masks in its size."
                )

    def margins(self, detections: Detections) -> dict[str, float]:
        """Half the 95 % interval of each number, as other images of this kind would give it.

        A jackknife: a twentieth of the images, drawn once and for all, is left out at a time.
        """
        from scipy import stats

        ids = np.random.default_rng(0).permutation(self.image_ids)
        rows, parts = [], min(20, len(ids))
        for part in np.array_split(ids, parts):
            kept = self._of_images(~np.isin(self.image_ids, part))
            rest = detections.select(np.isin(detections.image_id, kept.image_ids))
            rows.append(kept.judge(rest).metrics)
        found = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        factor = stats.t.ppf(0.975, parts - 1) * (parts - 1) ** 0.5
        return {name: float(factor * values.std()) for name, values in found.items()}

    def _of_images(self, chosen: np.ndarray) -> "GroundTruth":
        """What lies on some of the images, of which a mask [N] is given."""
        number = np.concatenate([[0], chosen.cumsum() * chosen])
        used = number[self.boxes["image_id"]] > 0
        boxes = {name: column[used] for name, column in self.boxes.items()}
        images = [record for record, kept in zip(self.images, chosen, strict=True) if kept]
        return replace(
            self,
            image_ids=self.image_ids[chosen],
            images=[record | {"id": n} for n, record in enumerate(images, start=1)],
            boxes=boxes | {"image_id": number[boxes["image_id"]]},
        )


def _judgeable(file: Annotations, federated: bool) -> np.ndarray:
    """Which boxes are judged at all [A]; a `DataWarning` counts and names the others."""
    judged = np.isfinite(file.boxes_xywh).all(axis=1) & np.isfinite(_extents(file.boxes_xywh))
    if federated:
        judged &= (file.areas > 0) & (file.areas < np.inf)
    left_out = file.ids[~judged | ~((file.areas >= 0) & (file.areas < np.inf))]
    if len(left_out):
        warnings.warn(
            f"{file.path}: {len(left_out)} boxes are not judged (annotation ids "
            f"{first_few(left_out)}): NaN, infinite or of negative area"
            f"{', or without area, which the LVIS protocol leaves out' if federated else ''}.",
            DataWarning,
            stacklevel=4,
        )
    return judged


def _add_federation(
    file: Annotations, chosen: np.ndarray, images: list[Record], categories: list[Record]
) -> None:
    """What LVIS reads of images (their lists of classes) and categories (frequency)."""
    numbers = {category.id: n for n, category in enumerate(file.categories, start=1)}
    for field in FEDERATED:
        lists = file.lists(field)
        for record, row in zip(images, chosen.tolist(), strict=True):
            record[field] = [numbers[one] for one in lists[row]]
    without = sum(not category.frequency for category in file.categories)
    if without:
        warnings.warn(
            f"{file.path}: {without} of {len(categories)} categories have no frequency; rare, "
            "common and frequent are counted in this file.",
            DataWarning,
            stacklevel=4,
        )
    for record, group in zip(categories, file.frequency_groups().tolist(), strict=True):
        record["frequency"] = group


def _sizes(found: Detections) -> np.ndarray:
    """Area of each detection, of its mask if there is one."""
    if found.masks is None:
        return _extents(found.bbox_xywh)
    from pycocotools import mask

    # One by one: it counts what it gets together in a byte.
    return np.fromiter(map(mask.area, found.masks), np.float64, len(found))


def _extents(boxes_xywh: np.ndarray) -> np.ndarray:
    """Width times height of boxes [n, 4], which may be beyond all numbers."""
    with np.errstate(over="ignore", invalid="ignore"):
        return boxes_xywh[:, 2] * boxes_xywh[:, 3]


def _records(**columns: np.ndarray) -> list[Record]:
    """Rows of columns, numbered from 1: the official matchers take id 0 for "not matched"."""
    rows = zip(*(values.tolist() for values in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True), id=n) for n, row in enumerate(rows, start=1)]


def _detection_records(found: Detections) -> list[Record]:
    columns = {"area": _sizes(found), "iscrowd": np.zeros(len(found), dtype=np.int64)}
    return [record | own for record, own in zip(found.to_list(), _records(**columns), strict=True)]


def _loaded(backend: Backend, protocol: Protocol) -> Backend:
    """The backend that judges; an `ImportError` says what it lacks."""
    if protocol not in ("lvis", "coco"):
        raise ValueError(f'protocol is {protocol!r}, expected "lvis" or "coco"')
    if backend == "auto":
        backend = "fast" if importlib.util.find_spec("hotcoco") else "official"
    if backend == "fast":
        _hotcoco()
    elif protocol == "lvis":
        import_lvis()
    return backend


def _kind(found: Detections) -> str:
    """What the backends call the overlap that counts."""
    return "bbox" if found.masks is None else "segm"


def _hotcoco() -> types.ModuleType:
    try:
        import hotcoco
    except ImportError as error:
        raise ImportError(
            'backend="fast" needs hotcoco: pip install "richsem[fast]", or use backend="official"'
        ) from error
    return hotcoco


def _fast(protocol: str, truth: Record, found: Detections) -> tuple[dict, np.ndarray]:
    hotcoco, kind = _hotcoco(), _kind(found)
    rows = np.column_stack((found.image_id, found.bbox_xywh, found.score, found.category_id))
    if kind == "segm":  # with boxes, areas would be theirs
        rows = [{k: v for k, v in record.items() if k != "bbox"} for record in found.to_list()]
    if protocol == "lvis":
        gt = hotcoco.LVIS(truth)
        evaluator = hotcoco.LVISEval(gt, hotcoco.LVISResults(gt, rows, max_dets=-1), kind)
    else:
        gt = hotcoco.COCO(truth)
        evaluator = hotcoco.COCOeval(gt, gt.load_res(rows), kind)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator.run()
    return evaluator.get_results(), np.asarray(evaluator.eval["precision"])[:, :, :, 0, -1]


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
        evaluator = COCOeval(*sides, iouType=_kind(detections))
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    metrics = dict(zip(COCO_METRICS, evaluator.stats, strict=True))
    return metrics, evaluator.eval["precision"][:, :, :, 0, -1]


def _lvis_official(truth: Record, detections: Detections) -> tuple[dict, np.ndarray]:
    lvis = import_lvis()
    gt = _indexed(lvis.LVIS, truth)
    dt = _indexed(lvis.LVISResults, {**truth, "annotations": _detection_records(detections)})
    evaluator = lvis.LVISEval(gt, dt, iou_type=_kind(detections))
    evaluator.evaluate = types.MethodType(evaluate_occurring_pairs, evaluator)
    evaluator.run()
    return evaluator.get_results(), evaluator.eval["precision"][:, :, :, 0]


def _indexed(cls: Callable, dataset: Record) -> Any:
    """Make an LVIS object from memory: its constructors read files or change the caller's list."""
    indexed = cls.__new__(cls)
    indexed.logger = logging.getLogger(cls.__module__)
    indexed.dataset = dataset
    indexed._create_index()
    return indexed
