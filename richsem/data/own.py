"""A detection set of one's own, part of which is held out to judge by, and further pictures."""

import csv
import hashlib
import os
import unicodedata
import warnings
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from richsem import kept
from richsem.config import ConfigError
from richsem.data.box_sets import BoxDataset
from richsem.data.categories import Category
from richsem.data.image_sets import ImageSet
from richsem.data.pictures import on_disk
from richsem.data.reading import DataError, DataWarning, first_few
from richsem.data.samples import UNKNOWN, match_classes
from richsem.foreign import text_of
from richsem.paths import user_path

Pictures = TypeVar("Pictures", BoxDataset, ImageSet)
PARTS = ("train", "val")
_DRAWS = 10  # tries to have every class in both parts


@dataclass(frozen=True, kw_only=True)
class OwnConfig:
    """Files of one's own in place of a set of the catalogue."""

    annotations: str  # LVIS or COCO file
    images: str  # folder of its pictures
    val_annotations: str = ""  # file to judge by; empty to hold out a part of `annotations`
    val_images: str = ""  # folder of its pictures; empty for `images`
    holdout: float = 0.2  # share of the pictures that is held out

    def __post_init__(self) -> None:
        if not 0 < self.holdout < 1:
            raise ConfigError(f"holdout is a share of the pictures, 0 to 1, got {self.holdout}")


def open_own(own: OwnConfig, part: str) -> BoxDataset:
    """Opens "train" or "val"; no file of the one has the same bytes as one of the other.

    Where "val" does not state how frequent classes are, it has what was counted in "train". A
    `DataError` says that a file cannot be used, there is no such part, or it would have no box.
    """
    if part not in PARTS:
        raise DataError(f"{own.annotations} has no split {part!r}; there are {', '.join(PARTS)}")
    whole = BoxDataset.load(user_path(own.annotations), user_path(own.images))
    if own.val_annotations:
        pictures = user_path(own.val_images or own.images)
        val = BoxDataset.load(user_path(own.val_annotations), pictures)
        train = without(whole, val)
    else:
        held = held_out(whole, own.holdout)
        train = whole.select(np.setdiff1d(np.arange(len(whole)), held))
        val = whole.select(held)
    found = train
    if part == "val":
        groups, images = train.frequency_groups().tolist(), train.image_counts().tolist()
        places = zip(val.categories, match_classes(val.categories, train.categories), strict=True)
        categories = tuple(
            one
            if one.frequency or k == UNKNOWN
            else msgspec.structs.replace(one, frequency=groups[k], image_count=images[k])
            for one, k in places
        )
        found = replace(val, categories=categories)
    if not len(found.labels):
        crowds = f" but crowd regions ({found.num_crowd:,} in the file)" * (found.num_crowd > 0)
        raise DataError(
            f"{found.path}: its {len(found)} pictures for {part!r} have no box{crowds}. Annotate "
            "more, or name a file with boxes to judge by (--val-annotations)."
        )
    return found


def held_out(dataset: BoxDataset, share: float) -> np.ndarray:
    """Positions of the images to judge by, ascending: about `share` of the images of each class.

    A class with two images or more is in both parts, as far as images can be shared out so; an
    only one is rather learnt from. Files with the same bytes stay together. Nothing is random and
    nothing needs to be remembered: the file decides, whatever the recipe.
    """
    same: dict[str, list[int]] = {}
    for row, identity in enumerate(identities(_files(dataset))):
        same.setdefault(identity, []).append(row)
    groups = list(same.values())
    no_box = {len(dataset.categories)}  # images without boxes are shared out like a class
    shows = [{c for i in own for c in dataset.boxes_of(i)[1].tolist()} or no_box for own in groups]
    ids = [dataset.image_ids[own[0]] for own in groups]
    draws = []
    while len(draws) < _DRAWS and all(missed for missed, _ in draws):
        lots = [hashlib.sha256(f"{len(draws)} {number}".encode()).digest() for number in ids]
        draws.append(_draw(shows, share, sorted(range(len(ids)), key=lots.__getitem__)))
    _, held = min(draws, key=lambda draw: draw[0])
    return np.array(sorted(row for k in held for row in groups[k]), dtype=np.int64)


def _draw(shows: Sequence[set[int]], share: float, order: Sequence[int]) -> tuple[int, set[int]]:
    """Holds out images, given the classes of each: how many classes none of them has, and which.

    The order decides where nothing else does.
    """
    images: dict[int, list[int]] = {}
    for k in order:
        for c in shows[k]:
            images.setdefault(c, []).append(k)
    total = {c: len(own) for c, own in images.items()}
    lacking = {c: min(max(1, round(share * n)), n - 1) for c, n in total.items()}
    left, held = dict(total), set()

    def cost(k: int) -> tuple[int, int]:
        """Classes that would not be learnt, then classes that have their share, less the others."""
        only = sum(total[c] == 1 for c in shows[k])
        return only, sum(1 if lacking[c] < 1 else -1 for c in shows[k])

    for label in sorted(total, key=lambda c: (total[c], c)):  # rare classes have the least choice
        for k in sorted(images[label], key=cost):
            last = any(left[c] == 1 < total[c] for c in shows[k])
            if lacking[label] > 0 and k not in held and not last:
                held.add(k)
                for c in shows[k]:
                    left[c], lacking[c] = left[c] - 1, lacking[c] - 1
    return sum(total[c] == left[c] > 1 for c in total), held


def without(pictures: Pictures, judged: BoxDataset, learnt: BoxDataset | None = None) -> Pictures:
    """A set less the files that `judged` has, byte for byte.

    A `DataWarning` counts and names them, and those that are in `learnt` with boxes, which stay.
    """
    remedy = f"Name other pictures to learn from than those of {judged.path}"
    pictures = pictures.less(_shared(pictures, judged), "are judged by, too", remedy)
    if learnt and (known := _shared(pictures, learnt)):
        message = f"{len(known)} of {len(pictures)} pictures have boxes in {learnt.path}, too"
        warnings.warn(
            f"{pictures.path}: {message}, and show nothing new", DataWarning, stacklevel=2
        )
    return pictures


def _shared(pictures: BoxDataset | ImageSet, others: BoxDataset) -> list[int]:
    """The rows of pictures whose bytes are in `others`, too."""
    same = identities([*_files(pictures), *_files(others)])
    seen = set(same[len(pictures) :])
    return [row for row in range(len(pictures)) if same[row] in seen]


def _files(pictures: BoxDataset | ImageSet) -> list[Path]:
    return [pictures.image_root / name for name in pictures.file_names]


def identities(files: Sequence[Path]) -> list[str]:
    """A text for each file, equal where bytes are equal; absent files are compared by name."""
    sizes = [os.path.getsize(file) if os.path.isfile(file) else None for file in files]
    number = Counter(size for size in sizes if size is not None)
    return [
        kept.digest(file) if number[size] > 1 else str(file)
        for file, size in zip(files, sizes, strict=True)
    ]


# --- extra pictures -----------------------------------------------------------------------------


def read_folder(
    root: Path, table: Path | None = None, categories: Sequence[Category] = ()
) -> ImageSet:
    """Reads a folder of pictures; without categories no labels are read.

    Labels are the names of the folders on the way to a picture, or what a csv file says in lines
    of `file,label[;label]`, files relative to the folder. A label is a name or synonym of one of
    the categories, whatever its case, spaces, hyphens and underscores; a `DataWarning` counts and
    names other labels, and pictures that are left without one. A `DataError` says that there are
    no pictures, a line cannot be used, or no label is known.
    """
    names = kept.pictures_below(root)
    if not names:
        kinds = ", ".join(kept.PICTURES)
        raise DataError(f"{root}: no pictures ({kinds}) below it. Check the folder.")
    said = [name.split("/")[:-1] for name in names]
    if categories and table:
        said = _read_table(table, root, names)
    texts = {text for own in said for text in own}
    known = _known(texts, categories, table or root) if categories else {}
    labels = [tuple(sorted({known[text] for text in own if text in known})) for own in said]
    if categories and not all(labels):
        left_out = f"{labels.count(())} of {len(names)} pictures have no known label"
        message = f"{table or root}: {left_out} and are not learnt from"
        warnings.warn(message, DataWarning, stacklevel=2)
    return ImageSet(
        name=root.name,
        path=table or root,
        image_root=root,
        file_names=tuple(names),
        categories=tuple(categories),
        labels=tuple(labels),
        content=hashlib.sha256(repr(labels).encode()).hexdigest()[:16],
    )


def _read_table(path: Path, root: Path, names: Sequence[str]) -> list[list[str]]:
    """The labels of each picture as they are written; a line of titles is passed over."""
    said: dict[str, list[str]] = {name: [] for name in names}
    try:
        rows = list(csv.reader(text_of(path).splitlines(), skipinitialspace=True))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a UTF-8 csv file ({error}).") from error
    absent, find = [], on_disk(root)
    for number, row in enumerate(rows, start=1):
        file = row[0].strip().replace("\\", "/").removeprefix("./") if row else ""
        if len(row) not in (0, 2):
            line = ",".join(row)
            raise DataError(f"{path}: line {number} is {line!r:.80}, expected FILE,LABEL[;LABEL].")
        if (own := find(file)) in said:
            said[own] += [text.strip() for text in row[1].split(";") if text.strip()]
        elif row and (number > 1 or Path(file).suffix):
            absent.append(f"line {number}: {file}")
    if absent:
        raise DataError(
            f"{path}: {len(absent)} of {len(rows)} lines name no picture below {root} "
            f"({first_few(absent, 3)}). Correct or delete them."
        )
    if not any(said.values()):
        raise DataError(f"{path}: it has no labels, expected lines of FILE,LABEL[;LABEL].")
    return list(said.values())


def _known(texts: Collection[str], categories: Sequence[Category], source: Path) -> dict[str, int]:
    """The class of each text that names one."""
    own = [
        Category(id=c.id, name=_plain(c.name), synonyms=tuple(map(_plain, c.synonyms)))
        for c in categories
    ]
    asked = [Category(id=0, name=_plain(text)) for text in sorted(texts)]
    found = dict(zip(sorted(texts), match_classes(asked, own), strict=True))
    unknown = [text for text, place in found.items() if place == UNKNOWN]
    counted = f"{len(unknown)} of {len(texts)} labels name no class, or several"
    message = f"{source}: {counted} ({first_few(unknown)})"
    if len(unknown) == len(texts):
        raise DataError(
            f"{message}. Use names or synonyms of the {len(own)} classes (such as "
            f"{first_few((c.name for c in categories), 3)}), or learn from the bare pictures: "
            "--set data.extra.supervision=unlabelled"
        )
    if unknown:
        warnings.warn(message, DataWarning, stacklevel=3)
    return {text: place for text, place in found.items() if place != UNKNOWN}


def _plain(name: str) -> str:
    """A name less what people write differently: case, spaces, hyphens, underscores."""
    text = unicodedata.normalize("NFC", name).casefold()
    return "".join(text.replace("_", " ").replace("-", " ").split())
