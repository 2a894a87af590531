"""What a GPU would be asked to do, on an accelerator that is pretended."""

import json
from types import SimpleNamespace

import golden_runs
import golden_trace
import numpy as np
import pytest
import torch
from pretended import DEVICE, pretended

from richsem.config import with_settings
from richsem.data.catalog import open_boxes
from richsem.data.drawn import SMOKE
from richsem.minilvis import render
from richsem.models.clip import MINI, FrozenClip
from richsem.processes import small_runs_at_once
from richsem.training import runs
from richsem.training.parallel import this_process

EXPECTED = json.loads(golden_trace.FILE.read_text(encoding="utf-8"))


@pytest.fixture
def benchmark(tmp_path, monkeypatch):
    """The drawn pictures in a cache that holds nothing else, and an accelerator."""
    shared = render.build_minilvis(SMOKE)
    folder = tmp_path / shared.name
    folder.symlink_to(shared, target_is_directory=True)
    monkeypatch.setattr("richsem.paths.CACHE", tmp_path)
    with pretended():
        yield folder


def differing(section, name, found):
    """What differs from the golden trace, which is the CPU's."""
    expected = {section: {name: EXPECTED[section][name]}}
    return golden_trace.differing(expected, golden_trace.plain({section: {name: found}}))


def test_the_rules_of_an_accelerator_are_kept():
    with pretended():
        there, here = torch.ones(3, device="cuda"), torch.ones(3)
        moved = torch.nn.Linear(3, 2).to(DEVICE)
        moved(there).sum().backward()
        assert moved.weight.grad.device == moved(there).device == DEVICE
        assert there.cpu().numpy().sum() == float((there * torch.tensor(1.0)).sum()) == 3
        assert there[torch.tensor([0, 2])].tolist() == [1, 1]  # positions may come from the CPU
        for wrong in (
            lambda: there + here,
            lambda: moved(here),
            lambda: torch.equal(there, here),
            lambda: here[there.long()],
            lambda: there.index_put((torch.tensor([0, 1]),), here[:2]),
            lambda: torch.cat([there, torch.zeros(1)]),
        ):
            with pytest.raises(RuntimeError, match="on the accelerator, but on the CPU are"):
                wrong()
        for wrong in (there.numpy, lambda: np.asarray(there)):
            with pytest.raises(TypeError, match="can't convert cuda"):
                wrong()


@pytest.mark.parametrize(
    "name",
    [
        *("baseline", "detic", "richsem", "teacher at pred"),
        *("centernet2_detic", "centernet2_richsem", "paper's richsem"),
        "paper's centernet2_richsem",
    ],
)
def test_first_steps_are_those_of_the_cpu(name, benchmark, tmp_path):
    smoke = {
        name: golden_runs.few_images(c) for name, c in golden_runs.run_configs("smoke").items()
    }
    found = golden_runs._first_steps((smoke | golden_runs.variants())[name], tmp_path / "run")
    assert not differing("runs", name, found)


def test_detections_are_those_of_the_cpu(benchmark):
    found = golden_runs.evaluation(benchmark)
    for name, one in found.items():
        assert not differing("evaluation", name, one)


@pytest.mark.parametrize("mode", ["roi", "crop"])
def test_regions_are_those_of_the_cpu(mode, benchmark):
    scene = open_boxes("lvis", "val", root=benchmark).select(range(1))
    image = torch.from_numpy(np.array(scene.image(0))).permute(2, 0, 1)
    boxes, clip = torch.from_numpy(scene.boxes_of(0)[0]), FrozenClip(MINI)
    expected = clip.regions(image, boxes, mode)
    found = clip.to(DEVICE).regions(image.to(DEVICE), boxes, mode)
    assert found.device == clip.text_features(["cat"]).device == DEVICE
    torch.testing.assert_close(found.cpu(), expected)


@pytest.mark.parametrize(
    "settings",
    [
        ["data.extra.pseudo_boxes=true", "loss.relief=seesaw", "train.average=0.9"],
        ["data.extra.wrong_labels=0.5", "loss.relief=equalised", "loss.own_class_only=true"],
        ["data.teacher_rest=like", "loss.prior_strength=0.5"],
        ["data.teacher_rest=names", "data.teacher_unseen=0.5", "data.teacher_sharpness=0.5"],
        ["detector.checkpointing=true", "data.drop=0.5", "train.accumulation=2"],
    ],
)
def test_what_a_run_leaves_finds_objects(settings, benchmark, tmp_path):
    """Controls and options, from training to detections of the folder that it leaves."""
    config = golden_runs.few_images(golden_runs.run_configs("smoke")["richsem"])
    runs.run(with_settings(config, [*settings, "train.steps=2"]), tmp_path / "run")
    trained = runs.open_trained(tmp_path / "run")
    assert trained.detector.text.device == DEVICE
    assert len(trained.detect(np.zeros((80, 100, 3), np.uint8), 0.0)) > 0


@pytest.mark.parametrize(
    ("found", "fallback", "launched", "forced", "at_once"),
    [
        (None, "1", "1", False, 16),  # as accelerate finds it
        (None, "1", "2", True, 16),  # which would take each for the only one
        ("mps", "", "1", True, 16),  # it lacks gradients of deformable attention
        ("mps", "1", "1", False, 1),
        ("mps", "1", "2", True, 1),  # and cannot talk to others
        ("cuda", "", "1", False, 6),
    ],
)
def test_which_device_is_used(found, fallback, launched, forced, at_once, monkeypatch):
    device = found and torch.device(found, 0)
    monkeypatch.setattr("torch.accelerator.current_accelerator", lambda **_: device)
    monkeypatch.setenv("PYTORCH_ENABLE_MPS_FALLBACK", fallback)
    monkeypatch.setenv("WORLD_SIZE", launched)
    card = SimpleNamespace(total_memory=25_000_000_000)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: card)
    monkeypatch.setattr("richsem.processes.own_cores", lambda: 16)
    monkeypatch.setattr("richsem.training.parallel.PartialState", lambda cpu, **_: cpu)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: found == "mps")
    assert this_process() is forced  # onto the CPU
    assert small_runs_at_once() == at_once
