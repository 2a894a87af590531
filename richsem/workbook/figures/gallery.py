"""Detections of any pictures as files: drawn in their own size, as COCO JSON, as one page."""

import glob
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jinja2 import Environment, StrictUndefined
from PIL import Image
from torchvision.ops import nms

from richsem import __version__
from richsem.boxes import to_xywh
from richsem.data.categories import Category
from richsem.data.reading import DataError
from richsem.kept import pictures_below
from richsem.models.clip_words import BETWEEN, lines_of
from richsem.paths import check_own, is_own, user_path, write_own
from richsem.training.predict import PictureDetections
from richsem.workbook.figures import drawing
from richsem.workbook.panels import of_groups

DETECTIONS, INDEX = "detections.json", "index.html"
_WRITTEN = (".png", ".json", ".html")  # endings of all that is written here
SAME_PLACE = 0.8  # IoU of boxes that are one place with several names
PAGE = Path(__file__).with_suffix(".html")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A picture and what was found in it."""

    picture: Path
    size: tuple[int, int]  # width and height in pixels
    found: PictureDetections
    drawn: str  # name of the file that shows it

    @property
    def words(self) -> str:
        """What was found, as a sentence would list it; of names for one place the best."""
        counts = Counter(name.replace("_", " ") for name in distinct(self.found).names)
        return ", ".join(f"{n} {name}" for name, n in counts.items()) or "nothing found"


def pictures(places: Sequence[str]) -> list[Path]:
    """Picture files that files, folders (with all below them) and patterns such as `*.jpg` name.

    A `DataError` names a place that has none.
    """
    found: list[Path] = []
    for place in places:
        path = Path(os.path.expanduser(place))
        if place and path.is_dir():  # an empty name is a variable that was not set, not all files
            files = [path / name for name in pictures_below(path)]
        else:
            matches = [path] if path.exists() else glob.glob(str(path), recursive=True)
            files = [Path(file) for file in matches]
        # A folder may hold what was written the last time; to tell, such files are read.
        ours = {file for file in files if file.suffix.lower() in _WRITTEN and is_own(file)}
        files = sorted(file for file in {*files} - ours if not file.is_dir())
        if not files:
            raise DataError(f"{place!r}: no picture there")
        found += files
    return list(dict.fromkeys(found))


def targets(files: Sequence[Path], out: Path | None) -> tuple[list[Path], list[Path]]:
    """For each picture the file that shows it, and what is written beside these.

    One picture and a `.png`, or nothing, give that file with a `.json` beside it; otherwise `out`
    is a folder with a page. An `OSError` or `ValueError` says that something else lies there.
    """
    is_folder = out is not None and (out.is_dir() or not out.suffix)
    if out is not None and not is_folder and (out.suffix.lower() != ".png" or len(files) > 1):
        raise ValueError(
            f"{out}: name a .png for one picture, or a folder for several, "
            "one that is there if its name has a dot"
        )
    if len(files) == 1 and not is_folder:
        drawn = [out or files[0].with_name(f"{files[0].stem}-detections.png")]
        beside = [drawn[0].with_suffix(".json")]
    else:
        folder = out or Path("detections")
        drawn = [folder / name for name in drawn_names(files)]
        beside = [folder / DETECTIONS, folder / INDEX]
    for path in (*drawn, *beside):
        check_own(path)
    return drawn, beside


def given_names(words: str | None) -> list[str]:
    """Class names: from a text file with one per line, or with commas between them; None: none.

    What people write instead of commas, semicolons and those of other scripts, counts as one.
    """
    if words is None:
        return []
    is_list = not words or BETWEEN.search(words)  # which may be too long for a file's name
    # Not "Dr.Pepper" or "car/truck".
    is_text = re.search(r"(?i)^(~|\.{0,2}/)|\.(csv|json|names|pbtxt|tsv|txt|ya?ml)$", words)
    is_file = is_text or (not is_list and os.path.isfile(user_path(words)))
    lines = lines_of(words, "names")[1] if is_file else [words]
    if len(lines) == 1:  # in a longer file a comma is part of a name
        lines = BETWEEN.split(lines[0])
    names = [line.strip() for line in lines if line.strip()]
    if not any(re.search(r"\w", name) for name in names):
        raise DataError(f"{words or '--names'}: no names in there")
    for name in names:
        if re.search(r"""^["'[{]|[\udc80-\udcff]""", name):
            raise DataError(f"{name!r} is no name: leave out quotes and brackets, write UTF-8")
    return list({name.casefold(): name for name in names}.values())  # CLIP reads small letters


def drawn_names(files: Sequence[Path]) -> list[str]:
    """For each picture a name of the file that shows it; equal ones get a number."""
    names: dict[str, str] = {}  # by what they are where case does not count
    numbers: Counter[str] = Counter()
    for file in files:
        stem = name = readable(file.stem)
        while name.lower() in names:
            numbers[stem.lower()] += 1
            name = f"{stem}-{numbers[stem.lower()] + 1}"
        names[name.lower()] = f"{name}.png"
    return [*names.values()]


def readable(name: str) -> str:
    """A file name as text: bytes of it that are no UTF-8 are spelt out."""
    return os.fsencode(name).decode(errors="backslashreplace")


def distinct(found: PictureDetections) -> PictureDetections:
    """Of several names for one place the best."""
    kept = nms(torch.from_numpy(found.boxes_xyxy), torch.from_numpy(found.scores), SAME_PLACE)
    return found.select(np.sort(kept.numpy()))


def drawn(picture: Image.Image, found: PictureDetections) -> bytes:
    """A PNG of the picture in its own size with boxes and their best names; rare ones are red."""
    found = distinct(found)
    labels = [f"{n} {s:.2f}" for n, s in zip(found.names, found.scores, strict=True)]
    return drawing.alone(of_groups(picture, found.boxes_xyxy, labels, found.frequencies))


def coco(seen: Sequence[Seen], classes: Sequence[Category]) -> str:
    """All detections as one COCO file with its own image ids; every annotation has a `score`."""
    images, annotations = [], []
    for number, one in enumerate(seen, start=1):
        width, height = one.size
        name, found = readable(one.picture.as_posix()), one.found
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        boxes = to_xywh(torch.from_numpy(found.boxes_xyxy).double()).numpy().round(2).tolist()
        for label, score, box in zip(found.labels, found.scores.tolist(), boxes, strict=True):
            annotation = {"image_id": number, "category_id": classes[label].id, "bbox": box}
            annotation |= {"area": round(box[2] * box[3], 2), "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, **annotation, "score": round(score, 5)})
    categories = [{"id": category.id, "name": category.name} for category in classes]
    info = {"description": f"detections by richsem {__version__}"}
    tables = {"images": images, "annotations": annotations, "categories": categories}
    return json.dumps({"info": info, **tables}) + "\n"


def page(seen: Sequence[Seen]) -> str:
    """A page of thumbnails beside the drawn pictures; it opens without a server."""
    title = f"{sum(len(one.found) for one in seen):,} objects in {len(seen):,} pictures"
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    template = environment.from_string(PAGE.read_text(encoding="utf-8"))
    return template.render(title=title, seen=seen, readable=readable)


def write_beside(files: Sequence[Path], seen: Sequence[Seen], classes: Sequence[Category]) -> None:
    """Writes what `targets` names beside the drawn pictures."""
    if len(files) == 1:
        contents = [json.dumps(seen[0].found.to_list(), indent=1) + "\n"]
    else:
        contents = [coco(seen, classes), page(seen)]
    for file, content in zip(files, contents, strict=True):
        write_own(file, content)
