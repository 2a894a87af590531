"""What the project ships fits together: copies and results that show the same run agree."""

import json
from collections import defaultdict

import pytest

from richsem import paths
from richsem.workbook import notebook_files, results

COPIES = sorted((paths.NOTEBOOKS / "shipped").glob("*/*.ipynb"))
ROUNDED = 0.051  # points of AP; older copies show one digit after the point


def runs_shown(copy):
    """AP by run, as the runner noted it when it executed the notebook."""
    return notebook_files.read(copy).metadata["richsem"].get("runs", {})


@pytest.mark.parametrize("copy", COPIES, ids=lambda copy: copy.stem)
def test_a_run_achieves_the_same_in_every_copy(copy):
    others = defaultdict(dict)
    for other in COPIES:
        if other.parent == copy.parent:
            for run, ap in runs_shown(other).items():
                others[run][other.stem] = ap
    shown = runs_shown(copy)
    spread = {run: max(others[run].values()) - min(others[run].values()) for run in shown}
    apart = {run: others[run] for run in shown if spread[run] > ROUNDED}
    assert apart == {}, "make these copies anew from one run store"


@pytest.mark.parametrize("copy", COPIES, ids=lambda copy: copy.stem)
def test_where_code_is_that_of_the_source_words_are_too(copy):
    source = notebook_files.read(paths.NOTEBOOKS / copy.name).cells
    now = {cell.id: cell.source for cell in source}
    shared = [cell for cell in notebook_files.read(copy).cells if cell.id in now]
    changed = [cell for cell in shared if cell.source != now[cell.id]]
    if {cell.cell_type for cell in changed} == {"markdown"}:
        raise AssertionError(f"text to take over from the source: {[cell.id for cell in changed]}")


@pytest.mark.parametrize("name", results.writers("table"))
def test_numbers_by_seed_are_those_of_runs_that_the_notebook_shows(name):
    for record in paths.SHIPPED.glob(f"*/{name}.json"):
        rows = json.loads(record.read_bytes()).get("per_seed", {}).values()
        stated = [ap for row in rows for ap in row.get("AP", {}).values()]
        copy = paths.NOTEBOOKS / "shipped" / record.parent.name / results.writers()[name]
        shown = runs_shown(copy.with_suffix(".ipynb")).values()
        missing = [ap for ap in stated if not any(abs(ap - other) < 0.006 for other in shown)]
        assert missing == [], "result and executed copy were made from different runs"


def test_records_are_small():
    sizes = {file.name: file.stat().st_size for file in paths.SHIPPED.rglob("*.json")}
    assert sizes and max(sizes.values()) <= 50_000  # runs by their ids, not their configurations
