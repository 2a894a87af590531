"""What a run says about itself, with its data and without."""

import re
from dataclasses import replace
from unittest import mock

import pytest
from tiny_dino import tiny_dino
from toys import small_run, write_root

from richsem.config import ConfigError, with_settings
from richsem.operations import burst, cost, dry_run
from richsem.operations.cost import Memory
from richsem.operations.dry_run import memory_by_devices, summary, with_classes
from richsem.recipes import dino_recipes
from richsem.training import build


def test_without_data_it_says_what_it_cannot_know():
    small = replace(tiny_dino().config, num_classes=0)
    lines = dict(summary(replace(dino_recipes.baseline("paper"), detector=small)))
    assert lines["detection set"].startswith("LVIS v1, not on disk (this recipe needs real data")
    assert lines["detection set"].endswith("as published: 100,170 images, 1,203 classes")
    assert lines["steps"].endswith("epochs need the annotations")
    assert "1.0e-04" in lines["AdamW group 1"] and "1.0e-05" in lines["AdamW group 2"]
    assert "GB activations per detection image of 800 x 1344" in lines["memory"]
    assert re.match(r"[\d.]+ MB for state and weights; ", lines["disk"])
    assert lines["disk"].endswith("; not there: lvis, coco (21.3 GB prepared)")


def test_disk_counts_the_state_twice_and_the_maps_of_both_sets(tmp_path, monkeypatch):
    monkeypatch.setattr(dry_run, "_gb", lambda number: f"{number:.0f} B")
    settings = ["detector.backbone.trainable=false", 'data.features={"views": 2}']
    settings += ['data.extra.features={"images": 3, "views": 1}']
    run = with_settings(small_run(write_root(tmp_path)), settings)
    lines = dict(summary(run, tmp_path / "out"))
    detector = build.in_shapes(run, 3)
    whole, trained = (sum(cost.count_parameters(detector, only).values()) for only in (False, True))
    state, channels = 4 * (whole + 2 * trained), detector.backbone.channels
    # Of 64 x 64 pixels: six images in two views and three mosaics, two bytes a number.
    kept = 2 * (channels[0] * 8 * 8 + channels[1] * 4 * 4) * (6 * 2 + 3)
    words = f"{2 * state + 4 * (whole + trained)} B for state and weights, {kept} B for features"
    assert lines["disk"].startswith(words) and lines["disk"].endswith(f"free below {tmp_path}/out")


def test_each_part_is_told_before_the_next_one_is_looked_for(tmp_path, monkeypatch):
    told = []
    for place, name in ((cost, "memories"), (burst, "hours")):
        with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
            patch.setattr(place, name, mock.Mock(side_effect=ZeroDivisionError))
            told.append([])
            for line, _ in summary(small_run(write_root(tmp_path))):
                told[-1].append(line)
    assert told[0][0] == "run" and told[0][-1] == "device"
    assert told[1][: len(told[0])] == told[0] and told[1][-2:] == ["arithmetic", "measuring"]


def test_a_set_of_unknown_size_needs_a_number_of_classes():
    config = dino_recipes.pretraining("paper")
    assert with_classes(config, None).detector.num_classes == 365
    unknown = replace(config, data=replace(config.data, key="o365_box"))
    with pytest.raises(ConfigError, match=r"set detector\.num_classes"):
        with_classes(unknown, None)
    stated = replace(unknown, detector=replace(config.detector, num_classes=7))
    assert with_classes(stated, None).detector.num_classes == 7


@pytest.mark.parametrize(
    ("states", "activations", "devices", "expected"),
    [
        (1, 0.5, 1, "16 images at a time, 9.0 GB; fits in 10 GB"),
        (1, 6, 8, "13.0 GB; more than 10 GB, it needs more devices, checkpointing or accumulation"),
    ],
)
def test_advice_names_ways_to_fit(states, activations, devices, expected):
    numbers = {"weights": int(states * 1e9), "activations": int(activations * 1e9)}
    memory = Memory(**numbers, gradients=0, optimiser=0)
    run = replace(dino_recipes.baseline("paper"), detector=tiny_dino().config)
    advice = dict(memory_by_devices(run, memory, limit_gb=10.0))
    assert advice[devices].endswith(expected)
    assert 32 not in advice  # its 16 images are not enough for 32 devices
