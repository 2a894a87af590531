"""Other processes: what they need to know before they start, and how they end."""

import contextlib
import math
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

from richsem import paths

# glibc gives large tensors back to the system at every step of a training and asks for them again;
# keeping them doubles the speed. It reads these settings once, when a process starts.
KEEP_FREED_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "4000000000"}
KEEP_FREED_MEMORY |= {"MALLOC_TOP_PAD_": "100000000"}


def own_cores() -> int:
    """Processor cores that this process may use; a job of a cluster has some of a machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent decides
    end_with(lifeline)


def end_with(lifeline: Connection) -> None:
    """Makes this worker end when the parent closes its end of the pipe, or is gone."""

    def watch() -> None:
        with contextlib.suppress(EOFError, OSError):
            lifeline.recv_bytes()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def work_off(command: Sequence[str], workers: int, each_second: Callable[[], object]) -> list[str]:
    """Runs a command of this package, which shares out its work, in processes of one thread each.

    A process that fails does not stop the others; what those that failed said last comes back.
    """
    environment = {**KEEP_FREED_MEMORY, **os.environ, "RICHSEM_CACHE": str(paths.CACHE)}
    environment[paths.HERE] = str(paths.user_path("."))
    environment["OMP_NUM_THREADS"] = "1"  # small runs use one core each, side by side
    words = [sys.executable, "-m", "richsem", *command]
    known = {"cwd": paths.ROOT, "env": environment, "stdin": subprocess.DEVNULL}
    failures = []
    with contextlib.ExitStack() as stack:
        outputs = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(workers)]
        started = [
            stack.enter_context(subprocess.Popen(words, stdout=output, stderr=output, **known))
            for output in outputs
        ]
        try:
            while any(process.poll() is None for process in started):
                time.sleep(1)
                each_second()
        finally:
            for process in started:
                process.terminate()  # a run answers by saving its state
        for process, output in zip(started, outputs, strict=True):
            if process.returncode:
                output.seek(0)
                text = output.read().decode("utf-8", "replace").strip()
                failures.append(f"{text[-1000:]} (exit code {process.returncode})")
    return list(dict.fromkeys(failures))


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
def kernel_environment(figures: Path = paths.FIGURES) -> Iterator[None]:
    """Variables that must be set before a kernel starts; the user's own win, but for `figures`."""
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
    os.environ.update({**wanted, **before, "RICHSEM_FIGURES": str(figures)})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
