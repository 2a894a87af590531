"""What a class is given: the notebooks for students or for their teacher, slides, a site.

Exercises and their solutions stand in the source notebooks and nowhere else. Both editions have the
metadata by which nbgrader knows the cells of an exercise; `notebooks/README.md` says how a class is
graded with it.
"""

import re
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Literal, NamedTuple

import nbformat
from nbformat import NotebookNode

from richsem import paths
from richsem.workbook import notebook_files, runner
from richsem.workbook.figures import pages
from richsem.workbook.notebook_files import NotebookError

Edition = Literal["student", "teacher"]

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"  # nbgrader clears what is between them
_CODE = {"schema_version": 3, "task": False, "cell_type": "code"}
ANSWER = {**_CODE, "grade": False, "solution": True, "locked": False}
CHECK = {**_CODE, "grade": True, "solution": False, "locked": True, "points": 1}
EXECUTED = paths.NOTEBOOKS / "shipped" / "demo"


class Exercise(NamedTuple):
    """The cells of an exercise, one below the other, and the code of its solution."""

    question: NotebookNode
    answer: NotebookNode
    check: NotebookNode
    solution: NotebookNode
    code: str


def write(
    folder: Path,
    edition: Edition | None,
    *,
    site: bool,
    slides: bool,
    only: Sequence[str],  # beginnings of names; empty for all notebooks
) -> list[Path]:
    """Writes what is asked for into a folder; returns the files.

    Raises:
        NotebookError: Nothing is asked for, a notebook is missing, or an exercise is not whole.
        OSError: A file in the way was not written by this program. Nothing was written.
    """
    if not (edition or site or slides):
        raise NotebookError("say what to write: --edition student or teacher, --slides, --site")
    sources, files = runner.select(only), {}
    if edition:
        files["README.md"] = (paths.NOTEBOOKS / "README.md").read_bytes()
        for source in sources:
            notebook = make_edition(notebook_files.read(source), edition, source.stem)
            files[source.name] = nbformat.writes(notebook) + "\n"
    if site or slides:
        copies = [EXECUTED / source.name for source in sources]
        copies = [copy for copy in copies if copy.is_file()]
        if not copies:
            raise NotebookError(f"{EXECUTED}: no executed copies; use a checkout of the project")
        files |= pages.site(copies) if site else pages.slides(copies)
    for name in files:
        paths.check_own(folder / name)
    for name, content in files.items():
        paths.write_own(folder / name, content)
    return [folder / name for name in files]


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
            tags = [_tags(one) for one in four]
            if tags != [[], ["answer"], ["check"], ["solution"]] or len(code) != 1:
                raise NotebookError(
                    f"{name}, cell {cell.id}: an answer stands between its question and cells "
                    'tagged "check" and "solution", the latter with one python block'
                )
            found.append(Exercise(*four, code=code[0]))
    return found


def _tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])
