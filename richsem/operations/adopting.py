"""Runs that earlier code trained and that today's code would train in the same way."""

import contextlib
import tempfile
from functools import partial

import numpy as np

from richsem.operations.store import Entry, entry, run_folder, started
from richsem.operations.workers import StoreError
from richsem.training import runs
from richsem.training.checkpoint import DESCRIPTION
from richsem.training.loop import Row


def adopt(one: Entry) -> Entry:
    """Takes over a run that earlier code trained, if today's code goes the same way.

    The run's first row of history is repeated; where every loss agrees to four digits, the run
    gets the place that today's code looks in, and is judged anew when it is next asked for. What
    trained it stays written in its description.

    Raises:
        StoreError: Losses differ, or the run cannot be repeated.
    """
    if one.config is None or not one.history or not (one.folder / DESCRIPTION).is_file():
        raise StoreError(f"{one.id} is not a finished run of a configuration that can be read")
    target = run_folder(one.config)
    if target == one.folder or target.exists():
        raise StoreError(f"{one.id}: today's code has this run already, as {target.name}")
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(_EnoughError):
        runs.run(started(one.config), folder, on_progress=partial(_compare, one))
    for path in one.folder.glob("judged-*"):
        path.unlink()
    return entry(one.folder.rename(target))


class _EnoughError(Exception):
    """The first row of a history is there and agrees."""


def _compare(one: Entry, row: Row) -> None:
    for kind, terms in one.history[0]["losses"].items():
        for name, value in terms.items():
            again = row["losses"].get(kind, {}).get(name, np.nan)
            if not np.isclose(value, again, rtol=1e-4):
                raise StoreError(
                    f"{one.id}: after {row['step']} steps the loss {name!r} of {kind} batches is "
                    f"{again:.6g} and was {value:.6g}; this run has to be trained again"
                )
    raise _EnoughError
