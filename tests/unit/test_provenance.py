import json
import subprocess
import time
from dataclasses import dataclass

import pytest

from richsem import __version__, paths, provenance
from richsem.config import config_hash


@dataclass(frozen=True, kw_only=True)
class Settings:
    name: str = "arm"
    folder: str = f"{paths.ROOT}/data"


def test_stamp_separates_what_repeats_from_what_does_not():
    known = (Settings(), range(3), {"b": "2", "a": "1"}, time.perf_counter())
    first, second = provenance.stamp(*known), provenance.stamp(*known)
    assert first.pop("run")["wall_seconds"] >= 0 and second.pop("run")["finished"]
    assert provenance.dumps(first) == provenance.dumps(second)
    expected = {"config_hash": config_hash(Settings()), "seeds": [0, 1, 2]}
    assert first["inputs"].items() >= (expected | {"data": {"a": "1", "b": "2"}}).items()
    assert first["inputs"]["code"]["version"] == __version__
    assert first["environment"]["packages"]["numpy"] != "not installed"
    text = json.dumps(first)
    assert str(paths.ROOT) not in text and '"folder": "data"' in text
    with pytest.raises(ValueError, match="perf_counter"):  # a start on the wrong clock
        provenance.stamp(Settings(), [], {}, time.time() + 1e9)
    # The code that trained runs is named where there are some.
    assert "trained_by" not in provenance.stamp(*known)["run"]
    assert "trained" not in provenance.describe(provenance.stamp(*known))
    record = provenance.stamp(*known, trained_by={"bbbbbbbbbbbb", "aaaaaaaaaaaa"})
    assert record["run"]["trained_by"] == ["aaaaaaaaaaaa", "bbbbbbbbbbbb"]
    assert "trained by code `aaaaaaaaaa`, `bbbbbbbbbb`" in provenance.describe(record)


@dataclass(frozen=True, kw_only=True)
class Study:
    runs: tuple[Settings, ...]
    profile: str = "demo"


def test_runs_are_named_and_not_repeated_in_full():
    arms = tuple(Settings(name=f"arm-{number}") for number in range(65))
    study = Study(runs=(*arms, arms[0]))
    inputs = provenance.stamp(study, [0], {}, time.perf_counter())["inputs"]
    assert inputs["config"] == {"class": "Study", "values": {"profile": "demo"}}
    assert inputs["config_hash"] == config_hash(study)
    assert inputs["runs"] == [f"{arm.name}-{config_hash(arm)}" for arm in arms]
    assert len(provenance.dumps(inputs)) < 50_000


def test_code_version_tells_clean_from_dirty(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    none = {"version": __version__, "commit": None, "dirty": None}
    assert provenance.code_version() == none
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    assert provenance.code_version() == none  # no commit yet
    (tmp_path / "figures" / "shipped").mkdir(parents=True)
    for name in ("code.py", "figures/shipped/picture.svg"):
        (tmp_path / name).write_text("1")
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["add", "."], [*who, "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    version = provenance.code_version()
    assert len(version["commit"]) == 40 and version["dirty"] is False
    (tmp_path / "figures" / "shipped" / "picture.svg").write_text("2")  # a result, not code
    assert provenance.code_version()["dirty"] is False
    (tmp_path / "code.py").write_text("2")
    assert provenance.code_version()["dirty"] is True
    monkeypatch.setattr(paths, "ROOT", tmp_path / "figures")  # inside another repository
    assert provenance.code_version() == none
