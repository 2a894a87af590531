import os
import subprocess
import sys
from pathlib import Path

import pytest

from richsem import paths


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{paths.ROOT}/richsem/paths.py:3", "richsem/paths.py:3"),
        (f"see {paths.ROOT}.", "see .."),
        (f"{paths.ROOT}", "."),
        (f"{paths.ROOT}-other/file", f"{paths.ROOT}-other/file"),
        (f'"{Path.home()}/data"', '"~/data"'),
        (f"/mnt{Path.home()}/data", f"/mnt{Path.home()}/data"),
        (f"file://{paths.ROOT}/README.md", "file://README.md"),
        ("nothing here", "nothing here"),
    ],
)
def test_portable_drops_folders_of_this_machine(text, expected):
    assert paths.portable(text) == expected


def test_folders_can_be_moved_and_relative_ones_count_from_the_root(tmp_path):
    code = "from richsem import paths; print(paths.CACHE); print(paths.FIGURES)"
    moved = {**os.environ, "RICHSEM_CACHE": str(tmp_path), "RICHSEM_FIGURES": "elsewhere"}
    done = subprocess.check_output([sys.executable, "-c", code], env=moved, cwd=tmp_path, text=True)
    assert done.splitlines() == [str(tmp_path), str(paths.ROOT / "elsewhere")]


def test_a_cache_may_be_moved_without_losing_what_is_in_it(tmp_path, monkeypatch):
    keys = set()
    for cache in (tmp_path / "first", tmp_path / "second" / "deeper"):
        monkeypatch.setattr(paths, "CACHE", cache)
        keys.add(paths.in_keys(cache / "minilvis-1" / "images"))
    assert keys == {"minilvis-1/images"}
    assert paths.in_keys(tmp_path / "photos") == (tmp_path / "photos").as_posix()


def test_a_file_is_replaced_completely_or_not_at_all(tmp_path, monkeypatch):
    target = tmp_path / "new" / "file.txt"
    paths.write_atomic(target, "old\n")
    paths.write_atomic(target, b"new\n")

    def broken(self, target):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        paths.write_atomic(target, "newer")
    assert target.read_bytes() == b"new\n"
    assert [path.name for path in target.parent.iterdir()] == ["file.txt"]
