"""Every notebook runs at the smallest profile, its exercises are judged by their own checks.

One execution serves both: behind each check, which the runner meets unanswered, stand the solution
and an answer that is wrong in the way of its kind, each with the check again.
"""

import signal
import threading
from unittest import mock

import matplotlib
import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell

from richsem import paths
from richsem.workbook import editions, notebook_files, runner

SOURCES = sorted(paths.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
EARLY = "05_semantics_and_losses"  # in every test run, the others with the slow tests
SPOILT = """
def spoilt(value):
    if type(value) in (list, tuple, dict):
        return type(value)()
    try:
        return "no" if isinstance(value, str) else 1.7 * value + 1
    except TypeError:
        return object()

answer = spoilt(answer)
"""


def early_or_slow(path):
    marks = () if path.stem == EARLY else pytest.mark.slow
    return pytest.param(path, id=path.stem, marks=marks)


@pytest.fixture
def patience(monkeypatch):
    """After ten minutes, processes below this one say where they hang, and end."""

    def abort():
        for child in psutil.Process().children(recursive=True):
            child.send_signal(signal.SIGABRT)

    monkeypatch.setenv("PYTHONFAULTHANDLER", "1")
    timer = threading.Timer(600, abort)
    timer.start()
    yield
    timer.cancel()


def test_the_first_picture_of_all_waits_for_no_data(monkeypatch):
    monkeypatch.setattr("richsem.workbook.notebook_data.prepare", None)  # which would draw them
    names, shown = {}, mock.Mock()
    with matplotlib.rc_context():
        for cell in notebook_files.read(SOURCES[0]).cells:
            if cell.cell_type == "code" and not shown.called:
                exec(cell.source, names)
                names["show_figure"] = shown
    (fig,), _ = shown.call_args
    assert len(fig.axes) == 4 and all(ax.images for ax in fig.axes)


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("path", [early_or_slow(path) for path in SOURCES])
def test_runs_at_smoke_and_takes_solutions_and_no_spoilt_ones(path, tmp_path, monkeypatch, capfd):
    for variable in ("OMP_NUM_THREADS", "RICHSEM_FIGURES"):  # as for a user
        monkeypatch.delenv(variable, raising=False)
    exercises = with_answers(path, tmp_path / "notebooks")
    monkeypatch.setattr("richsem.paths.NOTEBOOKS", tmp_path / "notebooks")

    parameters = notebook_files.parameters(notebook_files.read(path), path.stem)
    # Labs train three; two are enough for intervals.
    seeds = 2 if "SEEDS" in parameters and parameters["SEEDS"].default > 2 else None
    outcomes = runner.run_all("smoke", only=[path.stem], seeds=seeds, into=tmp_path / "into")

    assert [outcome.status for outcome in outcomes] == ["ran"], capfd.readouterr().err
    copy = tmp_path / "into" / "notebooks" / "smoke" / path.name
    assert copy.stat().st_size <= runner.MAX_BYTES
    cells = nbformat.read(copy, as_version=4).cells
    shown = [one for cell in cells for one in cell.get("outputs", ()) if "data" in one]
    pictures = [(one, kind) for one in shown for kind in one.data if kind.startswith("image/")]
    assert all(one.metadata.get(kind, {}).get("alt") for one, kind in pictures)
    points = {cell.id: points_of(cell) for cell in cells}
    for exercise in exercises:
        check = exercise.check.id
        assert [points[check + end] for end in ("", "-solved", "-spoilt")] == ["0", "1", "0"]


def with_answers(path, folder):
    """Write a notebook with answers behind its unanswered exercises, which are returned."""
    notebook = notebook_files.read(path)
    exercises = editions.exercises(notebook, path.stem)
    answers = {exercise.check.id: exercise.code for exercise in exercises}
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        if cell.id in answers:
            for end, code in (("-solved", answers[cell.id]), ("-spoilt", SPOILT)):
                cells.append(new_code_cell(f"{code}\n{cell.source}", id=cell.id + end))
    notebook.cells = cells
    folder.mkdir()
    nbformat.write(notebook, folder / path.name)
    return exercises


def points_of(cell):
    """What nbgrader reads: the value of the cell."""
    values = [one for one in cell.get("outputs", ()) if one.output_type == "execute_result"]
    return values[-1].data["text/plain"] if values else None
