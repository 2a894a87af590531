"""Notebooks as a class gets them: for students without solutions, for teachers with answers solved.

Exercises and their solutions stand in the source notebooks and nowhere else. Both editions have the
metadata by which nbgrader knows the cells of an exercise; `notebooks/README.md` says how a class is
graded with it.
"""

import re
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import Literal, NamedTuple

import nbformat
from nbformat import NotebookNode

from richsem import paths
from richsem.workbook import notebook_files

Edition = Literal["student", "teacher"]

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"  # nbgrader clears what is between them
_CODE = {"schema_version": 3, "task": False, "cell_type": "code"}
ANSWER = {**_CODE, "grade": False, "solution": True, "locked": False}
CHECK = {**_CODE, "grade": True, "solution": False, "locked": True, "points": 1}


class Exercise(NamedTuple):
    """The cells of an exercise, one below the other, and the code of its solution."""

    question: NotebookNode
    answer: NotebookNode
    check: NotebookNode
    solution: NotebookNode
    code: str


def edition_files(sources: Iterable[Path], edition: Edition) -> dict[str, str]:
    """The notebooks of an edition and the page of the course, by the names of their files."""
    files = {"README.md": (paths.NOTEBOOKS / "README.md").read_text(encoding="utf-8")}
    for source in sources:
        notebook = make_edition(notebook_files.read(source), edition, source.stem)
        files[source.name] = nbformat.writes(notebook) + "\n"
    return files


def make_edition(notebook: NotebookNode, edition: Edition, name: str) -> NotebookNode:
    """A copy of a notebook: for students without solutions, for teachers with solved answers."""
    notebook = deepcopy(notebook)
    for exercise in exercises(notebook, name):
        for cell, marks in ((exercise.answer, ANSWER), (exercise.check, CHECK)):
            cell.metadata["nbgrader"] = {**marks, "grade_id": cell.id}
        if edition == "teacher":
            exercise.answer.source += f"\n{BEGIN}\n{exercise.code}\n{END}"
    if edition == "student":
        notebook.cells = [cell for cell in notebook.cells if "solution" not in _tags(cell)]
    return notebook


def exercises(notebook: NotebookNode, name: str) -> list[Exercise]:
    """The exercises of a source notebook; a `NotebookError` names an answer without the rest."""
    found = []
    for place, cell in enumerate(notebook.cells):
        if "answer" in _tags(cell):
            four = notebook.cells[place - 1 : place + 3]
            code = re.findall(r"^```python\n(.*?)\n```$", four[-1].source, re.DOTALL | re.MULTILINE)
            if [*map(_tags, four)] != [[], ["answer"], ["check"], ["solution"]] or len(code) != 1:
                raise notebook_files.NotebookError(
                    f"{name}, cell {cell.id}: an answer stands between its question and cells "
                    'tagged "check" and "solution", the latter with one python block'
                )
            found.append(Exercise(*four, code=code[0]))
    return found


def _tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])
