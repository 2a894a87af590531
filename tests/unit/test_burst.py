"""Hours from a few measured steps: the arithmetic, every kind of run, and machines too small."""

from types import SimpleNamespace

import pytest
import torch
from toys import small_run, two_stage_run

from richsem.config import with_settings
from richsem.operations import burst, cost
from richsem.recipes import dino_recipes
from richsem.structures import Supervision


def with_classes(config):
    return with_settings(config, ["detector.num_classes=3"])


def test_hours_are_those_of_all_images_of_both_kinds(monkeypatch):
    found = {"detection": (0.5, 2, 5), "extra": (0.25, 8, 3)}
    monkeypatch.setattr(burst, "_measured", lambda training, config, kind, size, most: found[kind])
    settings = ["train.steps=9600", "train.batch_size=8", "train.extra_until=0.75"]
    settings += ["train.extra_batch_size=32"]
    lines = burst.hours(with_classes(with_settings(small_run("nowhere"), settings)))
    # 6,000 steps of 8 images, and 3,600 of 32.
    assert lines["hours"].startswith("15 on 1 x cpu")
    assert "; 1.8 on 8 that never wait" in lines["hours"]  # 32 cannot share 8 images
    assert "detection: 0.5 s per image, median of 5 steps of 2 at a time" in lines["measured"]
    assert "extra: 0.25 s per image, median of 3 steps of 8 at a time" in lines["measured"]


@pytest.mark.parametrize(
    "config",
    [
        *(small_run("nowhere", supervision=kind) for kind in Supervision if kind != "detection"),
        with_settings(small_run("nowhere"), ["loss.teacher_boxes=pred", "train.accumulation=2"]),
        two_stage_run("nowhere"),
        two_stage_run("nowhere", supervision=Supervision.UNLABELLED),
        with_settings(two_stage_run("nowhere"), ["detector.masks={}"]),
        dino_recipes.richsem("smoke"),
    ],
)
def test_every_kind_of_run_is_measured(config, monkeypatch):
    monkeypatch.setattr(burst, "_STEPS", 2)
    lines = burst.hours(with_classes(config))
    assert "detection: " in lines["measured"] and "extra: " in lines["measured"]
    size = config.train.batch_size // config.train.accumulation
    assert f"median of 2 steps of {size} at a time" in lines["measured"]


def test_a_slow_machine_is_asked_for_one_image_and_one_step(monkeypatch):
    monkeypatch.setattr(burst, "_SECONDS", 0.0)
    lines = burst.hours(with_classes(small_run("nowhere")))
    assert "median of 1 steps of 1 at a time" in lines["measured"]


def test_a_machine_that_is_too_small_says_so(monkeypatch):
    run = with_classes(small_run("nowhere"))

    def full(*given):
        raise torch.OutOfMemoryError

    with monkeypatch.context() as patch:
        patch.setattr(burst, "_measured", full)
        assert "do not fit into the memory" in burst.hours(run)["hours"]
    memory = SimpleNamespace(available=1000)
    monkeypatch.setattr(burst.psutil, "virtual_memory", lambda: memory)
    assert burst.hours(run)["hours"].startswith("not measured: an image at a time needs")
    needed = cost.training_memory(run)
    memory.available = (needed.per_device(0) + needed.per_device(1)) / 2 / 0.7
    by_two = "largest sides by 2 (else too much for a CPU), 4 times as long at most, 10 objects"
    assert by_two in burst.hours(run)["measured"]
    monkeypatch.undo()
    monkeypatch.setattr(burst, "_MOST_WORK", 1e6)  # less than any step
    assert " (else too much for a CPU)" in burst.hours(run)["measured"]
