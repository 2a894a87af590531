"""Other processes: what they need to know before they start, and how they end."""

import contextlib
import gc
import math
import multiprocessing
import os
import platform
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

from richsem import paths

# glibc gives large tensors back to the system at every step of a training and asks for them again;
# keeping them doubles the speed, and huge pages add a twentieth. It reads this once, at the start.
KEEP_FREED_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "4000000000"}
KEEP_FREED_MEMORY |= {"MALLOC_TOP_PAD_": "100000000", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}

# Imports leave half a million objects: to look for garbage among them is a fifth of a start.
GARBAGE_AFTER = 50_000  # new objects


def own_cores() -> int:
    """Processor cores that this process may use; a job of a cluster has some of a machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def accelerator() -> Any:
    """The `torch.device` of the accelerator that is used; None if there is none.

    A Mac's is used only where torch may turn to the CPU for what it lacks, among which are, in most
    versions, gradients of deformable attention.
    """
    import torch  # takes seconds

    found = torch.accelerator.current_accelerator(check_available=True)
    may_turn = os.environ.get("PYTORCH_ENABLE_MPS_FALLBACK") == "1"
    return found if found is None or found.type != "mps" or may_turn else None


def small_runs_at_once() -> int:
    """How many small runs train side by side: one a core, and one for 4 GB of a GPU."""
    used = accelerator()
    if used is None:
        return own_cores()
    import torch

    memory = torch.cuda.get_device_properties(used).total_memory if used.type == "cuda" else 0
    return max(1, min(own_cores(), memory // 4_000_000_000))


def speaks() -> bool:
    """Whether this process speaks for those that were launched with it; errors are each one's."""
    return os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that work for this one and end if it ends, or if its own work fails.

    What they print is not heard; errors come back through their futures.
    """
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
    gc.set_threshold(GARBAGE_AFTER)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent decides
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    end_with(lifeline)


def end_with(lifeline: Connection) -> None:
    """Makes this worker end when the parent closes its end of the pipe, or is gone.

    It is told by SIGTERM, which most work ends at; a training saves its state first.
    """

    def watch() -> None:
        with contextlib.suppress(EOFError, OSError):
            lifeline.recv_bytes()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def used_by_children() -> tuple[float, float]:
    """What processes that this one started and that ended have used: in all, and at most.

    Processor seconds of all of them; GB of memory of the largest. NaN where it is not known.
    """
    if sys.platform == "win32":
        return math.nan, math.nan
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    unit = 1 if sys.platform == "darwin" else 1024
    return used.ru_utime + used.ru_stime, used.ru_maxrss * unit / 1e9


@contextlib.contextmanager
def environment(**always: str) -> Iterator[None]:
    """Variables that must be set before a process starts; the user's own win, but over `always`."""
    wanted = {
        # As many threads as cores wait for each other in every small layer as soon as anything
        # else runs: measured 10 times slower than half as many that sleep while they wait.
        "OMP_NUM_THREADS": str(max(1, own_cores() // 2)),
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONHASHSEED": "0",
        # The environment's kernel, not one of the same name in the user's folder.
        "JUPYTER_PREFER_ENV_PATH": "1",
        "RICHSEM_CACHE": str(paths.CACHE),
        paths.HERE: str(paths.user_path(".")),
        **(KEEP_FREED_MEMORY if platform.libc_ver()[0] == "glibc" else {}),
    }
    before = dict(os.environ)
    os.environ.update({**wanted, **before, **always})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
