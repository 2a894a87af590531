"""The run store: what a run's place depends on, finishing, finding and deleting runs."""

import json
import os
import re
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from tiny_files import federated_case, rewritten
from toys import small_run, write_root

from richsem.config import config_hash, to_json
from richsem.data.reading import DataError
from richsem.evaluation import evaluate
from richsem.operations import store
from richsem.paths import only_one, write_atomic
from richsem.recipes.dino_recipes import baseline
from richsem.training.run_config import RUN

pytestmark = pytest.mark.usefixtures("own_cache")


def achieved(config, split="val"):
    return store._read_verdict(config, split)


def mtime(config):
    return next(store.run_folder(config).glob("*.safetensors")).stat().st_mtime_ns


def test_a_place_depends_on_configuration_and_code(root, monkeypatch):
    config = small_run(root)
    place = store.run_folder(config)
    assert store.run_folder(small_run(root)) == place
    assert store.run_folder(replace(config, train=replace(config.train, seed=9))) != place
    with monkeypatch.context() as patch:
        patch.setattr(store.kept, "_section", lambda name: "other numbers")
        assert store.run_folder(config) != place


@pytest.mark.parametrize("what", ["start", "teacher"])
def test_a_place_depends_on_weights(tmp_path, what):
    config, states = baseline("smoke"), {store.data_state(baseline("smoke"))}
    assert states == {""}  # packaged weights are part of the code
    for number in range(2):
        file = tmp_path / str(number) / "weights.safetensors"
        write_atomic(file, bytes([number]))
        teacher = replace(config.data.teacher, weights=str(file))
        taught = replace(config, data=replace(config.data, teacher=teacher))
        started = replace(config, init=str(file.parent))
        states.add(store.data_state(started if what == "start" else taught))
    assert len(states) == 3


def test_an_unknown_split_is_found_before_training(root):
    with pytest.raises(DataError, match=r"LVIS v1 dev is not under"):
        store.finish([small_run(root)], "dev")
    with pytest.raises(DataError, match=r"no split 'vall'; there are train, dev, val"):
        store.finish([baseline("smoke")], "vall")
    with pytest.raises(DataError, match=r"baseline: this recipe needs real data: set data\.root"):
        store.finish([baseline("paper")])
    assert store.entries() == []


def test_a_run_whose_data_is_away_stops_nobody(tmp_path, cli):
    root = write_root(tmp_path / "data")
    store.register(small_run(root))
    root.rename(tmp_path / "away")
    forget_what_was_seen()
    store.register(baseline("smoke"))
    (one,) = [e for e in store.entries() if e.state == "no data"]
    with only_one(one.folder):
        assert "another process is training it" in cli("runs", "delete", one.id, code=2).err
    elsewhere = one.folder.rename(tmp_path / "other disk")
    one.folder.symlink_to(elsewhere)
    assert "is a link to" in cli("runs", "delete", one.id, code=2).err and elsewhere.is_dir()
    one.folder.unlink()
    elsewhere.rename(one.folder)
    cli("runs", "delete", one.id)
    (one.folder.parent / "no run" / store.CONFIG).mkdir(parents=True)
    assert [e.state for e in store.entries()] == ["step 0 of 4"]


def test_a_run_that_starts_from_another_comes_after_it(root):
    first = small_run(root)
    second = replace(first, name="a-second", init=f"{RUN}{first.name}-{config_hash(first)}")
    with pytest.raises(store.StoreError, match="not in the store"):
        store.register(second)
    with pytest.raises(store.StoreError, match=r"starts from nowhere, which is not there"):
        store.register(replace(first, init="nowhere"))
    assert store.entries() == []
    for run in (first, second):
        store.register(run)
    with pytest.raises(store.StoreError, match="which is not finished"):
        store.started(second)
    store.finish_here([second, first])
    assert store.started(second).init == str(store.run_folder(first))
    assert achieved(second).history[-1]["step"] == first.train.steps


def test_runs_are_trained_once_and_judged_on_each_split_and_changed_file(tmp_path, capfd):
    root = write_root(tmp_path / "data")
    config = small_run(root)
    (first,) = store.finished({"a": config}, "val").values()
    assert "1 run to train, 1 side" in capfd.readouterr().out
    assert first.history[-1]["step"] == config.train.steps
    assert np.isfinite(first.result.metrics["AP"])
    weights = mtime(config)
    again = store.finished({"a": config, "b": config}, "val")
    assert "to train" not in capfd.readouterr().out
    assert again["a"].result == again["b"].result
    assert again["a"].result.per_category == first.result.per_category
    np.testing.assert_array_equal(again["a"].detections.score, first.detections.score)
    store.finish([config], "train")
    assert mtime(config) == weights
    (one,) = store.entries()
    assert one.state == "finished" and not (one.folder / "state.pt").exists()
    annotations = root / "lvis_v1_val.json"
    annotations.write_text(annotations.read_text() + "\n")
    assert store.finished({0: config})[0].result == first.result
    assert mtime(config) == weights
    judged = [key.rpartition("-")[0] for key in store.describe(one) if key.startswith("judged")]
    assert sorted(judged) == ["judged-train", "judged-val", "judged-val"]


def test_a_record_is_enough_for_tables_and_trained_anew_for_its_boxes(root):
    config = small_run(root)
    folder, whole = store.run_folder(config), store.finished({0: config})[0]
    for file in [*folder.glob("*.safetensors"), *folder.glob("*.npz")]:
        file.unlink()
    record = store.finished({0: config})[0]
    assert record.result.per_category == pytest.approx(whole.result.per_category, nan_ok=True)
    assert record.history == whole.history and not list(folder.glob("*.safetensors"))
    with pytest.raises(store.StoreError, match=r"delete it and judged-.* to have it judged"):
        _ = record.detections
    assert (store.trained(config) / "weights.safetensors").is_file()
    assert store.finished({0: config})[0].result.per_category == record.result.per_category
    store._verdict(config, "val").unlink()
    again = store.finished({0: config})[0]
    assert np.array_equal(again.detections.bbox_xywh, whole.detections.bbox_xywh)


@pytest.mark.parametrize("died", [True, False])
def test_processes_share_the_runs(root, monkeypatch, died):
    """What another process is at is left to it, then waited for; if it died, it is done here."""
    configs, order = [small_run(root), replace(small_run(root), name="second")], []

    def train(config, split):
        order.append(config.name)
        write_atomic(store._verdict(config, split), "")

    monkeypatch.setattr(store, "_train_and_judge", train)
    with ThreadPoolExecutor(1) as pool:
        with only_one(store.run_folder(configs[0])):
            store.finish_here(configs, waits=False)
            asked = pool.submit(store.finish_here, configs)
            time.sleep(0.5)
            if not died:
                train(configs[0], "val")
            order.append("the other ends")
        asked.result(30)
    last = ["the other ends", "small"] if died else ["small", "the other ends"]
    assert order == ["second", *last]


def test_of_runs_that_others_are_at_the_first_that_is_free_is_taken(root, monkeypatch):
    configs, order = [replace(small_run(root), name=name) for name in ("first", "second")], []
    monkeypatch.setattr(store, "_train_and_judge", lambda config, split: order.append(config.name))
    with ThreadPoolExecutor(1) as pool:
        with only_one(store.run_folder(configs[0])):
            with only_one(store.run_folder(configs[1])):
                asked = pool.submit(store.finish_here, configs)
                time.sleep(0.5)
            time.sleep(2)
            assert order == ["second"]
        asked.result(30)
    assert order == ["second", "first"]


def test_a_run_that_fails_says_why_and_the_others_go_on(root, tmp_path):
    config = small_run(root)
    (tmp_path / "empty").mkdir()
    broken = replace(config, name="broken", init=str(tmp_path / "empty"))
    with pytest.raises(store.StoreError, match=r"broken-.* failed \(details: .*messages\.txt\)"):
        store.finish_here([broken, config])
    messages = (store.run_folder(broken) / store.MESSAGES).read_text()
    assert "Traceback" in messages and "weights.safetensors" in messages
    assert achieved(config).history[-1]["step"] == config.train.steps
    third = replace(config, name="third")
    with pytest.raises(store.StoreError, match=r"broken-.* failed"):
        store.finish([broken, third])  # in processes of their own
    assert achieved(third).config == third


def test_finding_and_deleting(monkeypatch, cli):
    first, second = (store.register(baseline("smoke", seed=seed)) for seed in (0, 1))
    assert [e.state for e in store.entries()] == ["step 0 of 4"] * 2
    entry, opened = store.entry, []
    with monkeypatch.context() as patch:
        patch.setattr(store, "entry", lambda folder: opened.append(folder) or entry(folder))
        assert store.find(first.name[:-1]).folder == first
    assert opened == [first]  # it reads no other run
    for name, words in (("baseline", "several runs begin"), ("missing", "no run of the store")):
        with pytest.raises(store.StoreError, match=words):
            store.find(name)
    assert cli("runs", "delete", second.name, second.name).out == f"deleted {second.name}\n"
    assert [e.folder for e in store.entries()] == [first]
    with pytest.raises(store.StoreError, match="no run in"):
        store.entry(second)


def test_a_field_that_is_gone_is_passed_over_but_not_other_numbers(monkeypatch, cli):
    folder = store.register(baseline("smoke"))
    rewritten(folder / store.CONFIG, lambda values: values["train"].update(speed=3))
    with pytest.warns(UserWarning, match=r"run\.json: dropped .* TrainConfig\.speed"):
        (one,) = store.entries()
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert re.match(r"warning: .*run\.json: dropped .*speed\n$", cli("runs").err)
        monkeypatch.setenv("RANK", "1")  # of processes launched together, the first one warns
        assert cli("runs").err == ""
    assert (one.state, one.known()) == ("step 0 of 4", baseline("smoke"))
    (folder / store.CONFIG).write_text(to_json(baseline("smoke")))
    monkeypatch.setattr(store.kept, "_section", lambda name: "other numbers")
    assert [e.state for e in store.entries()] == ["outdated"]


@pytest.mark.parametrize(
    ("name", "content"),
    [("run.json", '{"name": "x"}'), ("run.json", "{"), ("run.json", "[]"), ("log.jsonl", "{\n")],
)
def test_a_damaged_run_is_named_and_stops_nobody(name, content, cli, monkeypatch):
    other, damaged = (store.register(baseline("smoke", seed=seed)) for seed in (0, 1))
    (damaged / name).write_text(content)
    states = {one.folder: one.state for one in store.entries()}
    assert states == {other: "step 0 of 4", damaged: "damaged"}
    one = store.find(damaged.name)
    assert str(damaged / name) in store.describe(one)["config"]
    assert "delete" in one.problem
    trained = []
    monkeypatch.setattr(store, "_train_and_judge", lambda config, split: trained.append(config))
    assert f"left out: {damaged / name}" in cli("runs", "finish", "--no-wait").err
    assert trained == [baseline("smoke", seed=0)]
    cli("runs", "finish", damaged.name, code=2)
    for words in (["list"], ["show", damaged.name], ["delete", damaged.name]):
        cli("runs", *words)
    assert not damaged.exists()


def test_what_was_judged_comes_back_as_it_was():
    config = baseline("smoke")
    folder = store.register(config)
    description = {"detector": {}, "classes": [], "code": {"commit": "abc"}}
    (folder / "detector.json").write_text(json.dumps(description))
    truth, found = federated_case(num_images=2)
    result = evaluate("coco", truth, found)
    verdict = store._verdict(config, "val")
    store._keep_verdict(verdict, result, found)
    back = achieved(config)
    assert back.code == "abc" and back.result.per_category == result.per_category
    np.testing.assert_array_equal(back.detections.bbox_xywh, found.bbox_xywh)
    for damaged in folder.glob("judged-val.*"):
        damaged.write_bytes(damaged.read_bytes()[:50])
        with pytest.raises(store.StoreError, match=rf"{damaged.name} is damaged .* judged anew"):
            _ = achieved(config).detections
        store._keep_verdict(verdict, result, found)
    verdict.with_suffix(".npz").unlink()  # numbers may travel without weights and detections
    assert achieved(config).result.metrics == back.result.metrics


def test_replaced_pictures_and_annotations_outdate_a_run(tmp_path):
    root = write_root(tmp_path / "data")
    config = small_run(root)
    place, verdict = store.run_folder(config), store.split_state(config, "val")
    (root / "train2017" / "notes.txt").write_text("no picture")
    (root / "train2017" / "above").symlink_to(root, target_is_directory=True)  # not for ever
    forget_what_was_seen()
    assert store.run_folder(config) == place
    places = {place}
    for one in (root / "train2017" / "train1.jpg", root / "lvis_v1_train.json"):
        one.write_bytes(one.read_bytes() + b" ")
        forget_what_was_seen()
        places.add(store.run_folder(config))
    assert len(places) == 3 and store.split_state(config, "val") != verdict


def test_pictures_that_are_replaced_while_a_kernel_lives_are_noticed(tmp_path, monkeypatch):
    root, asked = write_root(tmp_path / "data"), []
    config = small_run(root)
    monkeypatch.setattr(store, "register", lambda config: asked.append(store.run_folder(config)))
    monkeypatch.setattr(store, "worker_pool", None)  # only up to the training
    for _ in range(2):
        with pytest.raises(TypeError):
            store.finish([config])
        picture = root / "train2017" / "train1.jpg"
        picture.write_bytes(picture.read_bytes() + b" ")
    assert len(set(asked)) == 2


def test_the_sets_of_a_run_are_drawn_if_need_be_and_less_what_is_dropped(root, monkeypatch):
    whole, drawn = small_run(root), []
    half = replace(whole, data=replace(whole.data, drop=0.5))
    monkeypatch.setattr(store, "prepare", drawn.append)
    boxes = {config: len(store.training_dataset(config).labels) for config in (whole, half)}
    assert 0 < boxes[half] < boxes[whole] == 9
    judged = store.judged_dataset(half, "val")  # nothing is dropped where runs are judged
    assert (judged.name, len(judged.labels)) == ("LVIS v1 val", 9)
    assert drawn == [whole.data, half.data, half.data]


def forget_what_was_seen():
    """As in a process that starts now."""
    store.data_state.cache_clear()
    store.kept.pictures_state.cache_clear()


def test_a_worker_whose_parent_was_killed_saves_its_run_and_ends(cache, root):
    folder = store.register(small_run(root, steps=100_000))
    code = "from richsem.operations import store; store.finish([store.entries()[0].known()])"
    own = os.environ | {"RICHSEM_CACHE": str(cache)}
    with subprocess.Popen([sys.executable, "-c", code], env=own) as parent:
        while not (folder / "log.jsonl").is_file():
            assert parent.poll() is None
            time.sleep(0.1)
        parent.kill()
    with only_one(folder):  # as soon as the worker leaves it
        assert (folder / "state.pt").is_file() and not (folder / store.MESSAGES).exists()
