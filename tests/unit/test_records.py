"""Kept records are of runs that today's code would ask for."""

import tarfile

import pytest

from richsem import paths
from richsem.operations import store
from richsem.workbook import studies

SEEDS = range(10)


@pytest.mark.parametrize("name", ["demo", "labs"])
def test_records_are_of_runs_behind_results(name):
    with tarfile.open(paths.ROOT / "data" / "records" / f"{name}.tar.xz") as archive:
        names = {member.partition("/")[0] for member in archive.getnames()}
    runs = [run for one in studies.STUDIES for run in studies.runs_behind(one, all_seeds=SEEDS)]
    assert names and names <= {store.run_folder(run).name for run in runs}
