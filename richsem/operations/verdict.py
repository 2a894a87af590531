"""Detections of a trained detector, or of any other tool, held against an annotation file."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
from accelerate import PartialState

from richsem.data import reading
from richsem.data.box_sets import Annotations, BoxDataset, images_of_classes, read_annotations
from richsem.data.reading import DataError, first_few
from richsem.evaluation import LVIS_MAX_DETS, Detections, EvaluationResult, GroundTruth, Protocol
from richsem.masks import run_lengths
from richsem.minilvis.render import prepare
from richsem.operations.repair import require_pictures
from richsem.paths import user_path, write_own
from richsem.training import runs

GROUPS = {"r": "rare", "c": "common", "f": "frequent"}
_TOGETHER = 100_000  # detections that are encoded at once


class _DetectionRecord(msgspec.Struct, gc=False):
    image_id: reading.Id
    category_id: reading.Integer
    bbox: reading.Box
    score: float
    segmentation: msgspec.Raw = msgspec.Raw(b"null")


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """Detections and what they are judged by; whatever is wrong with either was said before."""

    known: BoxDataset | Annotations  # classes of the annotation file
    truth: GroundTruth | None  # None if it has no annotations
    words: str  # what file and detections have in common
    detect: Callable[[], Detections]


def read_detections(path: Path | str) -> Detections:
    """Reads a result file in COCO's format: records of image_id, category_id, bbox and score.

    Where all have a segmentation, in run lengths, masks are read as well.
    """
    path = user_path(path)
    records, _ = reading.read(path, list[_DetectionRecord], entry="a detection")
    outlines = [msgspec.json.decode(record.segmentation) for record in records]
    outlined = bool(records) and all(isinstance(one, dict) for one in outlines)
    try:
        return Detections(
            image_id=[record.image_id for record in records],
            category_id=reading.numbers(records, "category_id"),
            bbox_xywh=[record.bbox for record in records],
            score=[record.score for record in records],
            masks=np.array([run_lengths(one, one["size"]) for one in outlines])
            if outlined
            else None,
        )
    except (KeyError, ValueError) as error:
        raise DataError(f"{path}: {error}. Leave such detections out.") from error


def of_results(source: Path, annotations: Path | None, protocol: Protocol | None) -> Case:
    """A result file of any tool on the images of an annotation file."""
    if not annotations:
        raise DataError(f"{source}: name the file that judges these detections (--annotations)")
    known, found = read_annotations(annotations, bare=True), read_detections(source)
    classes, name = reading.numbers(known.categories, "id"), known.path.name
    label = reading.detected_positions(found.category_id, classes, "category", name)
    image = reading.detected_positions(found.image_id, known.image_ids, "image", name)
    words = (
        f"{len(found):,} detections of {len(np.unique(label)):,} of {len(classes):,} classes, on "
        f"{len(np.unique(image)):,} of {len(known.images):,} images"
    )
    kind = protocol or ("lvis" if known.is_federated else "coco")
    outlined = found.masks is not None
    truth = GroundTruth.read(annotations, kind, masks=outlined) if len(known.ids) else None
    return Case(known=known, truth=truth, words=words, detect=lambda: found)


def of_detector(
    folder: Path,
    annotations: Path | None,
    protocol: Protocol | None,
    *,
    images: Path | None,  # by default beside the annotations
    split: str,  # of the set that it learnt from, without annotations
    batch_size: int,
) -> Case:
    """A trained detector, which may know only some of the classes of the file."""
    if images and not annotations:
        raise DataError("--images needs --annotations")
    if batch_size < 1:
        raise DataError(f"--batch-size is {batch_size}; at least 1 image at a time is needed")
    trained = runs.open_trained(folder)
    if annotations:
        judge = runs.on_file(trained, annotations, images or annotations.parent, protocol)
        require_pictures(judge.dataset)
    else:
        if trained.recipe:
            prepare(trained.recipe.data)
        judge = runs.on_split(trained, split, protocol)
    known, ids = judge.dataset, set(judge.category_ids)
    own = [c.name for c in known.categories if c.id in ids]
    others = [c.name for c in known.categories if c.id not in ids]
    words = f"all {len(own):,} classes of the file are known to the detector"
    if others:
        names, rest = f" ({first_few(own)})", f" ({first_few(others)})"
        few = len(own) <= len(others)
        words = (
            f"{len(own):,} of {len(known.categories):,} classes of the file{names * few} are known "
            f"to the detector; the others{rest * (not few)} count as AP 0"
        )
        print(f"warning: {words}", file=sys.stderr)
    return Case(
        known=known, truth=judge.truth, words=words, detect=lambda: judge.detect(batch_size)
    )


def judged(case: Case, out: Path | None, by_class: bool) -> list[str]:
    """What to print: AP by group and class, or that there is nothing to judge by.

    Detections are written before they are judged.
    """
    if not (case.truth or out):
        raise DataError(f"{case.known.path}: no annotations to judge by; only --out is possible")
    found = case.detect()
    if not PartialState().is_main_process:
        return []
    if out:
        write_own(out, _encoded(found.best_per_image(LVIS_MAX_DETS)))
    if not case.truth:
        return [f"{case.known.path.name} has no annotations: written, not judged", case.words]
    result = case.truth.judge(found)
    lines = [f"{result.ground_truth}: {result.num_images:,} images, {result.protocol} protocol"]
    lines += [case.words, *_numbers(case.known, result)]
    return lines + _classes(case, result) if by_class else lines


def _encoded(found: Detections) -> bytes:
    """A JSON list with one record per detection, as the servers of LVIS and COCO take it."""
    rows = np.arange(len(found))
    parts = (rows[at : at + _TOGETHER] for at in range(0, len(found), _TOGETHER))
    texts = (msgspec.json.encode(found.select(part).to_list())[1:-1] for part in parts)
    return b"[" + b",\n".join(texts) + b"]\n"


def _numbers(known: BoxDataset | Annotations, result: EvaluationResult) -> list[str]:
    """Each number in percent; by COCO's protocol those of groups are means over classes."""
    metrics = dict(result.metrics)
    groups = {c.id: g for c, g in zip(known.categories, known.frequency_groups(), strict=True)}
    for key in GROUPS:
        values = [ap for number, ap in result.per_category.items() if groups[number] == key]
        metrics.setdefault(f"AP{key}", np.mean(values) if values else np.nan)
    width = max(6, *(len(name) + 1 for name in metrics))
    return [f"{name:{width}}{_percent(value):>6}" for name, value in metrics.items()]


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.2f}"


def _classes(case: Case, result: EvaluationResult) -> list[str]:
    """A table of the classes that have objects, those of fewest images first."""
    categories, boxes = case.known.categories, case.truth.boxes
    plain = boxes["iscrowd"] == 0
    image, label = boxes["image_id"][plain] - 1, boxes["category_id"][plain] - 1
    counted = images_of_classes(image, label, len(categories))
    stated = [category.image_count for category in categories]
    source = "in training, as the file says" if any(stated) else "in this file"
    width = max(len(category.name) for category in categories)
    columns = {
        f"{'class':{width}}": [f"{category.name:{width}}" for category in categories],
        "group": [GROUPS[group] for group in case.known.frequency_groups()],
        "images": stated if any(stated) else counted,
        "boxes": np.bincount(label, minlength=len(categories)),
        "AP": [_percent(result.per_category.get(c.id, np.nan)) for c in categories],
    }
    table = pd.DataFrame(columns)
    table = table[table["AP"] != "-"]  # without objects
    order = np.lexsort((table["images"], table["group"].map([*GROUPS.values()].index)))
    words = f"images are counted {source}; classes without objects are left out"
    return ["", words, table.iloc[order].to_string(index=False)]
