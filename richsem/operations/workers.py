"""Processes that train runs side by side on one machine."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

from richsem import paths
from richsem.processes import KEEP_FREED_MEMORY


class StoreError(ValueError):
    """Runs could not be finished, or there is no such run."""


def work_off(command: Sequence[str], workers: int) -> Iterator[None]:
    """Runs a command that shares its work in several processes; yields about once a second.

    A process that fails does not stop the others.

    Args:
        command: Of this package.
        workers: Number of processes, of one thread each.

    Raises:
        StoreError: Some failed; the message is the end of what they said.
    """
    environment = {**KEEP_FREED_MEMORY, **os.environ, "RICHSEM_CACHE": str(paths.CACHE)}
    environment["OMP_NUM_THREADS"] = "1"  # small runs use one core each, side by side
    with contextlib.ExitStack() as stack:
        outputs = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(workers)]
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "richsem", *command],
                    cwd=paths.ROOT,
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
                yield
        finally:
            for process in processes:
                process.terminate()  # a run answers by saving its state
        said = []
        for process, output in zip(processes, outputs, strict=True):
            if process.returncode:
                output.seek(0)
                text = output.read().decode("utf-8", "replace").strip()
                said.append(f"{text[-1000:]} (exit code {process.returncode})")
    if said:
        raise StoreError("\n".join(dict.fromkeys(said)))
