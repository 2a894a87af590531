"""The runner on small notebooks made here; each real kernel costs about three seconds."""

import json
import os
import signal
import subprocess
import sys
import time
from unittest import mock

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from richsem import kept, paths
from richsem.operations import store
from richsem.processes import GARBAGE_AFTER
from richsem.workbook import notebook_files, results, runner, studies
from richsem.workbook.notebook_files import KERNELSPEC, NotebookError

PARAMETERS = """PROFILE: Literal["smoke", "demo", "paper"] = "smoke"
SEED = 0
RATE: float = 0.5  # help
THRESHOLD = 0.3
NAME: str | None = None
SCALES: list[float] = [0.0, 1.0]
IMAGES = ""
SETTINGS: list[str] = []
"""


def make(folder, name, *body, parameters=PARAMETERS):
    cells = [
        new_markdown_cell("# Title"),
        new_code_cell("from typing import Literal"),
        new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        new_markdown_cell("Text.\n\n## The body"),
        *(new_code_cell(source) for source in body),
    ]
    for i, cell in enumerate(cells):
        cell["id"] = f"cell-{i}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.ipynb"
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": KERNELSPEC}), path)
    return path


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """Empty folder of source notebooks."""
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(paths, "EXECUTED", tmp_path / "notebooks" / "executed")
    return paths.NOTEBOOKS


@pytest.fixture
def run(sources, figures, monkeypatch):
    """Runs the notebooks below `sources` and returns the list of (name, status)."""
    monkeypatch.delenv("RICHSEM_FIGURES", raising=False)

    def run(**options):
        outcomes = runner.run_all("smoke", **options)
        return [(outcome.name, outcome.status) for outcome in outcomes]

    return run


def planned(source, profile="smoke", overrides=None):
    runner.path_state.cache_clear()
    return runner.plan(source, profile, overrides or {}, paths.FIGURES, paths.EXECUTED)


def declare(monkeypatch, name, *what, **results_of_it):
    monkeypatch.setitem(results.NOTEBOOKS, name, results.Notebook(*what, **results_of_it))
    monkeypatch.setattr(studies, "runs_of", lambda notebook, values: [], raising=False)


SAVE = """from richsem import paths
from richsem.workbook import results
print(paths.ROOT / "richsem", SEED, SCALES, "gc" in globals())
import gc
print("garbage after", gc.get_threshold()[0])
for path in results.output_paths("datasets", PROFILE):
    paths.write_atomic(path, "{}")"""


@pytest.mark.slow
def test_a_run_leaves_a_copy_that_is_skipped_while_current(sources, run, figures, monkeypatch):
    source = make(sources, "01_good", SAVE)
    overrides = {"SEED": "7", "SCALES": "[1, 2.5]"}
    monkeypatch.setitem(results.NOTEBOOKS, "01_long_tail_data", results.Notebook(1, 3))
    declare(monkeypatch, "01_good", 1, 1, tables=("datasets",))
    assert run(overrides=overrides) == [("01_good", "ran")]
    copy = sources / "executed" / "smoke" / "01_good.ipynb"
    text = copy.read_text(encoding="utf-8")
    assert "richsem 7 [1.0, 2.5] False" in text and str(paths.ROOT) not in text
    assert f"garbage after {GARBAGE_AFTER}" in text
    stamp = json.loads(text)["metadata"]["richsem"]
    assert stamp["parameters"] == {"PROFILE": "smoke", "SEED": 7, "SCALES": [1.0, 2.5]}
    assert stamp["environment"]["packages"]["torch"] and stamp["runs"] == {}
    assert not list(copy.parent.glob("*.partial.ipynb"))
    assert run(overrides=overrides) == [("01_good", "skipped")]

    def is_current(seed="7"):
        return runner.is_current(planned(source, overrides=overrides | {"SEED": seed}))

    assert is_current() and not is_current(seed="8")
    with monkeypatch.context() as other:
        other.setattr(kept, "_section", lambda name: "numbers of other code")
        assert not is_current()
    (figures / "smoke" / "datasets.csv").unlink()
    assert not is_current()
    assert run(overrides=overrides, force=True) == [("01_good", "ran")]
    assert is_current()
    make(sources, "01_good", SAVE + "\nx = 1")
    assert not is_current()


def test_what_only_installs_decides_no_result():
    source = notebook_files.sources()[1]
    assert "REPOSITORY" in source.read_text(encoding="utf-8")
    assert "REPOSITORY" not in planned(source).made_from[0]


@pytest.mark.slow
def test_failures_are_explained_and_stop_the_run(sources, run, capfd, monkeypatch):
    declare(monkeypatch, "03_idle", 1, 1, figures=("fig1_noise",))
    make(sources, "01_bad", "x = 1", "1 / 0")
    make(sources, "02_dies", "import os; os._exit(1)")
    make(sources, "03_idle", "x = 1")
    make(sources, "04_good", "x = 1")
    assert run() == [("01_bad", "failed")]
    out, err = capfd.readouterr()
    assert 'FAILED 01_bad, cell 6, under "The body"' in err
    assert "ZeroDivisionError: division by zero" in err and "01_bad.partial.ipynb" in err
    assert "without encryption" not in err and "3 not run after the failure" in out
    rest = [("02_dies", "failed"), ("03_idle", "failed"), ("04_good", "ran")]
    assert run(keep_going=True, only=["02", "03", "04"]) == rest
    err = capfd.readouterr().err
    assert 'FAILED 02_dies, cell 5, under "The body"' in err
    assert "03_idle ended without writing" in err


MEET = """import pathlib, time
here = pathlib.Path({folder!r})
(here / "{own}").touch()
deadline = time.monotonic() + 60
while not (here / "{other}").exists():
    assert time.monotonic() < deadline
    time.sleep(0.1)
{then}"""


@pytest.mark.slow
def test_two_run_side_by_side_and_a_failure_starts_no_more(tmp_path, sources, run, capfd):
    pairs = {"01_a": "02_b", "02_b": "01_a", "03_bad": "04_slow", "04_slow": "03_bad"}
    then = {"03_bad": "1 / 0", "04_slow": "time.sleep(6)"}
    for own, other in pairs.items():  # each waits until the other has begun
        known = {"folder": str(tmp_path), "own": own, "other": other, "then": then.get(own, "")}
        make(sources, own, MEET.format(**known))
    make(sources, "05_late", "x = 1")
    outcomes = dict(run(jobs=2))
    expected = {"01_a": "ran", "02_b": "ran", "03_bad": "failed"}
    assert outcomes.items() >= expected.items() and "05_late" not in outcomes
    out, err = capfd.readouterr()
    assert "FAILED 03_bad" in err and "not run after the failure" in out
    assert run(jobs=2, only=["01", "02"]) == [("01_a", "skipped"), ("02_b", "skipped")]


def test_the_longest_begin_and_those_whose_runs_are_there_end():
    names = ("00_start_here", "07_train_richsem", "12_scaling", "15_your_own_data")
    sources = [path for path in runner.select([]) if path.stem in names]
    folders = (paths.FIGURES, paths.EXECUTED)
    tasks = {path.stem: runner.plan(path, "demo", {}, *folders) for path in sources}
    assert runner.longest_first(tasks) == [names[3], names[2], names[0], names[1]]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals work differently there")
@pytest.mark.parametrize(
    ("jobs", "sent", "handler"),
    [
        (1, signal.SIGINT, signal.default_int_handler),
        (2, signal.SIGINT, signal.default_int_handler),
        # A job queue's signal, with what a shell gives to a job that it starts with "&".
        (2, signal.SIGTERM, signal.SIG_IGN),
        (2, signal.SIGKILL, signal.default_int_handler),  # can say nothing
    ],
)
def test_an_interrupted_command_says_so_and_ends_all(tmp_path, sources, jobs, sent, handler):
    for name in ("01_slow", "02_slow"):
        make(sources, name, "import time; time.sleep(60)")
    script = tmp_path / "run.py"
    script.write_text(
        "import pathlib, runpy, sys; from richsem import paths\n"
        f"paths.NOTEBOOKS = pathlib.Path({str(sources)!r})\n"
        "paths.EXECUTED = paths.NOTEBOOKS / 'executed'\n"
        "if __name__ == '__main__': runpy.run_module('richsem', run_name='__main__')"
    )
    command = ["notebooks", "--profile", "smoke", "--jobs", str(jobs)]
    process = subprocess.Popen(
        [sys.executable, str(script), *command], stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, handler),
    )  # fmt: skip
    executed, deadline = sources / "executed" / "smoke", time.monotonic() + 120
    for partial in [executed / f"{n}_slow.partial.ipynb" for n in ("01", "02")][:jobs]:
        while not (partial.exists() and "cell-4" in partial.read_text()):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.1)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)  # ends only when no child holds the pipe any more
    # Python itself ends by the signal if it arrives while text is compiled (dataclasses do).
    told = sent != signal.SIGKILL
    assert process.returncode in ((130, -signal.SIGINT) if told else (-sent,)), err
    assert err.count("interrupted; partial notebook:") == jobs * told
    assert not (executed / "01_slow.ipynb").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"PROFILE": "demo"}, "choose the profile with --profile"),
        ({"SED": "1"}, r"01_good has no parameter 'SED'; valid: PROFILE: .*, SEED: int, RATE"),
        ({"SEED": "1.5"}, r"SEED must be int, got 1.5 \(float\)"),
        ({"RATE": "true"}, "RATE must be float, got True"),
        ({"SCALES": "[1, a]"}, r"SCALES\[1\] must be float, got 'a'"),
        ({"SCALES": "[1, 2"}, r"SCALES must be list\[float\], got '\[1, 2'"),
        ({"seeds": 0}, "--seeds is 0; at least one"),
        ({"jobs": -1}, "--jobs is -1; at least one"),
        ({"SEED": "-1"}, "01_good: SEED must be 0 to 9e15, got -1"),
        ({"SEED": "9" * 22}, "01_good: SEED must be 0 to 9e15, got 9999"),
        ({"seeds": 3}, "01_good has no parameter 'SEEDS'"),
        ({"seeds": 5, "SEEDS": "3"}, "--seeds and the parameter SEEDS are the same: leave one out"),
        ({"SEED": "010"}, "SEED must be int, got '010'"),  # 8 for YAML
        ({"SEED": "1:30"}, "SEED must be int, got '1:30'"),  # and 90
        ({"SCALES": "[" * 2000}, r"SCALES must be list\[float\]"),
        ({"RATE": "0"}, "01_good: RATE must be above 0, got 0"),
        ({"THRESHOLD": "1.5"}, "01_good: THRESHOLD must be a score, 0 to 1, got 1.5"),
        ({"IMAGES": "absent"}, "01_good: IMAGES names .*absent, where nothing is"),
        ({"into": paths.ROOT, "ship": True}, "--ship and --into"),
    ],
)
def test_wrong_parameters_stop_before_anything_runs(sources, run, options, message):
    make(sources, "01_good", "x = 1")
    known = {key: value for key, value in options.items() if key.islower()}
    overrides = {key: value for key, value in options.items() if key.isupper()}
    with pytest.raises(NotebookError, match=message):
        run(overrides=overrides, **known)
    assert not (sources / "executed").exists()


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ("1e-3", "RATE", 1e-3), ("2", "RATE", 2.0), ("007", "NAME", "007"),
        ("null", "NAME", None), ("no", "NAME", "no"), ("a=b", "NAME", "a=b"),
        ("'x'", "NAME", "x"), ("[0, 1.5]", "SCALES", [0.0, 1.5]),
        ("2026-13-01", "NAME", "2026-13-01"),
    ],
)  # fmt: skip
def test_values_are_read_as_the_parameter_wants_them(sources, text, key, expected):
    task = planned(make(sources, "01_good"), overrides={key: text})
    assert task.values[key] == expected and type(task.values[key]) is type(expected)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("seed = 0", "UPPER_CASE"), ("SEED = 1 + x", "parameters cell, line 1"),
        ("A = B = 0", "write NAME = value"), ("NAME = None", "needs a type"),
        ("BOX = (1, 2)", "write a list"), ("SEED: int = 'a'", "SEED must be int"),
        ("SEED: Tensor = 0", "unknown type 'Tensor'"), ("import os", "write NAME = value"),
        ("%matplotlib inline", r"01_bad: not plain Python .*: %matplotlib inline"),
    ],
)  # fmt: skip
def test_parameters_cells_hold_plain_literals(tmp_path, line, message):
    notebook = notebook_files.read(make(tmp_path, "01_bad", parameters=line))
    with pytest.raises(NotebookError, match=message):
        notebook_files.parameters(notebook, "01_bad")


def test_seeds_go_to_the_notebooks_that_have_them_and_so_does_the_forecast(sources, monkeypatch):
    declare(monkeypatch, "01_one", 1, 20)
    declare(monkeypatch, "02_many", 1, 20, True)
    cells = {"01_one": "", "02_many": "SEEDS = 2", "03_unknown": ""}
    made = [make(sources, n, parameters=f"PROFILE = 'demo'\n{c}") for n, c in cells.items()]

    def forecast(profile, **options):
        return runner.forecast([planned(path, profile, **options) for path in made])

    assert forecast("smoke").startswith("3 notebooks to run: at most about 2 minutes on two cores")
    assert "at most about 60 minutes" in forecast("demo")
    assert "at most about 120 minutes" in forecast("demo", overrides={"SEEDS": "5"})
    assert "(not counted: 03_unknown)" in forecast("demo")
    assert forecast("paper") == "3 notebooks to run (not counted: 01_one, 02_many, 03_unknown)"
    for name, expected in (("01_one", {}), ("02_many", {"SEEDS": 5})):
        path = make(sources, name, parameters="SEEDS = 1\n" * bool(expected) + PARAMETERS)
        task = planned(path, overrides={"SEEDS": "5"})
        assert task.values == {"PROFILE": "smoke", **expected}


def test_seeds_of_what_decides_count_where_they_are_more_than_the_others(sources, monkeypatch):
    declare(monkeypatch, "02_many", 1, 20, True, deciding=3)
    cell = "PROFILE = 'demo'\nSEEDS = 2\nDECIDING_SEEDS = 10"
    path = make(sources, "02_many", parameters=cell)
    for seeds, minutes in (("2", 64), ("10", 200), ("12", 240)):
        words = runner.forecast([planned(path, "demo", overrides={"SEEDS": seeds})])
        assert f"at most about {minutes} minutes" in words


def test_runs_are_trained_once_before_any_notebook(sources, monkeypatch, capsys):
    declare(monkeypatch, "01_one", 1, 1)
    declare(monkeypatch, "02_two", 1, 1)
    tasks = [planned(make(sources, name)) for name in ("01_one", "02_two", "03_unknown")]
    asked = []

    def runs_of(notebook, values):
        assert (values["SEED"], values["PROFILE"]) == (0, "smoke")  # a default, and a value
        return ["shared", notebook]

    monkeypatch.setattr(studies, "runs_of", runs_of)
    monkeypatch.setattr(store, "finish", asked.append)
    runner.train(tasks, keep_going=True)
    assert asked == [["shared", "01_one", "02_two"]]

    monkeypatch.setattr(store, "finish", mock.Mock(side_effect=ValueError("no data")))
    runner.train(tasks, keep_going=True)
    assert "error: no data" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no data"):
        runner.train(tasks, keep_going=False)


def test_a_split_that_there_is_not_is_found_before_any_training(cli, monkeypatch):
    monkeypatch.setattr(store, "finish", None)
    command = ["notebooks", "--profile", "smoke", "--only", "09", "-p", "SPLIT", "test"]
    assert "no split 'test'; there are train, dev, val" in cli(*command, code=2).err


def test_replaced_data_and_results_run_a_notebook_again(sources, tmp_path, monkeypatch, figures):
    monkeypatch.setattr(paths, "CACHE", tmp_path / "data" / "cache")
    source = make(sources, "01_good")
    picture = tmp_path / "data" / "deep" / "er" / "1.jpg"
    cached = paths.CACHE / "state.pt"
    for file in (picture, cached):
        file.parent.mkdir(parents=True)
        file.write_bytes(b"old")

    def key(value, parameter="IMAGES"):
        return runner.inputs_now(planned(source, overrides={parameter: str(value)}))

    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "train").symlink_to(picture.parent)
    names = {"linked": "IMAGES", "data": "NAME"}  # a text is no place, whatever it is called
    linked, text = (key(tmp_path / name, parameter) for name, parameter in names.items())
    setting = f'["init={picture}"]', "SETTINGS"
    folder, one, start = key(tmp_path / "data"), key(picture), key(*setting)
    cached.write_bytes(b"other")
    assert key(tmp_path / "data") == folder  # what the library makes itself
    picture.write_bytes(b"new!")
    assert key(tmp_path / "data") != folder and key(picture) != one and key(*setting) != start
    assert key(tmp_path / "linked") != linked and key(tmp_path / "data", "NAME") == text
    # A page is made again when a result that it reads changes.
    page, other = make(sources, "14_report"), make(sources, "01_long_tail_data")
    plans = {path: planned(path) for path in (page, other)}
    for root in (figures, figures / "shipped"):
        before = {path: runner.inputs_now(task) for path, task in plans.items()}
        record = results.output_paths("datasets", "smoke", root)[-1]
        record.parent.mkdir(parents=True)
        record.write_text("{}")
        # The same plan, made before any notebook ran, sees what an earlier notebook wrote since.
        assert runner.inputs_now(plans[page]) != before[page]
        assert runner.inputs_now(plans[other]) == before[other]
    assert [path.suffix for path in plans[page].outputs] == [".html", ".json"]


def test_results_that_cannot_be_written_stop_before_any_training(sources, figures, monkeypatch):
    make(sources, "01_good")
    declare(monkeypatch, "01_good", 1, 1, tables=("datasets",))
    monkeypatch.setattr(runner, "train", None)
    figures.write_text("kept")
    with pytest.raises(OSError, match="figures"):
        runner.run_all("smoke")
    assert figures.read_text() == "kept"


def test_results_of_a_user_and_of_the_project_lie_apart(sources, figures, monkeypatch):
    make(sources, "01_good")
    make(sources, "02_plain", parameters='PROFILE = "demo"\nSEEDS = 1')
    used = []

    def waves(tasks, **options):
        used.append((os.environ["RICHSEM_FIGURES"], tasks[0].target.parent))
        used.append([task.values for task in tasks])
        return [runner.Outcome("01_good", "ran")]

    monkeypatch.setattr(runner, "_run_in_waves", waves)
    for options, results_of_it, copies in (
        ({}, figures, sources / "executed/demo"),
        ({"ship": True}, figures / "shipped", sources / "shipped/demo"),
        ({"into": sources / "x"}, sources / "x/figures", sources / "x/notebooks/demo"),
    ):
        # A parameter is for the notebooks that have it.
        runner.run_all("demo", overrides={"RATE": "2"}, **options)
        values = [{"PROFILE": "demo", "RATE": 2.0}, {"PROFILE": "demo"}]
        assert used[-2:] == [(str(results_of_it), copies), values]
    runner.run_all("demo", seeds=5)
    assert used[-1] == [{"PROFILE": "demo"}, {"PROFILE": "demo", "SEEDS": 5}]


TABLE = """import pandas as pd
from richsem.workbook import results
row = {"row": "LVIS", "metric": "images", "ours": 1, "status": "counted", "num_seeds": 1}
frame = pd.DataFrame([row], columns=results.TABLE_COLUMNS)
results.save_table(frame, "datasets", profile=PROFILE, provenance={})"""


def test_what_a_user_has_is_not_replaced(sources, figures, tmp_path, cli, monkeypatch):
    make(sources, "01_good", TABLE)
    declare(monkeypatch, "01_good", 1, 1, tables=("datasets",))
    folder = tmp_path / "mine"
    command = ["notebooks", "--profile", "smoke", "--into", folder, "--jobs", 1]
    copy, table = folder / "notebooks/smoke/01_good.ipynb", folder / "figures/smoke/datasets.csv"
    table.parent.mkdir(parents=True)
    make(copy.parent, "01_good", "their = 'work'")
    table.write_text("theirs")

    def assert_refused(theirs):
        before = theirs.read_bytes()
        for more in ([], ["--force"]):
            said = cli(*command, *more, code=2).err
            assert said.startswith(f"error: {theirs} exists and was not written by this program")
            assert theirs.read_bytes() == before
        theirs.unlink()

    assert_refused(copy)
    assert_refused(table)
    for more in ([], ["--force"]):  # what the first one wrote
        cli(*command, *more)
    for theirs in (copy, table):  # and they edited
        theirs.write_text(theirs.read_text().replace("datasets", "sets").replace("LVIS", "mine"))
        make(sources, "01_good", TABLE + "\nx = 1")
        assert_refused(theirs)


@pytest.mark.slow
def test_a_killed_process_is_explained(sources, run):
    kill = "import os, signal, psutil; psutil.Process().parent().kill()"
    for name in ("01_a", "02_b"):
        make(sources, name, kill)
    with pytest.raises(NotebookError, match="was killed, most often for want of memory"):
        run(jobs=2)


def test_unknown_selection_and_empty_folder_are_errors(sources, cli):
    with pytest.raises(NotebookError, match="no notebooks named"):
        runner.select([])
    for name in ("00_a", "01_b", "02_c"):
        make(sources, name)
    assert [path.stem for path in runner.select(["02", "00_"])] == ["00_a", "02_c"]
    with pytest.raises(NotebookError, match="begins with '07'; there are: 00_a, 01_b, 02_c"):
        runner.select(["07"])
    said = cli("notebooks", "--only", "07", code=2).err
    assert said.startswith("error: no notebook")  # without a traceback


def test_clean_drops_widgets_timings_and_folders_of_this_machine():
    shown = {"output_type": "display_data", "metadata": {}}
    widget = {"data": {notebook_files.WIDGET: {"model_id": "1"}, "text/plain": "IntSlider()"}}
    text = f"{paths.ROOT}/x.py and /tmp/ipykernel_12/345.py:3: UserWarning"
    where = {"output_type": "stream", "name": "stdout", "text": text}
    outputs = (shown | widget, shown | {"data": {"image/png": "a" * 9}}, where)
    cell = new_code_cell("1", metadata={"papermill": {"duration": 1}, "tags": ["keep"]})
    cell.outputs = [nbformat.from_dict(output) for output in outputs]
    notebook = new_notebook(cells=[cell], metadata={"widgets": {"state": 1}, "richsem": {"a": 1}})
    cleaned = notebook_files.clean(notebook)
    assert set(cleaned.metadata) == {"kernelspec", "language_info", "richsem"}
    assert cleaned.cells[0].metadata == {"tags": ["keep"]}
    assert [output.output_type for output in cleaned.cells[0].outputs] == ["display_data", "stream"]
    assert cleaned.cells[0].outputs[1].text == "x.py and <cell>:3: UserWarning"
    nbformat.validate(cleaned)
