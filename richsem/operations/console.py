"""How a command speaks: each warning once, an error in one line, and on although nobody listens."""

import argparse
import contextlib
import errno
import functools
import io
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from richsem import paths
from richsem.processes import speaks

_CLOSED = (errno.EACCES, errno.EEXIST, errno.ELOOP, errno.ENOTDIR, errno.EPERM, errno.EROFS)


def filled(text: str) -> str:
    """A name that is an argument; shells leave a `~` behind `=` to the command."""
    if not text:  # a variable that was not set, and not the folder where one stands
        raise argparse.ArgumentTypeError("the name is empty")
    return os.path.expanduser(text)


def place(text: str) -> Path:
    """The same as a path."""
    return Path(filled(text))


FILE: dict[str, Any] = {"type": place, "metavar": "FILE"}  # of arguments of a command
FOLDER: dict[str, Any] = {"type": place, "metavar": "DIR"}


class Once(argparse.Action):
    """An option with a value: a second one would replace the first without a word."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        """Keeps the value."""
        if option and getattr(self, "was_given", False):
            raise argparse.ArgumentError(self, "is given twice: leave one out")
        self.was_given = True
        setattr(namespace, self.dest, values)


@contextlib.contextmanager
def outlets() -> Iterator[None]:
    """Output and errors of a command, which may be closed early (`| head -1`): it works on.

    Of several processes launched together one prints and warns, and each one says its errors.
    """
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(_Patient(sys.stdout) if speaks() else io.StringIO()),
        contextlib.redirect_stderr(_Patient(sys.stderr)),
    ):
        # Each warning once, however often the same data is opened.
        say = functools.cache(lambda words: print(f"warning: {words}", file=sys.stderr))
        warnings.showwarning = lambda message, *_: say(str(message)) if speaks() else None
        yield


class _Patient:
    """A stream that goes nowhere from its first failure on, or at all if it is closed (None)."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream or io.StringIO()
        with contextlib.suppress(AttributeError):  # not every terminal can show every file name
            stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        own = getattr(self._stream, name)
        return functools.partial(self._try, own) if name in ("write", "flush") else own

    def _try(self, act: Callable, *given: str) -> None:
        try:
            act(*given)
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            if not isinstance(error, BrokenPipeError):
                error.filename = self._stream.name
                raise


def explained(error: Exception) -> str:
    """Our own errors say what to do, the system's name file and reason; empty for any other."""
    if isinstance(error, (MemoryError, RuntimeError)):
        text = str(error).partition("\n")[0]
        lacking = re.search("(out of|allocate) memory|size calculation", text)
        if not (lacking or isinstance(error, MemoryError)):
            return ""
        return f"not enough memory: take smaller batches, pictures or networks ({text})"
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    remedy = "name another file or folder"
    if error.errno == errno.ENOSPC:
        remedy = "free some space, what is complete is kept"
    elif error.errno in _CLOSED and Path(str(error.filename)).is_relative_to(paths.CACHE):
        remedy = "set RICHSEM_CACHE to a folder that can be written"
    elif error.errno == errno.ENOENT and not error.filename:
        remedy = "the folder where you stand was removed, change to another one"
    file = f"{error.filename}: " if error.filename else ""
    return f"{file}{error.strerror}; {remedy}"
