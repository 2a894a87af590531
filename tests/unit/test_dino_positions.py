"""Sine codes, inverse sigmoid, and what padding does to positions."""

import math

import pytest
import torch

from richsem.models.dino.layers import build_pyramid
from richsem.models.dino.positions import (
    BOX_FLOOR,
    box_code,
    cell_centres,
    inverse_sigmoid,
    level_padding,
    map_code,
    sine_code,
    valid_ratio,
)
from richsem.models.dino.query_selection import anchor_logits

SHAPES = [(4, 6), (2, 3)]


def padding(height, width, valid_height, valid_width):
    mask = torch.ones(1, height, width, dtype=torch.bool)
    mask[:, :valid_height, :valid_width] = False
    return mask


def test_inverse_sigmoid_undoes_the_sigmoid():
    logits = torch.linspace(-6, 6, 25, dtype=torch.float64)
    torch.testing.assert_close(inverse_sigmoid(logits.sigmoid()), logits)


def test_inverse_sigmoid_is_finite_everywhere():
    logits = inverse_sigmoid(torch.tensor([-1.0, 0.0, 1.0, 2.0]))
    limit = math.log(1 / BOX_FLOOR)
    torch.testing.assert_close(logits, torch.tensor([-limit, -limit, limit, limit]))


def test_sine_code_interleaves_sines_and_cosines():
    code = sine_code(torch.tensor([0.0, 1.0]), 4, 100.0)
    assert code[0].tolist() == [0.0, 1.0, 0.0, 1.0]
    expected = [math.sin(1.0), math.cos(1.0), math.sin(0.1), math.cos(0.1)]
    assert code[1].tolist() == pytest.approx(expected)


def test_box_code_begins_with_y():
    code = box_code(torch.tensor([0.1, 0.2, 0.3, 0.4]), 6).view(4, 6)
    for row, number in zip(code, (0.2, 0.1, 0.3, 0.4), strict=True):
        expected = sine_code(torch.tensor(number) * 2 * math.pi, 6, 10000.0)
        torch.testing.assert_close(row, expected)


def test_map_code_ends_at_a_full_turn_where_the_image_ends():
    code = map_code(padding(4, 6, 3, 5), 8).view(4, 6, 8)
    last = sine_code(torch.tensor(2 * math.pi), 4, 20.0)
    torch.testing.assert_close(code[2, 4], torch.cat([last, last]), atol=1e-5, rtol=0)
    y, x = code[..., :4], code[..., 4:]
    torch.testing.assert_close(y[:3, :1].expand(-1, 5, -1), y[:3, :5])  # y is alike in a row
    torch.testing.assert_close(x[:1, :5].expand(3, -1, -1), x[:3, :5])


def test_padding_is_told_by_the_nearest_pixel():
    masks = level_padding(padding(64, 96, 50, 40), SHAPES)
    assert [tuple(mask.shape) for mask in masks] == [(1, 4, 6), (1, 2, 3)]
    assert (~masks[0][0]).sum(0).tolist() == [4, 4, 4, 0, 0, 0]
    assert valid_ratio(masks[0]).tolist() == [[0.5, 1.0]]


def test_centres_lie_in_the_middle_of_cells():
    centres = cell_centres(SHAPES, torch.zeros(()))
    assert centres.shape == (30, 2)
    torch.testing.assert_close(centres[0], torch.tensor([0.5 / 6, 0.5 / 4]))
    torch.testing.assert_close(centres[6], torch.tensor([0.5 / 6, 1.5 / 4]))
    torch.testing.assert_close(centres[-1], torch.tensor([2.5 / 3, 1.5 / 2]))


def test_no_padding_is_the_same_as_padding_of_nothing():
    maps, embed = [torch.randn(2, 8, *shape) for shape in SHAPES], torch.randn(2, 8)
    explicit = build_pyramid(maps, torch.zeros(2, 32, 48, dtype=torch.bool), embed)
    implicit = build_pyramid(maps, None, embed)
    assert not explicit.padding.any()
    for name in ("positions", "ratios", "centres"):
        one, other = getattr(explicit, name), getattr(implicit, name)
        torch.testing.assert_close(one, other.expand_as(one))
    for one, other in zip(anchor_logits(explicit), anchor_logits(implicit), strict=True):
        torch.testing.assert_close(one, other.expand_as(one))


def test_padding_does_not_move_what_is_image():
    """A map and the same map within a larger one: equal codes, centres and anchors."""
    small, large = torch.zeros(1, 8, 4, 6), torch.zeros(1, 8, 8, 9)
    embed = torch.zeros(1, 8)
    alone = build_pyramid([small], None, embed)
    within = build_pyramid([large], padding(64, 72, 32, 48), embed)
    inside = ~within.padding[0]
    for name in ("positions", "centres"):
        torch.testing.assert_close(getattr(alone, name)[0], getattr(within, name)[0, inside])
    anchors, unusable = anchor_logits(within)
    torch.testing.assert_close(anchors[0, inside], anchor_logits(alone)[0][0])
    assert unusable[0, ~inside].all()
