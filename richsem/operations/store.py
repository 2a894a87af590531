"""The run store: a run is trained once and found again by what it was made from.

A run has a folder named after its configuration, the data and the code that decide its result.
Notebooks, the command line and any number of machines that share the cache fill the same store.
"""

import contextlib
import hashlib
import json
import shutil
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from accelerate import PartialState
from tqdm import tqdm

from richsem import paths
from richsem.config import config_hash, from_params, to_dict, to_json
from richsem.data.reading import DataError
from richsem.evaluation import Detections, EvaluationResult
from richsem.operations.fingerprints import check_split, code_hash, data_hash, split_hash
from richsem.operations.workers import StoreError, place_to_train, work_off
from richsem.paths import ROOT, only_one, write_atomic
from richsem.processes import own_cores
from richsem.training import runs
from richsem.training.checkpoint import DESCRIPTION, read_description
from richsem.training.loop import Row, read_history
from richsem.training.run_config import RUN, RunConfig

CONFIG, MESSAGES = "run.json", "messages.txt"
SPLIT = "val"
NOT_TO_TRAIN = ("outdated", "no data")  # states of runs that today's code and data do not make
# Before any run was measured: seconds of one step of the small detector on one core.
_FIRST_GUESS = 0.2


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One run of the store.

    Attributes:
        folder: Where it is.
        config: What it is.
        state: "finished", "step k of n", "outdated" if data or code changed since, or "no data"
            where the real data it learns from is not on disk.
        history: Its rows so far.
    """

    folder: Path
    config: RunConfig | None
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
        code: Commit or version of the code that trained it.
    """

    config: RunConfig
    result: EvaluationResult
    detections: Detections
    history: list[Row]
    code: str = ""


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
        DataError: The data is not there, or has no such split; nothing was trained.
        StoreError: A run failed; its messages are named and the others are kept.
    """
    finish(configs.values(), split, workers=workers)
    return {name: judged(config, split) for name, config in configs.items()}


def finish(configs: Iterable[RunConfig], split: str = SPLIT, *, workers: int | None = None) -> None:
    """Trains and judges what is missing, as many runs side by side as there are cores.

    Others who ask at the same time, such as a second notebook, share the cores: what one leaves
    idle, another uses. Interrupted, every run keeps its state and goes on from there the next time.
    """
    asked = list(dict.fromkeys(configs))
    for config in asked:  # before hours of training, not after
        check_split(config, split)
        if config.train.judge_every:
            check_split(config, config.data.judge_split)
    missing = [config for config in asked if not _verdict(config, split).is_file()]
    if not missing:
        return
    missing.sort(key=lambda config: -config.train.steps)  # the longest first: cores end together
    missing.sort(key=_starts_from_a_run)
    folders = [register(config) for config in missing]
    if workers is None:
        workers = 1 if any(config.data.root for config in missing) else own_cores()
    total = sum(config.train.steps for config in missing)
    print(plan_in_words(missing, workers), flush=True)
    with tqdm(total=total, desc="runs", unit="step", mininterval=5) as progress:
        names = [folder.name for folder in folders]
        for _ in work_off(["runs", "finish", *names, "--split", split], min(workers, len(names))):
            progress.update(sum(_steps_done(folder) for folder in folders) - progress.n)


def register(config: RunConfig) -> Path:
    """Gives a run its folder, so that any machine can finish it.

    Raises:
        StoreError: What it starts from is not there.
    """
    if _starts_from_a_run(config):
        _first_phase(config)
    elif config.init and not (ROOT / Path(config.init).expanduser()).exists():
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
    path = _verdict(config, split)
    if not path.is_file():
        raise StoreError(
            f"{folder.name} has not been judged on {split}: ask for it by `finished`. If you did, "
            "the library was edited while this kernel ran: restart it"
        )
    values = json.loads(path.read_bytes())
    values["per_category"] = {int(k): v for k, v in values["per_category"].items()}
    values["metrics"] = {k: np.nan if v is None else v for k, v in values["metrics"].items()}
    with np.load(path.with_suffix(".npz")) as stored:
        detections = Detections(**{name: stored[name] for name in stored.files})
    result = EvaluationResult(**values)
    code = read_description(folder)["code"]
    return Judged(
        config=config,
        result=result,
        detections=detections,
        history=read_history(folder),
        code=str(code.get("commit") or code.get("version")),
    )


def finish_all(
    folders: Sequence[Path],
    split: str = SPLIT,
    *,
    at_once: int | None = None,
    waits: bool = True,
) -> None:
    """Trains and judges registered runs in this process, one after the other.

    Runs that another process is at are left to it, and waited for in the end. Runs that start
    from another one come last.

    Args:
        folders: The runs.
        split: Where they are judged.
        at_once: Begin a run only while fewer than this many of those under the same rule are being
            trained on this machine. None begins at once, as in jobs of a cluster, which shares out
            its machines itself.
        waits: Whether to wait for what others train, and to take it over should they fail.

    Raises:
        StoreError: Runs failed; what they said is in their folders, and the others are finished.
        ValueError: `at_once` is below 1.
    """
    if at_once is not None and at_once < 1:
        raise ValueError(f"at_once={at_once}; at least one run has to be trained at once")
    failed: dict[Path, StoreError] = {}
    configs = {folder: _read_config(folder / CONFIG) for folder in folders}
    for wait in (False, True) if waits else (False,):
        for folder, config in sorted(configs.items(), key=lambda item: _starts_from_a_run(item[1])):
            if folder in failed:
                continue
            with only_one(folder, wait=wait) as mine:
                if mine and not _verdict(config, split).is_file():
                    with place_to_train(_store(), at_once):
                        try:
                            _finish_one(folder, config, split)
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
            runs.run(started(config), folder)
        judge(config, split)


def _finish_one(folder: Path, config: RunConfig, split: str) -> None:
    try:
        if not (folder / DESCRIPTION).is_file():
            runs.run(started(config), folder)
        judge(config, split)
    except Exception as error:
        path = folder / MESSAGES
        path.write_text(traceback.format_exc(), encoding="utf-8")
        raise StoreError(f"{folder.name} failed (details: {path}): {error}") from error


def started(config: RunConfig) -> RunConfig:
    """The run with the folder that it starts from, where it starts from a run of the store.

    Waits for a process that trains that one.

    Raises:
        StoreError: That run is not finished.
    """
    if not _starts_from_a_run(config):
        return config
    first = _first_phase(config)
    with only_one(first):
        if not (first / DESCRIPTION).is_file():
            raise StoreError(
                f"{config.name} starts from {first.name}, which is not finished: `python -m "
                f"richsem runs finish {first.name}`"
            )
    return replace(config, init=str(first))


def judge(config: RunConfig, split: str = SPLIT) -> None:
    """Judges a trained run on a split, once; several processes do it together."""
    if _verdict(config, split).is_file():
        return
    result, detections = runs.evaluate_split(runs.open_trained(run_folder(config)), split)
    if PartialState().is_main_process:
        keep_verdict(config, split, result, detections)


def keep_verdict(
    config: RunConfig, split: str, result: EvaluationResult, detections: Detections
) -> None:
    """Writes what a run achieves beside it; the numbers last, because they mark it done."""
    path = _verdict(config, split)
    with path.with_suffix(".npz").open("wb") as file:
        np.savez_compressed(file, **vars(detections))
    values = asdict(result)
    values["metrics"] = {k: None if np.isnan(v) else v for k, v in values["metrics"].items()}
    write_atomic(path, json.dumps(values, indent=1, allow_nan=False))


def plan_in_words(missing: Sequence[RunConfig], workers: int) -> str:
    """How long it will take, from the runs that are there or else from a first guess."""
    words = f"{len(missing)} runs to train, {min(workers, len(missing))} side by side: "
    resumes = "It may be interrupted at any time and goes on from there."
    roots = {config.data.root for config in missing}
    known = [
        e.cpu_seconds / e.history[-1]["step"]
        for e in entries()
        if e.history and e.config and {e.config.data.root} == roots
    ]
    if not known and any(roots):
        return (
            f"{words}for how long is not known before one of them has run on this data. {resumes}"
        )
    per_step = median(known) if known else _FIRST_GUESS
    minutes = sum(c.train.steps for c in missing) * per_step / min(workers, len(missing)) / 60
    source = f"as {len(known)} earlier runs took" if known else "a first guess"
    return (
        f"{words}about {max(minutes, 1):.0f} minutes ({source}), and the features of new images "
        f"on top. {resumes}"
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
    try:
        if config and run_folder(config) != folder:
            state = "outdated"
        elif (folder / DESCRIPTION).is_file():
            state = "finished"
    except DataError:
        state = "no data"
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


def _store() -> Path:
    return paths.CACHE / "runs"


def _verdict(config: RunConfig, split: str) -> Path:
    """Where it is kept what a run achieves; elsewhere as soon as real annotations change."""
    judged_by = split_hash(config, split)
    return run_folder(config) / f"judged-{split}{'-' * bool(judged_by)}{judged_by}.json"


def _starts_from_a_run(config: RunConfig) -> bool:
    return config.init.startswith(RUN)


def _first_phase(config: RunConfig) -> Path:
    """Folder of the run that another one starts from, finished or not."""
    name = config.init.removeprefix(RUN)
    for folder in _store().glob(f"{name}-*"):
        first = _read_config(folder / CONFIG) if (folder / CONFIG).is_file() else None
        if first and run_folder(first) == folder:
            return folder
    raise StoreError(
        f"{config.name} starts from the run {name}, which is not in the store: train it first, or "
        "ask for both together"
    )


def _steps_done(folder: Path) -> int:
    history = read_history(folder)
    return history[-1]["step"] if history else 0


def _read_config(path: Path) -> RunConfig | None:
    """The configuration, or None if it has fields that no longer exist."""
    try:
        return from_params(RunConfig, json.loads(path.read_bytes()))
    except ValueError:
        return None
