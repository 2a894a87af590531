"""Run the notebooks: parameters are checked first, unchanged notebooks are skipped.

Executed copies go to `notebooks/executed/<profile>/`, cleaned for publication; their metadata
says what they were made from. The sources are never written to.
"""

import hashlib
import json
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

import nbformat
import papermill
from jupyter_client.kernelspec import NoSuchKernel
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillException, PapermillExecutionError

from richsem import paths, provenance
from richsem.processes import kernel_environment
from richsem.workbook import notebook_copy, notebook_source, results
from richsem.workbook.notebook_source import NotebookError

EXECUTED = paths.NOTEBOOKS / "executed"
MAX_BYTES = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Task:
    """One notebook with everything that decides its results."""

    source: Path
    profile: str
    values: Mapping[str, Any]  # of the parameters that differ from the notebook's defaults
    outputs: tuple[Path, ...]
    target: Path
    inputs_hash: str  # of what is known before any notebook runs
    reads: tuple[Path, ...] = ()  # results of other notebooks that decide as well
    minutes: float = 0.0  # with an empty cache, as the source says; 0 if it does not
    fills_cores: bool = False  # it trains runs side by side, so another notebook gains nothing

    @property
    def name(self) -> str:
        """Name without folder and ending, such as `01_long_tail_data`."""
        return self.source.stem

    @property
    def partial(self) -> Path:
        """Where the notebook is kept while it runs, and after a failure."""
        return self.target.with_name(f"{self.name}.partial.ipynb")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a notebook ended: "ran", "skipped" or "failed"."""

    name: str
    status: str
    seconds: float = 0.0


def run_all(
    profile: str,
    *,
    only: Sequence[str] = (),
    overrides: Mapping[str, str] | None = None,
    seeds: int | None = None,
    force: bool = False,
    keep_going: bool = False,
    jobs: int = 1,
    into: Path | None = None,
    sources: Path = paths.NOTEBOOKS,
    executed: Path = EXECUTED,
) -> list[Outcome]:
    """Run notebooks in order and print how it went.

    Args:
        profile: Passed to every notebook as PROFILE.
        only: Beginnings of names; empty for all.
        overrides: Further parameters as text, by name, for the notebooks that have them.
        seeds: SEEDS of the notebooks that have this parameter.
        force: Run also what did not change.
        keep_going: Do not stop at the first failure.
        jobs: Notebooks side by side. While one trains or draws, the next can start; what trains
            has the machine for itself (`store.finish`), and pages wait for all others.
        into: Folder for `figures/` and `notebooks/` of a run on other data or parameters, so that
            it does not replace the project's own results.
        sources: Folder of the source notebooks.
        executed: Folder of the executed copies.

    Raises:
        NotebookError: A notebook or parameter is wrong; nothing was run.
    """
    if seeds is not None and seeds < 1:
        raise NotebookError(f"--seeds is {seeds}; at least one is needed")
    overrides = overrides or {}
    chosen = select(sources, only)
    has = {s: notebook_source.parameters(notebook_source.read(s), s.stem) for s in chosen}
    nowhere = [name for name in overrides if not any(name in known for known in has.values())]
    if nowhere:  # one that some have is theirs; one that none has is a mistake
        notebook_source.checked_value("", nowhere[0], has[chosen[0]], chosen[0].stem)
    code = code_hash()
    figures = into.absolute() / "figures" if into else paths.FIGURES
    copies = into.absolute() / "notebooks" if into else executed
    tasks = [
        plan(source, profile, own, copies / profile, code, figures, seeds=seeds)
        for source, own in (
            (source, {name: text for name, text in overrides.items() if name in has[source]})
            for source in chosen
        )
    ]
    print(forecast([task for task in tasks if force or not is_current(task)], jobs), flush=True)
    outcomes: list[Outcome] = []
    with kernel_environment(figures):
        for wave in ([t for t in tasks if not t.reads], [t for t in tasks if t.reads]):
            if outcomes and outcomes[-1].status == "failed" and not keep_going:
                break
            outdated = {}
            for task in wave:
                label = f"[{tasks.index(task) + 1}/{len(tasks)}] {task.name}"
                if force or not is_current(task):
                    outdated[label] = task
                    continue
                print(f"{label}: unchanged, skipped", flush=True)
                outcomes.append(Outcome(name=task.name, status="skipped"))
            run_wave = _one_by_one if min(jobs, len(outdated)) <= 1 else _side_by_side
            for outcome in run_wave(outdated, jobs):
                outcomes.append(outcome)
                if outcome.status == "failed" and not keep_going:
                    break
    print(summary(outcomes, len(tasks)), flush=True)
    return outcomes


def select(sources: Path, only: Sequence[str]) -> list[Path]:
    """Source notebooks in order, those whose names begin with one of `only`.

    Raises:
        NotebookError: A beginning fits none, or there are no notebooks.
    """
    found = sorted(sources.glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise NotebookError(f"{sources}: no notebooks named NN_topic.ipynb")
    for prefix in only:
        if not any(path.name.startswith(prefix) for path in found):
            names = ", ".join(path.stem for path in found)
            raise NotebookError(f"no notebook begins with {prefix!r}; there are: {names}")
    return [path for path in found if not only or path.name.startswith(tuple(only))]


def plan(
    source: Path,
    profile: str,
    overrides: Mapping[str, str],
    folder: Path,
    code: str,
    figures: Path | None = None,
    *,
    seeds: int | None = None,
) -> Task:
    """Check a notebook and its parameters without running it.

    Raises:
        NotebookError: Names the notebook, the parameter and the valid ones.
    """
    notebook = notebook_source.read(source)
    known = notebook_source.parameters(notebook, source.stem)
    if "PROFILE" in overrides:
        raise NotebookError("choose the profile with --profile; it also decides the folders")
    values = {"PROFILE": profile}
    for key, text in overrides.items():
        values[key] = notebook_source.parse_value(text, known[key]) if key in known else text
    if seeds and "SEEDS" in known:
        values.setdefault("SEEDS", seeds)
    values = {
        key: notebook_source.checked_value(value, key, known, source.stem)
        for key, value in values.items()
    }
    minutes, per_seed, trains = notebook_source.run_minutes(notebook, profile)
    if per_seed and "SEEDS" in known:
        minutes *= values.get("SEEDS", known["SEEDS"].default)
    written = notebook_source.result_ids(notebook, source.stem)
    outputs = [path for name in written for path in results.output_paths(name, profile, figures)]
    is_page = any(name in results.PAGES for name in written)
    state = [notebook, values, code, data_state(values)]
    inputs = json.dumps(state, sort_keys=True, default=str)
    return Task(
        source=source,
        profile=profile,
        values=values,
        outputs=tuple(outputs),
        target=folder / source.name,
        inputs_hash=hashlib.sha256(inputs.encode("utf-8")).hexdigest(),
        reads=tuple(results.records(profile, figures).values()) if is_page else (),
        minutes=minutes,
        fills_cores=trains,
    )


def inputs_now(task: Task) -> str:
    """Hash of all that decides a notebook's results, among it what earlier notebooks wrote."""
    if not task.reads:
        return task.inputs_hash
    digest = hashlib.sha256(task.inputs_hash.encode())
    for path in task.reads:
        content = path.read_bytes() if path.is_file() else b""
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def data_state(values: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """Name, size and time of every annotation file that a parameter points to.

    A parameter may name such a file, or a folder of data sets with the files up to two folders
    deep; changed data then runs a notebook again. Relative paths count from the repository root.
    """
    state = []
    for value in values.values():
        path = paths.ROOT / value if isinstance(value, str) and value else None
        if path is None or not path.exists():
            continue
        depths = () if path.is_file() else ("*.json", "*/*.json", "*/*/*.json")
        files = [path] if path.is_file() else [f for depth in depths for f in path.glob(depth)]
        state += [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in sorted(files)]
    return state


def code_hash() -> str:
    """SHA-256 over the package: every Python file and every data file in it."""
    package = paths.ROOT / "richsem"
    files = [path for kind in ("py", "json", "safetensors") for path in package.rglob(f"*.{kind}")]
    digest = hashlib.sha256()
    for path in sorted(files):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(package).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def forecast(tasks: Sequence[Task], jobs: int = 1) -> str:
    """How long notebooks will take, from what they say about themselves.

    Args:
        tasks: The notebooks.
        jobs: Notebooks side by side; two of those that train no runs share two cores.
    """
    words = f"{len(tasks)} notebook{'s' * (len(tasks) != 1)} to run"
    light = [task.minutes for task in tasks if not task.fills_cores]
    minutes = sum(task.minutes for task in tasks if task.fills_cores)
    minutes += sum(light) / max(min(jobs, 2, len(light)), 1)
    if minutes:
        whole = max(round(minutes), 1)
        words += f": about {whole} minute{'s' * (whole > 1)} on two cores, less where runs and "
        words += "features are kept from before"
    unknown = [task.name for task in tasks if not task.minutes]
    return words + f" (not counted: {', '.join(unknown)})" * bool(unknown)


def is_current(task: Task) -> bool:
    """Whether the executed copy was made from the same inputs and all its results exist."""
    try:
        stamp = notebook_source.read(task.target).metadata.get("richsem", {})
    except NotebookError:
        return False
    same = stamp.get("inputs_hash") == inputs_now(task)
    return same and all(path.is_file() for path in task.outputs)


def run_one(task: Task, label: str, *, progress: bool = True) -> Outcome:
    """Execute one notebook and store the cleaned copy; a failure is explained, not raised."""
    print(f"{label}: running ...", flush=True)
    task.partial.parent.mkdir(parents=True, exist_ok=True)
    started, began = time.perf_counter(), time.time()
    problem = None
    try:
        notebook = _execute(task, label, progress=progress)
        # One second of slack: some file systems store times coarsely.
        missing = [path for path in task.outputs if not _is_newer(path, began - 1)]
        if missing:
            problem = f"{task.name} ended without writing {paths.portable(str(missing[0]))}"
    except PapermillExecutionError as error:
        problem = describe_failure(task, error)
    except (DeadKernelError, NoSuchKernel, PapermillException) as error:
        problem = (
            f"FAILED {task.name}{_last_cell(task.partial)}: {type(error).__name__}: {error}\n"
            "    A kernel that dies without a message has most often run out of memory."
        )
    except KeyboardInterrupt:
        print(
            f"\n{label}: interrupted; partial notebook: {_shown(task.partial)}\n"
            "Notebooks that finished are kept and will be skipped next time.",
            file=sys.stderr,
        )
        raise
    seconds = time.perf_counter() - started
    if problem:
        print(f"\n{problem}\nPartial notebook: {_shown(task.partial)}\n", file=sys.stderr)
        return Outcome(name=task.name, status="failed", seconds=seconds)
    _store(task, notebook, seconds)
    print(f"{label}: done in {seconds:.1f} s", flush=True)
    return Outcome(name=task.name, status="ran", seconds=seconds)


def describe_failure(task: Task, error: PapermillExecutionError) -> str:
    """Notebook, cell, heading and the last lines of the error, as text."""
    where = task.name + _last_cell(task.partial)
    trace = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback)).splitlines()
    lines = trace[-15:] or [f"{error.ename}: {error.evalue}"]
    return f"FAILED {where}\n" + "\n".join(f"    {line}" for line in lines)


def summary(outcomes: Sequence[Outcome], num_tasks: int) -> str:
    """Table of what was run, with a last line on what was not reached."""
    width = max(len(outcome.name) for outcome in outcomes)
    lines = ["", f"{'notebook':<{width}}  {'status':<8}  seconds"]
    lines += [
        f"{outcome.name:<{width}}  {outcome.status:<8}  {outcome.seconds:7.1f}"
        for outcome in outcomes
    ]
    if len(outcomes) < num_tasks:
        left = num_tasks - len(outcomes)
        lines.append(f"{left} not run after the failure; --keep-going runs them all the same")
    return "\n".join(lines)


def _one_by_one(tasks: Mapping[str, Task], jobs: int) -> Iterator[Outcome]:
    for label, task in tasks.items():
        yield run_one(task, label)


def _side_by_side(tasks: Mapping[str, Task], jobs: int) -> Iterator[Outcome]:
    """Outcomes in the order of their ends; who stops asking gets no more notebooks started."""
    waiting, running = list(tasks.items()), set()
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_own_group)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                label, task = waiting.pop(0)
                running.add(pool.submit(run_one, task, label, progress=False))
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    except BrokenProcessPool:
        raise NotebookError(
            "a process that runs notebooks was killed, most often for want of memory; with "
            "--jobs 1 there is only one at a time. Notebooks that finished are kept"
        ) from None
    except KeyboardInterrupt:
        for process in active_children():
            os.kill(process.pid, signal.SIGINT)
        raise
    finally:
        pool.shutdown()


def _own_group() -> None:
    """A key press interrupts the runner alone, which tells its processes once.

    They must hear it even where the runner itself does not: shells start jobs in the background
    with the signal ignored, and processes inherit that.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(os, "setpgrp"):
        os.setpgrp()


def _execute(task: Task, label: str, *, progress: bool) -> nbformat.NotebookNode:
    logging.getLogger("papermill").setLevel(logging.ERROR)  # it repeats what we report
    bar = {"desc": label, "mininterval": 0.1 if sys.stderr.isatty() else 10.0, "leave": False}
    return papermill.execute_notebook(
        str(task.source),
        str(task.partial),
        parameters=dict(task.values),
        kernel_name="python3",
        progress_bar=bar if progress else False,
        cwd=str(task.source.parent),  # as in Jupyter
        # ipykernel warns on every start (no encryption) and at every failing cell (interrupted).
        extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
    )


def _store(task: Task, notebook: nbformat.NotebookNode, seconds: float) -> None:
    """Write the executed copy with its provenance and remove the partial one."""
    notebook.metadata["richsem"] = provenance.without_machine_paths(
        {
            "inputs_hash": inputs_now(task),
            "profile": task.profile,
            "parameters": dict(task.values),
            "code": provenance.code_version(),
            "environment": provenance.environment(),
            "seconds": round(seconds, 1),
        }
    )
    text = nbformat.writes(notebook_copy.clean(notebook)) + "\n"
    size = len(text.encode("utf-8"))
    if size > MAX_BYTES:
        print(f"WARNING {task.name}: executed copy has {size / 1e6:.1f} MB, over 1 MB")
    paths.write_atomic(task.target, text)
    task.partial.unlink(missing_ok=True)


def _last_cell(partial: Path) -> str:
    """Where the run ended: number of the cell in the source and the heading above it."""
    try:
        notebook = notebook_source.read(partial)
    except NotebookError:
        return ""  # the kernel never started
    started = [i for i, cell in enumerate(notebook.cells) if _has_run(cell)]
    # Papermill has put its own cells in: marks around an error, and the injected parameters.
    own = {"papermill-error-cell-tag", "injected-parameters"}
    last = max(started, default=0)
    number = sum(
        not own & set(cell.metadata.get("tags", [])) for cell in notebook.cells[: last + 1]
    )
    heading = notebook_source.heading_above(notebook, last)
    return f", cell {number}" + (f', under "{heading}"' if heading else "")


def _has_run(cell: nbformat.NotebookNode) -> bool:
    return bool(cell.metadata.get("papermill", {}).get("start_time"))


def _is_newer(path: Path, moment: float) -> bool:
    return path.is_file() and path.stat().st_mtime >= moment


def _shown(path: Path) -> str:
    return paths.portable(str(path))
