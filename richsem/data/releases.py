"""The real sets as they are released: which files, where from, how large, under which licence.

Below a data root, `raw/` holds the files as they came; the layout of `catalog.py` lies beside it.
"""

import os
import re
from pathlib import Path

import msgspec

MIRROR = "RICHSEM_MIRROR"  # environment variable: MIRROR/host/path stands for https://host/path


class RawFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a release, or what a person puts there."""

    place: str  # below `raw/`; a pattern for several files
    url: str  # official address
    split: str = ""  # that needs it; empty for all
    bytes: int = 0  # in transit; 0 where nobody knows
    sha256: str = ""  # empty where nobody knows
    said_by: str = ""  # who says so: this project has not asked the official hosts
    by_hand: str = ""  # what a person has to do, where it cannot be fetched without one

    def found(self, root: Path) -> list[Path]:
        """What is there below a data root, sorted."""
        return sorted((root / "raw").glob(self.place))


class Release(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One set that can be fetched and prepared by name."""

    name: str
    title: str
    keys: tuple[str, ...]  # rows of the catalogue that it serves; none for pictures alone
    also: tuple[str, ...]  # other releases that it needs
    licence: str
    page: str  # for people
    disk: int  # bytes that it takes when it is prepared, roughly; 0 where nobody knows
    files: tuple[RawFile, ...]

    def of(self, split: str) -> tuple[RawFile, ...]:
        """Files that a split needs; an empty name stands for all splits."""
        return tuple(file for file in self.files if not split or file.split in ("", split))

    def disk_of(self, split: str) -> int:
        """Bytes that a split takes when it is prepared, roughly: as its part of all files.

        Where sizes of files are unknown, all count alike.
        """
        known = all(file.bytes for file in self.files)
        part, whole = (
            sum(file.bytes if known else 1 for file in files)
            for files in (self.of(split), self.files)
        )
        return self.disk * part // whole

    def splits(self, asked: str) -> tuple[str, ...]:
        """The split that is asked for, or all; one without a name for a set that has none."""
        known = tuple(dict.fromkeys(file.split for file in self.files if file.split)) or ("",)
        if asked and asked not in known:
            there = f"expected one of {known}" if any(known) else "it has none: leave --split out"
            raise ValueError(f"{self.name} has no split {asked!r}, {there}")
        return (asked,) if asked else known


def mirrored(url: str) -> str:
    """An official address, or the same place below one's own mirror."""
    mirror = os.environ.get(MIRROR, "").rstrip("/")
    if mirror and not mirror.startswith(("http://", "https://")):
        raise ValueError(f"{MIRROR} is {mirror!r}; an address needs http:// or https:// before it")
    return f"{mirror}/{url.partition('://')[2]}" if mirror else url


def without_login(words: str) -> str:
    """Words without names and passwords in addresses: what is printed is kept and shown around."""
    return re.sub("(?<=://)[^/\\s]*@", "", words)


RELEASES = {
    one.name: one
    for one in msgspec.json.decode(
        Path(__file__).with_suffix(".json").read_bytes(), type=list[Release]
    )
}


def release(name: str) -> Release:
    """The set of a name; for another one a ValueError lists those that there are."""
    if name not in RELEASES:
        raise ValueError(f"unknown data set {name!r}, expected one of {', '.join(RELEASES)}")
    return RELEASES[name]
