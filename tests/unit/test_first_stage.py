"""Pyramid, heat map and the proposals they make."""

import pytest
import torch
from torchvision.ops import nms

from richsem.models.centernet2 import first_stage

SHAPES, STRIDES = ((4, 6), (2, 3), (1, 2)), (8, 16, 32)


def random_maps(num_images=2, seed=0):
    draws = torch.Generator().manual_seed(seed)
    cells = first_stage.make_cells(SHAPES, STRIDES)
    number = len(cells.points)
    heatmap = torch.randn(num_images, number, generator=draws)
    return heatmap, 3 * torch.rand(num_images, number, 4, generator=draws), cells


def test_cells_lie_row_by_row_in_the_middle_of_their_squares_and_boxes_surround_them():
    cells = first_stage.make_cells(SHAPES, STRIDES)
    expected = [
        (stride * (column + 0.5), stride * (row + 0.5), stride, level)
        for level, ((height, width), stride) in enumerate(zip(SHAPES, STRIDES, strict=True))
        for row in range(height)
        for column in range(width)
    ]
    columns = [*cells.points.T.tolist(), cells.strides.tolist(), cells.levels.tolist()]
    assert list(zip(*columns, strict=True)) == expected
    cells = first_stage.make_cells(((1, 2),), (10,))
    distances = torch.tensor([[[1.0, 0.5, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0]]])
    boxes = first_stage.boxes_of_cells(cells, distances)
    expected = torch.tensor([[-5.0, 0.0, 25.0, 5.0], [15.0, 5.0, 15.01, 5.01]])
    torch.testing.assert_close(boxes[0], expected)


def test_the_pyramid_adds_two_levels_and_hands_detail_down():
    torch.manual_seed(0)
    pyramid = first_stage.FeaturePyramid((3, 5), 8)
    fine, coarse = torch.randn(1, 3, 12, 20), torch.randn(1, 5, 6, 10)
    levels = pyramid([fine, coarse])
    assert [tuple(level.shape) for level in levels] == [
        (1, 8, 12, 20), (1, 8, 6, 10), (1, 8, 3, 5), (1, 8, 2, 3)
    ]  # fmt: skip
    changed = pyramid([fine, coarse + 1])
    assert not torch.equal(changed[0], levels[0])
    same = pyramid([fine + 1, coarse])
    assert all(torch.equal(a, b) for a, b in zip(same[1:], levels[1:], strict=True))
    top = pyramid.extra_blocks.p7(levels[2].relu())
    torch.testing.assert_close(levels[3], top)


def test_every_cell_starts_as_unlikely_and_large_and_levels_share_the_head_but_for_a_scale():
    head = first_stage.CenterHead(16, 2, STRIDES)
    levels = [torch.zeros(1, 16, *shape) for shape in SHAPES]
    heatmap, distances = head(levels)
    torch.testing.assert_close(heatmap.sigmoid(), torch.full_like(heatmap, 0.01))
    torch.testing.assert_close(distances, torch.full_like(distances, 8.0))
    assert heatmap.shape == (1, len(head.cells(levels).points))
    torch.manual_seed(0)
    head = first_stage.CenterHead(8, 1, (8, 16))
    torch.nn.init.constant_(head.level_scales[1:], 2.0)
    level = torch.randn(1, 8, 3, 3)
    heatmap, distances = head([level, level])
    torch.testing.assert_close(heatmap[:, :9], heatmap[:, 9:])
    torch.testing.assert_close(2 * distances[:, :9], distances[:, 9:])


def naive(heatmap, distances, cells, sizes, config, training):
    """One image, one cell at a time."""
    candidates, kept = (pair[0 if training else 1] for pair in (config.candidates, config.kept))
    found = []
    for level in cells.levels.unique().tolist():
        own = []
        for cell in (cells.levels == level).nonzero()[:, 0].tolist():
            x, y = cells.points[cell].tolist()
            score = heatmap[cell].sigmoid().item()
            if x < sizes[1] and y < sizes[0] and score > config.min_score:
                left, top, right, bottom = (distances[cell] * cells.strides[cell]).tolist()
                own.append((score, (x - left, y - top, x + right, y + bottom)))
        found += sorted(own, reverse=True)[:candidates]
    scores = torch.tensor([score for score, _ in found])
    boxes = torch.tensor([box for _, box in found])
    first = nms(boxes, scores, config.nms)[:kept]
    return boxes[first], scores[first].sqrt()


@pytest.mark.parametrize("training", [True, False])
def test_proposals_are_those_of_a_plain_loop(training):
    heatmap, distances, cells = random_maps()
    sizes = torch.tensor([[32.0, 48.0], [20.0, 41.0]])  # the second image is padded
    config = first_stage.ProposalConfig(min_score=0.3, candidates=(5, 9), nms=0.5, kept=(6, 7))
    found = first_stage.propose(heatmap, distances, cells, sizes, config, training)
    for image, (boxes, scores) in enumerate(found):
        expected = naive(heatmap[image], distances[image], cells, sizes[image], config, training)
        torch.testing.assert_close(boxes, expected[0])
        torch.testing.assert_close(scores, expected[1])
        assert (scores.diff() <= 0).all()


def test_an_image_may_have_no_proposal():
    heatmap, distances, cells = random_maps(1)
    size, config = torch.tensor([[32.0, 48.0]]), first_stage.ProposalConfig()
    [(boxes, scores)] = first_stage.propose(heatmap - 50, distances, cells, size, config, True)
    assert boxes.shape == (0, 4) and scores.shape == (0,)
