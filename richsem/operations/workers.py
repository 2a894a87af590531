"""Processes that train runs side by side on one machine."""

import contextlib
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from richsem import paths
from richsem.paths import ROOT, only_one
from richsem.processes import KEEP_FREED_MEMORY


class StoreError(ValueError):
    """Runs could not be finished, or there is no such run."""


def work_off(command: Sequence[str], workers: int) -> Iterator[None]:
    """Runs a command that shares its work in several processes; yields about once a second.

    Args:
        command: Of this package, without the number of processes (`--at-once`), which is added.
        workers: Number of processes, of one thread each.

    Raises:
        StoreError: One of them failed; the message is the end of what it said.
    """
    command = [sys.executable, "-m", "richsem", *command, "--at-once", str(workers)]
    environment = {**KEEP_FREED_MEMORY, **os.environ, "RICHSEM_CACHE": str(paths.CACHE)}
    environment["OMP_NUM_THREADS"] = "1"  # small runs use one core each, side by side
    with contextlib.ExitStack() as stack:
        outputs = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(workers)]
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                )
            )
            for output in outputs
        ]
        try:
            while any(process.poll() is None for process in processes):
                time.sleep(1)
                for process, output in zip(processes, outputs, strict=True):
                    if process.poll():
                        output.seek(0)
                        said = output.read().decode("utf-8", "replace").strip()
                        raise StoreError(f"{said[-1000:]} (exit code {process.returncode})")
                yield
        finally:
            for process in processes:
                process.terminate()  # a run answers by saving its state


@contextlib.contextmanager
def place_to_train(store: Path, at_once: int | None) -> Iterator[None]:
    """Holds one of a machine's places for runs, waiting for one if need be.

    Args:
        store: Folder of the runs.
        at_once: Number of places; None for no limit.
    """
    if at_once is None:
        yield
        return
    places = [store / f"machine-{platform.node()}-{place}" for place in range(at_once)]
    while True:
        for place in places:
            with only_one(place, wait=False) as mine:
                if mine:
                    yield
                    return
        time.sleep(1)
