"""An annotation file beside its pictures, and a copy of it that fits them."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
from tqdm import tqdm
from tqdm.contrib.concurrent import thread_map

from richsem.data import pictures
from richsem.data.box_sets import (
    Annotations,
    BoxDataset,
    clip_to_images,
    first_of_each,
    picture_names,
    read_annotations,
)
from richsem.data.reading import DataError
from richsem.processes import own_cores

MISSING = "missing"


@dataclass(frozen=True, kw_only=True, eq=False)
class Inspected:
    """An annotation file of N images and their pictures; sizes are (height, width) in pixels."""

    file: Annotations
    files: list[Path]  # pictures, N
    problems: list[str]  # why they cannot be read, or `MISSING`; empty where they can, N
    tags: np.ndarray  # EXIF orientations [N]
    stored: np.ndarray  # sizes of the pixels in the files [N, 2]; 0 where there is a problem
    upright: np.ndarray  # the same as viewers show them [N, 2]
    recorded: np.ndarray  # what the annotation file says [N, 2]; 0 where it says nothing
    readable: np.ndarray  # which pictures can be used [N]
    fits: np.ndarray  # whether the recorded size is that of the picture, stored or upright [N]


def inspect(annotations: Path, folder: Path) -> Inspected:
    """Reads an annotation file and opens its pictures; a `DataError` says why there are none."""
    file = read_annotations(annotations)
    files = [folder / name for name in picture_names(file, folder)]
    stored, tags, problems = look_at(files)
    recorded = np.array([(image.height or 0, image.width or 0) for image in file.images])
    pairs = zip(stored.tolist(), tags.tolist(), strict=True)
    upright = np.array([pictures.upright(size, tag) for size, tag in pairs])
    return Inspected(
        file=file,
        files=files,
        problems=problems,
        tags=tags,
        stored=stored,
        upright=upright,
        recorded=recorded,
        readable=stored[:, 0] > 0,
        fits=(recorded == stored).all(axis=1) | (recorded == upright).all(axis=1),
    )


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


def as_set(found: Inspected, folder: Path) -> BoxDataset:
    """The images and boxes of the file; sizes are those of the pictures where it has none."""
    sizes = np.where(found.recorded > 0, found.recorded, np.maximum(found.upright, 1))
    with warnings.catch_warnings(action="ignore"):  # whoever calls counts boxes
        return BoxDataset.of(replace(found.file, images=_sized(found.file, sizes)), folder)


def _sized(file: Annotations, sizes: np.ndarray) -> list:
    pairs = zip(file.images, sizes.tolist(), strict=True)
    return [msgspec.structs.replace(image, height=h, width=w) for image, (h, w) in pairs]


def repaired(found: Inspected) -> tuple[bytes, dict[str, int]]:
    """A copy of the annotation file without faults, and what was changed how often; ids stay.

    Sizes become those of the pictures; pictures that cannot be read are left out, and boxes that
    are NaN, without area, outside or repeated. Other boxes are clipped.
    """
    file, place = found.file, found.file.box_image
    sizes = np.where(found.fits[:, None], found.recorded, found.upright)
    scales = _scales(found)[place]
    boxes = file.boxes_xywh * scales[:, [1, 0, 1, 0]]
    inside, usable, clipped = clip_to_images(boxes, sizes[place])
    is_first = first_of_each(place, file.labels, file.crowd, inside.astype(np.float32))
    seen = found.readable[place]
    kept = seen & usable & is_first
    inside[:, 2:] -= inside[:, :2]
    boxes[clipped] = inside[clipped]
    areas, full = file.areas * scales.prod(axis=1), boxes[:, 2] * boxes[:, 3]
    wrong = ~((areas > 0) & (areas < np.inf)) | (clipped & (areas > full))
    columns = {
        "id": file.ids,
        "image_id": file.image_ids[place],
        "category_id": np.array([category.id for category in file.categories])[file.labels],
        "bbox": boxes.tolist(),
        "area": np.where(wrong, full, areas),
        "iscrowd": file.crowd.astype(int),
    }
    content = {
        "images": [
            image for image, r in zip(_sized(file, sizes), found.readable, strict=True) if r
        ],
        "annotations": pd.DataFrame(columns)[kept].to_dict("records"),
        "categories": file.categories,
    }
    counts = {
        "pictures left out": ~found.readable,
        "sizes corrected": found.readable & ~found.fits,
        "boxes scaled with their pictures": kept & (scales != 1).any(axis=1),
        "boxes clipped": kept & clipped,
        "boxes without a place dropped": seen & ~usable,
        "repeated boxes dropped": seen & usable & ~is_first,
        "areas corrected": kept & wrong & ~clipped,
    }
    return msgspec.json.encode(content), {what: int(own.sum()) for what, own in counts.items()}


def _scales(found: Inspected) -> np.ndarray:
    """By what boxes have to be multiplied, (height, width) [N, 2]: 1 but for resized pictures.

    If a picture has its record's shape but not its size, either it was resized or the record is
    wrong. Boxes tell: they belong to the smaller of both sizes in which all of them lie.
    """
    old, new, place = found.recorded, found.upright, found.file.box_image
    alike = np.abs(old[:, 0] * new[:, 1] - old[:, 1] * new[:, 0]) <= old.sum(axis=1) / 2
    alike &= found.readable & ~found.fits & (old > 0).all(axis=1)
    ends = found.file.boxes_xywh.reshape(-1, 2, 2).sum(axis=1)[:, ::-1]
    scales = np.ones(old.shape)
    for has_grown in (True, False):
        rows = alike & ((new > old).any(axis=1) == has_grown)
        own = rows[place]
        in_old, in_new = (not (ends > size[place] + 1)[own].any() for size in (old, new))
        if in_old and (has_grown or not in_new):
            scales[rows] = new[rows] / old[rows]
    return scales
