"""Benchmarks compare like with like: equal results, one baseline, nothing trained."""

import copy
import importlib.util
from dataclasses import replace
from functools import partial

import pytest
import torch
from toys import assert_same, small_run

from benchmarks import attention, evaluators, paper, peer, step, timing, two_stage
from richsem.config import with_settings
from richsem.models.clip import MINI, FrozenClip
from richsem.models.deformable import sample_gathered, sample_textbook
from richsem.models.miniclip import create_miniclip
from richsem.operations import burst, cost
from richsem.training.build import build
from richsem.training.teacher import Teacher

SMALL = attention.Sizes(batch=2, heads=2, dim=4, shapes=((4, 6), (2, 3)), points=2)


@pytest.mark.parametrize("queries", [0, 5])
def test_all_ways_of_sampling_do_the_same(queries):
    sizes = SMALL._replace(queries=queries)
    given = attention.arguments(sizes, "cpu")
    assert given[1].shape == (2, queries or 30, 2, 2, 2, 2)
    ways = (sample_textbook, sample_gathered, attention.sample_with_embedding_bag)
    outputs = [way(given[0], sizes.shapes, *given[1:]) for way in ways]
    gradients = [torch.autograd.grad(output.sum(), given) for output in outputs]
    for found in (outputs, gradients):
        torch.testing.assert_close(found[1:], found[:1] * 2, atol=1e-4, rtol=1e-4)


def test_both_two_stage_detectors_learn_and_find():
    cases = two_stage.work(64, 1, 5, "test_resnet", "cpu")
    assert list(cases) == ["training step", "inference"]
    for runs in cases.values():
        assert list(runs) == [two_stage.BASELINE, two_stage.OURS]
        for run in runs.values():
            run()


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="no peer")
def test_both_transformers_learn_and_find():
    for runs in peer.work((128, 160), 5, "resnet18", "cpu").values():
        assert list(runs) == [peer.BASELINE, peer.OURS]
        for run in runs.values():
            run()


def test_a_peer_that_is_absent_is_left_out(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    peer.main()
    assert "pip install transformers" in capsys.readouterr().out


def test_a_step_at_published_sizes_by_part_and_with_every_option():
    config = paper.recipe(0.5, images=3)
    assert cost.image_sizes(config) == {"detection": (416, 672), "extra": (640, 640)}
    clip = FrozenClip(MINI, create_miniclip())
    teacher, losses = Teacher(clip, torch.randn(3, clip.dim)), {}
    for name, settings in paper.VARIANTS.items():
        small = with_settings(small_run("nowhere"), ["detector.num_classes=3", *settings])
        training = burst.begun(small)
        batch = burst.noise(training, small, "extra", 2, cost.image_sizes(small)["extra"])
        losses[name] = paper.whole_step(training, batch, 1, "cpu")["loss"]
        shares = paper.parts(training, batch, teacher, 1, "cpu")
        backward = ["proposals, decoder, backward", "neck, encoder, backward", "backbone, backward"]
        assert list(shares)[5:8] == backward and list(shares)[-1] == "optimiser"
        assert min(shares.values()) >= 0
    assert max(losses.values()) < 2 * min(losses.values())
    with pytest.raises(ValueError, match="this machine computes on"):
        paper.main(device="elsewhere")


def test_alternatives_take_turns_and_times_are_against_the_baseline(monkeypatch, capsys):
    calls = []
    times = timing.shortest({name: partial(calls.append, name) for name in "ab"}, repeats=2)
    assert calls == list("ababab")
    assert min(times.values()) >= 0 and timing.peak_megabytes("cpu") > 1
    table = timing.against(attention.BASELINE, attention.ways("small", SMALL), repeats=1)
    assert list(table[""]) == ["small, forward", "small, forward + backward"]
    assert {"textbook, ms", "textbook / gathered", "textbook / embedding_bag"} < set(table)
    monkeypatch.setattr(timing, "shortest", lambda runs, *_: {"plain": 0.4, "quick": runs["quick"]})
    timing.show("title", timing.against("plain", {"a": {"quick": 0.1}, "b": {"quick": 0.8}}, 1))
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["plain,", "ms", "quick,", "ms", "plain", "/", "quick"]
    shown = [line.split() for line in lines[3:]]
    assert shown == [["a", "400", "100", "4"], ["b", "400", "800", "0.5"]]


@pytest.mark.skipif(importlib.util.find_spec("hotcoco") is None, reason="no fast backend")
def test_evaluators_agree_on_what_is_made_up(cli):
    lines = cli("bench", "evaluators", "--images", "3", "--repeats", "1").out.splitlines()
    cli("bench", "evaluators", "--repeats", "0", code=2)
    assert [line.split()[0] for line in lines if line.startswith(("lvis", "official"))]
    case = evaluators.made_up(images=6, detections=30, classes=20)
    for ways in (evaluators._lvis_ways, evaluators._coco_ways):
        table = evaluators.compare(ways(*case), repeats=1)
        assert set(table["largest difference"]) == {"0e+00"}
        assert table["AP"].between(1, 99).all()


def test_results_that_differ_are_refused():
    truth, found = evaluators.made_up(images=6, detections=30, classes=20)
    turned = replace(found, score=found.score[::-1])
    one, other = (evaluators._lvis_ways(truth, given)["official"] for given in (found, turned))
    with pytest.raises(ValueError, match="other differs from one by 0"):
        evaluators.compare({"one": one, "other": other}, repeats=1)
    coco = evaluators._coco_ways(truth, found)["pycocotools"]
    with pytest.raises(ValueError, match="by inf"):
        evaluators.compare({"one": one, "other": coco}, repeats=1)


@pytest.fixture(scope="module")
def setup(root, tmp_path_factory):
    run = small_run(root)
    detector = replace(run.detector, semantic=False)
    config = replace(run, data=replace(run.data, extra=None), detector=detector)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("richsem.paths.CACHE", tmp_path_factory.mktemp("cache"))
        yield build(config)


@pytest.mark.parametrize("way", step.WAYS.values(), ids=step.WAYS)
def test_a_step_is_measured_part_by_part(setup, way):
    before = copy.deepcopy(setup.detector)
    laps = step.train_steps(setup, *way, num_steps=1)
    assert list(laps) == ["read", "forward", "criterion", "backward", "optimiser"]
    assert_same(setup.detector, before)
    assert list(step.detect(setup, *way, num_images=3)) == ["read", "forward", "postprocess"]


def test_the_table_of_steps_ends_with_the_baseline():
    laps = {way: {"read": 0.1, "forward": 0.1 * k} for k, way in enumerate(step.WAYS, 1)}
    table = step.table(laps, images=2).set_index("")
    columns = ["times faster than the last line", "images/s"]
    assert table.loc[step.SHIPPED, columns].tolist() == pytest.approx([2.5, 10])
    assert table[columns[0]].iloc[-1] == 1
