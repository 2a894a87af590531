"""Pseudo-boxes: inside the tile, the best for its label, the tile where there is none."""

import torch

from richsem.training.controls import _best


def test_the_best_box_in_a_tile_counts_as_far_as_it_is_inside():
    tiles = torch.tensor([[0.25, 0.25, 0.5, 0.5], [0.75, 0.75, 0.5, 0.5], [0.75, 0.25, 0.5, 0.5]])
    boxes = torch.tensor([[0.2, 0.2, 0.1, 0.1], [0.45, 0.25, 0.2, 0.2], [0.7, 0.8, 0.1, 0.1]])
    scores = torch.tensor([[0.1, 0.5, 0.9], [0.9, 0.8, 0.1], [0.3, 0.2, 0.1]])
    expected = torch.tensor(
        [[0.425, 0.25, 0.15, 0.2], [0.7, 0.8, 0.1, 0.1], [0.75, 0.25, 0.5, 0.5]]
    )
    torch.testing.assert_close(_best(scores, boxes, tiles), expected)
