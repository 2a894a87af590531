"""Pictures of a detector's parts are drawn from arrays alone, without warnings."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from figure_checks import assert_complete, assert_drawn

from richsem.workbook.figures import detector_parts
from richsem.workbook.figures.detector_parts import AttentionPanel

pytestmark = pytest.mark.usefixtures("figure_style")
rng = np.random.default_rng(0)
IMAGE = rng.random((48, 64, 3))
BOX = np.array([10.0, 12.0, 40.0, 44.0])


def panel(reference=BOX, levels=3):
    look = {"weights": rng.random((2, levels, 2)), "locations": 60 * rng.random((2, levels, 2, 2))}
    return AttentionPanel(image=IMAGE, reference=np.asarray(reference), title="a", **look)


def noisy(number):
    return {"positive": rng.random((number, 4)) * 40, "negative": rng.random((number, 4)) * 60}


def paths():
    stages = ("proposal", "layer 1", "layer 2")
    rows = [(i, k, s, rng.random()) for i in range(3) for k in range(2) for s in stages]
    return pd.DataFrame(rows, columns=["image", "object", "stage", "iou"])


def history():
    return pd.DataFrame({"step": range(1, 9), "total": rng.random(8), "giou": rng.random(8)})


MAPS = {"level 0": rng.random((6, 8)), "level 1": np.full((3, 4), np.nan)}
FIGURES = {
    "maps": lambda: detector_parts.maps_figure(IMAGE, {"fine": IMAGE[::8, ::8], **MAPS}),
    "maps on one scale": lambda: detector_parts.maps_figure(IMAGE, MAPS, largest=1.0),
    "codes": lambda: detector_parts.code_figure(
        {"y": MAPS["level 0"], "x": MAPS["level 0"]}, {"T": MAPS["level 0"]}, {"T": (1, 2)}
    ),
    "cells": lambda: detector_parts.cells_figure(
        [IMAGE, IMAGE], 2 * [[rng.random((9, 2)) * 40, rng.random((2, 2))]], ["a", "b"]
    ),
    "attention": lambda: detector_parts.attention_figure([panel(), panel(BOX[:2]), panel()], 2),
    "attention of five levels": lambda: detector_parts.attention_figure([panel(levels=5)], 1),
    "proposals": lambda: detector_parts.proposals_figure(
        IMAGE,
        rng.random((5, 4)) * 40,
        rng.random(5),
        BOX[None],
        MAPS,
        {"level 0": np.array([[1, 2], [3, 3]]), "level 1": np.zeros((0, 2))},
    ),
    "noise": lambda: detector_parts.noise_figure(
        IMAGE, BOX, {"little": noisy(3), "much": noisy(3)}
    ),
    "masks": lambda: detector_parts.mask_figure(
        {"a": np.eye(6, dtype=bool)}, {"a": {"group 1": 2, "matching": 4}}
    ),
    "paths": lambda: detector_parts.path_figure(
        [IMAGE, IMAGE], 2 * [rng.random((3, 4)) * 40], [BOX, BOX], ["p", "1", "2"], ["x", "y"]
    ),
    "stages": lambda: detector_parts.stages_figure(paths()),
    "by heart": lambda: detector_parts.heart_figure(
        {"text": history(), "linear": history()}, ("total", "giou")
    ),
}


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_a_figure_is_drawn_without_warnings_and_can_be_closed(draw):
    assert_drawn(draw)


def test_every_public_figure_function_is_drawn_here():
    assert_complete(detector_parts, FIGURES)


def test_a_look_is_put_into_pixels():
    look = SimpleNamespace(
        references=torch.tensor([0.5, 0.5, 0.25, 0.5]).expand(1, 3, 2, 4),
        locations=torch.full((1, 3, 2, 2, 4, 2), 0.25),
        weights=torch.full((1, 3, 2, 2, 4), 0.125),
    )
    seen = AttentionPanel.of_look(IMAGE, look, 1)
    assert seen.reference.tolist() == [24, 12, 40, 36]
    assert seen.locations[0, 0, 0].tolist() == [16, 12]
    look.references = look.references[..., :2]
    assert AttentionPanel.of_look(IMAGE, look, 2).reference.tolist() == [32, 24]


def test_area_is_weight_and_the_average_weight_that_of_the_legend():
    even = replace(panel(), weights=np.full((2, 3, 2), 1 / 6))
    drawn = detector_parts.attention_figure([even], 1).axes[0].collections
    assert np.ptp(np.concatenate([own.get_sizes() for own in drawn])) == pytest.approx(0)


def test_levels_and_series_are_told_apart_without_colour():
    fig = detector_parts.heart_figure({"text": history(), "linear": history()}, ("total",))
    assert len({line.get_linestyle() for line in fig.axes[0].lines}) == 2
    legend = detector_parts.attention_figure([panel()], 1).legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["level 0", "level 1", "level 2"]


def test_maps_have_a_common_scale_if_it_is_named():
    def limits(fig):
        return [ax.images[0].get_clim() for ax in fig.axes[1:3]]

    maps = {"faint": np.array([[0.1, 0.2]]), "bright": np.array([[0.0, 0.8]])}
    assert limits(detector_parts.maps_figure(IMAGE, maps)) == [(0.1, 0.2), (0.0, 0.8)]
    assert limits(detector_parts.maps_figure(IMAGE, maps, largest=1.0)) == [(0.0, 1.0)] * 2
