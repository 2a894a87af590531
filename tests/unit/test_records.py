"""Kept records are of runs that today's code would ask for."""

import tarfile

from richsem import paths
from richsem.operations import store
from richsem.workbook import studies


def test_records_are_of_runs_behind_results():
    with tarfile.open(paths.ROOT / "data" / "records" / "demo.tar.xz") as archive:
        names = {name.partition("/")[0] for name in archive.getnames()}
    seeds = range(10)
    runs = [
        run for result in studies.STUDIES for run in studies.runs_behind(result, all_seeds=seeds)
    ]
    assert names and names <= {store.run_folder(run).name for run in runs}
