"""The runner on small notebooks made here; each real kernel costs about three seconds."""

import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from richsem import paths
from richsem.__main__ import main
from richsem.workbook import notebook_copy, notebook_source, results, runner
from richsem.workbook.notebook_source import KERNELSPEC, NotebookError

PARAMETERS = """PROFILE: Literal["smoke", "demo", "paper"] = "smoke"
SEED = 0
RATE: float = 0.5  # help
NAME: str | None = None
SCALES: list[float] = [0.0, 1.0]
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
def run(tmp_path, figures, monkeypatch):
    """Runs the notebooks below `tmp_path/sources` and returns the list of (name, status)."""
    monkeypatch.setattr(runner, "code_hash", lambda: "code")
    monkeypatch.delenv("RICHSEM_FIGURES", raising=False)

    def run(**options):
        folders = {"sources": tmp_path / "sources", "executed": tmp_path / "executed"}
        outcomes = runner.run_all("smoke", **folders, **options)
        return [(outcome.name, outcome.status) for outcome in outcomes]

    return run


SAVE = """import pandas as pd
from richsem import paths, results
print(paths.ROOT / "richsem", SEED, SCALES)
line = {"row": "a", "metric": "images", "paper": 1, "ours": None, "ci_low": None, "ci_high": None}
frame = pd.DataFrame([line | {"num_seeds": 0, "status": "not run"}])
results.save_table(frame, "datasets", profile=PROFILE, provenance={})"""


@pytest.mark.slow
def test_a_run_leaves_a_clean_copy_that_is_skipped_while_current(tmp_path, run, figures):
    source = make(tmp_path / "sources", "01_good", SAVE)
    overrides = {"SEED": "7", "SCALES": "[1, 2.5]"}
    assert run(overrides=overrides) == [("01_good", "ran")]
    copy = tmp_path / "executed" / "smoke" / "01_good.ipynb"
    text = copy.read_text(encoding="utf-8")
    assert "richsem 7 [1.0, 2.5]" in text
    assert str(paths.ROOT) not in text
    stamp = json.loads(text)["metadata"]["richsem"]
    assert stamp["parameters"] == {"PROFILE": "smoke", "SEED": 7, "SCALES": [1.0, 2.5]}
    assert stamp["environment"]["packages"]["torch"]
    assert not list(copy.parent.glob("*.partial.ipynb"))

    assert run(overrides=overrides) == [("01_good", "skipped")]

    def is_current(seed="7", code="code"):
        values = overrides | {"SEED": seed}
        return runner.is_current(runner.plan(source, "smoke", values, copy.parent, code))

    assert is_current()
    assert not is_current(seed="8")
    assert not is_current(code="changed")
    (figures / "smoke" / "datasets.csv").unlink()
    assert not is_current()
    assert run(overrides=overrides, force=True) == [("01_good", "ran")]
    assert is_current()
    make(tmp_path / "sources", "01_good", SAVE + "\nx = 1")
    assert not is_current()


@pytest.mark.slow
def test_a_failure_is_explained_and_stops_the_run(tmp_path, run, capfd):
    make(tmp_path / "sources", "01_bad", "x = 1", "1 / 0")
    make(tmp_path / "sources", "02_good", "x = 1")
    assert run() == [("01_bad", "failed")]
    out, err = capfd.readouterr()
    assert 'FAILED 01_bad, cell 6, under "The body"' in err
    assert "ZeroDivisionError: division by zero" in err
    assert "01_bad.partial.ipynb" in err
    assert "without encryption" not in err
    assert "1 not run after the failure" in out
    assert run(keep_going=True) == [("01_bad", "failed"), ("02_good", "ran")]


@pytest.mark.slow
def test_a_dead_kernel_and_a_missing_result_are_failures(tmp_path, run, capfd):
    make(tmp_path / "sources", "01_dies", "import os; os._exit(1)")
    make(tmp_path / "sources", "02_idle", 'if SEED > 0:\n    save_figure(None, "fig1_noise")')
    assert run(keep_going=True) == [("01_dies", "failed"), ("02_idle", "failed")]
    err = capfd.readouterr().err
    assert 'FAILED 01_dies, cell 5, under "The body"' in err
    assert "02_idle ended without writing" in err


MEET = """import pathlib, time
here = pathlib.Path({folder!r})
(here / "{own}").touch()
deadline = time.monotonic() + 60
while not (here / "{other}").exists():
    assert time.monotonic() < deadline
    time.sleep(0.1)"""


@pytest.mark.slow
def test_two_run_side_by_side_and_a_failure_starts_no_more(tmp_path, run, capfd):
    for own, other in (("01_a", "02_b"), ("02_b", "01_a")):
        meet = MEET.format(folder=str(tmp_path), own=own, other=other)
        make(tmp_path / "sources", own, meet)  # each waits until the other has begun
    assert sorted(run(jobs=2)) == [("01_a", "ran"), ("02_b", "ran")]
    assert run(jobs=2) == [("01_a", "skipped"), ("02_b", "skipped")]

    make(tmp_path / "sources", "03_bad", "1 / 0")
    make(tmp_path / "sources", "04_slow", "import time; time.sleep(8)")
    make(tmp_path / "sources", "05_late", "x = 1")
    outcomes = dict(run(jobs=2))
    assert outcomes["03_bad"] == "failed" and "05_late" not in outcomes
    out, err = capfd.readouterr()
    assert "FAILED 03_bad" in err and "not run after the failure" in out


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals work differently on Windows")
@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interrupted_run_says_so(tmp_path, jobs):
    make(tmp_path / "sources", "01_slow", "import time; time.sleep(60)")
    make(tmp_path / "sources", "02_slow", "import time; time.sleep(60)")
    code = (
        "import pathlib, sys; from richsem import notebooks; folder = pathlib.Path(sys.argv[1])\n"
        "folders = {'sources': folder / 'sources', 'executed': folder / 'executed'}\n"
        f"if __name__ == '__main__': notebooks.run_all('smoke', **folders, jobs={jobs})"
    )
    script = tmp_path / "run.py"
    script.write_text(code)
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts jobs in the background makes them ignore the signal.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    partial = tmp_path / "executed" / "smoke" / "01_slow.partial.ipynb"
    deadline = time.monotonic() + 60
    for begun in [partial, partial.with_name("02_slow.partial.ipynb")][:jobs]:
        while not (begun.exists() and "cell-4" in begun.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode != 0
    assert err.count("interrupted; partial notebook:") == jobs
    assert not (partial.parent / "01_slow.ipynb").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals work differently on Windows")
@pytest.mark.parametrize("in_background", [False, True])
def test_a_job_queue_may_end_a_command(tmp_path, in_background):
    command = [sys.executable, "-m", "richsem", "notebooks", "--profile", "smoke", "--jobs", "2"]
    process = subprocess.Popen(
        [*command, "--only", "00", "14", "--into", str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"RICHSEM_CACHE": str(tmp_path / "cache")},
        # What a shell does to a job that it starts with "&".
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_IGN if in_background else signal.default_int_handler
        ),
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob("00_*.partial.ipynb")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)  # ends only when no child holds the pipe any more
    # Python itself ends by the signal if it arrives while text is compiled (dataclasses do).
    assert process.returncode in (130, -signal.SIGINT), err
    assert "interrupted; partial notebook:" in err


@pytest.mark.slow
def test_a_parameter_is_for_the_notebooks_that_have_it(tmp_path, run):
    make(tmp_path / "sources", "01_good", "x = 1")
    plain = 'PROFILE = "demo"\nSEED = 0'
    make(tmp_path / "sources", "02_plain", "x = 2", parameters=plain)
    assert run(overrides={"RATE": "0.5"}) == [("01_good", "ran"), ("02_plain", "ran")]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"PROFILE": "demo"}, "choose the profile with --profile"),
        ({"SED": "1"}, r"01_good has no parameter 'SED'; valid: PROFILE: .*, SEED: int, RATE"),
        ({"SEED": "one"}, "SEED must be int, got 'one'"),
        ({"SEED": "1.5"}, r"SEED must be int, got 1.5 \(float\)"),
        ({"RATE": "true"}, "RATE must be float, got True"),
        ({"SCALES": "[1, a]"}, r"SCALES\[1\] must be float, got 'a'"),
    ],
)
def test_wrong_parameters_stop_before_anything_runs(tmp_path, run, overrides, message):
    make(tmp_path / "sources", "01_good", "x = 1")
    with pytest.raises(NotebookError, match=message):
        run(overrides=overrides)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ("1e-3", "RATE", 1e-3),
        ("2", "RATE", 2.0),
        ("007", "NAME", "007"),
        ("null", "NAME", None),
        ("no", "NAME", "no"),
        ("a=b", "NAME", "a=b"),
        ("'x'", "NAME", "x"),
        ("[0, 1.5]", "SCALES", [0.0, 1.5]),
    ],
)
def test_values_are_read_as_the_parameter_wants_them(tmp_path, text, key, expected):
    source = make(tmp_path, "01_good")
    task = runner.plan(source, "smoke", {key: text}, tmp_path, "code")
    assert task.values[key] == expected
    assert type(task.values[key]) is type(expected)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("seed = 0", "UPPER_CASE"),
        ("SEED = 1 + x", "parameters cell, line 1"),
        ("A = B = 0", "write NAME = value"),
        ("NAME = None", "needs a type"),
        ("BOX = (1, 2)", "write a list"),
        ("SEED: int = 'a'", "SEED must be int"),
        ("SEED: Tensor = 0", "unknown type 'Tensor'"),
        ("import os", "write NAME = value"),
    ],
)
def test_parameters_cells_hold_plain_literals(tmp_path, line, message):
    notebook = notebook_source.read(make(tmp_path, "01_bad", parameters=line))
    with pytest.raises(NotebookError, match=message):
        notebook_source.parameters(notebook, "01_bad")


def test_results_are_found_in_calls_and_magics_are_refused(tmp_path):
    body = (
        'results.save_table(frame, table_id="datasets", profile=PROFILE)',
        'for name in ("a", "fig4_qualitative"):\n    save_figure(fig, "fig1_noise")',
    )
    notebook = notebook_source.read(make(tmp_path, "01_good", *body))
    assert notebook_source.result_ids(notebook, "01_good") == ["datasets", "fig1_noise"]
    notebook = notebook_source.read(make(tmp_path, "01_bad", "x = 1\n%matplotlib inline"))
    with pytest.raises(NotebookError, match=r"01_bad: not plain Python .*: %matplotlib inline"):
        notebook_source.result_ids(notebook, "01_bad")


ROW = (
    "# Title\n\n| run time | smoke: 1 minute; demo: about 20 minutes per seed, once; paper: days |"
)


def with_row(folder, name, parameters):
    path = make(folder, name, parameters=parameters)
    notebook = nbformat.read(path, 4)
    notebook.cells[0].source = ROW
    nbformat.write(notebook, path)
    return path


def test_the_forecast_is_what_the_notebooks_say_times_their_seeds(tmp_path):
    one, many = (
        with_row(tmp_path, "01_one", "PROFILE = 'demo'"),
        with_row(tmp_path, "02_many", "PROFILE = 'demo'\nSEEDS = 2"),
    )

    def forecast(profile, jobs=1, **options):
        plans = (runner.plan(path, profile, {}, tmp_path, "", **options) for path in (one, many))
        return runner.forecast(list(plans), jobs)

    assert forecast("smoke").startswith("2 notebooks to run: about 2 minutes on two cores")
    assert "about 60 minutes" in forecast("demo")
    assert "about 120 minutes" in forecast("demo", seeds=5)
    assert "about 1 minute on two cores" in forecast("smoke", jobs=2)
    assert "about 60 minutes" in forecast("demo", jobs=4)  # their runs fill the cores
    assert forecast("paper") == "2 notebooks to run (not counted: 01_one, 02_many)"


def test_seeds_go_to_the_notebooks_that_have_them(tmp_path):
    for name, expected in (("01_one", {}), ("02_many", {"SEEDS": 5})):
        path = make(tmp_path, name, parameters="SEEDS = 1\n" * bool(expected) + PARAMETERS)
        task = runner.plan(path, "smoke", {}, tmp_path, "", seeds=5)
        assert task.values == {"PROFILE": "smoke", **expected}
    task = runner.plan(path, "smoke", {"SEEDS": "3"}, tmp_path, "", seeds=5)
    assert task.values["SEEDS"] == 3  # what is named explicitly wins


def test_no_seeds_are_refused(run):
    with pytest.raises(NotebookError, match="--seeds is 0; at least one"):
        run(seeds=0)


@pytest.mark.slow
def test_a_killed_process_is_explained(tmp_path, run):
    kill = "import os, signal, psutil; psutil.Process().parent().kill()"
    for name in ("01_a", "02_b"):
        make(tmp_path / "sources", name, kill)
    with pytest.raises(NotebookError, match="was killed, most often for want of memory"):
        run(jobs=2)


def test_unknown_selection_and_empty_folder_are_errors(tmp_path):
    with pytest.raises(NotebookError, match="no notebooks named"):
        runner.select(tmp_path, [])
    for name in ("00_a", "01_b", "02_c"):
        make(tmp_path, name)
    assert [path.stem for path in runner.select(tmp_path, ["02", "00_"])] == ["00_a", "02_c"]
    with pytest.raises(NotebookError, match="begins with '07'; there are: 00_a, 01_b, 02_c"):
        runner.select(tmp_path, ["07"])


def test_command_line_reports_mistakes_without_a_traceback(capsys):
    assert main(["notebooks", "--only", "no_such_notebook"]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_clean_drops_widgets_timings_and_folders_of_this_machine():
    def stream(text):
        return {"output_type": "stream", "name": "stdout", "text": text}

    widget = {
        "output_type": "display_data",
        "data": {notebook_copy.WIDGET: {"model_id": "1"}, "text/plain": "IntSlider()"},
        "metadata": {},
    }
    picture = {"output_type": "display_data", "data": {"image/png": "a" * 9}, "metadata": {}}
    where = stream(f"{paths.ROOT}/x.py and /tmp/ipykernel_12/345.py:3: UserWarning")
    cell = new_code_cell("1", metadata={"papermill": {"duration": 1}, "tags": ["keep"]})
    cell.outputs = [nbformat.from_dict(output) for output in (widget, picture, where)]
    notebook = new_notebook(cells=[cell], metadata={"widgets": {"state": 1}, "richsem": {"a": 1}})
    cleaned = notebook_copy.clean(notebook)
    assert set(cleaned.metadata) == {"kernelspec", "language_info", "richsem"}
    assert cleaned.cells[0].metadata == {"tags": ["keep"]}
    assert [output.output_type for output in cleaned.cells[0].outputs] == ["display_data", "stream"]
    assert cleaned.cells[0].outputs[1].text == "x.py and <cell>:3: UserWarning"
    nbformat.validate(cleaned)


def test_a_page_is_made_again_when_a_result_that_it_reads_changes(tmp_path, figures):
    page = make(tmp_path, "14_page", 'save_page("", "report")')
    other = make(tmp_path, "01_other", 'save_table(None, "datasets")')
    plans = {
        path: runner.plan(path, "smoke", {}, tmp_path / "executed", "code")
        for path in (page, other)
    }
    before = {path: runner.inputs_now(task) for path, task in plans.items()}
    record = results.output_paths("datasets", "smoke")[-1]
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    # The same plan, made before any notebook ran, sees what an earlier notebook wrote since.
    assert runner.inputs_now(plans[page]) != before[page]
    assert runner.inputs_now(plans[other]) == before[other] == plans[other].inputs_hash
    assert [path.suffix for path in plans[page].outputs] == [".html", ".json"]
