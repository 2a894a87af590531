"""Does a kept result still hold? It does as long as its key comes out the same.

Runs, drawn pictures, cached features, text features, region readings and executed notebooks are
all kept under such a key. What today's code computes enters it through `trace.json`, a file of
numbers that a test recomputes (`tests/golden_trace.py`): a change of code that keeps these numbers
keeps every result, and a change of numbers shows as a difference of that file.
"""

import contextlib
import functools
import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

TRACE = Path(__file__).with_name("trace.json")
SECTIONS = ("pictures", "features", "teacher", "runs", "evaluation")
DIGITS = 16
# What people call pictures, with what cannot be read: that is told, not passed over.
PICTURES = (
    *(".apng", ".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
    *(".jxl", ".mpo", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
# Folders of recycled files and small copies that systems and network disks keep for themselves.
_SYSTEM = ("$RECYCLE.BIN", "#recycle", "#snapshot", "@Recycle", "@eaDir", "__MACOSX")
# Every drawn picture has this time, in ns (2020-01-01 UTC): drawn anew, it is the same file.
DRAWN_AT = 1_577_836_800 * 10**9


def key(*parts: object, trace: Iterable[str]) -> str:
    """Hash of all that decides a kept result, 16 hex digits.

    The parts are configuration, weights, fingerprints of data: anything whose text says what it
    is. `trace` names the sections of the trace that the code behind the result is tested by.
    """
    return _hash("\n".join([*map(_section, trace), *map(str, parts)]).encode())


def files_state(files: Iterable[Path]) -> str:
    """Hash of names, sizes and times of files, so that replaced ones are noticed.

    A copy that keeps times (`cp -a`, `rsync -a`, an archive) has the same state.
    """
    lines = "".join(f"{file.name} {_state(file)}\n" for file in files)
    return _hash(lines.encode(errors="surrogateescape"))


def _state(file: Path) -> str:
    with contextlib.suppress(OSError, ValueError):  # a name that no file can have
        status = file.stat()
        return f"{status.st_size} {status.st_mtime_ns}"
    return "absent"


def digest(file: Path) -> str:
    """Hash of a file's content, 16 hex digits; read again only if it has changed."""
    return _digest(file, _state(file))


@functools.lru_cache(maxsize=1_000_000)
def _digest(path: Path, state: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]


def files_below(folder: Path) -> Iterator[Path]:
    """All files below a folder, also behind links; what is hidden is left out.

    So is what a system keeps for itself. A warning names each folder that nobody but others may
    look into.
    """
    for place, inner, files in os.walk(folder, onerror=_tell, followlinks=True):
        here = Path(place)
        above = {path.resolve() for path in (here, *here.parents)}
        # A link to a folder above would go round for ever.
        inner[:] = [one for one in inner if one[0] != "." and one not in _SYSTEM]
        inner[:] = [one for one in inner if (here / one).resolve() not in above]
        yield from (here / one for one in files if one[0] != ".")


def pictures_below(folder: Path) -> list[str]:
    """Names of all pictures among these files, relative to the folder, sorted."""
    found = (one for one in files_below(folder) if one.name.lower().endswith(PICTURES))
    return sorted(one.relative_to(folder).as_posix() for one in found)


def _tell(error: OSError) -> None:
    if isinstance(error, PermissionError):  # else it is not there
        warnings.warn(f"{error.filename} may not be read and is passed over", stacklevel=2)


@functools.cache
def pictures_state(folder: Path) -> str:
    """Hash of relative names, sizes and times of all pictures below a folder; it may be absent.

    A process looks once, and again where runs are asked for (`store.finish`).
    """
    lines = sorted(f"{name} {_state(folder / name)}" for name in pictures_below(folder))
    return _hash("\n".join(lines).encode(errors="surrogateescape"))


@functools.cache
def _section(name: str) -> str:
    """Hash of one section; layout and order of the file do not count."""
    numbers = json.loads(TRACE.read_bytes()) if TRACE.is_file() else {}
    return hashlib.sha256(json.dumps(numbers.get(name), sort_keys=True).encode()).hexdigest()


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:DIGITS]
