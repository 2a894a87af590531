"""Does a kept result still hold? It does as long as its key comes out the same.

Runs, drawn pictures, cached features, text features, region readings and executed notebooks are
all kept under such a key. What today's code computes enters it through `trace.json`, a file of
numbers that a test recomputes (`tests/golden_trace.py`): a change of code that keeps these numbers
keeps every result, and a change of numbers shows as a difference of that file.
"""

import functools
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

TRACE = Path(__file__).with_name("trace.json")
SECTIONS = ("pictures", "features", "teacher", "runs", "evaluation")
DIGITS = 16
# Every drawn picture has this time, in ns (2020-01-01 UTC): drawn anew, it is the same file.
DRAWN_AT = 1_577_836_800 * 10**9


def key(*parts: object, trace: Iterable[str]) -> str:
    """Hash of all that decides a kept result, 16 hex digits.

    Args:
        parts: Configuration, weights, fingerprints of data: anything whose text says what it is.
        trace: Sections of the trace that the code behind the result is tested by.
    """
    words = [_section(name) for name in trace] + [str(part) for part in parts]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:DIGITS]


def files_state(files: Iterable[Path]) -> str:
    """Hash of names, sizes and times of files, so that replaced ones are noticed.

    A copy that keeps times (`cp -a`, `rsync -a`, an archive) has the same state.
    """
    digest = hashlib.sha256()
    for file in files:
        try:
            status = file.stat()
            state = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            state = "absent"
        digest.update(f"{file.name} {state}\n".encode())
    return digest.hexdigest()[:DIGITS]


@functools.cache
def _section(name: str) -> str:
    """Hash of one section; layout and order of the file do not count."""
    numbers = json.loads(TRACE.read_bytes()) if TRACE.is_file() else {}
    return hashlib.sha256(json.dumps(numbers.get(name), sort_keys=True).encode()).hexdigest()
