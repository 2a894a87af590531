"""Where the workbook reads and writes, whatever the current directory is."""

import contextlib
import errno
import functools
import glob
import hashlib
import io
import os
import platform
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from platformdirs import user_cache_path

ROOT = Path(__file__).resolve().parents[1]
# A checkout keeps in its own folders what is made; an installed package does so where one stands,
# and its cache is in the user's folder for caches.
IN_CHECKOUT = (ROOT / "pyproject.toml").is_file()
_PLACE = ROOT if IN_CHECKOUT else Path().absolute()
# Where an installer puts the package's shared files, for one user or in a folder of its own, too.
_ABOVE = [place / "share" / "richsem" for place in (ROOT, *ROOT.parents)]
SHARED = ROOT if IN_CHECKOUT else next(filter(Path.is_dir, _ABOVE), _ABOVE[0])
NOTEBOOKS = SHARED / "notebooks"  # sources
EXECUTED = _PLACE / "notebooks" / "executed"
SHIPPED = SHARED / "figures" / "shipped"  # what the project ships
_CACHE = ROOT / "data" / "cache" if IN_CHECKOUT else user_cache_path("richsem")
# Environment variables may name other folders.
CACHE, FIGURES = (
    Path(os.path.expanduser(os.environ.get(name) or default)).absolute()
    for name, default in {"RICHSEM_CACHE": _CACHE, "RICHSEM_FIGURES": _PLACE / "figures"}.items()
)
HERE = "RICHSEM_HERE"  # tells other processes where the user stands
_HOST = platform.node()


def user_path(path: Path | str) -> Path:
    """A path that a user wrote: a relative one counts from where they stand.

    Where nothing is there, it counts from the checkout or from what is installed: configurations
    name files of the package in this way.
    """
    path = Path(os.path.expanduser(path))  # as written where there is no such user
    here = Path(os.environ.get(HERE, ""), path).absolute()
    return ROOT / path if not os.path.exists(here) and os.path.exists(ROOT / path) else here


def portable(text: str) -> str:
    """Text without this machine's folders: the repository root is dropped, home becomes "~"."""
    for folder, alone, before in ((ROOT, ".", ""), (Path.home(), "~", "~/")):
        # A home of "/" would match everything.
        spellings = {str(folder), folder.as_posix()} - {folder.anchor}
        for spelling in map(re.escape, spellings):
            text = re.sub(rf"(?<![\w.~-]){spelling}[/\\]", before, text)
            text = re.sub(rf"(?<![\w.~-]){spelling}(?![\w-]|\.\w)", alone, text)
    return text


def in_keys(folder: Path) -> str:
    """A folder as it enters keys of kept results: inside the cache, however the cache is moved."""
    return (folder.relative_to(CACHE) if folder.is_relative_to(CACHE) else folder).as_posix()


def write_atomic(path: Path, content: bytes | str | Callable[[io.BytesIO], object]) -> None:
    """Write a file, and folders above it; text is UTF-8 with newlines as given.

    What is called with a file writes the content into it. A neighbouring temporary file comes
    first, so an interrupted run never leaves half a file under the final name. An `OSError` names
    the file.
    """
    if callable(content):
        content(buffer := io.BytesIO())  # libraries do not say what a full disk says
        content = buffer.getvalue()
    path.parent.mkdir(parents=True, exist_ok=True)
    _tidy(path.parent)
    short = path.name[:40]  # with all of a long name it would be too long for a file
    temporary = path.with_name(f".{short}.{_HOST}-{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    try:
        temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        temporary.replace(path)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


@functools.cache
def _tidy(folder: Path) -> None:
    """Removes what killed processes of this machine left of their writing; a process looks once."""
    import psutil

    for left in folder.glob(f".*.{glob.escape(_HOST)}-*-????????.tmp"):
        if not psutil.pid_exists(int(left.stem.split("-")[-2])):
            left.unlink(missing_ok=True)


def write_own(path: Path, content: bytes | str) -> None:
    """Writes a file where a user said, if `check_own` allows it."""
    check_own(path)
    write_noted(path, content)


def write_noted(path: Path, content: bytes | str) -> None:
    """Writes a file, whatever lies there; `check_own` will know it as long as nobody changes it."""
    content = content.encode("utf-8") if isinstance(content, str) else content
    # The note comes first: killed between, what lies there was noted before.
    write_atomic(_note(path, content), "")
    write_atomic(path, content)


def check_own(path: Path) -> None:
    """A `FileExistsError` says that something lies there which this program did not write.

    Other kinds of `OSError` say why nothing can be written there.
    """
    for file in (path, _note(path, b"")):
        check_writable(file)
    if os.path.lexists(path) and not is_own(path):
        raise FileExistsError(
            f"{path} exists and was not written by this program, or changed since: name another "
            "place or remove it"
        )


def is_own(path: Path) -> bool:
    """Whether what lies there was written there by `write_own`: a note of both is in the cache.

    What somebody copied to another place is theirs.
    """
    is_open = path.is_file() and os.access(path, os.R_OK)
    return is_open and _note(path, path.read_bytes()).is_file()


def _note(path: Path, content: bytes) -> Path:
    place = hashlib.sha256(str(path.absolute()).encode(errors="surrogateescape"))
    place.update(content)
    return CACHE / "written" / place.hexdigest()


def free_bytes(folder: Path) -> int:
    """Space on the disk where a folder is, or will be."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(there))
    return shutil.disk_usage(there).free


def check_writable(file: Path) -> None:
    """Makes the folder of a file to come; an `OSError` says now, not after hours, what is wrong."""
    if file.is_dir():
        raise IsADirectoryError(errno.EISDIR, "Is a directory", str(file))
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        tempfile.TemporaryFile(dir=file.parent).close()
    except OSError as error:  # names a file that nobody knows
        raise OSError(error.errno, error.strerror, str(file)) from error


@contextlib.contextmanager
def only_one(place: Path, *, wait: bool = True) -> Iterator[bool]:
    """Lets one process at a time fill a place; the others wait here until it is done.

    The place is a file or folder, which need not exist; the lock is a file in `locks/` beside it.
    If its owner dies, the next process goes on. Without `wait` it goes on at once, and what is
    yielded says whether the place is this process's own.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(place.parent / "locks" / place.name)
    with contextlib.suppress(Timeout):
        lock.acquire(timeout=-1 if wait else 0, poll_interval=1)
    try:
        yield lock.is_locked
    finally:
        lock.release()
