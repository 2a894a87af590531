"""The doctor: one screen, and a clear sign where something that is needed is broken."""

import hashlib
import json
import re
from importlib import metadata
from unittest import mock

import pytest

from richsem.config import to_dict
from richsem.data import drawn
from richsem.models import weight_files
from richsem.models.weight_files import CheckpointError

QUICK = ("_weights", "_drawn_data", "_one_picture")


@pytest.fixture
def healthy(monkeypatch):
    """All is there, and what takes seconds is left out; gives what sets a part."""

    def put(name, look):
        monkeypatch.setattr(f"richsem.workbook.doctor.{name}", look)

    for name in QUICK:
        put(name, lambda: "whole")
    monkeypatch.setattr(metadata, "requires", lambda name: ["numpy>=2.0", "never==1; extra == 'x'"])
    return put


def test_a_machine_that_has_all_is_told_so_on_one_screen(cache, cli):
    told = cli("doctor").out
    assert len(told.splitlines()) <= 20 and "BROKEN" not in told
    assert re.search(r"^machine +\d+ cores, \d+ GB memory, .* GB free for", told, re.MULTILINE)
    assert re.search(r"`notebooks --profile \w+` fits; it takes about \d+ minutes", told)
    assert "minidino (" in told and re.search(r"objects found in it: \d+, in \d+\.\d\d s", told)


@pytest.mark.parametrize(
    ("needed", "words"),
    [("no-such-thing>=1", "no-such-thing>=1 is needed, it is missing"), ("numpy>=99", ", it is ")],
)
def test_a_package_that_is_missing_or_old_has_a_remedy(healthy, needed, words, monkeypatch, cli):
    monkeypatch.setattr(metadata, "requires", lambda name: [needed])
    told = cli("doctor", code=1).out
    assert f"BROKEN: {needed}" in told and words in told and "pip install -c" in told


def test_small_machines_and_untested_versions_are_told(healthy, monkeypatch, cli, tmp_path):
    (tmp_path / "constraints.txt").write_text("# tested\nNumPy==0.1\n")
    monkeypatch.setattr("richsem.paths.ROOT", tmp_path)
    monkeypatch.setattr("richsem.workbook.doctor._ROOM", 1e18)
    told = cli("doctor").out
    assert re.search(r"numpy \S+ \(tested: 0\.1\)", told) and "--profile smoke` fits" in told


def test_weights_that_cannot_be_read_and_drawn_pictures_that_changed_are_broken(
    monkeypatch, tmp_path, cli
):
    from richsem.workbook import doctor

    monkeypatch.setattr(drawn, "drawn_folder", lambda config: tmp_path)
    assert doctor._drawn_data().startswith("not yet")
    picture = tmp_path / "images" / "lvis" / "1.jpg"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"a picture")
    known = hashlib.sha256(hashlib.sha256(b"a picture").hexdigest().encode()).hexdigest()
    manifest = {"images": {"lvis": {"count": 1, "sha256": known}}, "annotations": {}}
    manifest |= {"config": to_dict(drawn.DEMO)}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert doctor._drawn_data() == "as it was drawn"
    picture.write_bytes(b"another one")
    with pytest.raises(ValueError, match="is not as it was drawn: remove"):
        doctor._drawn_data()
    broken = mock.Mock(side_effect=CheckpointError("minidino.safetensors: cut off"))
    monkeypatch.setattr(weight_files, "read", broken)
    assert re.search(r"^weights +BROKEN: minidino", cli("doctor", code=1).out, re.MULTILINE)
