"""What all readers share: JSON with good errors, checked columns, images on disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Record = dict[str, Any]

INTEGER = frozenset({int})
NUMBER = frozenset({int, float})
TEXT = frozenset({str})
LIST = frozenset({list})


class DataError(ValueError):
    """A data file cannot be used; the message names the file, the record and the remedy."""


class DataWarning(UserWarning):
    """Records were left out or changed by convention; the message counts and names them."""


def first_few(items: Iterable[Any], limit: int = 5) -> str:
    """Join the first `limit` items for a message, with dots when there are more."""
    shown = [str(item) for item in items]
    return ", ".join(shown[:limit]) + (", ..." if len(shown) > limit else "")


def read_json(path: Path, *, skip: str = "") -> tuple[Any, str]:
    """Read a JSON file and the first 16 hex digits of its SHA-256.

    Values under the key `skip` are thrown away while parsing: the polygons of LVIS are most of
    the file, and boxes do not need them.

    Raises:
        DataError: the file is missing, not UTF-8 or not JSON (naming line and column).
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}). Check the path, or create the file first."
        ) from error
    fingerprint = hashlib.sha256(raw).hexdigest()[:16]

    def without_skipped(record: Record) -> Record:
        record.pop(skip, None)
        return record

    try:
        text = raw.decode("utf-8-sig")
        del raw
        return json.loads(text, object_hook=without_skipped if skip else None), fingerprint
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}. Is this a JSON file?") from error
    except json.JSONDecodeError as error:
        state = "is empty or ends early" if error.pos >= len(text.rstrip()) - 1 else "is malformed"
        raise DataError(
            f"{path}: the JSON {state} at line {error.lineno}, column {error.colno} ({error.msg}). "
            "Download or write the file again."
        ) from error


def record_list(payload: Any, key: str, path: Path) -> list[Record]:
    """Return the list of objects under a top-level key."""
    if not isinstance(payload, dict):
        raise DataError(
            f"{path}: the top level is a {type(payload).__name__}, expected an object with "
            f'"{key}". Is this an annotation file?'
        )
    if key not in payload:
        raise DataError(
            f'{path}: top-level key "{key}" is missing; found {first_few(payload) or "none"}. '
            "Is this an annotation file?"
        )
    return checked_records(payload[key], f"{path}: {key}")


def checked_records(value: Any, where: str) -> list[Record]:
    """Return `value` if it is a list of JSON objects."""
    if not isinstance(value, list):
        raise DataError(f"{where} is a {type(value).__name__}, expected a list of objects.")
    for row, record in enumerate(value):
        if type(record) is not dict:
            raise DataError(f"{where}[{row}] is a {type(record).__name__}, expected an object.")
    return value


def describe(records: Sequence[Record], row: int, where: str) -> str:
    """Name one record for a message: its place in the file and its id where it has one."""
    identity = records[row].get("id")
    return f"{where}[{row}]" + ("" if identity is None else f" (id {identity})")


def column(records: Sequence[Record], field: str, kinds: frozenset[type], where: str) -> list[Any]:
    """Collect one required field of every record.

    Raises:
        DataError: a record lacks the field or holds another type (exact types: no bool for int).
    """
    try:
        values = [record[field] for record in records]
    except KeyError as error:
        row = next(row for row, record in enumerate(records) if field not in record)
        raise DataError(
            f'{describe(records, row, where)}: field "{field}" is missing. Add it or leave the '
            "record out."
        ) from error
    if not set(map(type, values)) <= kinds:
        row = next(row for row, value in enumerate(values) if type(value) not in kinds)
        expected = " or ".join(sorted(kind.__name__ for kind in kinds))
        raise DataError(
            f'{describe(records, row, where)}: field "{field}" is {values[row]!r}, expected '
            f"{expected}. Correct the record."
        )
    return values


def int_column(records: Sequence[Record], field: str, where: str) -> np.ndarray:
    """Collect one required integer field as int64 [R]."""
    values = column(records, field, INTEGER, where)
    try:
        return np.array(values, dtype=np.int64)
    except OverflowError as error:
        raise DataError(f'{where}: field "{field}" does not fit into 64 bits.') from error


def unique_ids(records: Sequence[Record], where: str) -> np.ndarray:
    """Collect the field "id" as int64 [R] and refuse duplicates."""
    ids = int_column(records, "id", where)
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


class FolderIndex:
    """Answers "is this relative name on disk?" by listing each folder once, not each file."""

    def __init__(self, root: Path) -> None:
        """Remember the root; folders are listed when first asked about."""
        self._root = root
        self._names: dict[str, frozenset[str]] = {}

    def __contains__(self, name: str) -> bool:
        """Tell whether the relative name (with forward slashes) exists under the root."""
        folder, _, base = name.rpartition("/")
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(os.listdir(self._root / folder))
            except OSError:
                self._names[folder] = frozenset()
        return base in self._names[folder]


def open_rgb(path: Path, owner: str) -> Image.Image:
    """Decode an image to RGB.

    Raises:
        DataError: the file is missing or no readable image; `owner` names its record.
    """
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
