import errno
import os
import shutil
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


PLACES = "CACHE", "FIGURES", "EXECUTED", "NOTEBOOKS"


def places(folder, **variables):
    """Where a process that starts in a folder reads and writes."""
    code = f"from richsem import paths; print(*(getattr(paths, n) for n in {PLACES}), sep='\\n')"
    plain = {k: v for k, v in os.environ.items() if not k.startswith("RICHSEM")}
    known = {"env": plain | variables, "cwd": folder, "text": True}
    return subprocess.check_output([sys.executable, "-c", code], **known).splitlines()


def test_folders_can_be_moved_and_relative_ones_count_from_where_one_stands(tmp_path):
    moved = {"RICHSEM_CACHE": str(tmp_path), "RICHSEM_FIGURES": "elsewhere"}
    assert places(tmp_path, **moved)[:2] == [str(tmp_path), str(tmp_path / "elsewhere")]
    own = ("data/cache", "figures", "notebooks/executed", "notebooks")
    assert places(tmp_path) == [str(paths.ROOT / name) for name in own]


def test_an_installed_package_writes_where_one_stands_and_caches_for_the_user(tmp_path):
    site = tmp_path / "site"
    no_weights = shutil.ignore_patterns("*.safetensors", "__pycache__")
    shutil.copytree(paths.ROOT / "richsem", site / "richsem", ignore=no_weights)
    (tmp_path / "stand").mkdir()
    known = {"PYTHONPATH": str(site), "XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    cache, figures, executed, sources = places(tmp_path / "stand", **known)
    assert Path(cache).is_relative_to(tmp_path) and "richsem" in Path(cache).name
    assert figures == str(tmp_path / "stand" / "figures")
    assert executed == str(tmp_path / "stand" / "notebooks" / "executed")
    assert sources.endswith("share/richsem/notebooks")


def test_users_paths_count_from_where_they_stand_and_caches_may_be_moved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(paths.HERE, raising=False)
    assert paths.user_path("README.md") == paths.ROOT / "README.md"
    (tmp_path / "README.md").write_text("my own")
    assert paths.user_path("README.md") == tmp_path / "README.md"
    assert paths.user_path("nowhere/x.json") == tmp_path / "nowhere" / "x.json"
    monkeypatch.setenv(paths.HERE, str(tmp_path / "deeper"))  # as a kernel is told
    assert paths.user_path("x.json") == tmp_path / "deeper" / "x.json"
    assert paths.user_path("~") == Path.home()
    keys = set()
    for cache in (tmp_path / "first", tmp_path / "second" / "deeper"):
        monkeypatch.setattr(paths, "CACHE", cache)
        keys.add(paths.in_keys(cache / "minilvis-1" / "images"))
    assert keys == {"minilvis-1/images"}
    assert paths.in_keys(tmp_path / "photos") == (tmp_path / "photos").as_posix()


def test_a_place_that_could_not_be_noted_is_told_before_any_work(tmp_path, own_cache, cli):
    own_cache.mkdir()
    (own_cache / "written").touch()
    command = ["evaluate", "nothing", "--out", tmp_path / "a.json"]
    assert "set RICHSEM_CACHE to a folder that can be written" in cli(*command, code=2).err


@pytest.mark.parametrize("written", [1, 2])
def test_killed_at_any_write_own_files_are_still_known(tmp_path, own_cache, monkeypatch, written):
    target, write = tmp_path / "boxes.json", paths.write_atomic
    paths.write_own(target, "first")
    left = [write] * (written - 1)
    with monkeypatch.context() as killed, pytest.raises(IndexError):
        killed.setattr(paths, "write_atomic", lambda *given: left.pop()(*given))
        paths.write_own(target, "second")
    paths.write_own(target, "second")
    assert target.read_text() == "second" and paths.is_own(target)
    copy = shutil.copy(target, tmp_path / "kept.json")
    with pytest.raises(FileExistsError, match="not written by this program"):
        paths.write_own(copy, "third")  # whoever copied it wants to keep it
    target.write_text("a user's")
    with pytest.raises(FileExistsError, match="not written by this program"):
        paths.write_own(target, "third")


def test_what_a_killed_process_left_is_removed_but_not_what_another_is_writing(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from richsem import paths\n"
        "Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "paths.write_atomic(Path(sys.argv[1]), 'half')"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "a.b.txt")]) as process:
        process.wait()
    (left,) = tmp_path.iterdir()
    writing = left.with_name(left.name.replace(f"-{process.pid}-", f"-{os.getpid()}-"))
    writing.touch()
    paths.write_atomic(tmp_path / "other.txt", "whole")
    assert set(tmp_path.iterdir()) == {writing, tmp_path / "other.txt"} != {left}


def test_a_file_is_replaced_completely_or_not_at_all(tmp_path, monkeypatch):
    target = tmp_path / "new" / "file.txt"
    paths.write_atomic(target, "old\n")
    paths.write_atomic(target, b"new\n")

    def broken(self, target):
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        paths.write_atomic(target, "newer")
    assert target.read_bytes() == b"new\n"
    assert [path.name for path in target.parent.iterdir()] == ["file.txt"]
