"""Classes as annotation files describe them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from richsem.data.reading import Integer, read, unique_ids

FREQUENCIES = ("r", "c", "f")


class Category(msgspec.Struct, frozen=True, kw_only=True):
    """One class as its annotation file describes it; counts refer to the training images."""

    id: Integer
    name: str
    synset: str = ""
    synonyms: tuple[str, ...] = ()
    definition: str = msgspec.field(default="", name="def")
    frequency: Literal["", "r", "c", "f"] = ""
    image_count: int = 0
    instance_count: int = 0


class _Listed(msgspec.Struct):
    categories: list[Category]


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
    found, _ = read(path, list[Category] | _Listed)
    return sorted_by_id(found if isinstance(found, list) else found.categories, path)


def sorted_by_id(categories: Sequence[Category], path: Path) -> tuple[Category, ...]:
    """The categories of a file in the order of their ids, which must differ."""
    ids = unique_ids(categories, f"{path}: categories")
    return tuple(categories[row] for row in np.argsort(ids))
