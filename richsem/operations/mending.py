"""What is done about records of an annotation file that its reader refuses.

The reader alone says what is wrong: it reads, refuses, and reads what was made of it, until nothing
is refused.
"""

import contextlib
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import msgspec

from richsem.data import reading
from richsem.data.box_sets import FEDERATED, RECORDS, Annotations, picture_names, read_annotations
from richsem.data.outlines import around
from richsem.data.reading import DataError, RecordError

Content = dict[str, list[Any]]
_TEXT = "ids of all images written as text"
_NAMES = ("name", "file_name", "coco_url")  # what tells records of one id apart


def mended(
    path: Path, folder: Path, *, outlines: bool = False
) -> tuple[Annotations | None, list[tuple[DataError, str]]]:
    """An annotation file as its reader takes it; errors before, and what was done about each.

    Nothing is said to be done where only a person can tell what is right: what comes first counts,
    so that all else can be looked at. There are no annotations if nothing is left of the file.
    With `outlines` boxes that are NaN or have no area are those around their outlines. A
    `DataError` says that it is no annotation file at all.
    """
    try:
        file = _read(path, folder)
        if not outlines or (file.boxes_xywh[:, 2:] > 0).all():
            return file, []
    except RecordError:
        pass
    content, done = reading.untyped(path, outlines=True), []
    while True:
        try:
            file = _read(content, folder)
            if outlines:
                _require_area(content["annotations"], path)
            return replace(file, path=path), done
        except RecordError as error:
            words = _mend(content, error)
            done.append((error, words * bool(content[error.section])))  # all was not meant
        except DataError as error:
            return None, [*done, (error, "")]


def _read(source: Path | Content, folder: Path) -> Annotations:
    file = read_annotations(source)
    picture_names(file, folder)
    for field in FEDERATED:
        file.lists(field)
    return file


def _require_area(records: list[dict[str, Any]], path: Path) -> None:
    rows = [n for n, own in enumerate(records) if not min(own["bbox"][2:]) > 0 and around(own)]
    if rows:
        words = "its box is NaN or has no area, but it has an outline"
        raise RecordError("flat", f"{path}: annotations", records, rows, words, "Correct the box.")


def _mend(content: Content, error: RecordError) -> str:
    """Changes the records with a fault and says how; nothing where a person has to decide."""
    section, images = error.section, content["images"]
    records = content[section]
    wrong = [records[row] for row in error.rows]
    done = f"{len(wrong):,} left out"
    match section, error.kind:
        case "annotations", "id" | "mixed" | "repeated":
            for number, record in enumerate(records, start=1):
                if isinstance(record, dict):
                    record["id"] = number
            return "all annotations numbered anew"
        case "images", "unknown" | "absent" | "shifted":  # lists of classes
            known = {one["id"] for one in content["categories"]}
            for record, field in product(wrong, FEDERATED):
                record[field] = [one for one in record.get(field) or () if one in known]
            return "unknown ids left out" if error.kind == "unknown" else ""
        case "annotations", "flat":
            for record in wrong:
                record |= {"bbox": around(record), "area": record.get("area") or None}
            return "boxes around the outlines"
        case _, "mixed":
            _as_text(content)
            return _TEXT
        case _, "unknown" if type(wrong[0]["image_id"]) is not type(images[0]["id"]):
            _as_text(content)
            known = {one["id"] for one in images}
            # Where some are none, those that are may be so by chance.
            return _TEXT * (known >= {one["image_id"] for one in wrong})
        case _, "repeated":
            first = {one["id"]: one for one in reversed(records)}
            pairs = [
                (one.get(name), first[one["id"]].get(name)) for one in wrong for name in _NAMES
            ]
            done = f"{done}, which repeat the first" * all(one == other for one, other in pairs)
        case _, "shifted":
            done = ""
        case _, "unknown" | "nameless":
            pass
        case _:
            return _convert(content, error)
    content[section] = [one for row, one in enumerate(records) if row not in set(error.rows)]
    return done


def _as_text(content: Content) -> None:
    for section, field in (("images", "id"), ("annotations", "image_id")):
        for record in content[section]:
            record[field] = str(record[field])


def _convert(content: Content, error: RecordError) -> str:
    """Values that a field may not have, of all records that would be refused for it."""
    done, records = Counter(), content[error.section]
    error.rows = [n for n in range(error.rows[0], len(records)) if _is_like(error, records[n])]
    for row in error.rows:
        records[row], what = _converted(records[row], error)
        done[what] += 1
    content[error.section] = [one for one in records if one is not None]
    return ", ".join(f"{number:,} {what}" for what, number in done.items())


def _is_like(error: RecordError, record: Any) -> bool:
    try:
        reading.convert([record], list[RECORDS[error.section]], "")
    except RecordError as own:
        return own.kind == error.kind
    return False


def _converted(record: Any, error: RecordError) -> tuple[Any, str]:
    """A record whose field is right, or None, and what was done."""
    fields = {one.encode_name: one for one in msgspec.structs.fields(RECORDS[error.section])}
    field = error.kind
    with contextlib.suppress(KeyError, msgspec.ValidationError):  # other fields have their turn
        kind = fields[field].type  # of what is no object there is none
        value = msgspec.convert(record[field], kind, strict=False)
        return record | {field: value}, "read as numbers"
    if field == "bbox" and (box := around(record)):
        return record | {"bbox": box}, "boxes around the outlines"
    if field == "name" and type(record.get(field)) in (int, float):
        return record | {"name": str(record["name"])}, "read as text"
    if field == "name" and "id" in record:
        return record | {"name": f"class {record['id']}"}, 'called "class" and their id: name them'
    if not field or fields[field].required:
        return None, "left out"
    return {key: value for key, value in record.items() if key != field}, f"taken without {field}"
