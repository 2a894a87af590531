"""What will be done with an annotation file and its pictures, and a copy of it without faults."""

import contextlib
import os
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

from richsem import kept, paths
from richsem.config import ConfigError
from richsem.data import box_sets, pictures
from richsem.data.box_sets import FEDERATED, Annotations, BoxDataset, clip_to_images, picture_names
from richsem.data.categories import GROUPS, RANGES, Category, spoken_names
from richsem.data.image_sets import ImageSet
from richsem.data.outlines import Outlines
from richsem.data.own import OwnConfig, identities
from richsem.data.reading import DataError, first_few
from richsem.foreign import box_format
from richsem.operations.dry_run import own_parts, own_sets
from richsem.operations.mending import mended
from richsem.operations.recipe_book import configure
from richsem.paths import check_own, user_path, write_own
from richsem.processes import own_cores

MISSING = "missing"
_INDENT, _WIDTH = 15, 100

Words = Iterator[tuple[str, str]]  # topic and words; no topic for what stops training
# The same and what a repaired copy has instead, which is empty where only a person can tell.
Faults = Iterator[tuple[str, str]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Inspected:
    """An annotation file of N images and their pictures."""

    # With sizes that are those of the pictures, and boxes that fit to pictures that were resized.
    file: Annotations
    whole: BoxDataset  # the same to learn from
    # Of each picture its `file`, the `problem` why it cannot be read (or `MISSING`) if it is not
    # `usable`, its EXIF `tag`, sizes as viewers show it and as it was `recorded`, and whether it is
    # `doubtful` (recorded as stored, with a tag), a `misfit` (of another size than recorded, stored
    # and upright) and, of these, `resized` (with boxes that were scaled).
    pictures: pd.DataFrame
    is_clear: bool  # whether misfits are but resized pictures, or wrong records


@np.errstate(over="ignore", invalid="ignore")  # boxes may have any numbers, and are counted
def check(
    own: OwnConfig,  # as for `train`, like the next two
    extra: str = "",
    extra_labels: str = "",
    repair: Path | None = None,  # place of a copy without what can be mended
) -> tuple[list[str], int]:
    """Lines about a file and its pictures, and the exit code: 1 if something stops training.

    A `ValueError` or `OSError` says that something cannot be read or written at all.
    """
    path, images = user_path(own.annotations), user_path(own.images)
    if repair:
        check_own(repair)
    for folder in map(user_path, filter(None, (own.images, extra))):
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder. Name the one that holds the pictures.")
    file, errors = mended(path, images, outlines=bool(repair))
    said, where = [], ""
    # Without a name, and once: what was tried in between may not have helped.
    faults = [*dict.fromkeys((str(error).partition(": ")[2], done) for error, done in errors)]
    found = inspect(file, images) if file else None
    if found:
        faults += _faults(found)
        said += [*_file(found), *_pictures(found)]
    if found and found.pictures["usable"].any():
        said += _classes(found)
        if repair and all(done for _, done in faults):
            said += [("mended", f"{words.rpartition('. ')[0]}: {done}") for words, done in faults]
            said.append(("repaired", _repaired(found, repair)))
            own, faults, where = replace(own, annotations=str(repair)), [], " in the repaired copy"
        elif repair:
            said.append(("repaired", "no: first correct what --repair cannot"))
        if not faults:
            more = [*_training(own, extra, extra_labels)]
            faults = [(words, "") for topic, words in more if not topic]
            said += [one for one in more if one[0]]
    number = f"{len(faults)} that stop training" if faults else "none"
    said.append(("problems", f"{number}{where}"))
    said += [("", f"- {words}{done and f' With --repair: {done}.'}") for words, done in faults]
    width = min(_WIDTH, shutil.get_terminal_size((_WIDTH, 0)).columns)
    wrap = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False)
    wrap.subsequent_indent = " " * _INDENT
    return [wrap.fill(f"{topic:{_INDENT}}{words}") for topic, words in said], int(bool(faults))


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


def _faults(found: Inspected) -> Faults:
    """What is wrong beside what no reader takes."""
    table = found.pictures
    unread = ~table["usable"] & (table["problem"] != MISSING)
    broken = table["problem"][unread].tolist()
    if not table["usable"].any():
        few = f"below {found.whole.image_root}, such as {found.whole.file_names[0]}"
        yield f"no picture of the file can be used {few}. Check --images.", ""
    if broken:
        lost = np.isin(found.file.box_image, np.flatnonzero(unread)).sum()
        yield _to_fetch(broken), f"{_n(len(broken), 'picture')} left out with {_n(lost, 'box')}"
    if table["misfit"].any():
        first, scaled = table[table["misfit"]].iloc[0], table["resized"].sum()
        size = f"{first['file'].name} is {first['size']}, not {first['recorded']}"
        words = f"{_n(table['misfit'].sum(), 'picture')} of another size than in the file ({size})"
        remedy = "Use the pictures that were annotated, or correct the file."
        done = {"seem to be resized, so boxes are scaled with them": scaled}
        mended = _joined("the copy has the sizes of the pictures", done)
        yield f"{words}. {remedy}", mended * found.is_clear
    names = Counter(category.name for category in found.file.categories)
    if doubled := [name for name, number in names.items() if number > 1]:
        words = f"{_n(len(doubled), 'name')} of several classes ({first_few(doubled)})"
        yield f"{words}. Rename them.", "classes of one name are one"


def _pictures(found: Inspected) -> Words:
    table = found.pictures
    missing = [found.whole.file_names[row] for row in table.index[table["problem"] == MISSING]]
    counts = {
        f"missing and left out ({first_few(missing, 3)})": len(missing),
        "that cannot be read": (~table["usable"]).sum() - len(missing),
        "with the bytes of another": len(table) - len(set(identities(table["file"]))),
    }
    yield "pictures", _joined(f"{table['usable'].sum():,} of {len(table):,} can be used", counts)
    if tags := Counter(table["tag"][table["tag"] > 1].tolist()):
        words = ", ".join(f"{tag} in {n:,}" for tag, n in sorted(tags.items()))
        doubt = "with the size of their stored pixels: look where boxes lie"
        yield "EXIF", _joined(f"orientation {words}", {doubt: table["doubtful"].sum()})


def _classes(found: Inspected) -> Words:
    used = found.whole.select(np.flatnonzero(found.pictures["usable"]))
    images, groups = used.image_counts(), used.frequency_groups().tolist()
    names = np.array([category.name for category in used.categories])
    counted = not all(category.frequency for category in used.categories)
    parts = [f"{groups.count(g):,} {name}" for g, name in (RANGES if counted else GROUPS).items()]
    source = "counted in the file" if counted else "as the file says"
    yield "classes", f"{len(names):,}: {', '.join(parts)}, {source}"
    order = np.argsort(images, kind="stable")
    seen, none = order[images[order] > 0], order[images[order] == 0]
    for topic, rows in (("largest", seen[::-1][:3]), ("smallest", seen[:3])) if len(seen) else ():
        yield topic, ", ".join(f"{names[k]} ({_n(images[k], 'image')})" for k in rows)
    if len(none):
        yield "without boxes", f"{_n(len(none), 'class')} ({first_few(names[none])})"
    alike = _alike(used.categories)
    words = f"CLIP cannot tell apart {first_few(alike)}: rename them" if alike else "all differ"
    yield "names", words
    first = f"{_n(len(used.labels), 'box')}, {_n(used.num_crowd, 'crowd region')}"
    faults = _without_faults(found)[1]
    yield "boxes", _joined(first, {what: rows.sum() for what, rows in faults.items()})
    if other := box_format(found.file.boxes_xywh, found.whole.image_sizes[found.file.box_image]):
        yield "", other
    with contextlib.suppress(DataError):  # who learns masks is told
        outlines = Outlines(found.file.path)
        if not found.pictures["misfit"].any() and (other := outlines.misplaced(used)):
            yield "masks", other


def _alike(categories: Sequence[Category]) -> list[str]:
    """Names that CLIP reads as one, or nearly so: but for a plural, spaces or punctuation."""
    groups = defaultdict(list)
    for category, name in zip(categories, spoken_names(categories), strict=True):
        groups[re.sub(r"[\W_]", "", name).removesuffix("s")].append(category.name)
    return [" = ".join(names) for names in groups.values() if len(names) > 1]


def _training(own: OwnConfig, extra: str, extra_labels: str) -> Words:
    """What `train` says of these files before it trains, whatever the recipe."""
    lines: dict[str, str] = {}
    with warnings.catch_warnings(record=True, action="always") as notes:
        try:
            run = configure("richsem", "demo", own=own, extra=extra, extra_labels=extra_labels)
            sets = own_sets(run)
            lines = own_parts(run, sets)
            del lines["classes"]  # told of the whole file
            for further in sets[1:] if own.val_annotations else sets[2:]:  # not opened yet
                require_pictures(further)
        except (ConfigError, DataError) as error:
            lines[""] = str(error)
    yield from lines.items()
    yield from (("note", words) for words in dict.fromkeys(str(one.message) for one in notes))


def _repaired(found: Inspected, target: Path) -> str:
    """Writes a copy without faults; how it differs. Ids stay; classes of one name are the first."""
    boxes, first = _without_faults(found)[0], {c.name: c for c in reversed(found.file.categories)}
    now = {category.id: first[category.name].id for category in found.file.categories}
    boxes["category_id"] = boxes["category_id"].map(now)
    images = [found.file.images[row] for row in np.flatnonzero(found.pictures["usable"])]
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
    return f"{target}, {' -> '.join(sizes)}: without outlines and fields that nobody reads"


def inspect(file: Annotations, folder: Path) -> Inspected:
    """Opens the pictures of an annotation file."""
    files = [folder / name for name in picture_names(file, folder)]
    stored, tags, problems = look_at(files)
    recorded = np.array([(image.height or 0, image.width or 0) for image in file.images])
    on_its_side = (tags >= pictures.ON_ITS_SIDE)[:, None]
    upright, usable = np.where(on_its_side, stored[:, ::-1], stored), stored[:, 0] > 0
    is_as_stored = (recorded == stored).all(axis=1)
    misfits = usable & ~is_as_stored & (recorded != upright).any(axis=1)
    resized, is_clear = _resized(file, recorded, upright, misfits)
    scales = np.where(resized[:, None], upright / np.maximum(recorded, 1), 1)
    sizes = np.where(misfits[:, None], upright, np.maximum(recorded, 1)).tolist()
    change, own = msgspec.structs.replace, scales[file.box_image]
    file = replace(
        file,
        images=[change(i, height=h, width=w) for i, (h, w) in zip(file.images, sizes, strict=True)],
        boxes_xywh=file.boxes_xywh * own[:, [1, 0, 1, 0]],
        areas=file.areas * own.prod(axis=1),
    )
    columns = {
        "file": files,
        "problem": problems,
        "tag": tags,
        "size": [f"{width} x {height}" for height, width in upright],
        "recorded": [f"{width} x {height}" for height, width in recorded],
        "usable": usable,
        "doubtful": (tags > 1) & is_as_stored,
        "misfit": misfits,
        "resized": resized,
    }
    with warnings.catch_warnings(action="ignore"):  # boxes are counted
        whole = BoxDataset.of(file, folder)
    return Inspected(file=file, whole=whole, pictures=pd.DataFrame(columns), is_clear=is_clear)


def _resized(
    file: Annotations, old: np.ndarray, new: np.ndarray, misfits: np.ndarray
) -> tuple[np.ndarray, bool]:
    """Which of the misfits [N] have their record's shape (height, width) in another size.

    And whether the others are wrong records, whose sizes can be corrected. They count as cut or
    stretched pictures if boxes end outside of these only, all have one size, or some were resized.
    """
    across = np.abs(old[:, 0] * new[:, 1] - old[:, 1] * new[:, 0])
    alike = misfits & (across <= old.sum(axis=1) / 2) & (old > 0).all(axis=1)
    place, ends = file.box_image, file.boxes_xywh.reshape(-1, 2, 2).sum(axis=1)[:, ::-1]
    beyond_old, beyond_new = ((ends > size[place] + 1).any(axis=1) for size in (old, new))
    # Where a box lies outside of such a record, it is the record that is wrong.
    resized = alike & ~beyond_old[alike[place]].any()
    others = misfits & ~resized & (old > 0).all(axis=1)
    cut = (others[place] & beyond_new & ~beyond_old).any()
    is_one = len(np.unique(new[others], axis=0)) == 1 < len(np.unique(old[others], axis=0))
    return resized, not (cut or is_one or (resized.any() and others.any()))


def look_at(files: Sequence[Path]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Of pictures (height, width) as stored [N, 2], 0 if unknown; EXIF tags [N]; problems."""

    def look(file: Path) -> tuple[tuple[int, int], int, str]:
        try:
            return *pictures.measure(file, "the picture"), ""
        except DataError as error:
            return (0, 0), pictures.UPRIGHT, str(error) if os.path.exists(file) else MISSING

    sizes, tags, problems = zip(*_of_each(look, files), strict=True)
    return np.array(sizes)[:, ::-1], np.array(tags), list(problems)


def require_pictures(dataset: BoxDataset | ImageSet) -> None:
    """Opens all pictures of a set, until all can be; a `DataError` counts those that cannot."""
    note = paths.CACHE / "opened" / kept.key(dataset.fingerprint, trace=["pictures"])
    if note.is_file():
        return

    def problem(row: int) -> str:
        try:
            dataset.image(row)
        except DataError as error:
            return str(error)
        return ""

    if broken := [*filter(None, _of_each(problem, range(len(dataset))))]:
        raise DataError(_to_fetch(broken))
    paths.write_atomic(note, "")


def _to_fetch(broken: Sequence[str]) -> str:
    return f"{_n(len(broken), 'picture')} to fetch again or leave out: {broken[0]}"


def _of_each(look: Callable[[Any], Any], items: Sequence[Any]) -> list:
    """What a look at each of several pictures finds, side by side, with progress."""
    shown = {"desc": "opening pictures", "leave": False, "delay": 1, "mininterval": 1}
    return thread_map(look, items, max_workers=2 * own_cores(), tqdm_class=tqdm, **shown)


def _without_faults(found: Inspected) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Boxes of a copy, clipped to their pictures, and what was wrong with which of the file [A]."""
    file, place = found.file, found.file.box_image
    inside, usable, clipped = clip_to_images(file.boxes_xywh, found.whole.image_sizes[place])
    rows = np.column_stack([place, file.labels, file.crowd, inside.astype(np.float32)])
    is_first = ~pd.DataFrame(rows).duplicated().to_numpy()
    finite = np.isfinite(file.boxes_xywh).all(axis=1)
    positive = (file.boxes_xywh[:, 2:] > 0).all(axis=1)
    least = np.finfo(float).tiny if file.is_federated else 0  # LVIS leaves out areas of 0, too
    wrong = ~((file.areas >= least) & (file.areas < np.inf))
    faults = {
        "dropped that are NaN": ~finite,
        "dropped without area": finite & ~positive,
        "dropped outside of their picture": finite & positive & ~usable,
        "clipped to their picture": usable & clipped,
        box_sets.THIN: usable & box_sets.is_thin(inside),
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
    seen = found.pictures["usable"].to_numpy()[place]
    table = pd.DataFrame(columns)[seen & usable & is_first]
    return table, {what: seen & rows for what, rows in faults.items()}
