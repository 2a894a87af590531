"""Exercises: three in every notebook, whole, and judged by their own checks; the course's page."""

import ast
import re
from importlib import import_module

import nbformat
import papermill
import pytest
from nbformat.v4 import new_code_cell

from richsem import paths
from richsem.workbook import editions, notebook_files, results

SOURCES = sorted(paths.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
COURSE = (paths.NOTEBOOKS / "README.md").read_text(encoding="utf-8")
KINDS = ("compute", "change", "argue")
EARLY = "05_semantics_and_losses"  # solved in every test run, the others with the slow tests
# An answer that is wrong in the way of its kind.
SPOILT = """
def spoilt(value):
    if isinstance(value, (list, tuple, dict)):
        return type(value)()
    try:
        return "no" if isinstance(value, str) else 1.7 * value + 1
    except TypeError:
        return object()
"""


def exercises_of(path):
    return editions.exercises(notebook_files.read(path), path.stem)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_each_exercise_has_its_question_answer_check_and_solution(path):
    found = exercises_of(path)
    assert len(found) == len(KINDS)
    cells = notebook_files.read(path).cells
    assert any(re.search(r"^## Exercises$", cell.source, re.MULTILINE) for cell in cells)
    for place, (kind, exercise) in enumerate(zip(KINDS, found, strict=True), 1):
        ids = [cell.id for cell in exercise[:4]]
        assert ids == [f"{path.stem[:2]}-e{place}{end}" for end in ("", "a", "c", "s")]
        assert f"**{place}, {kind}.** " in exercise.question.source
        assert "answer" in assigned(exercise.answer.source) & assigned(exercise.code)
        last = ast.parse(exercise.check.source).body[-1]  # its value is what nbgrader reads
        assert isinstance(last, ast.Expr) and ast.unparse(last).startswith("check(")
        assert exercise.solution.source.startswith("<details><summary>Solution</summary>\n\n")
        assert exercise.solution.source.endswith("</details>")


def assigned(code):
    """Names that some code sets."""
    nodes = ast.walk(ast.parse(code))
    return {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def early_or_slow(path):
    marks = () if path.stem == EARLY else pytest.mark.slow
    return pytest.param(path, id=path.stem, marks=marks)


@pytest.mark.parametrize("path", [early_or_slow(path) for path in SOURCES])
def test_checks_take_solutions_and_no_spoilt_ones(path, tmp_path, monkeypatch):
    found = exercises_of(path)
    monkeypatch.setenv("RICHSEM_FIGURES", str(tmp_path))
    notebook = editions.make_edition(notebook_files.read(path), "teacher", path.stem)
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        if "check" in cell.metadata.get("tags", []):
            spoil = f"{SPOILT}\nanswer = spoilt(answer)\n{cell.source}"
            cells.append(new_code_cell(spoil, id=f"{cell.id}-spoilt"))
    notebook.cells = cells
    file, done = tmp_path / path.name, tmp_path / "done.ipynb"
    nbformat.write(notebook, file)
    options = {"kernel_name": "python3", "progress_bar": False, "cwd": str(paths.NOTEBOOKS)}
    papermill.execute_notebook(str(file), str(done), {"PROFILE": "smoke"}, **options)
    points = {cell.id: points_of(cell) for cell in nbformat.read(done, as_version=4).cells}
    ids = [exercise.check.id for exercise in found]
    assert {one: points[one] for one in ids} == dict.fromkeys(ids, "1")
    assert {one: points[f"{one}-spoilt"] for one in ids} == dict.fromkeys(ids, "0")


def points_of(cell):
    """What nbgrader reads: the value of the cell."""
    values = [one for one in cell.get("outputs", ()) if one.output_type == "execute_result"]
    return values[-1].data["text/plain"] if values else None


# --- the page of the course -----------------------------------------------------------------------


def test_the_course_leads_to_every_notebook_with_its_times():
    rows = re.findall(r"^\| \[(\d\d)\]\((\w+)\.ipynb\) \| .* \| (\d+) \| (.*) \|$", COURSE, re.M)
    assert [name for _, name, _, _ in rows] == [path.stem for path in SOURCES]
    for number, name, reading, run in rows:
        declared = results.NOTEBOOKS[name]
        assert run == f"{declared.demo:g}" + " per seed" * declared.per_seed
        first = notebook_files.read(paths.NOTEBOOKS / f"{name}.ipynb").cells[0].source
        stated = re.search(r"\| reading \| about (\d+) minutes", first)
        assert name.startswith(number) and (stated is None or stated[1] == reading), name


def test_names_of_the_glossary_are_those_of_the_code():
    glossary = COURSE.split("## Glossary")[1].split("\n## ")[0]
    names = re.findall(r"`richsem\.([\w.]+)`", glossary)
    assert len(names) > 20
    for name in names:
        parts = name.split(".")
        module, place = len(parts) - 1, None
        while place is None:  # a function of a module, or a method of a class of one
            try:
                place = import_module(".".join(["richsem", *parts[:module]]))
            except ModuleNotFoundError:
                module -= 1
        for part in parts[module:]:
            place = getattr(place, part)
