"""The run store: a run is trained once and found again by what it was made from.

A run has a folder named after its configuration, the data and the code that decide its result.
Notebooks, the command line and any number of machines that share the cache fill the same store.
"""

import contextlib
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from accelerate import PartialState
from tqdm import tqdm

from richsem.config import config_hash, from_params, to_dict, to_json
from richsem.data.reading import DataError
from richsem.engine import runs
from richsem.engine.checkpoint import DESCRIPTION
from richsem.engine.fingerprints import code_hash, data_hash
from richsem.engine.train import Row, read_history
from richsem.evaluation import Detections, EvaluationResult
from richsem.paths import CACHE, ROOT, only_one, write_atomic
from richsem.processes import KEEP_FREED_MEMORY
from richsem.recipes import RunConfig

CONFIG, MESSAGES = "run.json", "messages.txt"
SPLIT = "val"
# Before any run was measured: seconds of one step of the small detector on one core.
_FIRST_GUESS = 0.2


class StoreError(ValueError):
    """Runs could not be finished, or there is no such run."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One run of the store.

    Attributes:
        folder: Where it is.
        config: What it is.
        state: "finished", "step k of n", or "outdated" if data or code changed since.
        history: Its rows so far.
    """

    folder: Path
    config: RunConfig
    state: str
    history: list[Row]

    @property
    def id(self) -> str:
        """Its name in lists and commands."""
        return self.folder.name

    @property
    def cpu_seconds(self) -> float:
        """Processor time of training so far."""
        return self.history[-1]["cpu_seconds"] if self.history else 0.0


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a finished run achieves on a split.

    Attributes:
        config: The run.
        result: Average precision.
        detections: What it was computed from.
        history: Learning curve and cost.
    """

    config: RunConfig
    result: EvaluationResult
    detections: Detections
    history: list[Row]


def run_folder(config: RunConfig) -> Path:
    """Where a run is kept unless told otherwise."""
    made_from = hashlib.sha256(f"{code_hash()} {data_hash(config)}".encode()).hexdigest()[:8]
    return _store() / f"{config.name}-{config_hash(config)}-{made_from}"


def describe_folder(config: RunConfig) -> str:
    """The same in words, also where the data, which decides it, is not on disk."""
    try:
        return str(run_folder(config))
    except DataError:
        return f"below {_store()}, named after the data once it is there"


# --- asking for runs -----------------------------------------------------------------------------


def finished(
    configs: Mapping[Any, RunConfig], split: str = SPLIT, *, workers: int | None = None
) -> dict[Any, Judged]:
    """What runs achieve, by the caller's names; runs that do not exist yet are trained first.

    Args:
        configs: The runs. Equal ones are trained once.
        split: Where they are judged.
        workers: Runs side by side; by default one per core on the embedded benchmark, and one
            after the other on real data.

    Raises:
        StoreError: A run failed; its messages are named and the others are kept.
    """
    finish(configs.values(), split, workers=workers)
    return {name: judged(config, split) for name, config in configs.items()}


def finish(configs: Iterable[RunConfig], split: str = SPLIT, *, workers: int | None = None) -> None:
    """Trains and judges what is missing, as many runs side by side as there are cores.

    Others who ask at the same time, such as a second notebook, share the cores: what one leaves
    idle, another uses. Interrupted, every run keeps its state and goes on from there the next time.
    """
    missing = _missing(configs, split)
    if not missing:
        return
    missing.sort(key=lambda config: -config.train.steps)  # the longest first: cores end together
    folders = [register(config) for config in missing]
    if workers is None:
        workers = 1 if any(config.data.root for config in missing) else os.cpu_count() or 1
    total = sum(config.train.steps for config in missing)
    print(plan_in_words(missing, workers), flush=True)
    with tqdm(total=total, desc="runs", unit="step", mininterval=5) as progress:
        for _ in _work_off(folders, split, workers):
            progress.update(sum(_steps_done(folder) for folder in folders) - progress.n)


def _missing(configs: Iterable[RunConfig], split: str) -> list[RunConfig]:
    asked = dict.fromkeys(configs)
    return [config for config in asked if not _verdict(run_folder(config), split).is_file()]


def register(config: RunConfig) -> Path:
    """Gives a run its folder, so that any machine can finish it.

    Raises:
        StoreError: What it starts from is not there.
    """
    if config.init and not (ROOT / Path(config.init).expanduser()).exists():
        raise StoreError(
            f"{config.name} starts from {config.init}, which is not there; `python -m richsem "
            f"train` with `--out {config.init}` makes it (its recipe's docstring says of which run)"
        )
    folder = run_folder(config)
    if not (folder / CONFIG).is_file():
        write_atomic(folder / CONFIG, to_json(config))
    return folder


def judged(config: RunConfig, split: str = SPLIT) -> Judged:
    """What a finished run achieves.

    Raises:
        StoreError: It is not finished.
    """
    folder = run_folder(config)
    path = _verdict(folder, split)
    if not path.is_file():
        raise StoreError(f"{folder.name} has not been judged on {split}; ask for it by `finished`")
    values = json.loads(path.read_bytes())
    values["per_category"] = {int(k): v for k, v in values["per_category"].items()}
    values["metrics"] = {k: np.nan if v is None else v for k, v in values["metrics"].items()}
    with np.load(path.with_suffix(".npz")) as stored:
        detections = Detections(**{name: stored[name] for name in stored.files})
    result = EvaluationResult(**values)
    return Judged(config=config, result=result, detections=detections, history=read_history(folder))


def finish_all(folders: Sequence[Path], split: str = SPLIT, *, at_once: int | None = None) -> None:
    """Trains and judges registered runs in this process, one after the other.

    Runs that another process is at are left to it, and waited for in the end.

    Args:
        folders: The runs.
        split: Where they are judged.
        at_once: Begin a run only while fewer than this many of those under the same rule are being
            trained on this machine. None begins at once, as in jobs of a cluster, which shares out
            its machines itself.

    Raises:
        StoreError: Runs failed; what they said is in their folders, and the others are finished.
        ValueError: `at_once` is below 1.
    """
    if at_once is not None and at_once < 1:
        raise ValueError(f"at_once={at_once}; at least one run has to be trained at once")
    failed: dict[Path, StoreError] = {}
    for wait in (False, True):
        for folder in folders:
            if folder in failed:
                continue
            with only_one(folder, wait=wait) as mine:
                if mine and not _verdict(folder, split).is_file():
                    with _place_to_train(at_once):
                        try:
                            _finish_one(folder, split)
                        except StoreError as error:
                            failed[folder] = error
    if failed:
        raise StoreError("\n".join(map(str, failed.values())))


def train_one(config: RunConfig, split: str = SPLIT) -> None:
    """Trains and judges one run in this process, or in all that `accelerate launch` started.

    Where another process is at it already, a single process waits and finds it done.

    Raises:
        StoreError: Another process is at it, and this is one of several, which cannot wait long.
    """
    folder, state = run_folder(config), PartialState()
    alone = state.num_processes == 1
    # The lock is for one process; those that were launched with it train together.
    lock = only_one(folder, wait=alone) if state.is_main_process else contextlib.nullcontext(True)
    with lock as mine:
        if not mine:
            raise StoreError(f"{folder.name} is being trained by another process already")
        state.wait_for_everyone()
        register(config)
        if not (folder / DESCRIPTION).is_file():
            runs.run(config, folder)
        judge(folder, split)


@contextlib.contextmanager
def _place_to_train(at_once: int | None) -> Iterator[None]:
    """Holds one of a machine's places for runs, waiting for one if need be."""
    if at_once is None:
        yield
        return
    places = [_store() / f"machine-{platform.node()}-{place}" for place in range(at_once)]
    while True:
        for place in places:
            with only_one(place, wait=False) as mine:
                if mine:
                    yield
                    return
        time.sleep(1)


def _finish_one(folder: Path, split: str) -> None:
    try:
        if not (folder / DESCRIPTION).is_file():
            runs.run(entry(folder).config, folder)
        judge(folder, split)
    except Exception as error:
        path = folder / MESSAGES
        path.write_text(traceback.format_exc(), encoding="utf-8")
        raise StoreError(f"{folder.name} failed (details: {path}): {error}") from error


def judge(folder: Path, split: str = SPLIT) -> None:
    """Judges a trained run on a split, once; several processes do it together."""
    if _verdict(folder, split).is_file():
        return
    result, detections = runs.evaluate_split(runs.open_trained(folder), split)
    if PartialState().is_main_process:
        keep_verdict(folder, split, result, detections)


def keep_verdict(
    folder: Path, split: str, result: EvaluationResult, detections: Detections
) -> None:
    """Writes what a run achieves beside it; the numbers last, because they mark it done."""
    path = _verdict(folder, split)
    with path.with_suffix(".npz").open("wb") as file:
        np.savez_compressed(file, **vars(detections))
    values = asdict(result)
    values["metrics"] = {k: None if np.isnan(v) else v for k, v in values["metrics"].items()}
    write_atomic(path, json.dumps(values, indent=1, allow_nan=False))


def plan_in_words(missing: Sequence[RunConfig], workers: int) -> str:
    """How long it will take, from the runs that are there or else from a first guess."""
    known = [e.cpu_seconds / e.history[-1]["step"] for e in entries() if e.history]
    per_step = median(known) if known else _FIRST_GUESS
    minutes = sum(c.train.steps for c in missing) * per_step / min(workers, len(missing)) / 60
    source = f"as {len(known)} earlier runs took" if known else "a first guess"
    return (
        f"{len(missing)} runs to train, {min(workers, len(missing))} side by side: about "
        f"{max(minutes, 1):.0f} minutes ({source}), and the features of new images on top. "
        "It may be interrupted at any time and goes on from there."
    )


# --- looking after runs --------------------------------------------------------------------------


def entries() -> list[Entry]:
    """All runs of the store, by name."""
    return [entry(path.parent) for path in sorted(_store().glob(f"*/{CONFIG}"))]


def entry(folder: Path) -> Entry:
    """One run.

    Raises:
        StoreError: There is none.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise StoreError(f"there is no run in {folder}; `python -m richsem runs` lists them")
    config, history = _read_config(path), read_history(folder)
    step = history[-1]["step"] if history else 0
    state = f"step {step} of {config.train.steps}" if config else "outdated"
    if config and run_folder(config) != folder:
        state = "outdated"
    elif (folder / DESCRIPTION).is_file():
        state = "finished"
    return Entry(folder=folder, config=config, state=state, history=history)


def find(name: str) -> Entry:
    """The run whose id begins like this.

    Raises:
        StoreError: There is none, or more than one.
    """
    found = [e for e in entries() if e.id.startswith(name)]
    if len(found) != 1:
        several = f"several runs begin with it: {', '.join(e.id for e in found)}"
        raise StoreError(
            f"{name!r}: {several if found else 'no run of the store begins like this'}"
        )
    return found[0]


def delete(one: Entry) -> None:
    """Removes a run with its weights and results."""
    shutil.rmtree(one.folder)


def describe(one: Entry) -> dict[str, Any]:
    """A run for a reader: state, cost, results and configuration."""
    found = {}
    for path in sorted(one.folder.glob("judged-*.json")):
        metrics = json.loads(path.read_bytes())["metrics"]
        found[path.stem] = {k: v for k, v in metrics.items() if v is not None}
    return {
        "id": one.id,
        "state": one.state,
        "cpu_seconds": one.cpu_seconds,
        **found,
        "config": to_dict(one.config) if one.config else "no longer readable",
    }


# --- inside --------------------------------------------------------------------------------------


def _work_off(folders: Sequence[Path], split: str, workers: int) -> Iterator[None]:
    """Finishes runs in processes that share them; yields about once a second."""
    names = [folder.name for folder in folders]
    command = [sys.executable, "-m", "richsem", "runs", "finish", *names, "--split", split]
    command += ["--at-once", str(workers)]
    environment = {**KEEP_FREED_MEMORY, **os.environ, "RICHSEM_CACHE": str(CACHE)}
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
            for output in outputs[: len(folders)]
        ]
        try:
            while any(process.poll() is None for process in processes):
                time.sleep(1)
                for process, output in zip(processes, outputs, strict=False):
                    if process.poll():
                        output.seek(0)
                        said = output.read().decode("utf-8", "replace").strip()
                        raise StoreError(f"{said[-1000:]} (exit code {process.returncode})")
                yield
        finally:
            for process in processes:
                process.terminate()  # a run answers by saving its state


def _store() -> Path:
    return CACHE / "runs"


def _verdict(folder: Path, split: str) -> Path:
    return folder / f"judged-{split}.json"


def _steps_done(folder: Path) -> int:
    history = read_history(folder)
    return history[-1]["step"] if history else 0


def _read_config(path: Path) -> RunConfig | None:
    """The configuration, or None if it has fields that no longer exist."""
    try:
        return from_params(RunConfig, json.loads(path.read_bytes()))
    except ValueError:
        return None
