"""Explorers of the course: their figures say what is true, their controls redraw them."""

from unittest import mock

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from tiny_dino import target_at
from workbook_toys import files_of, found_at, legend, opened, outlines, titles

from richsem.data.transforms import Picture
from richsem.workbook import coarse, error_verdicts
from richsem.workbook.coarse import Proposed
from richsem.workbook.figures import explorers, widgets

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
    assert legend(left) == ["shown in an epoch", "frequent (1)", "common (2)", "rare (1)"]
    assert left.lines[0].get_ydata().tolist() == [3, 2, 2, 1]
    rows = [[bar.get_width() for bar in own] for own in zip(*right.containers, strict=True)]
    assert rows[0] == pytest.approx([0.25, 0.5, 0.25]) and rows[2] == rows[3]
    assert titles(right.figure)[1] == "t = 0: 1.00 times the images"
    left, right = explorers.tail_figure(tiny_set, rare=3, common=3, t=1.0).axes
    assert legend(left) == ["shown in an epoch", "rare (4)"]
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
    # Without noise positives are the objects.
    _, histogram = explorers.denoising_figure(IMAGE, TARGET, noise=0.0, kinds=1).axes
    assert legend(histogram) == ["positive: median 1.00"]


def test_every_control_draws_anew(tiny_set):
    torch.manual_seed(0)
    widgets = [one(tiny_set) for one in (explorers.tail_explorer, explorers.class_explorer)]
    for widget in (*widgets, explorers.denoising_explorer(IMAGE, TARGET)):
        rows, picture = widget.children
        for control in rows.children[:-1]:
            before = picture.value
            if hasattr(control, "options"):
                control.index = int(control.index != 1)
            else:
                control.value = MOVES[control.description]
            assert picture.value != before, control.description
    draw = mock.Mock(side_effect=lambda **_: plt.figure())
    weight, tau, _ = explorers.mixture_explorer(draw, 20.0).children[0].children
    weight.value, tau.value = 0.0, 2.0
    asked = [[*call.kwargs.values()] for call in draw.call_args_list]
    assert np.allclose(asked, [(0.5, 20.0), (0.0, 20.0), (0.0, 2.0)])


def test_dropping_is_seen_in_counts_and_repeats(tiny_set):
    stage = widgets._Stage()
    for share in (0.2, 0.9, 0.5):
        shown = stage.show(explorers.dropping_figure(tiny_set, share))
    assert shown == widgets._Stage().show(explorers.dropping_figure(tiny_set, share))
    assert shown.startswith('<img alt="all annotations; 50% dropped; boxes; ')
    fig = explorers.dropping_figure(tiny_set, 0.5, t=0.9)
    boxes, shows, odds = ([line.get_ydata() for line in ax.lines] for ax in fig.axes)
    assert boxes[0].sum() == 8 and boxes[1].sum() == 4
    assert shows[1].sum() >= shows[0].sum()
    assert odds[0].sum() == pytest.approx(100) and odds[1].sum() == pytest.approx(100)
    assert moved(explorers.dropping_explorer(tiny_set), "dropped", 0.2)


@pytest.fixture
def found():
    """Four proposals on a picture whose object is its left upper quarter."""
    boxes = np.array([[0.0, 0, 20, 20], [0, 0, 40, 30], [0, 0, 18, 20], [30, 30, 40, 40]])
    picture = Picture(
        image=torch.zeros(3, 40, 40, dtype=torch.uint8),
        boxes_xyxy=torch.tensor([[0.0, 0, 40, 40], [0, 0, 20, 20]]),
        labels=torch.tensor([0, 1]),
    )
    scores = np.array([0.2, 0.1, 0.9, 0.3])
    return Proposed(picture=picture, label=1, boxes_xyxy=boxes.astype(np.float32), scores=scores)


@pytest.fixture
def judgement(tiny_set):
    found = found_at(tiny_set, (tiny_set.labels + 1) % len(tiny_set.categories))
    return error_verdicts.judge(tiny_set, found, "coco")


def moved(widget, name, value):
    """Whether a control changes the picture."""
    controls, picture = opened(widget)
    before = picture.value
    controls[name].value = value
    return picture.value != before


def test_the_chosen_proposal_stands_beside_the_largest_the_surest_and_the_tile(found):
    assert found.sizes.tolist() == pytest.approx([0.25, 0.75, 0.225, 0.0625])
    assert found.ious.tolist() == pytest.approx([1, 1 / 3, 0.9, 0, 0.25])
    fig = explorers.choice_figure(found, ["cat", "dog"])
    assert titles(fig)[0] == 'label "dog", proposal 1 of 4'
    named = ["the tile: IoU 0.25", "largest, Detic's choice: IoU 0.33", "highest score: IoU 0.90"]
    assert legend(fig.axes[1]) == [*named, "the one on the left: IoU 0.33"]
    fig = explorers.choice_figure(found, ["cat", "dog"], "scores", 2)
    assert legend(fig.axes[1])[-1] == "the one on the left: IoU 1.00"
    for name, value in {"proposal": 1, "order by": "scores"}.items():
        assert moved(explorers.choice_explorer({"a": [found]}, ["a", "b"]), name, value)


def test_a_small_detector_proposes_on_pictures_of_a_set(tiny_set, tmp_path):
    from richsem.training import runs
    from richsem.workbook.notebook_data import DataConfig

    config = coarse.configure(DataConfig(profile="smoke", **files_of(tiny_set)))
    small = runs.open_small([category.name for category in tiny_set.categories])
    (kind, ours), *others = coarse.proposals(config, small, 2).items()
    assert (kind, others, len(ours)) == (coarse.SCENES, [], 2)
    one = ours[0]
    assert len(one.scores) == len(one.boxes_xyxy) == len(one.ious) - 1
    assert 0 < one.sizes.max() <= 1.1 and 0 < one.ious[-1] <= 1


def test_errors_are_shown_one_by_one_by_group_and_the_last_one_stays(judgement):
    wrong = error_verdicts.WRONG_CLASS
    number = len(judgement.strongest(wrong, 20))
    by_group = [len(judgement.strongest(wrong, 20, group)) for group in "rcf"]
    assert 0 < number == sum(by_group)
    fig = explorers.error_figure(judgement, wrong, "all", 99)
    (words,) = [sub.get_suptitle() for sub in fig.subfigs]
    assert words == f"wrong class, all classes: {number} of the {number} strongest"
    assert len(fig.axes) == 2
    assert len(explorers.error_figure(judgement, error_verdicts.CORRECT).axes) == 1  # none
    widget = explorers.error_explorer(judgement)
    assert moved(widget, "verdict", error_verdicts.DUPLICATE)
