"""Every notebook runs from top to bottom at the smallest profile."""

import pytest

from richsem import paths
from richsem.workbook import runner

SOURCES = sorted(path.stem for path in paths.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("name", SOURCES)
def test_runs_at_smoke(name, tmp_path, monkeypatch, capfd):
    for variable in ("OMP_NUM_THREADS", "RICHSEM_FIGURES"):  # as for a user
        monkeypatch.delenv(variable, raising=False)
    outcomes = runner.run_all("smoke", only=[name], into=tmp_path)
    assert [outcome.status for outcome in outcomes] == ["ran"], capfd.readouterr().err
    copy = tmp_path / "notebooks" / "smoke" / f"{name}.ipynb"
    assert copy.stat().st_size <= runner.MAX_BYTES
