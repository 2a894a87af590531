"""Editions for a class: students see no solution, and nbgrader knows the cells of an exercise."""

import re
from copy import deepcopy

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from richsem import paths
from richsem.workbook import editions, notebook_files
from richsem.workbook.notebook_files import NotebookError

SOURCES = sorted(paths.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
SOLVED = re.compile(r"\n### BEGIN SOLUTION\n.*?\n### END SOLUTION", re.DOTALL)


def nbgrader_problems(notebook):
    """What nbgrader's format 3 would refuse, restated: it need not be installed."""
    kinds = {"grade": bool, "solution": bool, "locked": bool, "task": bool, "schema_version": int}
    kinds |= {"grade_id": str, "points": int, "cell_type": str}
    needed = {"schema_version", "grade", "locked", "solution", "grade_id"}
    cells = [cell for cell in notebook.cells if "nbgrader" in cell.metadata]
    ids = [cell.metadata.nbgrader.get("grade_id") for cell in cells]
    for cell in cells:
        marks = cell.metadata.nbgrader
        if not needed <= set(marks) <= set(kinds):
            yield f"{cell.id}: fields {sorted(marks)}"
        yield from (
            f"{cell.id}: {name} is {value!r}"
            for name, value in marks.items()
            if not isinstance(value, kinds[name])
        )
        if marks["schema_version"] != 3 or marks["cell_type"] != cell.cell_type:
            yield f"{cell.id}: another version or kind of cell"
        if marks["grade"] != ("points" in marks) or ids.count(marks["grade_id"]) > 1:
            yield f"{cell.id}: points without a grade, or an id twice"
        if not re.fullmatch(r"[a-zA-Z0-9_\-]+", marks["grade_id"]):
            yield f"{cell.id}: an id of other characters"


def told_lines(exercise, text):
    """Lines of a solution that a text holds, but for brackets and for what everybody is given."""
    lines = map(str.strip, exercise.code.splitlines())
    return [x for x in lines if len(x) > 20 and x in text and x not in exercise.answer.source]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_both_editions_are_valid_and_differ_by_what_solves(path):
    source = notebook_files.read(path)
    before = deepcopy(source)
    student, teacher = (editions.make_edition(source, e, path.stem) for e in ("student", "teacher"))
    assert source == before
    for notebook in (student, teacher):
        nbformat.validate(notebook)
        assert list(nbgrader_problems(notebook)) == []
    text = "\n".join(cell.source for cell in student.cells)
    found = editions.exercises(source, path.stem)
    for exercise in found:
        assert exercise.code not in exercise.answer.source and told_lines(exercise, text) == []
        assert exercise.code in next(c for c in teacher.cells if c.id == exercise.answer.id).source
    # What nbgrader clears of the teacher's answers leaves the student's.
    for cell in teacher.cells:
        cell.source = SOLVED.sub("", cell.source)
    kept = [cell for cell in teacher.cells if "solution" not in cell.metadata.get("tags", [])]
    assert kept == student.cells
    marked = [cell for cell in student.cells if "nbgrader" in cell.metadata]
    assert len(marked) == 2 * len(found)


def toy(answer="answer = None", solution="```python\nanswer = 3\n```", tags=("check", "solution")):
    cells = [
        new_markdown_cell("**1, compute.** What?", id="x"),
        new_code_cell(answer, id="xa", metadata={"tags": ["answer"]}),
        new_code_cell("check(f, answer)", id="xc", metadata={"tags": [tags[0]]}),
        new_markdown_cell(solution, id="xs", metadata={"tags": [tags[1]]}),
    ]
    return new_notebook(cells=cells)


@pytest.mark.parametrize(
    "wrong", [{"solution": "just three"}, {"tags": ("solution", "check")}, {"tags": ("check", "a")}]
)
def test_an_exercise_that_is_not_whole_is_named(wrong):
    with pytest.raises(NotebookError, match=r"toy, cell xa: an answer stands between"):
        editions.make_edition(toy(**wrong), "student", "toy")


def test_an_edition_comes_with_the_page_of_the_course(tmp_path):
    nbformat.write(toy(), tmp_path / "99_toy.ipynb")
    files = editions.edition_files([tmp_path / "99_toy.ipynb"], "teacher")
    assert list(files) == ["README.md", "99_toy.ipynb"]
    answer = nbformat.reads(files["99_toy.ipynb"], as_version=4).cells[1]
    assert answer.source == f"answer = None\n{editions.BEGIN}\nanswer = 3\n{editions.END}"
