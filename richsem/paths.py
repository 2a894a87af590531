"""Where the workbook reads and writes, whatever the current directory is."""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"


def _folder(variable: str, default: Path) -> Path:
    """Folder named by an environment variable; a relative one counts from the repository root."""
    value = os.environ.get(variable)
    return ROOT / Path(value).expanduser() if value else default


CACHE = _folder("RICHSEM_CACHE", ROOT / "data" / "cache")
FIGURES = _folder("RICHSEM_FIGURES", ROOT / "figures")  # what a user makes
SHIPPED = ROOT / "figures" / "shipped"  # what the project ships


def portable(text: str) -> str:
    """Text without this machine's folders: the repository root is dropped, home becomes "~"."""
    for folder, short in ((ROOT, "."), (Path.home(), "~")):
        if folder == Path(folder.anchor):
            continue  # a home of "/" would match everything
        for spelling in {str(folder), folder.as_posix()}:
            whole = r"(?<![\w.~-])" + re.escape(spelling)
            text = re.sub(whole + r"[/\\]", "" if short == "." else "~/", text)
            text = re.sub(whole + r"(?![\w-]|\.\w)", short, text)
    return text


def in_keys(folder: Path) -> str:
    """A folder as it enters keys of kept results: inside the cache, however the cache is moved."""
    inside = folder.relative_to(CACHE) if folder.is_relative_to(CACHE) else folder
    return inside.as_posix()


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file, and folders above it; text is UTF-8 with newlines as given.

    The content goes to a neighbouring temporary file first, so an interrupted run never leaves
    half a file under the final name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
        temporary.chmod(0o644)  # mkstemp makes files private to their owner
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def only_one(place: Path, *, wait: bool = True) -> Iterator[bool]:
    """Lets one process at a time fill a place; the others wait here until it is done.

    The place is a file or folder, which need not exist; the lock is a file in `locks/` beside it.
    If its owner dies, the next process goes on. Without `wait` it goes on at once, and what is
    yielded says whether the place is this process's own.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(place.parent / "locks" / place.name)
    Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=-1 if wait else 0, poll_interval=1)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
