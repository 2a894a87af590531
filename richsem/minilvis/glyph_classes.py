"""The classes of the embedded data sets and the OpenMoji glyphs that draw them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from richsem.data.categories import clean_name

VOCABULARIES = ("lvis", "objects365", "visual_genome", "openimages")
_RESOURCE = "glyph_classes.json"


@dataclass(frozen=True, kw_only=True)
class GlyphClass:
    """One category: what it is called and which glyphs are instances of it."""

    name: str  # where LVIS v1 has the class: its name, synset and synonyms there
    glyphs: tuple[str, ...]  # OpenMoji file stems, such as "1F429"; never empty
    group: str  # "animal", "food", ...: decides on colours and on the usual scenes
    synset: str = ""
    synonyms: tuple[str, ...] = ()
    definition: str = ""
    frequency: str = ""  # intended LVIS group, "r", "c" or "f"; empty outside "lvis"

    @property
    def words(self) -> str:
        """The name as it would be written in a caption."""
        return clean_name(self.name)


def vocabulary(name: str) -> tuple[GlyphClass, ...]:
    """The classes of one of `VOCABULARIES`, in category order."""
    if name not in VOCABULARIES:
        raise ValueError(f"unknown vocabulary {name!r}: use one of {', '.join(VOCABULARIES)}")
    return _parse(name)


def glyph_names() -> dict[str, tuple[str, ...]]:
    """Maps every nameable glyph to its caption words: own name first, then more general ones."""
    return {stem: tuple(names) for stem, names in _load()["names"].items()}


@cache
def _load() -> dict[str, Any]:
    return json.loads(files(__package__).joinpath(_RESOURCE).read_text(encoding="utf-8"))


@cache
def _parse(name: str) -> tuple[GlyphClass, ...]:
    classes = tuple(_glyph_class(record) for record in _load()[name])
    _validate(name, classes)
    return classes


def _glyph_class(record: Mapping[str, Any]) -> GlyphClass:
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in record.items()}
    return GlyphClass(**fields)


def _validate(vocabulary_name: str, classes: tuple[GlyphClass, ...]) -> None:
    names: set[str] = set()
    owner: dict[str, str] = {}
    for item in classes:
        where = f"{_RESOURCE}, vocabulary {vocabulary_name!r}, class {item.name!r}"
        if item.name in names:
            raise ValueError(f"{where}: the name occurs twice; rename one of the two")
        if not item.glyphs:
            raise ValueError(f"{where}: no glyphs; list at least one OpenMoji stem")
        names.add(item.name)
        for stem in item.glyphs:
            if stem in owner:
                raise ValueError(f"{where}: glyph {stem} already belongs to {owner[stem]!r}")
            owner[stem] = item.name
