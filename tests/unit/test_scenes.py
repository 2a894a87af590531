"""Scenes: what is seen, what hides what, and that a seed decides it all."""

from dataclasses import replace

import numpy as np
import pytest

from richsem.minilvis import scenes
from richsem.minilvis.glyphs import vocabulary
from richsem.minilvis.scenes import BACKGROUNDS, Thing, paint_scene

STEMS = [item.glyphs[0] for item in vocabulary("lvis")]


def things(number):
    return [Thing(stem=STEMS[i], group="animal", label=i) for i in range(number)]


def scene(seed, number=5, *, name="outdoors", size=96):
    return paint_scene(things(number), size=size, scene=name, rng=np.random.default_rng(seed))


@pytest.mark.parametrize("name", BACKGROUNDS)
@pytest.mark.parametrize("size", [64, 97])
def test_every_background_paints_a_plausible_picture(name, size):
    for seed in range(3):
        horizon, canvas = BACKGROUNDS[name](size, np.random.default_rng(seed))
        assert canvas.shape == (size, size, 3) and np.isfinite(canvas).all()
        assert 0 <= horizon < 0.8
        image, _ = scene(seed, 1, name=name, size=size)
        assert (image.shape, image.dtype) == ((size, size, 3), np.uint8)
        assert 25 < image.mean() < 245


def test_masks_do_not_overlap_are_large_enough_and_lie_on_their_object(monkeypatch):
    for seed in range(10):
        image, objects = scene(seed, 7)
        assert 1 <= len(objects) <= 7
        masks = np.array([o.mask for o in objects])
        assert masks.shape[1:] == image.shape[:2]
        assert masks.sum(0).max() == 1 and masks.sum((1, 2)).min() >= 12
    # With an object removed the picture changes inside its mask, far less outside.
    monkeypatch.setattr(scenes, "_MIN_VISIBLE", 0)
    with_it, (painted,) = scene(5, 1, name="rough")
    background = np.median(with_it[~painted.mask].astype(float), axis=0)
    difference = np.abs(with_it - background).sum(-1)
    assert difference[painted.mask].mean() > 2 * difference[~painted.mask].mean()


def test_what_is_hidden_is_left_out_and_clutter_is_painted_but_not_reported(monkeypatch):
    kept = []
    for least in (0, 0.95):
        monkeypatch.setattr(scenes, "_MIN_VISIBLE", least)
        kept.append(sum(len(scene(seed, 9)[1]) for seed in range(6)))
    assert kept[1] < kept[0] <= 54
    clutter = [replace(thing, label=-1) for thing in things(4)]
    (image, objects), (empty, _) = (
        paint_scene(some, size=96, scene="wood", rng=np.random.default_rng(0))
        for some in (clutter, [])
    )
    assert objects == [] and (image != empty).any()
