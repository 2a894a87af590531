"""Long work cut into shards: what is missing is made once, by whichever process is free.

A shard is a range of items and the file that keeps what came out of them. That file appears at
once and complete (`paths.write_atomic`), so it says by being there that the shard is done: an
interrupted run goes on where it stopped, and processes that need the same work share it. The name
of the folder should hold a `kept.key` of all that decides the result, with the number of items and
the length of a shard.
"""

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from richsem.paths import only_one
from richsem.processes import speaks

Content = TypeVar("Content")


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Some of the items, and what is kept of them."""

    items: range
    path: Path  # there as soon as the shard is complete; what else it writes must be there before

    def __len__(self) -> int:
        """Number of items."""
        return len(self.items)

    @property
    def is_complete(self) -> bool:
        """Whether it need not be made again."""
        return self.path.is_file()


def cut(folder: Path, total: int, length: int, *, suffix: str) -> list[Shard]:
    """Shards of `length` of `total` items each, the last one of what is left.

    Their files are `<first item><suffix>` in a folder that need not exist.
    """
    pieces = (range(first, min(first + length, total)) for first in range(0, total, length))
    return [Shard(items=items, path=folder / f"{items.start:08d}{suffix}") for items in pieces]


def complete(
    parts: Sequence[Shard],
    make: Callable[[Shard], object],  # computes a shard; writes its file, atomically and last
    *,
    title: str,  # before the progress bar
    unit: str,  # what an item is
    pool: Executor | None = None,  # makes several at a time; of processes: `make` is picklable
) -> None:
    """Makes the shards that are not there yet, under one progress bar.

    An error of `make` ends the work; shards that are done stay.
    """
    from tqdm import tqdm

    left = [part for part in parts if not part.is_complete]
    if not left:
        return
    total = sum(map(len, parts))
    done = total - sum(map(len, left))
    bar = {"desc": title, "unit": unit, "mininterval": 2, "disable": not speaks()}
    with tqdm(total=total, initial=done, **bar) as progress:
        # First what no other process has begun, then what others began and did not finish.
        for wait in (False, True):
            work = partial(_make_alone, make, wait)
            others, results = [], pool.map(work, left) if pool else map(work, left)
            for part, made in zip(left, results, strict=True):
                progress.update(made)
                others += [] if made else [part]
            left = others


def made(
    parts: Sequence[Shard],
    make: Callable[[Shard], object],
    read: Callable[[Shard], Content],  # fails, in whatever way, where a file is damaged
    **words: Any,
) -> list[Content]:
    """What is in all shards: missing ones are made first, and damaged ones anew, with a warning.

    The other arguments are those of `complete`.
    """
    complete(parts, make, **words)
    contents = []
    for part in parts:
        try:
            contents.append(read(part))
        except Exception as error:  # cut and altered files fail in many ways
            reason = " ".join(str(error).split()) or type(error).__name__
            warnings.warn(f"{part.path} is damaged ({reason:.200}); it is made anew", stacklevel=2)
            part.path.unlink(missing_ok=True)
            complete([part], make, **words)
            contents.append(read(part))
    return contents


def _make_alone(make: Callable[[Shard], object], wait: bool, part: Shard) -> int:
    """Number of items that are complete now; none if another process is at them."""
    folder = part.path.parent
    with only_one(folder.parent / f"{folder.name}-{part.path.stem}", wait=wait) as mine:
        if mine and not part.is_complete:  # it may have been made while this process waited
            make(part)
    return len(part) * part.is_complete
