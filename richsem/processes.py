"""Other processes: what they need to know before they start, and how they end."""

import contextlib
import multiprocessing
import os
import platform
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

from richsem import paths

# glibc gives large tensors back to the system at every step of a training and asks for them again;
# keeping them doubles the speed. It reads these settings once, when a process starts.
KEEP_FREED_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "4000000000",
    "MALLOC_TOP_PAD_": "100000000",
}


def own_cores() -> int:
    """Processor cores that this process may use; a job of a cluster has some of a machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that work for this one and end at once if it ends, or if its own work fails."""
    context = multiprocessing.get_context("spawn")
    lifeline, held = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, context, _watch_parent, (lifeline,))
    try:
        yield pool
    except BaseException:
        held.close()  # the workers leave what they are at
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        held.close()


def _watch_parent(lifeline: Connection) -> None:
    """Makes this worker end when the parent closes its end of the pipe, or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent decides

    def watch() -> None:
        with contextlib.suppress(EOFError, OSError):
            lifeline.recv_bytes()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def kernel_environment(figures: Path = paths.FIGURES) -> Iterator[None]:
    """Environment variables that must be set before a kernel starts; the user's own win.

    Args:
        figures: Where the kernel's results go; here the argument wins.
    """
    wanted = {
        # As many threads as cores wait for each other in every small layer as soon as anything
        # else runs: measured 10 times slower than half as many that sleep while they wait.
        "OMP_NUM_THREADS": str(max(1, own_cores() // 2)),
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONHASHSEED": "0",
        # The environment's kernel, not one of the same name in the user's folder.
        "JUPYTER_PREFER_ENV_PATH": "1",
        "RICHSEM_CACHE": str(paths.CACHE),
    }
    if platform.libc_ver()[0] == "glibc":
        wanted |= KEEP_FREED_MEMORY
    before = dict(os.environ)
    os.environ.update({k: v for k, v in wanted.items() if k not in before})
    os.environ["RICHSEM_FIGURES"] = str(figures)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
