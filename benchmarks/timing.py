"""Timing that bears a busy machine: processor time of one thread, alternatives in turns."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import torch

Runs = Mapping[str, Callable[[], Any]]  # alternatives by name
Cases = Mapping[str, Runs]  # what they are compared at, by name


def now(device: str = "cpu") -> float:
    """Processor time of this process; wall time where an accelerator does the work."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def shortest(runs: Runs, repeats: int, device: str = "cpu") -> dict[str, float]:
    """Shortest time of each alternative in seconds, after one to warm up.

    The alternatives take turns, so that what slows the machine for a while slows all of them.
    """
    best = dict.fromkeys(runs, float("inf"))
    for turn in range(1 + repeats):
        for name, run in runs.items():
            start = now(device)
            run()
            if turn:
                best[name] = min(best[name], now(device) - start)
    return best


def against(baseline: str, cases: Cases, repeats: int, device: str = "cpu") -> pd.DataFrame:
    """A line per case: milliseconds of each alternative, and how much faster each is."""
    times = pd.DataFrame({name: shortest(runs, repeats, device) for name, runs in cases.items()}).T
    ratios = (1 / times).mul(times[baseline], axis=0).drop(columns=baseline)
    shown = (1000 * times).add_suffix(", ms").join(ratios.add_prefix(f"{baseline} / "))
    return shown.rename_axis("").reset_index()


def show(title: str, table: pd.DataFrame) -> None:
    """Prints a table with as many digits as a timing is worth."""

    def short(value: float) -> str:  # not in scientific notation unless tiny
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"

    print(f"\n{title}\n{table.to_string(index=False, float_format=short, na_rep='')}", flush=True)


def peak_megabytes(device: str) -> float:
    """Largest memory so far: of the accelerator, or of this process (NaN where unknown)."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 2**20
    if sys.platform == "win32":
        return float("nan")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
