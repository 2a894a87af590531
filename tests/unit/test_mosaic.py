"""Mosaics: every tile lies where its box says, pixel by pixel."""

import pytest
import torch

from richsem.data.transforms import MosaicConfig, Picture, mosaic

CONFIG = MosaicConfig(side=32)
SIZES = ((20, 30), (64, 64), (50, 10), (16, 32))


def rng(seed):
    return torch.Generator().manual_seed(seed)


def tile(place, size):
    """One colour per tile, its box is all of it, its label its place."""
    height, width = size
    image = torch.full((3, height, width), 10 * (place + 1), dtype=torch.uint8)
    box = torch.tensor([[0.0, 0, width, height]])
    return Picture(image=image, boxes_xyxy=box, labels=torch.tensor([place]))


def tiles(sizes=SIZES):
    return [tile(place, size) for place, size in enumerate(sizes)]


@pytest.mark.parametrize("seed", range(25))
def test_boxes_are_exactly_the_pixels_of_their_tiles(seed):
    result = mosaic(tiles(), CONFIG, rng(seed))
    assert result.size == (64, 64)
    assert result.labels.tolist() == [0, 1, 2, 3]
    covered = torch.zeros(64, 64, dtype=torch.bool)
    for place, box in enumerate(result.boxes_xyxy.tolist()):
        x1, y1, x2, y2 = map(int, box)
        expected = torch.zeros(64, 64, dtype=torch.bool)
        expected[y1:y2, x1:x2] = True
        assert torch.equal((result.image == 10 * (place + 1)).all(0), expected)
        covered |= expected
    assert (result.image[:, ~covered] == 114).all()


@pytest.mark.parametrize("seed", range(25))
def test_tiles_meet_at_a_centre_in_the_middle_half(seed):
    x1, y1, x2, y2 = mosaic(tiles(), CONFIG, rng(seed)).boxes_xyxy.unbind(-1)
    centre_x, centre_y = x2[0], y2[0]
    assert 16 <= centre_x <= 48
    assert 16 <= centre_y <= 48
    assert (x1[1], y2[1]) == (centre_x, centre_y)
    assert (x2[2], y1[2]) == (centre_x, centre_y)
    assert (x1[3], y1[3]) == (centre_x, centre_y)


def test_the_longer_side_of_a_tile_fits_the_configured_side():
    centred = next(
        result
        for seed in range(2000)
        for result in [mosaic(tiles(), CONFIG, rng(seed))]
        if result.boxes_xyxy[0, 2:].tolist() == [32, 32]  # nothing is cut off
    )
    x1, y1, x2, y2 = centred.boxes_xyxy.unbind(-1)
    assert (x2 - x1).tolist() == [32, 32, 6, 32]
    assert (y2 - y1).tolist() == [21, 32, 32, 16]


def test_centres_reach_both_ends_of_their_range():
    centres = {mosaic(tiles(), CONFIG, rng(seed)).boxes_xyxy[0, 2].item() for seed in range(400)}
    assert min(centres) == 16
    assert max(centres) == 48


def test_all_boxes_of_a_tile_go_with_it():
    twice = [
        Picture(
            image=part.image,
            boxes_xyxy=part.boxes_xyxy.repeat(2, 1),
            labels=torch.tensor([place, place + 10]),
        )
        for place, part in enumerate(tiles())
    ]
    result = mosaic(twice, CONFIG, rng(0))
    assert result.labels.tolist() == [0, 10, 1, 11, 2, 12, 3, 13]
    assert torch.equal(result.boxes_xyxy[::2], result.boxes_xyxy[1::2])


def test_the_same_generator_state_gives_the_same_mosaic():
    assert torch.equal(mosaic(tiles(), CONFIG, rng(5)).image, mosaic(tiles(), CONFIG, rng(5)).image)


def test_needs_four_tiles_and_a_canvas():
    with pytest.raises(ValueError, match="4 tiles, got 3"):
        mosaic(tiles()[:3], CONFIG, rng(0))
    with pytest.raises(ValueError, match="side 0"):
        MosaicConfig(side=0)
