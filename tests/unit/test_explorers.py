"""Explorers of the course: their figures say what is true, their controls redraw them."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from tiny_dino import target_at
from workbook_toys import legend, outlines, titles

from richsem.workbook.figures import explorers

IMAGE = np.zeros((40, 60, 3))
MOVES = {"rare to": 0, "common to": 0, "repeat t": 1.0, "lambda": 0.5, "draw": 3}
TARGET = target_at((0.5, 0.5, 0.2, 0.2), (0.4, 0.6, 0.1, 0.3), size=(40, 60))


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_borders_of_groups_move_and_repeats_make_an_epoch_longer(tiny_set):
    # Four classes in 3, 2, 2 and 1 of five images.
    left, right = explorers.tail_figure(tiny_set, rare=1, common=2, t=0.0).axes
    assert legend(left) == ["rare (1)", "common (2)", "frequent (1)", "shown in an epoch"]
    assert left.lines[0].get_ydata().tolist() == [3, 2, 2, 1]
    rows = [[bar.get_width() for bar in own] for own in zip(*right.containers, strict=True)]
    assert rows[0] == pytest.approx([0.25, 0.5, 0.25]) and rows[2] == rows[3]
    assert titles(right.figure)[1] == "an epoch has 1.00 times the images"
    left, right = explorers.tail_figure(tiny_set, rare=3, common=3, t=1.0).axes
    assert legend(left) == ["rare (4)", "shown in an epoch"]
    assert min(left.lines[0].get_ydata()) > 1


def test_pictures_of_a_class_show_its_boxes_only(tiny_set):
    label = int(tiny_set.image_counts().argmax())
    fig = explorers.class_figure(tiny_set, label)
    shown = [ax for ax in fig.axes if ax.images]
    assert len(shown) == 3
    assert sum(len(outlines(ax)) for ax in shown) == (tiny_set.labels == label).sum()


@pytest.mark.parametrize(("kinds", "boxes"), [(0, 2), (1, 4), (2, 6)])
def test_a_group_has_a_positive_and_a_negative_for_each_object(kinds, boxes):
    scene, histogram = explorers.denoising_figure(IMAGE, TARGET, kinds=kinds).axes
    assert len(outlines(scene)) == boxes and len(histogram.containers) == kinds


def test_without_noise_positives_are_the_objects():
    _, histogram = explorers.denoising_figure(IMAGE, TARGET, noise=0.0, kinds=1).axes
    assert legend(histogram) == ["positive: median 1.00"]


def test_every_control_draws_anew(tiny_set):
    asked = []

    def draw(weight, tau):
        asked.append((weight, tau))
        return plt.figure()

    torch.manual_seed(0)
    for widget in (
        explorers.tail_explorer(tiny_set),
        explorers.class_explorer(tiny_set),
        explorers.denoising_explorer(IMAGE, TARGET),
    ):
        rows, picture = widget.children
        for control in rows.children:
            before = bytes(picture.value)
            if hasattr(control, "options"):
                control.index = 1
            else:
                control.value = MOVES[control.description]
            assert bytes(picture.value) != before, control.description
    weight, tau = explorers.mixture_explorer(draw, 20.0).children[0].children
    weight.value, tau.value = 0.0, 2.0
    assert np.allclose(asked, [(0.5, 20.0), (0.0, 20.0), (0.0, 2.0)])
