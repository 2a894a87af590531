"""What will be done with an annotation file and its pictures, said before anything is trained."""

import re
import shutil
import textwrap
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from richsem.data.box_sets import FEDERATED, BoxDataset, clip_to_images
from richsem.data.categories import Category, spoken_names
from richsem.data.folders import read_folder
from richsem.data.own import held_out, identities
from richsem.data.reading import DataError, first_few
from richsem.data.sampling import repeat_factors
from richsem.operations.repair import MISSING, Inspected, as_set, inspect, look_at, repaired
from richsem.operations.verdict import GROUPS
from richsem.paths import check_own, write_own
from richsem.recipes.own_data import repeat_threshold

HOLDOUT = 0.2  # what `train` holds out by default
_RANGES = dict(zip(GROUPS, (" (1 to 10 images)", " (11 to 100)", " (more)"), strict=True))
_MENDED = "(--repair)"  # ends the words on what a repaired copy does not have any more
_INDENT, _WIDTH = 15, 100

Words = Iterator[tuple[str, str]]  # topic and words; no topic for what stops training


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
        whole = as_set(found, images)
        used = whole.select(np.flatnonzero(found.readable))
        said += [*_classes(used), *_boxes(found, whole, used), *_training(found.readable, whole)]
        said += _extra(extra, extra_labels, whole) if extra else ()
    if repair and found.readable.any():
        said = [(topic, words) for topic, words in said if topic or _MENDED not in words]
        said.append(("repaired", _repaired(found, repair)))
    problems = [words for topic, words in said if not topic]
    where = " in the repaired copy" if said[-1][0] == "repaired" else ""
    words = f"{len(problems)} that stop training" if problems else "none"
    said.append(("problems", f"{words}{where}"))
    rows = [row for row in said if row[0]] + [("", f"- {words}") for words in problems]
    return [_line(*row) for row in rows], int(bool(problems))


def _line(topic: str, words: str) -> str:
    width = min(_WIDTH, shutil.get_terminal_size((_WIDTH, 0)).columns)
    wrap = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False)
    wrap.subsequent_indent = " " * _INDENT
    return wrap.fill(f"{topic:{_INDENT}}{words}")


def _joined(first: str, counts: Mapping[str, int]) -> str:
    return "; ".join([first, *(f"{n:,} {what}" for what, n in counts.items() if n)])


def _n(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 'es' if noun[-1] in 'sx' else 's'}"


def _file(found: Inspected) -> Words:
    images = found.file.images
    lacking = [f for f in FEDERATED if all(getattr(image, f) is None for image in images)]
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
    wrong = np.flatnonzero(found.readable & ~found.fits)
    if len(wrong):
        first, number = wrong[0], _n(len(wrong), "picture")
        is_, was = (f"{w} x {h}" for h, w in (found.upright[first], found.recorded[first]))
        words = f"{number} of another size than in the file ({names[first]} is {is_}, not {was})"
        yield "", f"{words}: use those that were annotated, or correct the file {_MENDED}"
    if tags := Counter(found.tags[found.tags > 1].tolist()):
        words = ", ".join(f"{tag} in {n:,}" for tag, n in sorted(tags.items()))
        doubtful = (found.tags > 1) & (found.recorded == found.stored).all(axis=1)
        counts = {"with the size of their stored pixels: look where boxes lie": doubtful.sum()}
        yield "EXIF", _joined(f"orientation {words}", counts)


def _classes(used: BoxDataset) -> Words:
    images, groups = used.image_counts(), used.frequency_groups().tolist()
    names = np.array([category.name for category in used.categories])
    counted = not all(category.frequency for category in used.categories)
    parts = [f"{groups.count(g):,} {name}{_RANGES[g] * counted}" for g, name in GROUPS.items()]
    source = "counted in the file" if counted else "as the file says"
    yield "classes", f"{len(names):,}: {', '.join(parts)}, {source}"
    order = np.argsort(images, kind="stable")
    seen, none = order[images[order] > 0], order[images[order] == 0]
    for topic, rows in (("largest", seen[::-1][:3]), ("smallest", seen[:3])):
        yield topic, ", ".join(f"{names[k]} ({_n(images[k], 'image')})" for k in rows)
    if len(none):
        yield "without boxes", f"{_n(len(none), 'class')} ({first_few(names[none])})"
    alike = _alike(used.categories)
    words = f"CLIP cannot tell apart {first_few(alike)}: rename them" if alike else "all differ"
    yield "names", words


def _alike(categories: Sequence[Category]) -> list[str]:
    """Names that CLIP reads as one, or nearly so: but for a plural, spaces or punctuation."""
    groups = defaultdict(list)
    for category, name in zip(categories, spoken_names(categories), strict=True):
        groups[re.sub(r"[\W_]", "", name).removesuffix("s")].append(category.name)
    return [" = ".join(names) for names in groups.values() if len(names) > 1]


def _boxes(found: Inspected, whole: BoxDataset, used: BoxDataset) -> Words:
    file = found.file
    plain = found.readable[file.box_image] & ~file.crowd
    boxes = file.boxes_xywh[plain]
    _, usable, clipped = clip_to_images(boxes, whole.image_sizes[file.box_image[plain]])
    finite, positive = np.isfinite(boxes).all(axis=1), (boxes[:, 2:] > 0).all(axis=1)
    counts = {
        "dropped that are NaN": ~finite,
        "dropped without area": finite & ~positive,
        "dropped outside of their picture": finite & positive & ~usable,
        "clipped to their picture": usable & clipped,
        "with an area that LVIS leaves out": usable & ~(file.areas[plain] > 0),
    }
    numbers = {what: own.sum() for what, own in counts.items()}
    numbers["that repeat another"] = used.duplicates()
    first = f"{_n(len(used.labels), 'box')}, {_n(used.num_crowd, 'crowd region')}"
    yield "boxes", _joined(first, numbers)


def _training(readable: np.ndarray, whole: BoxDataset) -> Words:
    is_held = np.zeros(len(whole), dtype=bool)
    is_held[held_out(whole, HOLDOUT)] = True
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
    """Writes the copy; what was changed."""
    content, counts = repaired(found)
    write_own(target, content)
    sizes = [f"{n / 1e3:,.0f} kB" for n in (found.file.path.stat().st_size, len(content))]
    words = [f"{what}: {n:,}" for what, n in counts.items() if n]
    return "; ".join([f"{target}, {' -> '.join(sizes)} without fields that nobody reads", *words])
