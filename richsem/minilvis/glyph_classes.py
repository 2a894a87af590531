"""The classes of the embedded data sets and the OpenMoji glyphs that draw them."""

from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

from richsem.data.categories import clean_name


class GlyphClass(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One category: what it is called and which glyphs are instances of it."""

    name: str  # where LVIS v1 has the class: its name, synset and synonyms there
    glyphs: tuple[str, ...]  # OpenMoji file stems, such as "1F429"
    group: str  # "animal", "food", ...: decides on colours and on the usual scenes
    synset: str = ""
    synonyms: tuple[str, ...] = ()
    definition: str = ""
    frequency: str = ""  # intended LVIS group, "r", "c" or "f"; empty outside "lvis"

    @property
    def words(self) -> str:
        """The name as it would be written in a caption."""
        return clean_name(self.name)


@cache
def vocabulary(name: str) -> tuple[GlyphClass, ...]:
    """The classes of "lvis", "objects365", "visual_genome" or "openimages", in category order."""
    return msgspec.convert(_resource()[name], tuple[GlyphClass, ...])


def glyph_names() -> dict[str, tuple[str, ...]]:
    """Maps every nameable glyph to its caption words: own name first, then more general ones."""
    return msgspec.convert(_resource()["names"], dict[str, tuple[str, ...]])


@cache
def _resource() -> dict[str, Any]:
    return msgspec.json.decode(files(__package__).joinpath("glyph_classes.json").read_bytes())
