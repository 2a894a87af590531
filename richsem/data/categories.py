"""Classes as annotation files describe them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from richsem.data.reading import (
    TEXT,
    DataError,
    Record,
    checked_records,
    column,
    describe,
    read_json,
    record_list,
    unique_ids,
)

FREQUENCIES = ("r", "c", "f")
CATEGORY_FIELDS = {
    "synset": str,
    "synonyms": list,
    "def": str,
    "frequency": str,
    "image_count": int,
    "instance_count": int,
}


@dataclass(frozen=True, kw_only=True)
class Category:
    """One class as its annotation file describes it; counts refer to the training images."""

    id: int
    name: str
    synset: str = ""
    synonyms: tuple[str, ...] = ()
    definition: str = ""
    frequency: str = ""
    image_count: int = 0
    instance_count: int = 0


def clean_name(name: str) -> str:
    """Turn a category name into lower-case words without its qualifier: "bow_(weapon)" is "bow"."""
    return " ".join(name.split("(")[0].replace("_", " ").lower().split())


def spoken_names(categories: Sequence[Category]) -> list[str]:
    """Class names as they are put to CLIP: no underscores, brackets only where they tell apart.

    LVIS v1 has five pairs such as bow_(weapon) and bow_(decorative_ribbons); without their brackets
    both would have one text feature and could never be ranked first.
    """
    short = [clean_name(category.name) for category in categories]
    return [
        category.name.replace("_", " ").lower() if short.count(name) > 1 else name
        for category, name in zip(categories, short, strict=True)
    ]


def read_categories(json_path: Path | str) -> tuple[Category, ...]:
    """Read the categories of an annotation file, or of a file that is just their list."""
    path = Path(json_path)
    payload, _ = read_json(path, skip="segmentation")
    if isinstance(payload, list):
        return parse_categories(checked_records(payload, f"{path}: categories"), path)
    return parse_categories(record_list(payload, "categories", path), path)


def parse_categories(records: list[Record], path: Path) -> tuple[Category, ...]:
    """Check category records and return them sorted by id."""
    where = f"{path}: categories"
    ids = unique_ids(records, where)
    column(records, "name", TEXT, where)
    for row, record in enumerate(records):
        for field, kind in CATEGORY_FIELDS.items():
            value = record.get(field, kind())
            valid = type(value) is kind and (field != "frequency" or value in ("", *FREQUENCIES))
            if not valid:
                expected = "one of r, c, f" if field == "frequency" else kind.__name__
                raise DataError(
                    f'{describe(records, row, where)}: field "{field}" is {value!r}, expected '
                    f"{expected}. Correct the record or remove the field."
                )
    return tuple(_category(records[row]) for row in np.argsort(ids))


def _category(record: Record) -> Category:
    optional = {field: record.get(field, kind()) for field, kind in CATEGORY_FIELDS.items()}
    definition, synonyms = optional.pop("def"), tuple(optional.pop("synonyms"))
    return Category(
        id=record["id"],
        name=record["name"],
        definition=definition,
        synonyms=synonyms,
        **optional,
    )
