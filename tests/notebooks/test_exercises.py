"""Exercises: three in every notebook, each of them whole; the course's page."""

import ast
import re
from importlib import import_module

import pytest

from richsem import paths
from richsem.workbook import editions, notebook_files, results

SOURCES = sorted(paths.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
COURSE = (paths.NOTEBOOKS / "README.md").read_text(encoding="utf-8")
KINDS = ("compute", "change", "argue")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_each_exercise_has_its_question_answer_check_and_solution(path):
    notebook = notebook_files.read(path)
    found, cells = editions.exercises(notebook, path.stem), notebook.cells
    assert len(found) == len(KINDS)
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


def test_the_order_of_reading_keeps_to_what_each_notebook_asks_for():
    order = re.findall(r"\d\d", re.search(r"in this order: ([\d, ]+)\.", COURSE)[1])
    for place, number in enumerate(order):
        (path,) = paths.NOTEBOOKS.glob(f"{number}_*.ipynb")
        first = notebook_files.read(path).cells[0].source
        asked = re.search(r"^\| before \| (.*) \|$", first, re.MULTILINE)[1]
        asked = re.sub(r"\(for part \d.*\)", "", asked)  # of one part only
        assert set(re.findall(r"\b\d\d\b", asked)) <= set(order[:place]), path.stem


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
