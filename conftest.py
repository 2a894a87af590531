"""Shared fixtures: reference data where it exists, one thread, no windows."""

import os
import signal
from pathlib import Path

# Before torch and matplotlib are imported: sums do not depend on the machine's number of cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest

from richsem import paths

# A shell's background jobs ignore Ctrl-C; the tests of interrupted runs send it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with a few real photos and annotations (`coco_val128`, `lvis`)."""
    folder = paths.ROOT / os.environ.get("RICHSEM_REAL_DATA", "../shared/data/real")
    if not folder.is_dir():
        pytest.skip(f"no real data: set RICHSEM_REAL_DATA to its folder (looked in {folder})")
    return folder


@pytest.fixture
def figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty folder that figures and tables go to during the test; nothing is shipped."""
    monkeypatch.setattr(paths, "FIGURES", tmp_path / "figures")
    monkeypatch.setattr(paths, "SHIPPED", tmp_path / "figures" / "shipped")
    return paths.FIGURES
