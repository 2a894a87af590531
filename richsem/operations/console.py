"""How a command speaks: each warning once, an error in one line, and on although nobody listens."""

import contextlib
import errno
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def outlets() -> Iterator[None]:
    """Output and errors of a command, which may be closed early (`| head -1`): it works on."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(_Patient(sys.stdout)),
        contextlib.redirect_stderr(_Patient(sys.stderr)),
    ):
        warnings.showwarning = _warner()
        yield


class _Patient:
    """A stream that goes nowhere from its first failure on."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, act: Callable, *given: str) -> None:
        try:
            act(*given)
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            if not isinstance(error, BrokenPipeError):
                raise


def _warner() -> Callable[..., None]:
    """Says each warning once, however often the same data is opened."""
    said: set[str] = set()

    def warn(message: Warning, *_: Any) -> None:
        if str(message) not in said:
            print(f"warning: {message}", file=sys.stderr)
        said.add(str(message))

    return warn


def explained(error: Exception) -> str:
    """Our own errors say what to do; those of the system name a file and a reason."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    full = error.errno == errno.ENOSPC
    remedy = "free some space, what is complete is kept" if full else "name another file or folder"
    file = f"{error.filename}: " if error.filename else ""
    return f"{file}{error.strerror}; {remedy}"
