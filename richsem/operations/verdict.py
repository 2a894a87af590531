"""Detections of a trained detector, or of any other tool, held against an annotation file."""

import hashlib
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd

import richsem
from richsem import kept, paths, shards
from richsem.config import to_json
from richsem.data import reading
from richsem.data.box_sets import Annotations, BoxDataset, images_of_classes, read_annotations
from richsem.data.categories import GROUPS
from richsem.data.reading import DataError, DataWarning, RecordError, first_few
from richsem.data.sampling import stratified
from richsem.evaluation import LVIS_MAX_DETS, Detections, EvaluationResult, GroundTruth, Protocol
from richsem.foreign import box_format
from richsem.masks import misplaced, run_lengths
from richsem.minilvis.render import prepare
from richsem.models.clip import digest
from richsem.models.published.stated import LVIS_CLASSES, stated
from richsem.operations.check import require_pictures
from richsem.paths import user_path, write_atomic, write_own
from richsem.training import runs
from richsem.training.build import training_dataset
from richsem.training.parallel import this_process

_PERCENT = {"float_format": "{:.2f}".format, "na_rep": "-"}
_TOGETHER = 100_000  # detections that are encoded at once


class _DetectionRecord(msgspec.Struct, gc=False):
    image_id: reading.Id
    category_id: reading.Integer
    bbox: reading.Box
    score: float
    segmentation: msgspec.Raw = msgspec.Raw(b"null")
    file_name: Any = None  # some tools write names beside ids
    category_name: Any = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """Detections and what they are judged by; whatever is wrong with either was said before."""

    known: BoxDataset | Annotations  # classes of the annotation file
    truth: GroundTruth | None  # None if it has no annotations
    words: str  # what file and detections have in common
    detect: Callable[[], Detections]
    sampled: bool = False  # whether only some images are judged, so that numbers have margins
    stated: Sequence[str] = ()  # what is published about the detector, in lines


def read_detections(path: Path | str, known: Annotations | None = None) -> Detections:
    """Reads a result file in COCO's format: records of image_id, category_id, bbox and score.

    Masks are read where all have run lengths. Names beside ids have to be those `known` by these.
    """
    path = user_path(path)
    records, _ = reading.read(path, list[_DetectionRecord] | dict, entry="a detection")
    if isinstance(records, dict):
        raise DataError(
            f"{path}: this is no list of detections (image_id, category_id, bbox, score) but an "
            f"object with {first_few(records) or 'nothing'}, as files of annotations are."
        )
    where, remedy = f"{path}: detections", "Leave such detections out."
    finite = np.isfinite([(*one.bbox, one.score) for one in records]).all(axis=-1)
    if wrong := np.flatnonzero(~finite).tolist():
        words = "box or score is NaN or infinite"
        raise RecordError("bbox", where, records, wrong, words, remedy)
    images, classes = (known.images, known.categories) if known else ((), ())
    named = {one.id: one.file_name or one.coco_url for one in images}
    _require_named(records, "image_id", "file_name", named, where)
    named = {one.id: one.name for one in classes}
    _require_named(records, "category_id", "category_name", named, where)
    masks = [msgspec.json.decode(record.segmentation) for record in records]
    number = sum(isinstance(one, dict) for one in masks)
    outlined = 0 < number == len(records)
    if any(masks) and not outlined:
        words = f"{len(records) - number:,} of {len(records):,} detections have no run lengths"
        warnings.warn(f"{path}: {words}, so masks are not judged", DataWarning, stacklevel=2)
    for row, one in enumerate(masks if outlined else ()):
        try:
            size = msgspec.convert(one.get("size"), tuple[int, int], strict=False)  # 80.0 is 80
            masks[row] = run_lengths(one, size)
        except (ArithmeticError, TypeError, ValueError) as error:
            words = f'field "segmentation" is no mask: {error}'
            raise RecordError("segmentation", where, records, [row], words, remedy) from error
    return Detections(
        image_id=[record.image_id for record in records],
        category_id=reading.numbers(records, "category_id"),
        bbox_xywh=[record.bbox for record in records],
        score=[record.score for record in records],
        masks=np.array(masks) if outlined else None,
    )


def _require_named(
    records: Sequence[Any], key: str, field: str, named: Mapping[reading.Id, Any], where: str
) -> None:
    """Refuses records that name something by a field, and something else by the id in `key`."""

    def plain(name: Any) -> str:
        return re.sub(r"\.\w+$", "", re.split(r"[/\\]", str(name))[-1]).casefold() if name else ""

    of = {one: plain(name) for one, name in named.items()}
    said, others = [plain(getattr(one, field)) for one in records], {*of.values()} - {""}
    own = [of.get(getattr(one, key)) for one in records]
    if rows := [n for n, name in enumerate(said) if name in others and own[n] not in (name, None)]:
        words = f'"{key}" is that of {own[rows[0]]!r}, but "{field}" is {said[rows[0]]!r}'
        raise RecordError(field, where, records, rows, words, "Use the ids of the annotation file.")


def of_results(
    source: Path, annotations: Path | None, protocol: Protocol | None, **options: Any
) -> Case:
    """A result file of any tool on the images of an annotation file; it takes no other options."""
    if options:
        name = f"--{next(iter(options))}".replace("_", "-")
        raise DataError(f"{name} is for a detector: leave it out, {source} has detections already")
    if not annotations:
        raise DataError(f"{source}: name the file that judges these detections (--annotations)")
    known = read_annotations(annotations, bare=True)
    found = read_detections(source, known)
    classes, name = reading.numbers(known.categories, "id"), known.path.name
    label = reading.detected_positions(found.category_id, classes, "category", name)
    image = reading.detected_positions(found.image_id, known.image_ids, "image", name)
    shown, images = len(np.unique(image)), len(known.images)
    words = (
        f"{len(found):,} detections of {len(np.unique(label)):,} of {len(classes):,} classes, on "
        f"{shown:,} of {images:,} images{'; boxes of the others are missed' * (shown < images)}"
    )
    sizes = np.array([(one.height or 0, one.width or 0) for one in known.images])
    notes = [*known.oddities(), box_format(found.bbox_xywh, sizes[image])]
    for what, value, boxes, columns in (
        ("annotations", "iscrowd", known.boxes_xywh, (known.box_image, known.labels, known.crowd)),
        ("detections", "score", found.bbox_xywh, (image, label, found.score)),
    ):
        table = pd.DataFrame(np.column_stack([*columns, boxes]))
        odd = {
            f"image, class, box and {value} of another": table.duplicated(),
            "a side of 0 or below": (boxes[:, 2:] <= 0).any(axis=1),
        }
        notes += [f"{at.sum():,} {what} have {why}" for why, at in odd.items() if at.any()]
    if beyond := np.sum(np.abs(found.score - 0.5) > 0.5):
        notes.append(f"{beyond:,} detections have a score outside 0 to 1; only their order counts")
    if found.masks is not None:
        notes.append(misplaced(found.masks, found.bbox_xywh, annotated=False))
    for note in filter(None, notes):
        print(f"warning: {note}", file=sys.stderr)
    kind = protocol or ("lvis" if known.is_federated else "coco")
    outlined = found.masks is not None
    truth = GroundTruth.read(annotations, kind, masks=outlined) if len(known.ids) else None
    return Case(known=known, truth=truth, words=words, detect=lambda: found)


def of_detector(
    folder: Path,
    annotations: Path | None,
    protocol: Protocol | None,
    *,
    images: Path | None = None,  # by default beside the annotations
    split: str | None = None,  # of the set that it learnt from, by default "val"
    batch_size: int = 8,
    max_images: int = 0,  # of the file, with as many of its classes as can be; 0 takes all
) -> Case:
    """A trained detector, which may know only some of the classes of the file."""
    if images and not annotations:
        raise DataError("--images needs --annotations")
    if split and annotations:
        raise DataError("--split is of the set that was learnt from: leave out --annotations")
    if max_images < 0 or (max_images and not annotations):
        raise DataError("--max-images is a number of images, and needs --annotations")
    if batch_size < 1:
        raise DataError(f"--batch-size is {batch_size}; at least 1 image at a time is needed")
    if folder == Path("small") and not (annotations or (folder / "detector.json").exists()):
        raise DataError("small: name a file with drawn pictures to judge it by (--annotations)")
    trained = richsem.load(str(folder))
    if annotations:
        some = partial(stratified, number=max_images) if max_images else None
        judge = runs.on_file(trained, annotations, images or annotations.parent, protocol, some)
        require_pictures(judge.dataset)
        _warn_about_learnt(trained, judge.dataset)
    else:
        if trained.recipe:
            prepare(trained.recipe.data)
        judge = runs.on_split(trained, split or "val", protocol)
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
    on_lvis = trained.converted and len(known.categories) == LVIS_CLASSES
    return Case(
        known=known,
        truth=judge.truth,
        words=words,
        detect=partial(_kept if annotations else runs.Evaluation.detect, judge, batch_size),
        sampled=max_images > 0 and len(known) > 1,
        stated=stated(trained.converted, trained.detector.config) if on_lvis else (),
    )


def _kept(judge: runs.Evaluation, batch_size: int) -> Detections:
    """All detections, kept batch by batch: an image may take 12 seconds of a CPU.

    An interrupted evaluation goes on where it stopped, and says how long it will take.
    """
    trained, images = judge.trained, judge.dataset
    if this_process().num_processes > 1 or not len(images):  # processes share each batch out
        return judge.detect(batch_size)
    weights = digest(trained.detector.inference_state())
    looks = weights, to_json(trained.detector.config), to_json(trained.transform)
    asked = images.fingerprint, *judge.category_ids, batch_size
    folder = paths.CACHE / "detections" / kept.key(*looks, *asked, trace=("runs",))
    parts = shards.cut(folder, len(images), batch_size, suffix=".json")

    def write(part: shards.Shard) -> None:
        content = _encoded(judge.detect(batch_size, part.items))
        write_atomic(part.path.with_suffix(".sum"), hashlib.sha256(content).hexdigest())
        write_atomic(part.path, content)

    def read(part: shards.Shard) -> Detections:
        written = part.path.with_suffix(".sum").read_text(encoding="utf-8")
        if written != hashlib.sha256(part.path.read_bytes()).hexdigest():
            raise DataError("it is not as written")
        return read_detections(part.path)

    found = shards.made(parts, write, read, title="detecting", unit="image")
    # Of batches without any, nothing tells whether they would have masks.
    rows = [vars(one) for one in found if len(one)] or [vars(found[0])]
    known = [name for name, values in rows[0].items() if values is not None]
    return Detections(**{name: np.concatenate([row[name] for row in rows]) for name in known})


def _warn_about_learnt(trained: runs.Trained, judged: BoxDataset) -> None:
    """Says how many of the pictures a detector of one's own files has learnt from."""
    own = trained.recipe and trained.recipe.data.own
    if not (own and user_path(own.annotations).is_file()):
        return
    try:
        learnt = training_dataset(trained.recipe.data)
    except DataError as error:  # the file was changed since, or its pictures are elsewhere
        print(f"warning: nothing tells which pictures were learnt from: {error}", file=sys.stderr)
        return
    both = ({(one.image_root / n).resolve() for n in one.file_names} for one in (learnt, judged))
    if seen := len(set.intersection(*both)):
        words = f"{seen:,} of {len(judged):,} pictures were learnt from, so these numbers flatter"
        print(f"warning: {words}", file=sys.stderr)


def judged(case: Case, out: Path | None, by_class: bool) -> list[str]:
    """What to print: AP by group and class, or that there is nothing to judge by.

    Detections are written before they are judged.
    """
    judges = case.truth and (case.truth.boxes["iscrowd"] == 0).any()
    if not (judges or out):
        words = "no annotations to judge by (crowd regions alone do not)"
        raise DataError(f"{case.known.path}: {words}; only --out is possible")
    found = case.detect()
    if not this_process().is_main_process:
        return []
    if out:
        write_own(out, _encoded(found.best_per_image(LVIS_MAX_DETS)))
    if not judges:
        return [f"{case.known.path.name} has no annotations: written, not judged", case.words]
    result = case.truth.judge(found)
    table, counted = _classes(case, result)
    means = table.groupby("group", observed=False)["AP"].mean()  # as LVIS has them
    metrics = {name: 100 * value for name, value in result.metrics.items()}
    metrics |= {f"AP{key}": means[words] for key, words in GROUPS.items()}
    lines = [f"{result.ground_truth}: {result.num_images:,} images, {result.protocol} protocol"]
    shown = pd.DataFrame({"": metrics})
    if case.sampled:
        shown["+-"] = 100 * pd.Series(case.truth.margins(found))
        lines[0] += ", +-: half of a 95 % interval by leaving out images"
    lines += [case.words, shown.to_string(header=case.sampled, **_PERCENT), *case.stated]
    if by_class:
        words = f"images are counted {counted}; classes without objects are left out"
        lines += ["", words, table.to_string(**_PERCENT, index=False, justify="left")]
    return lines


def _encoded(found: Detections) -> bytes:
    """A JSON list with one record per detection, as the servers of LVIS and COCO take it."""
    parts = (slice(at, at + _TOGETHER) for at in range(0, len(found), _TOGETHER))
    texts = (msgspec.json.encode(found.select(part).to_list())[1:-1] for part in parts)
    return b"[" + b",\n".join(texts) + b"]\n"


def _classes(case: Case, result: EvaluationResult) -> tuple[pd.DataFrame, str]:
    """The classes that have objects, those of fewest images first, and where these are counted."""
    categories, boxes = case.known.categories, case.truth.boxes
    plain = boxes["iscrowd"] == 0
    image, label = boxes["image_id"][plain] - 1, boxes["category_id"][plain] - 1
    stated = [category.image_count for category in categories]
    columns = {
        "class": [category.name for category in categories],
        "group": pd.Categorical(case.known.frequency_groups(), [*GROUPS]).rename_categories(GROUPS),
        "images": stated if any(stated) else images_of_classes(image, label, len(categories)),
        "boxes": np.bincount(label, minlength=len(categories)),
        "AP": [100 * result.per_category.get(c.id, np.nan) for c in categories],
    }
    table = pd.DataFrame(columns).dropna(subset="AP").sort_values(["group", "images"])
    return table, "in training" if any(stated) else "in this file"
