"""What all readers share: typed JSON with good errors, ids, images on disk.

Whatever is wrong with a file, a reader raises `DataError` and names file, record and remedy.
"""

import codecs
import hashlib
import json
import mmap
import os
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

import msgspec
import numpy as np
from PIL import Image

from richsem import kept

Kind = TypeVar("Kind")
Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]  # as NumPy keeps it
Box = tuple[float, float, float, float]

# What these fields should hold, in better words than those of their type.
EXPECTED = {"bbox": "four numbers [x, y, width, height]", "frequency": "one of r, c, f"}

# Of larger sets every so many-th picture is looked at: on a network disk each look takes its time.
MOST_PICTURES = 1_000_000


class DataError(ValueError):
    """A data file cannot be used."""


class DataWarning(UserWarning):
    """Records were left out or changed by convention; the message counts and names them."""


def first_few(items: Iterable[Any], limit: int = 5) -> str:
    """Join the first `limit` items for a message, with dots when there are more."""
    shown = [str(item) for item in items]
    return ", ".join(shown[:limit]) + (", ..." if len(shown) > limit else "")


# --- JSON ---------------------------------------------------------------------------------------


def read(path: Path, kind: type[Kind], *, entry: str = "an object") -> tuple[Kind, str]:
    """Decode a JSON file to records of a type, and hash it.

    Fields that the type (a `msgspec.Struct` of lists of records, or a list of records) does not
    name, such as the polygons that are most of an LVIS file, are passed over and cost next to
    nothing. `entry` says in messages what a record of a list is. The hash is the first 16 hex
    digits of the file's SHA-256.
    """
    raw = _mapped(path)
    fingerprint = hashlib.sha256(raw).hexdigest()[:16]
    mark = codecs.BOM_UTF8
    start = len(mark) if raw[: len(mark)] == mark else 0
    try:
        return msgspec.json.decode(memoryview(raw)[start:], type=kind), fingerprint
    except (msgspec.DecodeError, UnicodeDecodeError):
        # Python's own parser is slower, but says what is wrong, and takes the NaN that it writes.
        return convert(_untyped(raw, path), kind, str(path), entry=entry), fingerprint


def convert(payload: Any, kind: type[Kind], where: str, *, entry: str = "an object") -> Kind:
    """The same for content in memory, which `where` names in messages."""
    try:
        return msgspec.convert(payload, kind)
    except msgspec.ValidationError as error:
        raise DataError(_explained(str(error), payload, where, entry)) from error


def _mapped(path: Path) -> mmap.mmap | bytes:
    """The bytes of a file, without a copy in memory."""
    try:
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                return b""  # which cannot be mapped
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}). Check the path, or create the file first."
        ) from error


def _untyped(raw: mmap.mmap | bytes, path: Path) -> Any:
    """The content as Python's parser reads it, without polygons: they would fill the memory."""

    def without_polygons(record: dict[str, Any]) -> dict[str, Any]:
        record.pop("segmentation", None)
        return record

    try:
        text = str(raw, "utf-8-sig")
        return json.loads(text, object_hook=without_polygons)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}. Is this a JSON file?") from error
    except json.JSONDecodeError as error:
        state = "is empty or ends early" if error.pos >= len(text.rstrip()) - 1 else "is malformed"
        raise DataError(
            f"{path}: the JSON {state} at line {error.lineno}, column {error.colno} ({error.msg}). "
            "Download or write the file again."
        ) from error


def _explained(error: str, payload: Any, where: str, entry: str) -> str:
    """What msgspec found, such as "Expected `int`, got `str` - at `$.images[3].id`", in our words.

    The record is named by its place and its id, and the value is shown.
    """
    problem, _, place = error.partition(" - at `$")
    expected = problem.split(", got")[0].replace("`", "").replace("array", "list")
    expected = expected[:1].lower() + expected[1:]  # "expected int"
    missing = re.fullmatch(r"Object missing required field `(.+)`", problem)
    steps = re.findall(r"\.(\w+)|\[(\d+)\]", place)
    section = ""
    if steps and steps[0][0]:  # a list under a key of the top level, else the list is all there is
        section = steps.pop(0)[0]
        where, payload = f"{where}: {section}", payload[section]
    if not steps:
        return _explained_top(section, payload, where, missing and missing[1], expected, entry)
    row = int(steps.pop(0)[1])
    record = payload[row]
    where += f"[{row}]"
    if isinstance(record, dict) and record.get("id") is not None:
        where += f" (id {record['id']})"
    if missing:
        return f'{where}: field "{missing[1]}" is missing. Add it or leave the record out.'
    field = steps[0][0] if steps else ""
    if not field:
        return f"{where} is {record!r:.200}, expected {entry}. Correct the record."
    expected = f"expected {EXPECTED[field]}" if field in EXPECTED else expected
    return f'{where}: field "{field}" is {record[field]!r:.200}, {expected}. Correct the record.'


def _explained_top(
    section: str, payload: Any, where: str, missing: str | None, expected: str, entry: str
) -> str:
    if missing:
        return (
            f'{where}: top-level key "{missing}" is missing; found {first_few(payload) or "none"}. '
            "Is this an annotation file?"
        )
    what = where if section else f"{where}: the top level"
    expected = expected.replace("list", f"a list, each entry {entry}")
    return f"{what} is a {type(payload).__name__}, {expected}. Is this an annotation file?"


# --- records ------------------------------------------------------------------------------------


def numbers(records: Sequence[Any], field: str) -> np.ndarray:
    """One integer field of all records, int64 [R]."""
    return np.fromiter((getattr(r, field) for r in records), np.int64, len(records))


def unique_ids(records: Sequence[Any], where: str) -> np.ndarray:
    """The field "id" of all records as int64 [R]; duplicates are refused."""
    ids = numbers(records, "id")
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        repeated = values[counts > 1]
        rows = np.flatnonzero(ids == repeated[0])
        raise DataError(
            f"{where}[{rows[1]}]: duplicate id {repeated[0]} (first used by [{rows[0]}]); "
            f"{len(repeated)} ids occur more than once. Give every record its own id."
        )
    return ids


def index_of(ids: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Look up each key in unsorted unique `ids`: its position, or -1 where it is unknown."""
    if not len(ids):
        return np.full(len(keys), -1)
    order = np.argsort(ids)
    place = np.minimum(np.searchsorted(ids, keys, sorter=order), len(ids) - 1)
    found = order[place]
    return np.where(ids[found] == keys, found, -1)


def detected_positions(ids: np.ndarray, listed: np.ndarray, noun: str, file: str) -> np.ndarray:
    """Positions of detections' image or category ids [D] among those that a file lists."""
    places = index_of(listed, ids)
    unknown = np.unique(ids[places < 0])
    if len(unknown):
        raise DataError(
            f"{file}: detections name {len(unknown)} {noun} ids that it does not list "
            f"({first_few(unknown)}). Use the ids of the annotation file, not positions."
        )
    return places


def positions(
    lists: Sequence[Sequence[int]], ids: np.ndarray, field: str, records: Sequence[Any], where: str
) -> np.ndarray:
    """Positions in `ids` of the category ids in a field of all records, one after the other."""
    lengths = [len(own) for own in lists]
    keys = np.fromiter((key for own in lists for key in own), np.int64, sum(lengths))
    places = index_of(ids, keys)
    unknown = np.flatnonzero(places < 0)
    if len(unknown):
        row = int(np.searchsorted(np.cumsum(lengths), unknown[0], side="right"))
        raise DataError(
            f'{where}[{row}] (id {records[row].id}): field "{field}" names unknown category '
            f"{keys[unknown[0]]}. Use ids of the file's own categories."
        )
    return places


def require(records: Sequence[Any], field: str, where: str) -> None:
    """Refuses records that lack a field which is optional in other files of their kind."""
    for row, record in enumerate(records):
        if getattr(record, field) is msgspec.UNSET:
            raise DataError(
                f'{where}[{row}] (id {record.id}): field "{field}" is missing. Add it or leave '
                "the record out."
            )


def refuse_empty(records: Sequence[Any], what: str) -> None:
    """Refuses a list without records; `what` names file and key."""
    if not records:
        raise DataError(f"{what} is empty. Nothing to load; check the file.")


# --- images on disk -----------------------------------------------------------------------------


class FolderIndex:
    """Answers "is this relative name on disk?" by listing each folder once, not each file."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names: dict[str, frozenset[str]] = {}

    def __contains__(self, name: str) -> bool:
        folder, _, base = name.rpartition("/")
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(os.listdir(self._root / folder))
            except OSError:
                self._names[folder] = frozenset()
        return base in self._names[folder]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PictureSet:
    """What all sets have: a file that describes them and a folder of pictures."""

    name: str
    path: Path
    image_root: Path
    file_names: tuple[str, ...]  # per image, relative to `image_root`
    content: str = ""  # hash of the file and of what was selected from it

    def __len__(self) -> int:
        return len(self.file_names)

    @cached_property
    def fingerprint(self) -> str:
        """What a set was made from, 16 hex digits: `content` and size and time of each picture.

        Where the pictures lie does not count, so a set that was moved stays the same set.
        """
        digest = hashlib.sha256(self.content.encode())
        for name in self.file_names:
            digest.update(f"\n{name}".encode())
        step = max(1, -(-len(self) // MOST_PICTURES))
        state = kept.files_state(self.image_root / name for name in self.file_names[::step])
        digest.update(f"\n{state}".encode())
        return digest.hexdigest()[: kept.DIGITS]

    def missing_images(self) -> tuple[str, ...]:
        """Name the image files that are not on disk."""
        folder = FolderIndex(self.image_root)
        return tuple(name for name in self.file_names if name not in folder)

    def subset_with_images(self) -> Self:
        """Restrict the set to images on disk; a `DataWarning` counts and names what is left out."""
        missing = self.missing_images()
        if not missing:
            return self
        message = (
            f"{self.path}: {len(missing)} of {len(self)} images are not under {self.image_root} "
            f"({first_few(missing, 3)})"
        )
        if len(missing) == len(self):
            raise DataError(f"{message}. Pass the folder that holds these files as image_root.")
        warnings.warn(f"{message}; the set is restricted to the rest.", DataWarning, stacklevel=2)
        absent = set(missing)
        return self.select([i for i, name in enumerate(self.file_names) if name not in absent])

    def select(self, indices: Sequence[int] | np.ndarray) -> Self:
        """Return the set restricted to the images at these positions, in this order."""
        raise NotImplementedError


def open_rgb(path: Path, owner: str) -> Image.Image:
    """Decode an image to RGB; `owner` names its record in messages."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: image of {owner} is not on disk. Check the image folder, or continue with "
            "subset_with_images()."
        ) from error
    # Pillow reports a damaged PNG as SyntaxError or ValueError, everything else as OSError.
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(
            f"{path}: image of {owner} cannot be read ({error}). Fetch or render it again."
        ) from error
