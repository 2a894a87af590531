"""The run store: what a run's place depends on, finishing, finding and deleting runs."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier, Event

import numpy as np
import pytest
from toys import small_run, write_root

from richsem.config import config_hash
from richsem.data.reading import DataError
from richsem.evaluation import Detections, EvaluationResult
from richsem.operations import fingerprints, store
from richsem.operations.adopting import adopt
from richsem.paths import ROOT, only_one
from richsem.recipes.dino_recipes import baseline
from richsem.training.run_config import RUN


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("richsem.paths.CACHE", tmp_path / "cache")
    monkeypatch.setenv("RICHSEM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_root(tmp_path_factory.mktemp("data"))


def test_a_place_depends_on_configuration_code_and_data(cache, root, monkeypatch, tmp_path):
    config = small_run(root)
    place = store.run_folder(config)
    assert store.run_folder(small_run(root)) == place
    assert store.run_folder(replace(config, train=replace(config.train, seed=9))) != place
    monkeypatch.setattr(store, "code_hash", lambda: "other")
    assert store.run_folder(config) != place
    monkeypatch.undo()
    moved = write_root(tmp_path / "other")
    same = replace(config, data=replace(config.data, root=str(moved)))
    annotations = next(moved.rglob("lvis_v1_train.json"))
    annotations.write_text(annotations.read_text().replace('"id": 1,', '"id":  1,', 1))
    assert store.data_hash(config) != store.data_hash(same)


def test_a_place_depends_on_the_weights_that_a_run_starts_from(cache, tmp_path):
    first, second = (tmp_path / name for name in ("first", "second"))
    for number, folder in enumerate((first, second)):
        folder.mkdir()
        (folder / "weights.safetensors").write_bytes(bytes([number]))
    config = replace(baseline("smoke"), init=str(first))
    before = store.data_hash(config)
    assert before and before != store.data_hash(replace(config, init=str(second)))
    assert store.data_hash(baseline("smoke")) == ""  # packaged weights are part of the code


def test_a_place_depends_on_the_teachers_weights(cache, tmp_path):
    config, hashes = baseline("smoke"), set()
    for name in ("first", "second"):
        (tmp_path / name).write_bytes(name.encode())
        teacher = replace(config.data.teacher, weights=str(tmp_path / name))
        hashes.add(store.data_hash(replace(config, data=replace(config.data, teacher=teacher))))
    assert len(hashes) == 2 and "" not in hashes


def test_every_model_and_every_loss_is_part_of_the_code():
    package, files = ROOT / "richsem", set(fingerprints.deciding_files())
    for part in ("models", "losses", "data"):
        assert files >= set((package / part).rglob("*.py"))
    assert all((package / name).is_file() for name in fingerprints._NOT_CODE)
    assert not files & {package / name for name in fingerprints._NOT_CODE}


def test_changed_annotations_are_judged_by_anew(cache, tmp_path):
    root = write_root(tmp_path / "data")
    config = small_run(root)
    store.finish([config])
    before = store.judged(config)
    annotations = next(root.rglob("lvis_v1_val.json"))
    annotations.write_text(annotations.read_text() + "\n")
    with pytest.raises(store.StoreError, match="not been judged on val"):
        store.judged(config)
    store.finish([config])
    assert store.judged(config).result.metrics == before.result.metrics


def test_an_unknown_split_is_found_before_training(cache, root):
    with pytest.raises(DataError, match=r"LVIS v1 dev is not under"):
        store.finish([small_run(root)], "dev")
    with pytest.raises(DataError, match=r"no split 'vall'; there are train, dev, val"):
        store.finish([baseline("smoke")], "vall")
    assert store.entries() == []


def test_a_run_whose_data_is_away_stops_nobody(cache, tmp_path):
    root = write_root(tmp_path / "data")
    store.register(small_run(root))
    root.rename(tmp_path / "away")
    store.data_hash.cache_clear()  # as in a process that starts now
    store.register(baseline("smoke"))
    (one,) = [e for e in store.entries() if e.state == "no data"]
    assert "1 runs to train" in store.plan_in_words([baseline("smoke")], 1)
    store.delete(one)
    assert [e.state for e in store.entries()] == ["step 0 of 4"]


def test_a_run_that_starts_from_another_comes_after_it(cache, root):
    first = small_run(root)
    second = replace(first, name="a-second", init=f"{RUN}{first.name}-{config_hash(first)}")
    with pytest.raises(store.StoreError, match="not in the store"):
        store.register(second)
    folders = [store.register(run) for run in (first, second)][::-1]
    with pytest.raises(store.StoreError, match="which is not finished"):
        store.started(second)
    store.finish_all(folders)
    assert store.started(second).init == str(store.run_folder(first))
    assert store.judged(second).history[-1]["step"] == first.train.steps


def test_words_in_the_code_do_not_count():
    plain = "def f(x):\n    return x + 1\n"
    told = '"""Module."""\n\ndef f(x):\n    """Adds."""\n    # one\n    return (x\n        + 1)\n'
    assert fingerprints._meaning(plain) == fingerprints._meaning(told)
    assert fingerprints._meaning(plain) != fingerprints._meaning(plain.replace("1", "2"))


def test_runs_are_trained_once_and_judged_on_each_split(cache, root, capfd):
    config = small_run(root)
    (first,) = store.finished({"a": config}, "val").values()
    assert "1 runs to train" in capfd.readouterr().out
    assert first.history[-1]["step"] == config.train.steps
    assert np.isfinite(first.result.metrics["AP"])
    weights = next(store.run_folder(config).glob("*.safetensors")).stat().st_mtime_ns
    again = store.finished({"a": config, "b": config}, "val")
    assert "to train" not in capfd.readouterr().out
    assert again["a"].result == again["b"].result
    assert again["a"].result.per_category == first.result.per_category
    np.testing.assert_array_equal(again["a"].detections.score, first.detections.score)
    store.finish([config], "train")
    assert next(store.run_folder(config).glob("*.safetensors")).stat().st_mtime_ns == weights
    (one,) = store.entries()
    assert one.state == "finished"
    judged = {key.rpartition("-")[0] for key in store.describe(one) if key.startswith("judged")}
    assert judged == {"judged-val", "judged-train"}


def test_processes_share_the_runs(cache, root):
    """What another process is at is left to it; what is left over is done here."""
    configs = [small_run(root), replace(small_run(root), name="second")]
    first, second = (store.register(config) for config in configs)
    done = Event()

    def other():
        with only_one(first):
            done.wait(60)
            store._finish_one(first, configs[0], "val")

    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(other)
        while not (first.parent / "locks" / first.name).exists():
            time.sleep(0.05)
        finish = store._finish_one

        def note(folder, config, split):
            finish(folder, config, split)
            done.set()  # the other one goes on only when the second is finished

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store, "_finish_one", note)
            store.finish_all([first, second])
        job.result()
    assert all(store.judged(config).history for config in configs)


def test_a_run_that_another_process_trains_is_waited_for(cache, root, monkeypatch):
    config, order = small_run(root), []
    monkeypatch.setattr(store.runs, "run", lambda *_: order.append("trained"))
    monkeypatch.setattr(store, "judge", lambda *_: order.append("judged"))
    with ThreadPoolExecutor(1) as pool:
        with only_one(store.run_folder(config)):
            asked = pool.submit(store.train_one, config)
            time.sleep(0.5)
            order.append("the other is done")
        asked.result(30)
    assert order == ["the other is done", "trained", "judged"]


def test_callers_share_the_places_of_a_machine(cache, root, monkeypatch):
    """Two callers of two runs each, two places: never more than two at once, and never one idle."""
    folders = [store.register(replace(small_run(root), name=name)) for name in ("a", "b", "c", "d")]
    both, now, most = Barrier(2), set(), []

    def pretend(folder, config, split):
        now.add(folder)
        most.append(len(now))
        both.wait(30)  # passes only if another run is under way
        now.discard(folder)
        both.wait(30)
        store._verdict(config, split).write_text("{}")

    monkeypatch.setattr(store, "_finish_one", pretend)
    with ThreadPoolExecutor(4) as pool:
        jobs = [
            pool.submit(store.finish_all, own, at_once=2)
            for own in (folders[:2], folders[:2], folders[2:], folders[2:])
        ]
        for job in jobs:
            job.result()
    assert len(most) == 4 and max(most) == 2


def test_there_is_at_least_one_place(cache):
    with pytest.raises(ValueError, match="at_once"):
        store.finish_all([], at_once=0)


def test_a_run_that_fails_says_why_and_the_others_go_on(cache, root, tmp_path):
    config = small_run(root)
    (tmp_path / "empty").mkdir()
    broken = replace(config, name="broken", init=str(tmp_path / "empty"))
    folders = [store.register(run) for run in (broken, config)]
    with pytest.raises(store.StoreError, match=r"broken-.* failed \(details: .*messages\.txt\)"):
        store.finish_all(folders)
    messages = (folders[0] / store.MESSAGES).read_text()
    assert "Traceback" in messages and "weights.safetensors" in messages
    assert store.judged(config).history[-1]["step"] == config.train.steps
    with pytest.raises(store.StoreError, match=r"broken-.* failed"):
        store.finish([broken])  # in a process of its own


def test_a_run_without_what_it_starts_from_is_not_put_on_the_list(cache, root):
    with pytest.raises(store.StoreError, match=r"starts from nowhere, which is not there"):
        store.register(replace(small_run(root), init="nowhere"))
    assert store.entries() == []


def test_finding_and_deleting(cache):
    first, second = (store.register(baseline("smoke", seed=seed)) for seed in (0, 1))
    assert [e.state for e in store.entries()] == ["step 0 of 4"] * 2
    assert store.find(first.name[:-1]).folder == first
    with pytest.raises(store.StoreError, match="several runs begin"):
        store.find("baseline")
    with pytest.raises(store.StoreError, match="no run of the store"):
        store.find("missing")
    store.delete(store.find(second.name))
    assert [e.folder for e in store.entries()] == [first]
    with pytest.raises(store.StoreError, match="no run in"):
        store.entry(second)


def test_a_run_of_other_code_is_outdated(cache, monkeypatch):
    store.register(baseline("smoke"))
    monkeypatch.setattr(store, "code_hash", lambda: "other")
    assert [e.state for e in store.entries()] == ["outdated"]


def test_a_run_that_cannot_be_read_any_more_is_outdated(cache):
    folder = store.register(baseline("smoke"))
    (folder / store.CONFIG).write_text('{"name": "x", "unknown": 1}')
    (one,) = store.entries()
    assert one.state == "outdated"
    assert store.describe(one)["config"] == "no longer readable"


def test_what_was_judged_comes_back_as_it_was(cache):
    config = baseline("smoke")
    folder = store.register(config)
    description = {"detector": {}, "classes": [], "code": {"commit": "abc"}}
    (folder / "detector.json").write_text(json.dumps(description))
    result = EvaluationResult(
        protocol="lvis",
        ground_truth="file.json",
        max_dets=300,
        backend="fast",
        num_images=2,
        num_detections=1,
        metrics={"AP": 0.5, "APr": float("nan")},
        per_category={3: 0.5},
    )
    found = Detections(image_id=[1], category_id=[3], bbox_xywh=[[0, 0, 1, 2]], score=[0.5])
    with pytest.raises(store.StoreError, match="not been judged on val"):
        store.judged(config)
    store.keep_verdict(config, "val", result, found)
    back = store.judged(config)
    assert back.code == "abc"
    assert back.result.metrics["AP"] == 0.5
    assert np.isnan(back.result.metrics["APr"])
    assert back.result.per_category == {3: 0.5}
    np.testing.assert_array_equal(back.detections.bbox_xywh, found.bbox_xywh)


def test_a_run_is_adopted_if_its_first_steps_are_the_same(cache, root, monkeypatch):
    config = small_run(root)
    before = store.run_folder(config)
    store.finish([config])
    with pytest.raises(store.StoreError, match="has this run already"):
        adopt(store.entry(before))
    monkeypatch.setattr(store, "code_hash", lambda: "newer")
    adopted = adopt(store.find(config.name))
    assert adopted.folder == store.run_folder(config) != before
    assert adopted.state == "finished"
    assert not before.exists()
    assert not list(adopted.folder.glob("judged-*"))


def test_a_run_whose_losses_changed_is_not_adopted(cache, root, monkeypatch):
    config = small_run(root)
    folder = store.run_folder(config)
    store.finish([config])
    log = folder / "log.jsonl"
    text = log.read_text()
    log.write_text(text.replace('"class": ', '"class": 9', 1))
    monkeypatch.setattr(store, "code_hash", lambda: "newer")
    with pytest.raises(store.StoreError, match="loss 'class' of detection batches is"):
        adopt(store.find(config.name))
    assert folder.exists()
