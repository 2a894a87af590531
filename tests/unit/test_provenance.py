import json
import subprocess
import time
from dataclasses import dataclass

import pytest

from richsem import __version__, paths, provenance
from richsem.config import config_hash


@dataclass(frozen=True, kw_only=True)
class Settings:
    folder: str = f"{paths.ROOT}/data"


def test_stamp_separates_what_repeats_from_what_does_not():
    stamps = [
        provenance.stamp(Settings(), range(3), {"b": "2", "a": "1"}, time.perf_counter())
        for _ in range(2)
    ]
    first, second = (
        {k: v for k, v in stamp.items() if k in ("inputs", "environment")} for stamp in stamps
    )
    assert provenance.dumps(first) == provenance.dumps(second)
    assert first["inputs"]["config_hash"] == config_hash(Settings())
    assert first["inputs"]["seeds"] == [0, 1, 2]
    assert first["inputs"]["data"] == {"a": "1", "b": "2"}
    assert first["inputs"]["code"]["version"] == __version__
    assert first["environment"]["packages"]["numpy"] != "not installed"
    assert stamps[0]["run"]["wall_seconds"] >= 0


def test_the_code_that_trained_the_runs_is_named_where_there_are_runs():
    known = (Settings(), [0], {"set": "f"}, time.perf_counter())
    assert "trained_by" not in provenance.stamp(*known)["run"]
    assert "trained" not in provenance.describe(provenance.stamp(*known))
    record = provenance.stamp(*known, trained_by={"bbbbbbbbbbbb", "aaaaaaaaaaaa"})
    assert record["run"]["trained_by"] == ["aaaaaaaaaaaa", "bbbbbbbbbbbb"]
    assert "trained by code `aaaaaaaaaa`, `bbbbbbbbbb`" in provenance.describe(record)


@dataclass(frozen=True, kw_only=True)
class Arm:
    name: str
    settings: Settings = Settings()


@dataclass(frozen=True, kw_only=True)
class Study:
    runs: tuple[Arm, ...]
    profile: str = "demo"


def test_runs_are_named_and_not_repeated_in_full():
    arms = tuple(Arm(name=f"arm-{number}") for number in range(65))
    study = Study(runs=(*arms, arms[0]))
    inputs = provenance.stamp(study, [0], {}, time.perf_counter())["inputs"]
    assert inputs["config"] == {"class": "Study", "values": {"profile": "demo"}}
    assert inputs["config_hash"] == config_hash(study)
    assert inputs["runs"] == [f"{arm.name}-{config_hash(arm)}" for arm in arms]
    assert len(provenance.dumps(inputs)) < 50_000


def test_stamp_holds_no_folder_of_this_machine():
    text = json.dumps(provenance.stamp(Settings(), [], {}, time.perf_counter()))
    assert str(paths.ROOT) not in text
    assert '"folder": "data"' in text


def test_a_start_on_the_wrong_clock_is_an_error():
    with pytest.raises(ValueError, match="perf_counter"):
        provenance.stamp(Settings(), [], {}, time.time() + 1e9)


def _commit(folder):
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", folder, "add", "."], check=True)
    subprocess.run(["git", "-C", folder, *who, "commit", "-qm", "x"], check=True)


def test_code_version_tells_clean_from_dirty(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    none = {"version": __version__, "commit": None, "dirty": None}
    assert provenance.code_version() == none
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    assert provenance.code_version() == none  # no commit yet
    (tmp_path / "figures" / "shipped").mkdir(parents=True)
    for name in ("code.py", "figures/shipped/picture.svg"):
        (tmp_path / name).write_text("1")
    _commit(tmp_path)
    version = provenance.code_version()
    assert len(version["commit"]) == 40
    assert version["dirty"] is False
    (tmp_path / "figures" / "shipped" / "picture.svg").write_text("2")  # a result, not code
    assert provenance.code_version()["dirty"] is False
    (tmp_path / "code.py").write_text("2")
    assert provenance.code_version()["dirty"] is True


def test_a_package_inside_another_repository_claims_no_commit(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "code.py").write_text("1")
    _commit(tmp_path)
    monkeypatch.setattr(paths, "ROOT", tmp_path / "package")
    assert provenance.code_version()["commit"] is None
