"""Whether bytes of a JPEG were lost, which its decoders do not say.

They take what comes for other pixels where bytes are lost or line ends were changed, and are done
too early, or fill up what is missing. How many bytes they need shows it.
"""

import io
import re
import sys
from bisect import bisect
from itertools import chain

_ZEROS = 512  # bytes at the end of a JPEG that an unfinished download leaves
# Markers of a JPEG: it begins, pixels of a scan begin, all is there. The pixels end at the first
# marker that neither stands for a byte 255 nor divides them.
START, _SCAN, _END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
_WATCHED = (b"\xff\xc0", b"\xff\xc1", b"\xff\xc2")  # forms whose decoders read what they need
_BEHIND = re.compile(rb"\xff+[^\0\xff\xd0-\xd7]")
_SPARE = 64  # bytes behind the pixels that an encoder may fill in
_AHEAD = 8  # bytes, more than a decoder reads ahead
_ONES = b"\xff\0" * _AHEAD  # no pixel is written so


class Watched(io.BytesIO):
    """The bytes of a JPEG, given so that it shows how many of them Pillow's decoder needs."""

    def __init__(self, content: bytes) -> None:
        """Puts more behind the pixels of each scan, and looks where those end."""
        self.ends_in_zeros = not any(content[-_ZEROS:]) and (
            content.rfind(_END) < content.rfind(_SCAN)  # zeros behind the end are a camera's
        )
        self._left: dict[int, int] = {}
        self._within: list[range] = []
        self._behind: list[int] = []
        given, done = bytearray(), 0
        for start, end in _scans(content):
            given += content[done:end]
            place, done = len(given) - _SPARE, end
            if end - start > _SPARE + _AHEAD:
                self._within.append(range(place - _AHEAD, place))
            given += _ONES
            self._behind += [len(given) - 2, len(given)]  # a value begins at one of them at most
        self._stops = sorted([*chain(*self._within), *self._behind, sys.maxsize])
        super().__init__(given + content[done:])

    def read(self, size: int | None = -1) -> bytes:
        """Reads up to the next place that tells."""
        place = self.tell()
        size = sys.maxsize if size is None or size < 0 else size
        stop = self._stops[bisect(self._stops, place)]
        piece = _Piece(super().read(min(size, stop - place)))
        piece.place, piece.left = place, self._left
        return piece

    def is_damaged(self) -> bool:
        """Whether a picture that was decoded needed fewer or more bytes than there are.

        Within a scan a decoder waits for the rest of a value, but where that begins by chance;
        behind it, it is done or passes over all.
        """
        is_early = any(not any(self._left.get(k) for k in few) for few in self._within)
        return bool(self._left) and (is_early or any(self._left.get(k) for k in self._behind))


class _Piece(bytes):
    """Bytes of a file; when they are put behind others, it is noted how many these are."""

    place: int
    left: dict[int, int]  # what a decoder had not used when it asked for more, by place

    def __radd__(self, before: bytes) -> bytes:
        self.left[self.place] = len(before)
        return before + bytes(self)


def _scans(content: bytes) -> list[tuple[int, int]]:
    """Where the pixels of a JPEG begin and end, once or in several scans; none of other forms."""
    place, found, is_watched = len(START), [], False
    while (place := content.find(b"\xff", place)) >= 0:  # decoders skip what lies between
        mark = content[place : place + 2]
        if mark in (b"\xff\xff", b"\xff\0"):  # fills up
            place += 1
            continue
        if mark == _END:
            break
        is_watched |= mark in _WATCHED
        place += 2 + int.from_bytes(content[place + 2 : place + 4])
        if mark == _SCAN:
            found.append((place, place := _end(content, place)))
    return found if is_watched else []


def _end(content: bytes, start: int) -> int:
    behind = _BEHIND.search(content, start)
    return behind.start() if behind else len(content)
