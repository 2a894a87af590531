"""Kept records are of runs that today's code would ask for."""

import tarfile

import pytest

from richsem import paths
from richsem.operations import store
from richsem.workbook import labs, studies

SEEDS = range(10)


def of_results():
    return [
        run for result in studies.STUDIES for run in studies.runs_behind(result, all_seeds=SEEDS)
    ]


def of_labs():
    parts = labs.order, labs.peers, labs.who_pays
    return [run for part in parts for run in part("demo").runs(SEEDS).values()]


@pytest.mark.parametrize(("name", "runs"), [("demo", of_results), ("labs", of_labs)])
def test_records_are_of_runs_behind_results(name, runs):
    with tarfile.open(paths.ROOT / "data" / "records" / f"{name}.tar.xz") as archive:
        names = {member.partition("/")[0] for member in archive.getnames()}
    assert names and names <= {store.run_folder(run).name for run in runs()}
