"""Rules for source notebooks: no outputs, no logic, short cells, enough text."""

import ast
import itertools
import pkgutil
import re
import statistics
import symtable

import nbformat
import pytest

from richsem import paths
from richsem.workbook import notebook_files, results

SOURCES = sorted(paths.NOTEBOOKS.glob("*.ipynb"))
MAX_CELL, MAX_MEDIAN_CELL, MAX_FUNCTION = 25, 8, 10

pytestmark = pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)


@pytest.fixture
def notebook(path):
    return notebook_files.read(path)


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_is_numbered_and_valid_with_fixed_cell_ids_no_outputs_and_the_one_kernel(path, notebook):
    assert path.stem[:2].isdigit() and path.stem[2] == "_"
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) >= (4, 5)
    ids = [cell["id"] for cell in notebook.cells]
    assert len(ids) == len(set(ids))
    for cell in code_of(notebook):
        assert cell.outputs == [] and cell.execution_count is None
    assert notebook.metadata["kernelspec"] == notebook_files.KERNELSPEC
    assert "widgets" not in notebook.metadata
    parameters = notebook_files.parameters(notebook, path.stem)
    assert {"PROFILE", "SEED"} <= set(parameters)


def test_begins_with_a_title_and_has_more_text_than_code(path, notebook):
    first = notebook.cells[0]
    assert first.cell_type == "markdown" and first.source.startswith("# ")
    code = code_of(notebook)
    assert len(notebook.cells) - len(code) >= len(code)


def test_says_in_its_first_table_how_long_it_takes_and_what_it_writes(path, notebook):
    declared = results.NOTEBOOKS[path.stem]
    rows = dict(re.findall(r"^\| ([\w ]+) \| (.*) \|$", notebook.cells[0].source, re.MULTILINE))
    stated = {
        profile: (float(minutes), bool(per_seed))
        for profile, minutes, per_seed in re.findall(
            r"\b(smoke|demo): (?:about )?([\d.]+) minutes?( per seed)?", rows["run time"]
        )
    }
    expected = {"smoke": (declared.smoke, False), "demo": (declared.demo, declared.per_seed)}
    assert stated == expected
    assert set(re.findall(r"`(\w+)`", rows["writes"])) == set(declared.results)


def test_writes_exactly_what_is_declared(path, notebook):
    saved = []
    for cell in code_of(notebook):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("results.save_"):
                kind = ast.unparse(node.func).removeprefix("results.save_")
                (name,) = [a.value for a in node.args if isinstance(a, ast.Constant)]
                assert name in results.writers(kind)
                saved.append(name)
    assert sorted(saved) == sorted(results.NOTEBOOKS[path.stem].results)


def test_cells_are_short_and_logic_lives_in_the_package(path, notebook):
    texts = [cell.source.splitlines() for cell in code_of(notebook)]
    lines = [sum(bool(line.strip()) for line in text) for text in texts]
    assert max(lines) <= MAX_CELL and statistics.median(lines) <= MAX_MEDIAN_CELL
    for cell in code_of(notebook):
        for node in ast.walk(ast.parse(cell.source)):  # a magic is a syntax error
            assert not isinstance(node, ast.ClassDef), f"class {node.name}"
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                assert node.end_lineno - node.lineno < MAX_FUNCTION, f"function {node.name}"


def test_a_figure_is_shown_by_the_cell_that_draws_it(path, notebook):
    """Or the kernel shows it once more, at the end of the cell and without alt text."""
    for cell in code_of(notebook):
        if re.search(r"\bfig = ", cell.source):
            assert re.search(r"\b(show|save)_figure\(", cell.source), cell.id


def test_a_prediction_is_written_down_and_seen_again_beside_its_result(path, notebook):
    """Each in a cell of its own below the question; exercises have an answer in place of it."""
    cells = notebook.cells
    end = next(i for i, cell in enumerate(cells) if "## Exercises" in cell.source)
    for cell, below in itertools.pairwise(cells[: end + 1]):
        if re.search(r"\*\*[Pp]redict", cell.source):
            assert re.search(r"^guess\w* = None", below.source, re.MULTILINE), cell.id
    code = "\n".join(cell.source for cell in code_of(notebook))
    guesses = set(re.findall(r"^(guess\w*) = None", code, re.MULTILINE))
    assert guesses == set(re.findall(r"\brecall\(\s*(guess\w*)", code)) != set()


def test_imports_what_there_is(path, notebook):
    nodes = [node for cell in code_of(notebook) for node in ast.walk(ast.parse(cell.source))]
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module.startswith("richsem"):
            for one in node.names:
                pkgutil.resolve_name(f"{node.module}.{one.name}")


def test_checks_its_parameters_before_any_work(path, notebook):
    cells = code_of(notebook)
    (place,) = [i for i, c in enumerate(cells) if "parameters" in c.metadata.get("tags", [])]
    assert cells[place + 1].source.startswith("check_parameters(globals())\n")


def read_by_functions(table):
    """Names of the notebook that functions of a cell read when they are called."""
    inner = [one for child in table.get_children() for one in read_by_functions(child)]
    at_once = table.get_type() != "function" or table.get_name().endswith(("comp", "genexpr"))
    own = [] if at_once else table.get_symbols()
    return [*inner, *(one.get_name() for one in own if one.is_global())]


def test_what_functions_read_is_not_set_again_by_a_later_cell(path, notebook):
    """Explorers call them when the whole notebook has run."""
    read = set()
    for cell in code_of(notebook):
        table = symtable.symtable(cell.source, cell["id"], "exec")
        again = {one.get_name() for one in table.get_symbols() if one.is_assigned()} & read
        assert not again, (cell["id"], again)
        read |= set(read_by_functions(table))
