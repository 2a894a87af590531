"""What a file is that is not what was expected, by its first bytes or by its boxes."""

import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np

BYTES = 512  # how many of its first bytes tell
_TELLING = 5  # boxes; fewer do not tell how they are written
_AGAIN = "copy or download it again"
_SIGNS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def known_kind(head: bytes) -> str:
    """The same, empty for any text as well."""
    return next((words for sign, words in _SIGNS.items() if re.match(sign.encode(), head)), "")


def what_it_is(head: bytes, remedy: str = _AGAIN) -> str:
    """Completes "it is ..." for a file with these first `BYTES`; empty if that is not known.

    The remedy is for texts of other kinds.
    """
    if words := known_kind(head):
        return words
    text = head.decode(errors="ignore")  # of UTF-8 at most a character is cut at the end
    if len(text.encode()) > len(head) - 4 and all(c.isprintable() or c.isspace() for c in text):
        return f'a text and begins with "{text.strip().partition(chr(10))[0][:40]}"; {remedy}'
    return ""


def box_format(boxes_xywh: np.ndarray, sizes: np.ndarray) -> str:
    """In words, if boxes [A, 4] of images of (height, width) [A, 2] seem to be no xywh in pixels.

    Those of large objects in the middle could be either: many have to end outside their pictures.
    """
    if len(boxes_xywh) < _TELLING:
        return ""
    with np.errstate(invalid="ignore", over="ignore"):
        start, end = boxes_xywh[:, :2], boxes_xywh[:, 2:]
        sides = np.where(sizes > 0, sizes, np.nan)[:, ::-1]  # with unknown ones nothing is compared
        limit = sides + 1  # coordinates are rounded
        is_odd = (start + end > limit).any(axis=1).mean() > 0.2
        looks = {
            "shares of the picture (0 to 1)": (np.abs(boxes_xywh) <= 1).all() and boxes_xywh.any(),
            "corners [x1, y1, x2, y2]": is_odd
            and ((end > start) & (start >= 0) & (end <= limit)).all(),
            "centres [x, y] with a size": is_odd
            and len(boxes_xywh) >= 4 * _TELLING  # a few right ones may look so
            and ((start - end / 2 >= -1) & (start + end / 2 <= limit)).all(),
            # Not those that only reach a little beyond an edge, as some detectors leave them.
            "those of larger pictures": (start + 0.75 * end > limit).any(axis=1).mean() > 0.2,
            "those of smaller pictures": (start + end <= sides / 2).all()
            and len(np.unique(boxes_xywh, axis=0)) >= 4 * _TELLING,
        }
    words = "boxes look like {}; expected [x, y, width, height] in pixels, x and y at the top left"
    return next((words.format(what) for what, is_so in looks.items() if is_so), "")


def irregular(path: Path) -> str:
    """What is wrong with a place that is there, but no file: reading a pipe may never end."""
    if path.is_dir():
        return "a folder, not a file"
    is_odd = path.exists() and not path.is_file()
    return "a pipe or a device; save it as a file first" if is_odd else ""


def text_of(path: Path) -> str:
    """The content of a UTF-8 text file; a `ValueError` or `OSError` says what it is instead."""
    words = irregular(path)
    raw = b"" if words else path.read_bytes()
    if words := words or known_kind(raw[:BYTES]):
        raise ValueError(f"it is {words}")
    return raw[marks(raw) :].decode()


def marks(raw: Any) -> int:
    """Length of the byte order marks that bytes begin with: programs put one before another's."""
    return len(re.match(b"(\xef\xbb\xbf)*", raw)[0])


def is_turned(attributes: Any) -> bool:
    """Whether an annotation's attributes tell that its box is to be rotated, as CVAT's do."""
    try:
        return float(attributes["rotation"]) % 180 != 0  # some exporters write it as text
    except (KeyError, OverflowError, TypeError, ValueError):
        return False
