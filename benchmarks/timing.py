"""Timing that bears a busy machine: processor time of one thread, alternatives in turns."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import torch

Row = dict[str, Any]


def now(device: str = "cpu") -> float:
    """Processor time of this process; wall time where an accelerator does the work."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


class Laps:
    """Time between calls, summed by the name of what was done since the last one."""

    def __init__(self, device: str = "cpu") -> None:
        self.device, self.seconds = device, Counter()
        self._last = now(device)

    def __call__(self, name: str) -> None:
        """Ends a lap."""
        moment = now(self.device)
        self.seconds[name] += moment - self._last
        self._last = moment


def shortest(
    runs: Mapping[str, Callable[[], object]],
    repeats: int,
    device: str = "cpu",
    *,
    warm_up: bool = True,
) -> dict[str, float]:
    """Shortest time of each alternative in seconds.

    The alternatives take turns, so that what slows the machine for a while slows all of them.
    """
    if warm_up:
        for run in runs.values():
            run()
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(repeats):
        for name, run in runs.items():
            start = now(device)
            run()
            best[name] = min(best[name], now(device) - start)
    return best


def against(times: Mapping[str, float], baseline: str) -> Row:
    """Milliseconds of each alternative and, for all but the baseline, how much faster it is."""
    row = {f"{way}, ms": 1000 * value for way, value in times.items()}
    others = (way for way in times if way != baseline)
    return row | {f"{baseline} / {way}": times[baseline] / times[way] for way in others}


def show(title: str, rows: list[Row]) -> None:
    """Prints a table with as many digits as a timing is worth."""
    text = pd.DataFrame(rows).to_string(index=False, float_format=short, na_rep="")
    print(f"\n{title}\n{text}", flush=True)


def short(value: float) -> str:
    """Three digits, never in scientific notation unless tiny."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def peak_megabytes(device: str = "cpu") -> float:
    """Largest memory so far: of the accelerator, or of this process (NaN where unknown)."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        import resource
    except ImportError:  # not on Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
