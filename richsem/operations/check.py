"""What will be done with an annotation file and its pictures, and a copy of it without faults."""

import re
import shutil
import textwrap
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
from tqdm import tqdm
from tqdm.contrib.concurrent import thread_map

from richsem.data import pictures
from richsem.data.box_sets import (
    FEDERATED,
    Annotations,
    BoxDataset,
    clip_to_images,
    first_of_each,
    picture_names,
    read_annotations,
)
from richsem.data.categories import GROUPS, RANGES, Category, spoken_names
from richsem.data.folders import read_folder
from richsem.data.own import OwnConfig, held_out, identities
from richsem.data.reading import DataError, first_few
from richsem.data.sampling import repeat_factors
from richsem.paths import check_own, write_own
from richsem.processes import own_cores
from richsem.recipes.own_data import repeat_threshold

MISSING = "missing"
_MENDED = "(--repair)"  # in words on what a repaired copy does not have any more
_INDENT, _WIDTH = 15, 100

Words = Iterator[tuple[str, str]]  # topic and words; no topic for what stops training


@dataclass(frozen=True, kw_only=True, eq=False)
class Inspected:
    """An annotation file of N images and their pictures; sizes are (height, width) in pixels."""

    # With sizes that are those of the pictures, and boxes that fit to pictures that were resized.
    file: Annotations
    whole: BoxDataset  # the same to learn from
    files: list[Path]  # pictures, N
    problems: list[str]  # why they cannot be read, or `MISSING`; empty where they can, N
    tags: np.ndarray  # EXIF orientations [N]
    stored: np.ndarray  # sizes of the pixels in the files [N, 2]; 0 where there is a problem
    upright: np.ndarray  # the same as viewers show them [N, 2]
    recorded: np.ndarray  # what the annotation file says [N, 2]; 0 where it says nothing
    readable: np.ndarray  # which pictures can be used [N]
    misfits: np.ndarray  # which of these have another size than recorded, stored and upright [N]
    resized: np.ndarray  # which of these had boxes that were scaled [N]


def check(
    annotations: Path,
    images: Path,
    extra: Path | None,  # as for `train`
    extra_labels: Path | None,
    repair: Path | None,  # place of a copy without what can be mended
) -> tuple[list[str], int]:
    """Lines about a file and its pictures, and the exit code: 1 if something stops training.

    A `ValueError` or `OSError` says that something cannot be read or written at all.
    """
    if extra_labels and not extra:
        raise DataError("--extra-labels needs --extra")
    if repair:
        check_own(repair)
    for folder in filter(None, (images, extra)):
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder. Name the one that holds the pictures.")
    found = inspect(annotations, images)
    said = [*_file(found), *_pictures(found)]
    if found.readable.any():
        said += [*_classes(found), *_training(found)]
        said += _extra(extra, extra_labels, found.whole) if extra else ()
        if repair:
            said = [(topic or "mended" * (_MENDED in words), words) for topic, words in said]
            said.append(("repaired", _repaired(found, repair)))
    problems = [words for topic, words in said if not topic]
    where = " in the repaired copy" if said[-1][0] == "repaired" else ""
    words = f"{len(problems)} that stop training" if problems else "none"
    said.append(("problems", f"{words}{where}"))
    rows = [row for row in said if row[0]] + [("", f"- {words}") for words in problems]
    width = min(_WIDTH, shutil.get_terminal_size((_WIDTH, 0)).columns)
    wrap = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False)
    wrap.subsequent_indent = " " * _INDENT
    return [wrap.fill(f"{topic:{_INDENT}}{words}") for topic, words in rows], int(bool(problems))


def _joined(first: str, counts: Mapping[str, int]) -> str:
    return "; ".join([first, *(f"{n:,} {what}" for what, n in counts.items() if n)])


def _n(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 'es' if noun[-1] in 'sx' else 's'}"


def _file(found: Inspected) -> Words:
    lacking = [f for f in FEDERATED if all(getattr(one, f) is None for one in found.file.images)]
    kind, why = "LVIS", f"its images have {' and '.join(FEDERATED)}"
    rule = "by the LVIS protocol: a class counts where it is annotated or listed as absent"
    if lacking:
        kind, why = "COCO", f"its images have no {' and no '.join(lacking)}"
        rule = "by the COCO protocol: every class counts on every image"
    yield "file", f"{found.file.path.name} is {kind}: {why}"
    yield "judged", rule


def _pictures(found: Inspected) -> Words:
    names = [file.name for file in found.files]
    missing = [n for n, p in zip(names, found.problems, strict=True) if p == MISSING]
    broken = [problem for problem in found.problems if problem not in ("", MISSING)]
    counts = {
        f"missing and left out ({first_few(missing, 3)})": len(missing),
        "that cannot be read": len(broken),
        "with the bytes of another": len(names) - len(set(identities(found.files))),
    }
    yield "pictures", _joined(f"{found.readable.sum():,} of {len(names):,} can be used", counts)
    if not found.readable.any():
        yield "", "no picture of the file can be used: check --images"
    if broken:
        yield "", f"{_n(len(broken), 'picture')} to fetch again or leave out {_MENDED}: {broken[0]}"
    if found.misfits.any():
        first, number = np.flatnonzero(found.misfits)[0], _n(found.misfits.sum(), "picture")
        is_, was = (f"{w} x {h}" for h, w in (found.upright[first], found.recorded[first]))
        words = f"{number} of another size than in the file ({names[first]} is {is_}, not {was})"
        scaled = {"that look resized, with boxes to be scaled": found.resized.sum()}
        remedy = f"use those that were annotated, or correct the file {_MENDED}"
        yield "", f"{_joined(words, scaled)}: {remedy}"
    if tags := Counter(found.tags[found.tags > 1].tolist()):
        words = ", ".join(f"{tag} in {n:,}" for tag, n in sorted(tags.items()))
        doubtful = (found.tags > 1) & (found.recorded == found.stored).all(axis=1)
        counts = {"with the size of their stored pixels: look where boxes lie": doubtful.sum()}
        yield "EXIF", _joined(f"orientation {words}", counts)


def _classes(found: Inspected) -> Words:
    used = found.whole.select(np.flatnonzero(found.readable))
    images, groups = used.image_counts(), used.frequency_groups().tolist()
    names = np.array([category.name for category in used.categories])
    counted = not all(category.frequency for category in used.categories)
    parts = [f"{groups.count(g):,} {name}" for g, name in (RANGES if counted else GROUPS).items()]
    source = "counted in the file" if counted else "as the file says"
    yield "classes", f"{len(names):,}: {', '.join(parts)}, {source}"
    order = np.argsort(images, kind="stable")
    seen, none = order[images[order] > 0], order[images[order] == 0]
    for topic, rows in (("largest", seen[::-1][:3]), ("smallest", seen[:3])):
        yield topic, ", ".join(f"{names[k]} ({_n(images[k], 'image')})" for k in rows)
    if len(none):
        yield "without boxes", f"{_n(len(none), 'class')} ({first_few(names[none])})"
    if doubled := [name for name, number in Counter(names.tolist()).items() if number > 1]:
        words = f"{_n(len(doubled), 'name')} of several classes ({first_few(doubled)})"
        yield "", f"{words}: rename them, or make them one {_MENDED}"
    alike = _alike(used.categories)
    words = f"CLIP cannot tell apart {first_few(alike)}: rename them" if alike else "all differ"
    yield "names", words
    first = f"{_n(len(used.labels), 'box')}, {_n(used.num_crowd, 'crowd region')}"
    faults = _without_faults(found)[1]
    yield "boxes", _joined(first, {what: rows.sum() for what, rows in faults.items()})


def _alike(categories: Sequence[Category]) -> list[str]:
    """Names that CLIP reads as one, or nearly so: but for a plural, spaces or punctuation."""
    groups = defaultdict(list)
    for category, name in zip(categories, spoken_names(categories), strict=True):
        groups[re.sub(r"[\W_]", "", name).removesuffix("s")].append(category.name)
    return [" = ".join(names) for names in groups.values() if len(names) > 1]


def _training(found: Inspected) -> Words:
    whole, readable = found.whole, found.readable
    is_held = np.zeros(len(whole), dtype=bool)
    is_held[held_out(whole, OwnConfig.holdout)] = True
    parts = [whole.select(np.flatnonzero(readable & rows)) for rows in (~is_held, is_held)]
    learnt, judged = parts
    if not all(len(part.labels) for part in parts):
        yield "", "too few boxes to hold some out: annotate more, or train with --val-annotations"
        return
    factors = repeat_factors(learnt, repeat_threshold(len(learnt)))
    times = f"each image {factors.min():.1f} to {factors.max():.1f} times per epoch"
    sizes = [f"{_n(len(part), 'image')}, {_n(len(part.labels), 'box')}" for part in parts]
    yield "learnt from", f"{sizes[0]}, {times}"
    none = np.flatnonzero(judged.image_counts() == 0)
    names = first_few(judged.categories[k].name for k in none)
    yield "held out", f"{sizes[1]}; none of {_n(len(none), 'class')} ({names or '-'})"


def _extra(folder: Path, table: Path | None, whole: BoxDataset) -> Words:
    """What `train` would take from a folder of further pictures."""
    try:
        labelled = table or any("/" in name for name in read_folder(folder).file_names)
        with warnings.catch_warnings(record=True, action="always") as said:
            images = read_folder(folder, table, whole.categories if labelled else ())
    except DataError as error:
        yield "", str(error)
        return
    problems = look_at([folder / name for name in images.file_names])[-1]
    if broken := [problem for problem in problems if problem]:
        yield "", f"{_n(len(broken), 'further picture')} to remove: {broken[0]}"
    words = "without labels"
    if labelled:
        shown = np.flatnonzero(images.image_counts())
        names = first_few(whole.categories[k].name for k in shown)
        number = sum(map(bool, images.labels))
        words = f"{number:,} with labels of {_n(len(shown), 'class')} ({names})"
    notes = [str(one.message).removeprefix(f"{images.path}: ") for one in said]
    yield "extra", "; ".join([f"{_n(len(images), 'picture')}, {words}", *notes])


def _repaired(found: Inspected, target: Path) -> str:
    """Writes a copy of the annotation file without faults; how it differs. Ids stay.

    Sizes become those of the pictures; pictures that cannot be read are left out, and boxes that
    are NaN, without area, outside or repeated. Other boxes are clipped. Classes of one name become
    the first of them.
    """
    boxes, first = _without_faults(found)[0], {c.name: c for c in reversed(found.file.categories)}
    now = {category.id: first[category.name].id for category in found.file.categories}
    boxes["category_id"] = boxes["category_id"].map(now)
    images = [found.file.images[row] for row in np.flatnonzero(found.readable)]
    for image, field in product(images, FEDERATED):
        if (ids := getattr(image, field)) is not None:
            setattr(image, field, tuple(dict.fromkeys(now[one] for one in ids if one in now)))
    content = {
        "images": images,
        "annotations": boxes.to_dict("records"),
        "categories": sorted(first.values(), key=attrgetter("id")),
    }
    write_own(target, msgspec.json.encode(content))
    sizes = [f"{file.stat().st_size / 1e3:,.0f} kB" for file in (found.file.path, target)]
    return f"{target}, {' -> '.join(sizes)}: without these faults and fields that nobody reads"


# --- the file beside its pictures ---------------------------------------------------------------


def inspect(annotations: Path, folder: Path) -> Inspected:
    """Reads an annotation file and opens its pictures; a `DataError` says why there are none."""
    file = read_annotations(annotations)
    files = [folder / name for name in picture_names(file, folder)]
    stored, tags, problems = look_at(files)
    recorded = np.array([(image.height or 0, image.width or 0) for image in file.images])
    on_its_side = (tags >= pictures.ON_ITS_SIDE)[:, None]
    upright, readable = np.where(on_its_side, stored[:, ::-1], stored), stored[:, 0] > 0
    misfits = readable & (recorded != stored).any(axis=1) & (recorded != upright).any(axis=1)
    resized = _resized(file, recorded, upright, misfits)
    scales = np.where(resized[:, None], upright / np.maximum(recorded, 1), 1)
    sizes = np.where(misfits[:, None], upright, np.maximum(recorded, 1)).tolist()
    change, own = msgspec.structs.replace, scales[file.box_image]
    file = replace(
        file,
        images=[change(i, height=h, width=w) for i, (h, w) in zip(file.images, sizes, strict=True)],
        boxes_xywh=file.boxes_xywh * own[:, [1, 0, 1, 0]],
        areas=file.areas * own.prod(axis=1),
    )
    with warnings.catch_warnings(action="ignore"):  # boxes are counted
        whole = BoxDataset.of(file, folder)
    return Inspected(
        file=file,
        whole=whole,
        files=files,
        problems=problems,
        tags=tags,
        stored=stored,
        upright=upright,
        recorded=recorded,
        readable=readable,
        misfits=misfits,
        resized=resized,
    )


def _resized(
    file: Annotations, old: np.ndarray, new: np.ndarray, misfits: np.ndarray
) -> np.ndarray:
    """Which of the misfits have their record's shape (height, width) in another size, [N].

    None if a box lies outside of such a record: then it is the record that is wrong.
    """
    across = np.abs(old[:, 0] * new[:, 1] - old[:, 1] * new[:, 0])
    alike = misfits & (across <= old.sum(axis=1) / 2) & (old > 0).all(axis=1)
    ends = file.boxes_xywh.reshape(-1, 2, 2).sum(axis=1)[:, ::-1]
    beyond = (ends > old[file.box_image] + 1).any(axis=1)
    return alike & ~beyond[alike[file.box_image]].any()


def look_at(files: Sequence[Path]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """`stored`, `tags` and `problems` of `Inspected`."""
    sizes, tags, problems = zip(*_of_each(_look, files), strict=True)
    return np.array(sizes)[:, ::-1], np.array(tags), list(problems)


def require_pictures(dataset: BoxDataset) -> None:
    """Opens all pictures of a set; a `DataError` says which cannot be used."""
    _of_each(lambda row: dataset.image(row).size, range(len(dataset)))


def _of_each(look: Callable[[Any], Any], items: Sequence[Any]) -> list:
    """What a look at each of several pictures finds, side by side, with progress."""
    shown = {"desc": "opening pictures", "leave": False, "delay": 1, "mininterval": 1}
    return thread_map(look, items, max_workers=2 * own_cores(), tqdm_class=tqdm, **shown)


def _look(file: Path) -> tuple[tuple[int, int], int, str]:
    try:
        return *pictures.measure(file, "the picture"), ""
    except DataError as error:
        return (0, 0), pictures.UPRIGHT, str(error) if file.exists() else MISSING


def _without_faults(found: Inspected) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Boxes of a copy, clipped to their pictures, and what was wrong with which of the file [A]."""
    file, place = found.file, found.file.box_image
    sizes = np.array([(image.height, image.width) for image in file.images])
    inside, usable, clipped = clip_to_images(file.boxes_xywh, sizes[place])
    is_first = first_of_each(place, file.labels, file.crowd, inside.astype(np.float32))
    finite = np.isfinite(file.boxes_xywh).all(axis=1)
    positive = (file.boxes_xywh[:, 2:] > 0).all(axis=1)
    least = np.finfo(float).tiny if file.is_federated else 0  # LVIS leaves out areas of 0, too
    wrong = ~((file.areas >= least) & (file.areas < np.inf))
    faults = {
        "dropped that are NaN": ~finite,
        "dropped without area": finite & ~positive,
        "dropped outside of their picture": finite & positive & ~usable,
        "clipped to their picture": usable & clipped,
        "with an area that keeps it from being judged": usable & wrong,
        "that repeat another": usable & ~is_first,
    }
    inside[:, 2:] -= inside[:, :2]
    boxes = np.where(clipped[:, None], inside, file.boxes_xywh)
    full = boxes[:, 2] * boxes[:, 3]
    columns = {
        "id": file.ids,
        "image_id": file.image_ids[place],
        "category_id": np.array([category.id for category in file.categories])[file.labels],
        "bbox": boxes.tolist(),
        "area": np.where(wrong | (clipped & (file.areas > full)), full, file.areas),
        "iscrowd": file.crowd.astype(int),
    }
    seen = found.readable[place]
    table = pd.DataFrame(columns)[seen & usable & is_first]
    return table, {what: seen & rows for what, rows in faults.items()}
