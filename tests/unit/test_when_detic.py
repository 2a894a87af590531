"""The map of Detic's choice: staged images, levels, rates and lines."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from richsem.data.drawn import StagedConfig
from richsem.minilvis.render import BOXES, build_staged
from richsem.training.run_config import other_run
from richsem.workbook import when_detic


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setattr("richsem.paths.CACHE", tmp_path)
    return {"images": 1, "classes_per_group": 1}


def test_a_staged_image_is_the_same_scene_with_a_smaller_thing_or_with_others(small):
    for how in ({}, {"scale": 0.5}, {"others": 3}):
        root = build_staged(StagedConfig(**small, **how))
        boxes = json.loads((root / BOXES).read_bytes())
        assert len(boxes) == 3 and build_staged(StagedConfig(**small, **how)) == root
        for name, (left, top, right, bottom) in boxes.items():
            with Image.open(root / name) as image:
                width, height = image.size
            assert 0 <= left < right <= width and 0 <= top < bottom <= height
            assert not how.get("scale") or max(right - left, bottom - top) < 0.75 * width


def test_levels_change_what_they_name_and_share_their_first_images():
    arms = {name: make(0) for name, make in when_detic.when_detic("demo").arms.items()}
    first = arms["the choice slips 0: Detic"]
    assert arms["smaller things 0: Detic"] == first == arms["more others 0: Detic"]
    last = max(arm for arm in arms if arm.startswith("the choice slips") and "Detic" in arm)
    assert other_run(first, arms[last]) == ["loss.choice_slips"]
    assert arms["the choice slips 1: RichSem"] == arms["the choice slips 0: RichSem"]
    others = other_run(first, arms["more others 1: Detic"])
    assert others == ["data.extra.staged.others"]


def test_the_levels_that_claims_are_about_take_more_seeds_but_not_at_smoke():
    study = when_detic.when_detic("demo")
    runs = study.runs(range(2), range(4))
    seeds = {arm: [seed for one, seed in runs if one == arm] for arm in study.arms}
    for claim in study.claims:
        assert seeds[claim.arm] == seeds[claim.other] == [0, 1, 2, 3]
    assert seeds["more others 1: Detic"] == seeds["the choice slips 2: RichSem"] == [0, 1]
    small = when_detic.when_detic("smoke").runs((0,), range(4))
    assert {seed for _, seed in small} == {0}


def test_lines_find_slope_and_level_of_what_follows_the_rate():
    rows, rates = [], []
    for place, right in (("a 0", 0.8), ("a 1", 0.5), ("b 0", 0.8), ("b 1", 0.2)):
        rates += [(place, 0, "start", right - 0.1), (place, 0, "end", right + 0.1)]
        rows += [
            (f"{place}: RichSem", 0, "AP_r", 30.0),
            (f"{place}: Detic", 0, "AP_r", 27 + 6 * right),
        ]
    rows += [("a 0: RichSem", 1, "AP_r", 40.0), ("a 0: Detic", 1, "AP_r", 10.0)]  # one level's only
    frame = pd.DataFrame(rows, columns=["arm", "seed", "metric", "value"])
    found = pd.DataFrame(rates, columns=["place", "seed", "when", "right"])
    table = when_detic.points(frame, found)
    first = table[table["seed"] == 0]
    assert np.allclose(first["value"], 3 - 6 * first["right"]) and len(table) == len(first) + 1
    fits = when_detic.lines(table)
    values = fits.set_index(["arm", "metric"])["value"]
    for cause in "ab":
        assert values[cause, "AP_r, slope"] == pytest.approx(-0.6)
        assert values[cause, "AP_r, at half"] == pytest.approx(0)
