"""Sine codes, inverse sigmoid, and what padding does to positions."""

import torch

from richsem.models.dino.layers import build_pyramid
from richsem.models.dino.query_selection import anchor_logits

SHAPES = [(4, 6), (2, 3)]


def padding(height, width, valid_height, valid_width):
    mask = torch.ones(1, height, width, dtype=torch.bool)
    mask[:, :valid_height, :valid_width] = False
    return mask


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
