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


def _reference_folder(variable: str, default: str) -> Path:
    folder = paths.ROOT / os.environ.get(variable, default)
    if not folder.is_dir():
        pytest.skip(f"no reference data: set {variable} to its folder (looked in {folder})")
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with a few real photos and annotations (`coco_val128`, `lvis`)."""
    return _reference_folder("RICHSEM_REAL_DATA", "../shared/data/real")


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder with reference tensors for numerical parity."""
    return _reference_folder("RICHSEM_GOLDEN", "../shared/golden")


@pytest.fixture
def figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty folder that figures and tables go to during the test; nothing is shipped."""
    monkeypatch.setattr(paths, "FIGURES", tmp_path / "figures")
    monkeypatch.setattr(paths, "SHIPPED", tmp_path / "figures" / "shipped")
    return paths.FIGURES
