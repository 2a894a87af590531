"""The run store: a run is trained once and found again by what it was made from.

A run has a folder named after its configuration, the data and the trace of what the code computes
(`richsem.kept`). Notebooks, the command line and any number of machines that share the cache fill
the same store. A folder without weights and boxes is a record: enough for tables.
"""

import contextlib
import functools
import json
import os
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from tqdm import tqdm

from richsem import kept, paths
from richsem.config import ConfigError, config_hash, read_kept, to_dict, to_json
from richsem.data.box_sets import BoxDataset
from richsem.data.catalog import dataset_spec, locate
from richsem.data.reading import DataError, read
from richsem.evaluation import Detections, EvaluationResult
from richsem.minilvis.render import prepare
from richsem.paths import only_one, user_path, write_atomic
from richsem.processes import environment, small_runs_at_once, worker_pool
from richsem.training import build, runs
from richsem.training.checkpoint import DESCRIPTION, FILES, WEIGHTS, read_description
from richsem.training.loop import LOG, STATE, Row, RunError, read_history
from richsem.training.parallel import this_process
from richsem.training.run_config import RUN, RunConfig, TrainingDataConfig, other_run

RUNS, CONFIG, MESSAGES = "runs", "run.json", "messages.txt"
# LVIS v1 keeps its pictures in these folders beside other sets; elsewhere a set has its own folder.
_SHARED = ("train2017", "val2017")


class StoreError(ValueError):
    """Runs could not be finished, or there is no such run."""


@dataclass(frozen=True, kw_only=True)
class StoredRun:
    """One run of the store."""

    folder: Path
    # "finished", "step k of n", "outdated" if its name is not what today's configuration, data and
    # trace give, "no data" where the real data is not on disk, or "damaged"
    state: str
    config: RunConfig | None = None  # None if it cannot be read
    cpu_seconds: float = 0.0  # of training so far
    problem: str = ""  # why it cannot be finished, and for a damaged run what to do

    @property
    def id(self) -> str:
        """Its name in lists and commands."""
        return self.folder.name

    def known(self) -> RunConfig:
        """Its configuration; a `StoreError` says why it cannot be read."""
        if self.config is None:
            raise StoreError(self.problem)
        return self.config


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a finished run achieves on a split."""

    config: RunConfig
    result: EvaluationResult  # average precision
    boxes: Path  # file of `detections`
    history: list[Row]  # learning curve and cost
    code: str = ""  # commit or version of what trained it

    @functools.cached_property  # most tables of many seeds look at numbers alone
    def detections(self) -> Detections:
        """What `result` was computed from; a `StoreError` if the file is damaged or not there."""
        try:
            with self.boxes.open("rb") as file, np.load(file) as stored:
                return Detections(**stored)
        except Exception as error:  # a cut archive fails in many ways
            remedy = f"delete it and {self.boxes.stem}.json to have it judged anew"
            raise StoreError(f"{self.boxes} is damaged ({error}): {remedy}") from error


# --- what a run is made from and judged by --------------------------------------------------------


def run_folder(config: RunConfig) -> Path:
    """Where a run is kept unless told otherwise."""
    made_from = kept.key(data_state(config), trace=kept.SECTIONS)[:8]
    return paths.CACHE / RUNS / f"{config.name}-{config_hash(config)}-{made_from}"


@functools.lru_cache(maxsize=1024)
def data_state(config: RunConfig) -> str:
    """Hashes of real data (annotations, and size and time of each picture) and of weight files.

    The embedded benchmark and the packaged weights are decided by the trace: see `richsem.kept`.
    """
    data, states = config.data, []
    with warnings.catch_warnings(action="ignore"):  # whoever uses the sets is told
        if data.own or data.root:
            states.append(_set_state(data, data.key, "train"))
        if data.extra and data.extra.folder:
            categories = build.open_split(data, "train").categories
            states.append(build.open_extra(data.extra, data, categories).fingerprint)
        elif data.extra and data.root:
            states.append(_set_state(data, data.extra.key, "train"))
    return " ".join([*states, *build.files_state(config)])


def split_state(config: RunConfig, split: str) -> str:
    """Hash of what a run of real data is judged by; "" where the trace decides that, too.

    A `DataError` says that the set has no such split, or is not there.
    """
    data = config.data
    if data.own or data.root:
        return kept.key(_set_state(data, data.key, split), trace=())
    if data.benchmark is None:
        raise DataError(f"{config.name}: {build.NO_ROOT}")
    splits = dataset_spec(data.key).splits
    if split not in splits:
        known = f"{data.key} has no split {split!r}; there are {', '.join(splits)}"
        raise DataError(f"{config.name}: {known}")
    return ""


def _set_state(data: TrainingDataConfig, key: str, split: str) -> str:
    if data.own:
        return build.open_split(data, split).fingerprint
    annotations, images = locate(dataset_spec(key), user_path(data.root), split)
    shared = [images / name for name in _SHARED if (images / name).is_dir()]
    pictures = [kept.pictures_state(folder) for folder in shared or [images]]
    return " ".join([kept.digest(annotations), *pictures])


# --- asking for runs -----------------------------------------------------------------------------


def finished(configs: Mapping[Any, RunConfig], split: str = "val") -> dict[Any, Judged]:
    """What runs achieve, by the caller's names; what is missing is trained first (see `finish`)."""
    finish(configs.values(), split)
    return {name: _read_verdict(config, split) for name, config in configs.items()}


def finish(configs: Iterable[RunConfig], split: str = "val") -> None:
    """Trains and judges what is missing, as many runs side by side as cores and a GPU bear.

    Equal runs are trained once, and runs on real data one after the other. Other machines, jobs
    and notebooks that share the store go on with other runs meanwhile. Interrupted, every run keeps
    its state and goes on from there the next time. A `DataError` says that data or split are not
    there, before anything is trained; a `StoreError` names the runs that failed, after all others.
    """
    data_state.cache_clear()  # a notebook's kernel may be older than the pictures
    kept.pictures_state.cache_clear()
    asked = _in_order(configs)
    for config in asked:  # before hours of training, not after
        split_state(config, split)
        if config.train.judge_every:
            split_state(config, config.data.judge_split)
    for data in dict.fromkeys(config.data for config in asked):
        prepare(data)
    missing = [config for config in asked if not _verdict(config, split).is_file()]
    if not missing:
        return
    folders = [register(config) for config in missing]
    on_real_data = any(config.data.root or config.data.own for config in missing)
    workers = min(len(missing), 1 if on_real_data else small_runs_at_once())
    found = f"{len(missing)} run{'s' * (len(missing) > 1)} to train, {workers} side by side."
    print(f"{found} It may be interrupted at any time and goes on from there.", flush=True)
    total = sum(config.train.steps for config in missing)
    with (
        # Small runs use one core each, side by side.
        environment(OMP_NUM_THREADS="1"),
        worker_pool(workers) as pool,
        tqdm(total=total, desc="runs", unit="step", mininterval=5) as progress,
    ):
        asked = [pool.submit(_finish_as_worker, missing, split) for _ in range(workers)]
        while futures.wait(asked, timeout=1).not_done:
            progress.update(sum(_last_row(folder)["step"] for folder in folders) - progress.n)
    died = "a process ended unexpectedly; was memory short? All go on from there the next time"
    errors = [error for one in asked if (error := one.exception())]
    said = [died if isinstance(error, BrokenProcessPool) else str(error) for error in errors]
    if said:
        raise StoreError("\n".join(dict.fromkeys(said)))


def _finish_as_worker(configs: list[RunConfig], split: str) -> None:
    try:
        finish_here(configs, split)
    except KeyboardInterrupt:  # the state is saved; nobody may be left to say that to
        os._exit(1)


def finish_here(configs: Iterable[RunConfig], split: str = "val", *, waits: bool = True) -> None:
    """Trains and judges what is missing in this process, one run after the other.

    What another process is at is left to it; in the end it is waited for (unless `waits` is
    False), and taken over if that process died. Several processes of `accelerate launch` train each
    run together. A `StoreError` says in the end which runs failed; what they said is in their
    folders.
    """
    began, failed, left = time.time(), {}, _in_order(configs)
    while left:
        busy = []
        for config in left:
            folder = run_folder(config)
            messages = folder / MESSAGES
            # Where a process beside this one failed, another try would fail in the same way.
            if config in failed or (messages.is_file() and messages.stat().st_mtime > began):
                continue
            with _alone(folder) as alone:
                try:
                    if not alone:
                        busy.append(config)
                    elif not _verdict(config, split).is_file():
                        _train_and_judge(config, split)
                except Exception as error:
                    write_atomic(messages, traceback.format_exc())
                    failed[config] = f"{folder.name} failed (details: {messages}): {error}"
        left = busy if waits else []
        if left:
            time.sleep(1)  # and then takes whichever is free
    if failed:
        raise StoreError("\n".join(failed.values()))


def train_into(folder: Path, config: RunConfig) -> None:
    """Trains a run in a folder outside of the store; a `StoreError` if that is not possible."""
    with _alone(folder / "training") as alone:
        if not alone:
            raise StoreError(f"{folder}: another process is training there; name another folder")
        if check_folder(folder, config) and this_process().is_main_process:
            write_atomic(folder / CONFIG, to_json(config))
        runs.run(started(config), folder)


def check_folder(folder: Path, config: RunConfig) -> bool:
    """Whether a folder holds nothing of a run; a `StoreError` says that it is another run's."""
    file = folder / CONFIG
    if file.is_file():
        there = read_kept(RunConfig, read(file, dict[str, Any])[0], file)
        if other := other_run(there, config):
            raise StoreError(
                f"{folder} holds {there.name}, a run with another {', '.join(other)}; name "
                "another folder, or delete this one to start anew"
            )
    elif there := [n for n in (*FILES, STATE, LOG) if (folder / n).exists()]:
        raise StoreError(f"{folder} has a {there[0]} of no run; name another folder")
    return not file.is_file()


def register(config: RunConfig) -> Path:
    """Gives a run its folder, so that any machine can finish it.

    A `StoreError` says that what it starts from is not there.
    """
    if config.init.startswith(RUN):
        _first_phase(config)
    elif config.init and not user_path(config.init).exists():
        raise StoreError(
            f"{config.name} starts from {config.init}, which is not there; `python -m richsem "
            f"train` with `--out {config.init}` makes it (its recipe's docstring says of which run)"
        )
    folder = run_folder(config)
    if not (folder / CONFIG).is_file():
        write_atomic(folder / CONFIG, to_json(config))
    return folder


def started(config: RunConfig) -> RunConfig:
    """The run ready to begin: its pictures drawn, and the run that it starts from as a folder.

    Waits for a process that trains that one; a `StoreError` says that it is not finished.
    """
    with this_process().main_process_first():
        prepare(config.data)
    if not config.init.startswith(RUN):
        return config
    first = _first_phase(config)
    with only_one(first):
        if not (first / WEIGHTS).is_file():
            problem = f"{config.name} starts from {first.name}, which is not finished"
            raise StoreError(f"{problem}: `python -m richsem runs finish {first.name}`")
    return replace(config, init=str(first))


def _in_order(configs: Iterable[RunConfig]) -> list[RunConfig]:
    """Each run once: a second phase after the first one, the longest first to end together."""
    once = dict.fromkeys(configs)
    return sorted(once, key=lambda config: (config.init.startswith(RUN), -config.train.steps))


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Whether this process, and those that were launched with it, are the only ones at a run."""
    process = this_process()
    with contextlib.ExitStack() as stack:
        alone = not process.is_main_process or stack.enter_context(only_one(folder, wait=False))
        if process.num_processes > 1 and not alone:  # companions cannot wait long
            raise StoreError(f"{folder}: another process is training there already")
        process.wait_for_everyone()
        yield alone


def trained(config: RunConfig) -> Path:
    """The folder of a run with its weights; whoever asks has to be alone there (`only_one`)."""
    folder = register(config)
    if not all((folder / name).is_file() for name in (DESCRIPTION, WEIGHTS)):  # or a record
        runs.run(started(config), folder)
        (folder / STATE).unlink(missing_ok=True)  # more than half of what a run takes on disk
    return folder


def _train_and_judge(config: RunConfig, split: str) -> None:
    result, detections = runs.on_split(runs.open_trained(trained(config)), split).run()
    if this_process().is_main_process:
        _keep_verdict(_verdict(config, split), result, detections)


# --- looking after runs --------------------------------------------------------------------------


def entries() -> list[StoredRun]:
    """All runs of the store, by name."""
    return [entry(folder) for folder in _folders()]


def find(name: str) -> StoredRun:
    """The run whose id or folder begins so; a `StoreError` says that there is none, or several."""
    place = Path(name).absolute()
    beginning = place.name if place.parent == paths.CACHE / RUNS else name.rstrip("/")
    found = _folders(beginning) if name.strip("/") else []  # "" is a variable that was not set
    if len(found) == 1:
        return entry(found[0])
    several = f"several runs begin with it: {', '.join(folder.name for folder in found)}"
    raise StoreError(f"{name!r}: {several if found else 'no run of the store begins like this'}")


def _folders(beginning: str = "") -> list[Path]:
    """Folders of runs whose names begin like this."""
    files = filter(Path.is_file, (paths.CACHE / RUNS).glob(f"*/{CONFIG}"))
    return sorted(file.parent for file in files if file.parent.name.startswith(beginning))


def entry(folder: Path) -> StoredRun:
    """One run, also a damaged one; a `StoreError` says that there is none."""
    file = folder / CONFIG
    if not file.is_file():
        raise StoreError(f"there is no run in {folder}; `python -m richsem runs` lists them")
    try:
        config = read_kept(RunConfig, read(file, dict[str, Any])[0], file)
        last = _last_row(folder)
    except (ConfigError, DataError, RunError) as error:
        problem = f"{error} (`python -m richsem runs delete {folder.name}` removes the run)"
        return StoredRun(folder=folder, state="damaged", problem=problem)
    state, problem = f"step {last['step']} of {config.train.steps}", ""
    try:
        if run_folder(config) != folder:
            state = "outdated"
            problem = "data, or numbers of the code, are not those that it was asked for with"
        elif (folder / DESCRIPTION).is_file():
            state = "finished"
    except DataError as error:
        state, problem = "no data", str(error)
    known = {"config": config, "cpu_seconds": last["cpu_seconds"]}
    return StoredRun(folder=folder, state=state, problem=problem, **known)


def describe(one: StoredRun) -> dict[str, Any]:
    """A run for a reader: state, cost, results and configuration."""
    known = {"id": one.id, "state": one.state, "cpu_seconds": one.cpu_seconds}
    for path in sorted(one.folder.glob("judged-*.json")):
        found = _read_result(path).metrics
        known[path.stem] = {name: v for name, v in found.items() if not np.isnan(v)}
    return {**known, "config": to_dict(one.config) if one.config else one.problem}


def judged_dataset(config: RunConfig, split: str) -> BoxDataset:
    """The detection set that a run is judged on, drawn anew where its pictures were deleted."""
    prepare(config.data)
    return build.open_split(config.data, split)


def training_dataset(config: RunConfig) -> BoxDataset:
    """The detection set that a run is trained with, drawn anew where its pictures were deleted."""
    prepare(config.data)
    return build.training_dataset(config.data)


def _verdict(config: RunConfig, split: str) -> Path:
    """Where it is kept what a run achieves; elsewhere as soon as real annotations change."""
    state = split_state(config, split)
    return run_folder(config) / f"judged-{split}{'-' * bool(state)}{state}.json"


def _keep_verdict(path: Path, result: EvaluationResult, detections: Detections) -> None:
    """Writes what a run achieves beside it; the numbers last, because they mark it done."""
    columns = {name: own for name, own in vars(detections).items() if name != "masks"}
    # Masks would be most of it, and only boxes are drawn.
    write_atomic(path.with_suffix(".npz"), functools.partial(np.savez_compressed, **columns))
    # What is not a number becomes null.
    write_atomic(path, msgspec.json.format(msgspec.json.encode(result), indent=1))


def _read_verdict(config: RunConfig, split: str) -> Judged:
    folder, path = run_folder(config), _verdict(config, split)
    code = read_description(folder).get("code") or {}
    return Judged(
        config=config,
        result=_read_result(path),
        boxes=path.with_suffix(".npz"),
        history=read_history(folder),
        code=str(code.get("commit") or code.get("version")),
    )


def _read_result(path: Path) -> EvaluationResult:
    try:
        values = json.loads(path.read_bytes())
        metrics = {k: np.nan if v is None else v for k, v in values["metrics"].items()}
        return msgspec.convert({**values, "metrics": metrics}, EvaluationResult, str_keys=True)
    except Exception as error:  # an altered file, too
        raise StoreError(f"{path} is damaged ({error}): delete it, to be judged anew") from error


def _first_phase(config: RunConfig) -> Path:
    """Folder of the run that another one starts from, finished or not."""
    name = config.init.removeprefix(RUN)
    for one in map(entry, _folders(f"{name}-")):
        if run_folder(one.known()) == one.folder:
            return one.folder
    missing = f"{config.name} starts from the run {name}, which is not in the store"
    raise StoreError(f"{missing}: train it first, or ask for both together")


def _last_row(folder: Path) -> Row:
    """What a run's history ends with so far."""
    return [{"step": 0, "cpu_seconds": 0.0}, *read_history(folder)][-1]
