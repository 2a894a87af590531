"""Classes as annotation files describe them."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from richsem.data.reading import Integer, read, unique_ids

GROUPS = {"r": "rare", "c": "common", "f": "frequent"}
RANGES = {"r": "rare (at most 10 images)", "c": "common (11 to 100)", "f": "frequent (more)"}
RARE_MAX_IMAGES, COMMON_MAX_IMAGES = 10, 100  # LVIS: rare <= 10 < common <= 100 < frequent


class Category(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One class as its annotation file describes it; counts refer to the training images."""

    id: Integer
    name: Annotated[str, msgspec.Meta(pattern=r"\S")]
    # In a file these may be null, which means the same as absent.
    synset: Any = ""  # text for people to read, like the definition
    synonyms: tuple[str, ...] | None = ()
    definition: Any = msgspec.field(default="", name="def")
    frequency: Literal["", "r", "c", "f"] | None = ""
    image_count: int | None = 0
    instance_count: int | None = 0

    def __post_init__(self) -> None:
        for field in msgspec.structs.fields(self):
            if getattr(self, field.name) is None:
                msgspec.structs.force_setattr(self, field.name, field.default)
        # Systems make up umlauts in two ways, which look alike.
        name = unicodedata.normalize("NFC", self.name)
        msgspec.structs.force_setattr(self, "name", name)


class _Listed(msgspec.Struct):
    categories: list[Category]


def clean_name(name: str) -> str:
    """Turn a category name into lower-case words without its qualifier: "bow_(weapon)" is "bow"."""
    return " ".join(name.split("(")[0].replace("_", " ").lower().split())


def spoken_names(categories: Sequence[Category]) -> list[str]:
    """Class names as they are put to CLIP: no underscores, brackets only where they tell apart.

    LVIS v1 has five pairs such as bow_(weapon) and bow_(decorative_ribbons); without their brackets
    both would have one text feature and could never be ranked first, and "(other)" would have none.
    """
    short = [clean_name(category.name) for category in categories]
    return [
        category.name.replace("_", " ").lower() if short.count(name) > 1 or not name else name
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


def frequency_groups(categories: Sequence[Category], image_counts: np.ndarray) -> np.ndarray:
    """Return "r", "c" or "f" per category, [C].

    The file's own groups where it has them (LVIS: counts of the training split); otherwise the
    LVIS thresholds applied to the number of images that show a category in the file [C].
    """
    groups = np.array([category.frequency for category in categories])
    if (groups != "").all():
        return groups
    band = np.digitize(image_counts, (RARE_MAX_IMAGES + 1, COMMON_MAX_IMAGES + 1))
    return np.array([*GROUPS])[band]
