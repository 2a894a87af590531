"""Parameters are checked in the notebook itself, whoever runs it."""

import papermill
import pytest
from papermill.exceptions import PapermillExecutionError

from richsem import paths
from richsem.config import ConfigError
from richsem.workbook.notebook_files import NotebookError, check_parameters, copy_sources, read

CELL = 'PROFILE = "demo"\nSEED = 0\nIMAGES = 4\nROWS: list[float] = [0.5]'


def names_after(*cells):
    """The `globals()` of a kernel that ran these cells."""
    names = {"In": ["", "import time", *cells]}
    for cell in cells:
        exec(cell, names)
    return names


@pytest.mark.parametrize(
    "given", ["", "SEED = 3", 'PROFILE = "smoke"', "ROWS = [1, 2.5]", "SEED = 3\nROWS = []"]
)
def test_what_a_notebook_declares_may_be_given(given):
    check_parameters(names_after(CELL, f"# Parameters\n{given}"))
    check_parameters(names_after(CELL))
    check_parameters(names_after(f"{CELL}\n{given}", "print('other work')"))  # changed in place


@pytest.mark.parametrize(
    "given, words",
    [
        ("SEEED = 3", "no parameter 'SEEED'; valid: PROFILE: str, SEED: int"),
        ("seed = 3", "no parameter 'seed'"), ("SEED = 1.5", "SEED"), ('SEED = "1"', "SEED"),
        ("IMAGES = 21", "IMAGES must be 1 to 20, got 21"), ("SEED = None", "SEED"),
        ('ROWS = "[0.5, 1]"', "which papermill reads by -y alone"),
        ('ROWS = float("nan")', "ROWS"), ('PROFILE = "smok"', "PROFILE"),
    ],
)  # fmt: skip
def test_anything_else_is_refused(given, words):
    with pytest.raises((NotebookError, ConfigError), match=words):
        check_parameters(names_after(CELL, f"# Parameters\n{given}"))


def test_the_first_cell_of_each_notebook_installs_the_project_where_it_is_missing(monkeypatch):
    cells = [read(path).cells for path in paths.NOTEBOOKS.glob("*.ipynb")]
    (cell,) = {next(one for one in own if one.cell_type == "code").source for own in cells}
    asked = []
    monkeypatch.setattr("subprocess.run", lambda command, **_: asked.append(command))
    exec(cell, {})
    assert asked == []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="set REPOSITORY"):
        exec(cell, {})
    exec(cell.replace('REPOSITORY = ""', 'REPOSITORY = "https://a.b/c"'), {})
    assert asked[0][1:] == ["-m", "pip", "install", "-q", "git+https://a.b/c"]


def test_sources_are_copied_for_work_on_them_and_work_is_never_replaced(tmp_path, own_cache):
    copies, sources = copy_sources(tmp_path / "mine"), [*paths.NOTEBOOKS.glob("*.ipynb")]
    assert copies == copy_sources(tmp_path / "mine") and len(copies) == len(sources)
    copies[3].write_text("my own work")
    with pytest.raises(FileExistsError, match=copies[3].name):
        copy_sources(tmp_path / "mine")
    assert copies[3].read_text() == "my own work"


WRONG = ({"SEEED": 3}, "SEEED"), ({"DATA_ROOT": "absent"}, "names absent, where nothing is")


@pytest.mark.slow
@pytest.mark.parametrize(("parameters", "words"), WRONG)
def test_plain_papermill_stops_before_any_work(tmp_path, parameters, words):
    source, out = paths.NOTEBOOKS / "01_long_tail_data.ipynb", tmp_path / "out.ipynb"
    with pytest.raises(PapermillExecutionError, match=words) as caught:
        papermill.execute_notebook(source, out, parameters=parameters, progress_bar=False)
    assert "check_parameters(globals())" in "\n".join(caught.value.traceback)
