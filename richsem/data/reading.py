"""What all readers share: typed JSON with good errors, and ids.

Whatever is wrong with a file, a reader raises `DataError` and names file, record and remedy. In
all records `null` means that a field is absent.
"""

import hashlib
import json
import mmap
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np

from richsem import foreign

Kind = TypeVar("Kind")
Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]  # as NumPy keeps it
Id = Integer | str  # OpenImages names its pictures
Box = tuple[float, float, float, float]

# What these fields should hold, in better words than those of their type.
EXPECTED = {
    "bbox": "four numbers [x, y, width, height]",
    "frequency": "one of r, c, f",
    "iscrowd": "0 or 1",
    "name": "text that is not empty",
    **dict.fromkeys(
        ("categories.id", "category_id"),
        "a whole number; only images and annotations may be named by text",
    ),
}
_WORDS = {"int": "a whole number", "float": "a number", "str": "text", "array": "list"}
TOP_LEVEL = ("images", "annotations", "categories")
ONCE = {  # what a record of these lists has once; "id" and "name" are in many other places, too
    "annotations": ("bbox", "category_id", "image_id", "area", "iscrowd", "score"),
    "images": ("file_name", "coco_url", "height", "width"),
}
_SINGLE = (*TOP_LEVEL, *chain.from_iterable(ONCE.values()))
_SINGLE_KEYS = re.compile(f'"({"|".join(_SINGLE)})"\\s*:'.encode())
_PART = 2**25  # bytes of a file that are looked through at a time
MEND = "Add it, or remove the record from the file."


class DataError(ValueError):
    """A data file cannot be used."""


class RecordError(DataError):
    """Some `rows` of a list in a data file have the same fault.

    `where` is the file and, after a colon, the list (`section`). The `kind` is the field with a
    value that it may not have, or another word for what is wrong with right values.
    """

    def __init__(
        self, kind: str, where: str, records: Sequence, rows: Sequence[int], words: str, remedy: str
    ) -> None:
        self.kind, self.where, self.rows, self.remedy = kind, where, rows, remedy
        self.section, first = where.rpartition(": ")[2], records[rows[0]]
        key = first.get("id") if isinstance(first, dict) else getattr(first, "id", None)
        self.first = f"[{rows[0]}]: {words}" if key is None else f"[{rows[0]}] (id {key}): {words}"

    def __str__(self) -> str:
        """Names file, list and first record, says how many are like it, and what can be done."""
        number = f"; {len(self.rows):,} {self.section} are like it" * (len(self.rows) > 1)
        return f"{self.where}{self.first}{number}. {self.remedy}"


class DataWarning(UserWarning):
    """Records were left out or changed by convention; the message counts and names them."""


def first_few(items: Iterable[Any], limit: int = 5) -> str:
    """Join the first `limit` items for a message, with dots when there are more."""
    names = [str(item) for item in items]
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def shown(value: Any) -> str:
    """A value for a message, cut to 200 characters."""
    try:
        return repr(value)[:200]
    except RecursionError:
        return "lists in lists"


# --- JSON ---------------------------------------------------------------------------------------


def read(
    path: Path, kind: type[Kind], *, entry: str = "an object", outlines: bool = False
) -> tuple[Kind, str]:
    """Decode a JSON file to records of a type, and hash it.

    Fields that the type (a `msgspec.Struct` of lists of records, or a list of records) does not
    name, such as the polygons that are most of an LVIS file, are passed over and cost next to
    nothing. With `outlines` the type names them, as `msgspec.Raw`. `entry` says in messages what a
    record of a list is. The hash is the first 16 hex digits of the file's SHA-256.
    """
    raw = _mapped(path)
    fingerprint = hashlib.sha256(raw).hexdigest()[:16]
    keys = _counted(raw)
    try:
        found = msgspec.json.decode(memoryview(raw)[foreign.marks(raw) :], type=kind)
        lists = {of: found if isinstance(found, list) else getattr(found, of, raw) for of in ONCE}
        most = {key: len(lists[of]) for of, own in ONCE.items() for key in own}
        # Of what is there twice, parsers drop the first.
        if all(number <= most.get(key.decode(), 1) for key, number in keys.items()):
            return found, fingerprint
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    # Python's own parser is slower, but says what is wrong, and takes the NaN that it writes.
    return convert(untyped(path, raw, outlines), kind, str(path), entry=entry), fingerprint


def _counted(raw: mmap.mmap | bytes) -> Counter[bytes]:
    """How often the file has each of the keys that a record has once."""
    keys: Counter[bytes] = Counter()
    start = 0
    while start < len(raw):
        end = raw.rfind(b"{", start + 1, start + _PART)  # no key goes across the beginning of one
        end = end if end > 0 and start + _PART < len(raw) else len(raw)
        keys.update(_SINGLE_KEYS.findall(raw, start, end))
        start = end
    return keys


def convert(payload: Any, kind: type[Kind], where: str, *, entry: str = "an object") -> Kind:
    """The same for content in memory, which `where` names in messages."""
    try:
        return msgspec.convert(payload, kind)
    except msgspec.ValidationError as error:
        raise _explained(str(error), payload, where, entry) from error


def _mapped(path: Path) -> mmap.mmap | bytes:
    """The bytes of a file, without a copy in memory."""
    if what := foreign.irregular(path):
        raise DataError(f"{path}: this is {what}.")
    try:
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                return b""  # which cannot be mapped
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}). Check the path, or create the file first."
        ) from error


def untyped(path: Path, raw: mmap.mmap | bytes | None = None, outlines: bool = False) -> Any:
    """The content of a file as Python's parser reads it, polygons as bytes or not at all.

    Numbers such as 3.0, which tables write where a column has gaps, become integers.
    """
    repeated: list[tuple[str, Any]] = []

    def record(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        found = {name: value for name, value in pairs if name != "segmentation"}
        again = [key for key in _SINGLE if names.count(key) > 1]
        repeated.extend((key, found.get("id")) for key in again)
        if outlines and "segmentation" in names:
            found["segmentation"] = msgspec.Raw(msgspec.json.encode(dict(pairs)["segmentation"]))
        return found

    def number(digits: str) -> float:
        value = float(digits)
        return int(value) if value.is_integer() else value

    raw = _mapped(path) if raw is None else raw
    head = raw[: foreign.BYTES]
    if what := foreign.known_kind(head):
        raise DataError(f"{path}: this is {what}.")
    try:
        text = str(raw, "utf-8").lstrip("\ufeff")
        content = json.loads(text, object_pairs_hook=record, parse_float=number)
        if r"\ud" in text.lower():
            json.dumps(content, ensure_ascii=False).encode()  # refuses halves of characters
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: this is not UTF-8 at byte {error.start}, so no JSON file. If it is text, "
            "save it as UTF-8."
        ) from error
    except json.JSONDecodeError as error:
        if text[: error.pos].isspace() or not error.pos:  # it does not even begin like one
            what = foreign.what_it_is(head, "write it as JSON of COCO or LVIS") or "no JSON"
            raise DataError(f"{path}: this is {what}.") from error
        # A bracket is no end too early: before it stands a comma too many.
        is_cut = re.fullmatch(r"[^]}]?", text[error.pos :].strip())
        is_cut = is_cut or error.msg.startswith("Unterminated")
        state = "ends early" if is_cut else "is malformed"
        if error.msg == "Extra data":  # such as JSON lines
            state = "goes on after its end"
        raise DataError(
            f"{path}: the JSON {state} at line {error.lineno}, column {error.colno} ({error.msg}). "
            "Download or write the file again."
        ) from error
    except (RecursionError, ValueError) as error:  # lists in lists in lists, endless digits
        reason = str(error).split(";")[0]
        raise DataError(f"{path}: this JSON cannot be read ({reason}). Write it again.") from error
    for key, one in repeated:
        of = f" (id {one})" * (one is not None)
        raise DataError(f'{path}: the key "{key}" occurs twice{of}. Make one of both.')
    return content


def _explained(error: str, payload: Any, where: str, entry: str) -> DataError:
    """What msgspec found, such as "Expected `int`, got `str` - at `$.images[3].id`", in our words.

    The record is named by its place and its id, and the value is shown. Its kind is the field.
    """
    problem, _, place = error.partition(" - at `$")
    expected = problem.split(", got")[0]
    expected = expected.replace(" | null", "").replace(" | ", " or ").replace("`", "")
    expected = re.sub(r"\b(int|float|str|array)\b", lambda word: _WORDS[word[0]], expected)
    expected = expected[:1].lower() + expected[1:]  # "expected int"
    missing = re.fullmatch(r"Object missing required field `(.+)`", problem)
    steps = re.findall(r"\.(\w+)|\[(\d+)\]", place)
    section = ""
    if steps and steps[0][0]:  # a list under a key of the top level, else the list is all there is
        section = steps.pop(0)[0]
        where, payload = f"{where}: {section}", payload[section]
    if not steps:
        if missing:
            return DataError(
                f'{where}: top-level key "{missing[1]}" is missing; found '
                f"{first_few(payload) or 'none'}. Is this an annotation file?"
            )
        what = where if section else f"{where}: the top level"
        expected = expected.replace("list", f"a list, each entry {entry}")
        found = "an object" if isinstance(payload, dict) else f"a {type(payload).__name__}"
        found = "null" if payload is None else found
        return DataError(f"{what} is {found}, {expected}. Is this the right file?")
    row = int(steps.pop(0)[1])
    record, remedy = payload[row], "Correct the record."
    field = missing[1] if missing else steps[0][0] if steps else ""
    if missing:
        problem, remedy = f'field "{field}" is missing', MEND
    elif field:
        words = EXPECTED.get(f"{section}.{field}", EXPECTED.get(field))
        expected = f"expected {words}" if words else expected
        problem = f'field "{field}" is {shown(record[field])}, {expected}'
    else:
        problem = f"this is {shown(record)}, expected {entry}"
    return RecordError(field, where, payload, [row], problem, remedy)


# --- records ------------------------------------------------------------------------------------


def numbers(records: Sequence[Any], field: str) -> np.ndarray:
    """One integer field of all records, int64 [R]."""
    return np.fromiter((getattr(r, field) for r in records), np.int64, len(records))


def unique_ids(records: Sequence[Any], where: str) -> np.ndarray:
    """The field "id" of all records [R], int64 or text; duplicates are refused."""
    own = [record.id for record in records]
    kind = type(own[0]) if own else int
    if set(map(type, own)) - {kind}:
        rows = [row for row, one in enumerate(own) if type(one) is not kind]
        words = (
            f'field "id" is {shown(own[rows[0]])}, expected {_WORDS[kind.__name__]} as in the first'
        )
        raise RecordError("mixed", where, records, rows, words, "Make all ids of one kind.")
    ids = np.array(own, dtype=str if kind is str else np.int64)
    ordered = np.sort(ids, kind="stable")
    if (ordered[1:] == ordered[:-1]).any():
        rows = np.setdiff1d(np.arange(len(ids)), np.unique(ids, return_index=True)[1]).tolist()
        words = f"duplicate id, first used by [{own.index(own[rows[0]])}]"
        raise RecordError("repeated", where, records, rows, words, "Give every record its own id.")
    return ids


def as_ids(values: Collection[Any]) -> np.ndarray:
    """Ids of a file as an array: text stays text, all others are integers."""
    ids = np.asarray(values)
    return ids if ids.dtype.kind == "U" else ids.astype(np.int64)


def index_of(ids: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Look up each key in unsorted unique `ids`: its position, or -1 where it is unknown."""
    if not len(ids) or ids.dtype.kind != keys.dtype.kind:  # numbers are not text
        return np.full(len(keys), -1)
    order = np.argsort(ids)
    place = np.minimum(np.searchsorted(ids, keys, sorter=order), len(ids) - 1)
    found = order[place]
    return np.where(ids[found] == keys, found, -1)


def detected_positions(ids: np.ndarray, listed: np.ndarray, noun: str, file: str) -> np.ndarray:
    """Positions of detections' image or category ids [D] among those that a file lists."""
    places = index_of(listed, ids)
    unknown = np.unique(ids[places < 0])
    if len(ids) and ids.dtype.kind != listed.dtype.kind:
        raise DataError(
            f"{file}: some {noun} ids are text and some numbers, there or in the detections. Write "
            "them alike in both."
        )
    if len(unknown):
        raise DataError(
            f"{file}: detections name {len(unknown)} {noun} ids that it does not list "
            f"({first_few(unknown)}). Use the ids of the annotation file, not positions."
        )
    return places


def positions(
    keys: Sequence[Any],
    ids: np.ndarray,
    what: str,
    records: Sequence[Any],
    where: str,
    lengths: Sequence[int] | None = None,
) -> np.ndarray:
    """Positions in `ids` of what records name: one key each, or `lengths` of them.

    Any other is refused as `what`, such as "unknown image"; numbers are not text. Where all would
    be known as numbers one higher or lower, known ones may be wrong as well, which is said.
    """
    place_of = {key: place for place, key in enumerate(ids.tolist())}
    places = np.fromiter(map(place_of.get, keys, repeat(-1)), np.int64, len(keys))
    unknown = np.flatnonzero(places < 0)
    if len(unknown):
        kind, words = "unknown", f"{what} {shown(keys[unknown[0]])}"
        remedy = "Add it, or remove what names it from the file."
        for step, start in ((1, "0, not 1"), (-1, "1, not 0")):
            if all(isinstance(key, int) and key + step in place_of for key in {*keys}):
                kind, remedy = "shifted", f"If they count from {start}, number both lists alike."
        owners = np.repeat(np.arange(len(records)), lengths or 1)
        rows = np.unique(owners[unknown]).tolist()
        raise RecordError(kind, where, records, rows, words, remedy)
    return places


def require_named(
    records: Sequence[Any], key: str, field: str, named: Mapping[Id, Any], where: str
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


def require(records: Sequence[Any], field: str, where: str) -> None:
    """Refuses records without a field, or with 0, that is optional in other files of their kind."""
    rows = [row for row, record in enumerate(records) if getattr(record, field) in (None, 0)]
    if rows:
        value = getattr(records[rows[0]], field)
        words = f'field "{field}" is {"missing" if value is None else value}'
        raise RecordError("absent", where, records, rows, words, MEND)


def refuse_empty(records: Sequence[Any], what: str) -> None:
    """Refuses a list without records; `what` names file and key."""
    if not records:
        raise DataError(f"{what} is empty. Nothing to load; check the file.")
