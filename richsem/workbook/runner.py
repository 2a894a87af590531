"""Run the notebooks: parameters are checked first, unchanged notebooks are skipped.

What the notebooks will ask of the run store is trained before any of them starts. Executed copies
are cleaned for publication; their metadata says what they were made from. The sources are never
written to.
"""

import functools
import gc
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
from itertools import chain
from multiprocessing import active_children, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import papermill
from jupyter_client.kernelspec import NoSuchKernel
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillException, PapermillExecutionError

from richsem import kept, paths, provenance
from richsem.config import config_hash
from richsem.processes import GARBAGE_AFTER, end_with, environment
from richsem.workbook import notebook_files, reproduced, results
from richsem.workbook.notebook_files import NotebookError, Parameter

_FIRST = f"__import__('gc').set_threshold({GARBAGE_AFTER})"  # leaves no name behind
MAX_BYTES = 1_250_000  # of an executed copy; pages of two notebooks with explorers need it


@dataclass(frozen=True, kw_only=True)
class Task:
    """One notebook with everything that decides its results."""

    source: Path
    parameters: Mapping[str, Parameter]
    values: Mapping[str, Any]  # of those that it is run with instead of their defaults
    made_from: tuple[str, ...]  # what is known before any notebook runs
    target: Path
    outputs: tuple[Path, ...]
    reads: tuple[Path, ...]  # results of other notebooks that decide as well
    minutes: float | None  # with an empty cache; None if not declared

    @property
    def name(self) -> str:
        """Name without folder and ending, such as `01_long_tail_data`."""
        return self.source.stem

    @property
    def partial(self) -> Path:
        """Where the notebook is kept while it runs, and after a failure."""
        return self.target.with_name(f"{self.name}.partial.ipynb")

    @property
    def runs(self) -> list[Any]:
        """The configurations of what it will ask of the run store."""
        if self.name not in results.NOTEBOOKS:
            return []
        from richsem.workbook import studies  # takes seconds, and every process starts here

        defaults = {name: parameter.default for name, parameter in self.parameters.items()}
        return studies.runs_of(self.name, defaults | self.values)


class Outcome(NamedTuple):
    """How a notebook ended."""

    name: str
    status: str  # "ran", "skipped" or "failed"
    seconds: float = 0.0


def run_all(
    profile: str,  # passed to every notebook as PROFILE
    *,
    only: Sequence[str] = (),  # beginnings of names; empty for all
    overrides: Mapping[str, str] | None = None,  # parameters as text, for those that have them
    seeds: int | None = None,  # SEEDS of the notebooks that have this parameter
    force: bool = False,  # run also what did not change
    keep_going: bool = False,  # do not stop at the first failure
    jobs: int = 1,  # notebooks side by side; pages wait for all others
    # Folder for `figures/` and `notebooks/` of a run on other data or parameters, so that it does
    # not replace the user's other results.
    into: Path | None = None,
    ship: bool = False,  # replace what the project ships, which lies apart from what a user makes
) -> list[Outcome]:
    """Run notebooks in order and print how it went.

    Raises:
        NotebookError: A notebook or parameter is wrong; nothing was run.
        OSError: Results cannot be written where they would go; nothing was run.
        ValueError: Runs that notebooks need could not be trained; no notebook was run.
    """
    for name, number in {"seeds": seeds, "jobs": jobs}.items():
        if number is not None and number < 1:
            raise NotebookError(f"--{name} is {number}; at least one is needed")
    if "" in only:  # a variable that was not set, not all notebooks
        raise NotebookError("--only is empty; give the beginnings of notebooks' names")
    if into and ship:
        raise NotebookError("--ship and --into name two places for the same results; choose one")
    overrides = overrides or {}
    if seeds is not None and "SEEDS" in overrides:
        raise NotebookError("--seeds and the parameter SEEDS are the same: leave one out")
    if "PROFILE" in overrides:
        raise NotebookError("choose the profile with --profile; it also decides the folders")
    figures, copies = paths.FIGURES, paths.EXECUTED
    if into:
        figures, copies = into.absolute() / "figures", into.absolute() / "notebooks"
    elif ship:
        figures, copies = paths.SHIPPED, paths.NOTEBOOKS / "shipped"
    sources = select(only)
    path_state.cache_clear()
    given = dict(overrides) if seeds is None else {**overrides, "SEEDS": str(seeds)}
    tasks = [plan(source, profile, given, figures, copies) for source in sources]
    for name in given:  # one that some have is theirs; one that none has is a mistake
        if not any(name in task.parameters for task in tasks):
            notebook_files.checked_value("", name, tasks[0].parameters, tasks[0].name)
    to_run = [task for task in tasks if force or not is_current(task)]
    for place in chain.from_iterable((task.target, *task.outputs) for task in to_run):
        (paths.check_own if into else paths.check_writable)(place)  # not after hours of training
    for task in to_run:
        if task.target.exists() and not _stamp(task.target):
            raise NotebookError(
                f"{task.target} exists and was not written by this program: name another folder "
                "(--into) or move it"
            )
    print(forecast(to_run), flush=True)
    with environment(RICHSEM_FIGURES=str(figures)):
        train(to_run, keep_going=keep_going)
        outcomes = _run_in_waves(tasks, force=force, keep_going=keep_going, jobs=jobs)
    print(summary(outcomes, len(tasks)), flush=True)
    if words := reproduced.in_words(reproduced.compared(profile, figures)):
        print(words, flush=True)
    return outcomes


def select(only: Sequence[str]) -> list[Path]:
    """Source notebooks in order, those whose names begin with one of `only`.

    Without any, all but those that run only where they are asked for.
    """
    found = notebook_files.sources()
    for prefix in only:
        if not any(path.name.startswith(prefix) for path in found):
            names = ", ".join(path.stem for path in found)
            raise NotebookError(f"no notebook begins with {prefix!r}; there are: {names}")
    if only:
        return [path for path in found if path.name.startswith(tuple(only))]
    asked = {name for name, what in results.NOTEBOOKS.items() if what.asked}
    return [path for path in found if path.stem not in asked]


def plan(
    source: Path, profile: str, overrides: Mapping[str, str], figures: Path, copies: Path
) -> Task:
    """Check a notebook and those of the parameters that it has, without running it."""
    notebook = notebook_files.read(source)
    parameters = notebook_files.parameters(notebook, source.stem)
    values: dict[str, Any] = {"PROFILE": profile}
    own = [key for key in overrides if key in parameters]
    values |= {key: notebook_files.parse_value(overrides[key], parameters[key]) for key in own}
    for key, value in values.items():
        values[key] = notebook_files.checked_value(value, key, parameters, source.stem)
    data = [path_state(path) for path in notebook_files.named_places(values)]
    declared = results.NOTEBOOKS.get(source.stem, results.Notebook())
    minutes = {"smoke": declared.smoke, "demo": declared.demo}.get(profile)
    if minutes and profile == "demo" and declared.per_seed:
        seeds, most = (
            values.get(name, parameters[name].default if name in parameters else 0)
            for name in ("SEEDS", "DECIDING_SEEDS")
        )
        minutes = minutes * seeds + declared.deciding * max(0, most - seeds)
    # What only installs the project decides no result.
    notebook.cells = [c for c in notebook.cells if "install" not in c.metadata.get("tags", [])]
    outputs = [results.output_paths(name, profile, figures) for name in declared.results]
    roots = dict.fromkeys([figures, paths.SHIPPED]) if declared.pages else ()
    read = results.writers("figure", "table")
    reads = [results.output_paths(name, profile, root)[-1] for root in roots for name in read]
    return Task(
        source=source,
        parameters=parameters,
        values=values,
        made_from=(json.dumps([notebook, values], sort_keys=True), *data),
        target=copies / profile / source.name,
        outputs=tuple(chain.from_iterable(outputs)),
        reads=tuple(reads),
        minutes=minutes,
    )


@functools.cache
def path_state(path: Path) -> str:
    """State of a file, or of all files below a folder: annotations as well as pictures.

    The cache does not count where it lies inside: the library makes it anew by itself.
    """
    files = [path] if path.is_file() else sorted(kept.files_below(path))
    return kept.files_state(file for file in files if paths.CACHE not in file.parents)


def inputs_now(task: Task) -> str:
    """Key of all that decides a notebook's results, among it what earlier notebooks wrote."""
    contents = [path.read_bytes() if path.is_file() else b"" for path in task.reads]
    read = [hashlib.sha256(content).hexdigest() for content in contents]
    return kept.key(*task.made_from, *read, trace=kept.SECTIONS)


def is_current(task: Task) -> bool:
    """Whether the executed copy was made from the same inputs and all its results exist."""
    same = _stamp(task.target).get("inputs_hash") == inputs_now(task)
    return same and all(path.is_file() for path in task.outputs)


def _stamp(copy: Path) -> Mapping[str, Any]:
    """What an executed copy says of how it was made; empty if it is none."""
    try:
        return notebook_files.read(copy).metadata.get("richsem", {})
    except NotebookError:
        return {}


def forecast(tasks: Sequence[Task]) -> str:
    """How long notebooks will take at most, from what was declared about them."""
    words = f"{len(tasks)} notebook{'s' * (len(tasks) != 1)} to run"
    minutes = sum(task.minutes or 0 for task in tasks)
    if minutes:
        words += f": at most about {minutes:.0f} minute{'s' * (minutes > 1)} on two cores, less "
        words += "side by side and where runs and features are kept from before"
    unknown = [task.name for task in tasks if task.minutes is None]
    return words + f" (not counted: {', '.join(unknown)})" * bool(unknown)


def train(tasks: Sequence[Task], *, keep_going: bool) -> None:
    """Train what notebooks will ask for, all at once, so that they need not wait for each other.

    With `keep_going`, what cannot be trained is printed, and left to the notebooks that ask for it.
    """
    runs = list(dict.fromkeys(run for task in tasks for run in task.runs))
    if not runs:
        return
    from richsem.operations import store

    try:
        for task in tasks:  # it is judged by what it asks for after hours of training
            for run in task.runs if "SPLIT" in task.values else ():
                store.split_state(run, task.values["SPLIT"])
        store.finish(runs)
    except ValueError as error:
        if not keep_going:
            raise
        print(f"error: {error}", file=sys.stderr)


def run_one(task: Task, label: str, *, progress: bool = True) -> Outcome:
    """Execute one notebook and store the cleaned copy; a failure is explained, not raised."""
    print(f"{label}: running ...", flush=True)
    task.partial.parent.mkdir(parents=True, exist_ok=True)
    partial = paths.portable(str(task.partial))
    began, problem = time.time(), ""
    try:
        notebook = _execute(task, label, progress=progress)
        # One second of slack: some file systems store times coarsely.
        old = [p for p in task.outputs if not p.is_file() or p.stat().st_mtime < began - 1]
        if old:
            problem = f"{task.name} ended without writing {paths.portable(str(old[0]))}"
    except PapermillExecutionError as error:
        trace = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback)).splitlines()
        lines = trace[-15:] or [f"{error.ename}: {error.evalue}"]
        problem = "\n    ".join([f"FAILED {task.name}{_last_cell(task.partial)}", *lines])
    except (DeadKernelError, NoSuchKernel, PapermillException) as error:
        problem = (
            f"FAILED {task.name}{_last_cell(task.partial)}: {type(error).__name__}: {error}\n"
            "    A kernel that dies without a message has most often run out of memory."
        )
    except KeyboardInterrupt:
        print(
            f"\n{label}: interrupted; partial notebook: {partial}\n"
            "Notebooks that finished are kept and will be skipped next time.",
            file=sys.stderr,
        )
        raise
    seconds = time.time() - began
    if problem:
        print(f"\n{problem}\nPartial notebook: {partial}\n", file=sys.stderr)
        return Outcome(task.name, "failed", seconds)
    _store(task, notebook, seconds)
    print(f"{label}: done in {seconds:.1f} s", flush=True)
    return Outcome(task.name, "ran", seconds)


def summary(outcomes: Sequence[Outcome], num_tasks: int) -> str:
    """Table of what was run, with a last line on what was not reached."""
    width = max(len(one.name) for one in outcomes)
    lines = ["", f"{'notebook':<{width}}  {'status':<8}  seconds"]
    lines += [f"{one.name:<{width}}  {one.status:<8}  {one.seconds:7.1f}" for one in outcomes]
    left = num_tasks - len(outcomes)
    words = f"{left} not run after the failure; --keep-going runs them all the same"
    return "\n".join(lines + [words] * (left > 0))


def _run_in_waves(
    tasks: Sequence[Task], *, force: bool, keep_going: bool, jobs: int
) -> list[Outcome]:
    """Run what is not current; pages, which read the results of others, come last."""
    outcomes: list[Outcome] = []
    for wave in ([t for t in tasks if not t.reads], [t for t in tasks if t.reads]):
        outdated = {}
        for task in wave:
            label = f"[{tasks.index(task) + 1}/{len(tasks)}] {task.name}"
            if force or not is_current(task):
                outdated[label] = task
                continue
            print(f"{label}: unchanged, skipped", flush=True)
            outcomes.append(Outcome(task.name, "skipped"))
        one_by_one = (run_one(task, label) for label, task in outdated.items())
        few = min(jobs, len(outdated)) <= 1
        for outcome in one_by_one if few else _side_by_side(outdated, jobs):
            outcomes.append(outcome)
            if outcome.status == "failed" and not keep_going:
                return outcomes
    return outcomes


def _side_by_side(tasks: Mapping[str, Task], jobs: int) -> Iterator[Outcome]:
    """Outcomes in the order of their ends; who stops asking gets no more notebooks started."""
    waiting, running = longest_first(tasks), set()
    context = get_context("spawn")
    lifeline, held = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(jobs, context, _own_group, (lifeline,))
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                label = waiting.pop(0)
                running.add(pool.submit(run_one, tasks[label], label, progress=False))
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
        held.close()


def longest_first(tasks: Mapping[str, Task]) -> list[str]:
    """Labels of notebooks so that none is left alone at the end; those whose runs are kept last."""

    def turn(label: str) -> tuple[bool, float]:
        task = tasks[label]
        return bool(task.runs), -(task.minutes or 0)  # what it asks for was trained before

    return sorted(tasks, key=turn)


def _own_group(lifeline: Connection) -> None:
    """A key press interrupts the runner alone, which tells its processes once.

    They must hear it even where the runner itself does not: shells start jobs in the background
    with the signal ignored, and processes inherit that. Killed, the runner tells nobody.
    """
    gc.set_threshold(GARBAGE_AFTER)
    end_with(lifeline)
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
        extra_arguments=["--IPKernelApp.log_level=CRITICAL", f"--IPKernelApp.exec_lines={_FIRST}"],
    )


def _store(task: Task, notebook: nbformat.NotebookNode, seconds: float) -> None:
    """Write the executed copy with its provenance and remove the partial one.

    The AP of every run behind it, under the name that results give the run, lets a test compare
    copies that show the same run.
    """
    from richsem.operations import store

    runs = store.finished({f"{run.name}-{config_hash(run)}": run for run in task.runs})
    achieved = {name: round(100 * run.result.metrics["AP"], 2) for name, run in runs.items()}
    notebook.metadata["richsem"] = provenance.without_machine_paths(
        {
            "inputs_hash": inputs_now(task),
            "profile": task.values["PROFILE"],
            "parameters": dict(task.values),
            "code": provenance.code_version(),
            "environment": provenance.environment(),
            "seconds": round(seconds, 1),
            "runs": achieved,
        }
    )
    text = nbformat.writes(notebook_files.clean(notebook)) + "\n"
    size = len(text.encode("utf-8"))
    if size > MAX_BYTES:
        print(f"WARNING {task.name}: executed copy has {size / 1e6:.1f} MB, over 1 MB")
    paths.write_noted(task.target, text)
    task.partial.unlink(missing_ok=True)


def _last_cell(partial: Path) -> str:
    """Where the run ended: number of the cell in the source and the heading above it."""
    try:
        notebook = notebook_files.read(partial)
    except NotebookError:
        return ""  # the kernel never started
    cells = notebook.cells
    begun = [cell.metadata.get("papermill", {}).get("start_time") for cell in cells]
    # Papermill has put its own cells in: marks around an error, and the injected parameters.
    own = {"papermill-error-cell-tag", "injected-parameters"}
    last = max((i for i, time in enumerate(begun) if time), default=0)
    number = sum(not own & set(cell.metadata.get("tags", [])) for cell in cells[: last + 1])
    texts = [cell.source for cell in cells[: last + 1] if cell.cell_type == "markdown"]
    headings = re.findall(r"^#+ *(.*)", "\n".join(texts), re.MULTILINE)
    return f", cell {number}" + (f', under "{headings[-1].strip()}"' if headings else "")
