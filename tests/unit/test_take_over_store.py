"""What earlier code kept gets today's names: nothing is lost, trained or drawn anew."""

import importlib.util
import json
from dataclasses import replace
from signal import SIGINT, raise_signal

import pytest
import torch
from toys import small_run, write_root

from richsem import kept, paths
from richsem.config import config_hash, to_dict
from richsem.data.drawn import SMOKE, drawn_folder
from richsem.operations import store
from richsem.training.loop import LOG
from richsem.training.run_config import RUN


@pytest.fixture
def script(own_cache):
    path = paths.ROOT / "scripts" / "take_over_store.py"
    spec = importlib.util.spec_from_file_location("take_over_store", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_old(script, config, **gone):
    """Gives a run of the store the name and the file that the old code gave it."""
    folder = store.run_folder(config)
    values, path = to_dict(config), folder / "detector.json"
    values["train"] |= gone
    (folder / store.CONFIG).write_text(json.dumps(values))
    if path.is_file():
        description = json.loads(path.read_text())
        description["recipe"]["train"] |= gone
        path.write_text(json.dumps(description))
    for verdict in folder.glob("judged-*"):
        annotations = paths.ROOT / config.data.root / "lvis_v1_val.json"
        old = script.kept.digest(annotations)
        verdict.rename(verdict.with_name(f"judged-val-{old}{verdict.suffix}"))
    old = folder.with_name(f"{config.name}-0123456789ab-{script.old_suffix(config)}")
    return folder.rename(old)


def test_runs_are_found_under_todays_names(script, tmp_path, capsys, monkeypatch):
    root = write_root(tmp_path / "data")
    done = small_run(root)
    half = replace(done, name="half", train=replace(done.train, steps=6, checkpoint_every=2))
    changed = replace(done, name="changed")
    store.finish_here([done])
    with pytest.raises(KeyboardInterrupt):  # after its first row, with its state saved
        store.runs.run(half, store.register(half), on_progress=lambda _: raise_signal(SIGINT))
    before = store.finished({0: done})[0].result
    kept_log = (store.run_folder(half) / LOG).read_bytes()
    state = store.run_folder(half) / "state.pt"
    torch.save(torch.load(state, weights_only=True) | {"identity": "of the old code"}, state)
    store.register(changed)
    make_old(script, done, ema_decay=0.0)
    make_old(script, half, deterministic=False)
    left = make_old(script, changed, ema_decay=0.9)

    assert script.main() == 0
    said = capsys.readouterr().out
    assert said.count(": now ") == 2
    assert f"{left.name}: left: ema_decay is 0.9" in said
    states = [store.entry(store.run_folder(run)).state for run in (done, half)]
    assert states == ["finished", "step 2 of 6"]
    assert (store.run_folder(half) / LOG).read_bytes() == kept_log
    with monkeypatch.context() as patch:
        patch.setattr(store.runs, "run", None)  # nothing is trained
        assert store.finished({0: done})[0].result == before
    assert store.runs.open_trained(store.run_folder(done)).recipe.train == done.train
    store.finish_here([half])
    assert [row["step"] for row in store.finished({0: half})[0].history] == [2, 4, 6]
    script.main()
    assert ": now " not in capsys.readouterr().out


def test_a_second_phase_names_its_first_one(script, tmp_path):
    first = small_run(write_root(tmp_path / "data"))
    second = replace(first, name="a-second", init=f"{RUN}{first.name}-{config_hash(first)}")
    folders = [store.register(run) for run in (first, second)]
    old = replace(second, init=f"{RUN}small-0123456789ab")
    folders[1].rename(store.run_folder(old))
    make_old(script, first)
    make_old(script, old)
    script.main()
    assert sorted(one.id for one in store.entries()) == sorted(folder.name for folder in folders)
    assert store.entry(folders[1]).known() == second


def test_pictures_get_their_name_and_time(script, capsys):
    folder = paths.CACHE / f"minilvis-0123456789ab-{script.OLD_PAINTING}"
    picture = folder / "images" / "lvis" / "train" / "1.jpg"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"a picture")
    unfinished = paths.CACHE / f"minilvis-cccccccccccc-{script.OLD_PAINTING}"
    unfinished.mkdir()
    manifest = {"config": to_dict(SMOKE), "annotations": {}, "images": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    script.main()
    target = drawn_folder(SMOKE)
    moved = target / "images" / "lvis" / "train" / "1.jpg"
    assert moved.read_bytes() == b"a picture"
    assert moved.stat().st_mtime_ns == kept.DRAWN_AT
    assert json.loads((target / "manifest.json").read_text()) == manifest
    said = capsys.readouterr().out
    assert f"now {target.name}" in said and "never finished" in said
