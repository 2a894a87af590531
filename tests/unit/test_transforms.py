"""Augmentation: sizes, boxes that follow their pixels, and randomness that comes from the seed."""

import math

import pytest
import torch

from richsem.config import from_params
from richsem.data import transforms
from richsem.data.transforms import MosaicConfig, Picture, ScaleJitterConfig, TransformConfig

SMALL = {"max_side": 96, "crop_short_sides": (50, 60), "crop_range": (40, 60)}


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def picture(height=40, width=60, boxes=((10, 5, 30, 25), (50, 30, 60, 40))):
    """Noise; inside box k the red channel is 200 + k, so boxes can be found again."""
    image = torch.randint(0, 100, (3, height, width), generator=rng(), dtype=torch.uint8)
    for k, (x1, y1, x2, y2) in enumerate(boxes):
        image[0, y1:y2, x1:x2] = 200 + k
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Picture(image=image, boxes_xyxy=corners, labels=torch.arange(len(boxes)))


def made(config, seed=0):
    return config.apply(picture(), rng(seed))


def assert_boxes_follow_their_pixels(moved):
    for label, box in zip(moved.labels, moved.boxes_xyxy.tolist(), strict=True):
        rows, cols = torch.nonzero(moved.image[0] == 200 + label, as_tuple=True)
        found = [int(v) for v in (cols.min(), rows.min(), cols.max() + 1, rows.max() + 1)]
        assert found == pytest.approx(box, abs=1e-4)


def test_flip_and_resize_move_boxes_with_their_pixels():
    before = picture()
    once = transforms.flip(before)
    assert_boxes_follow_their_pixels(once)
    twice = transforms.flip(once)
    assert torch.equal(twice.image, before.image)
    assert torch.equal(twice.boxes_xyxy, before.boxes_xyxy)
    before = picture(40, 60)
    after = transforms.resize(before, (80, 90))
    assert (after.size, after.image.dtype) == ((80, 90), torch.uint8)
    expected = before.boxes_xyxy * torch.tensor([1.5, 2, 1.5, 2])
    torch.testing.assert_close(after.boxes_xyxy, expected)
    assert transforms.resize(before, (40, 60)) is before


def test_crop_clips_boxes_and_drops_those_outside():
    cut = transforms.crop(picture(), (10, 20, 25, 35))
    assert (cut.size, cut.labels.tolist()) == ((25, 35), [0, 1])
    assert_boxes_follow_their_pixels(cut)
    # The second box touches this window, with no area inside.
    edge = transforms.crop(picture(), (0, 0, 30, 50))
    assert edge.labels.tolist() == [0]
    nothing = transforms.crop(picture(), (30, 0, 5, 5))
    assert (nothing.boxes_xyxy.shape, nothing.labels.shape) == ((0, 4), (0,))


@pytest.mark.parametrize(
    ("size", "short_side", "max_side", "expected"),
    [
        ((480, 640), 800, 1333, (800, 1066)),
        ((640, 480), 800, 1333, (1066, 800)),
        ((300, 640), 800, 1333, (625, 1333)),  # the longer side is the limit
        ((500, 500), 800, 1333, (800, 800)),
        ((375, 500), 480, None, (480, 640)),
        ((1, 1000), 800, 1333, (1, 1000)),
    ],
)
def test_sizes_of_the_multi_scale_resize(size, short_side, max_side, expected):
    assert transforms.resized_size(size, short_side, max_side) == expected


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("keep_aspect", [True, False])
def test_boxes_stay_inside_the_image_and_keep_their_labels(seed, keep_aspect):
    config = TransformConfig(short_sides=(32, 64), keep_aspect=keep_aspect, **SMALL)
    after = made(config, seed)
    height, width = after.size
    assert min(height, width) in ((32, 64) if not keep_aspect else range(20, 65))
    assert max(height, width) <= 96
    assert height == width or keep_aspect
    boxes = after.boxes_xyxy
    assert ((boxes >= 0) & (boxes <= torch.tensor([width, height] * 2) + 1e-3)).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    for label, (x1, y1, x2, y2) in zip(after.labels, after.boxes_xyxy.tolist(), strict=True):
        middle = after.image[0, int((y1 + y2) / 2), int((x1 + x2) / 2)]
        assert abs(int(middle) - 200 - int(label)) <= 2 or min(x2 - x1, y2 - y1) < 6


def test_all_scales_flips_and_crops_occur_as_often_as_configured():
    config = TransformConfig(short_sides=(30, 40), max_side=999, flip=0.5, crop=0.0)
    results = [made(config, seed) for seed in range(200)]
    shorts = [min(result.size) for result in results]
    flipped = [bool(result.boxes_xyxy[0, 0] > result.size[1] / 3) for result in results]
    assert 70 < shorts.count(30) < 130
    assert 70 < sum(flipped) < 130


def test_evaluation_only_resizes_and_a_window_larger_than_the_image_is_the_image():
    config = TransformConfig(short_sides=(32, 64), **SMALL).evaluation()
    results = [made(config, seed) for seed in range(5)]
    assert {result.size for result in results} == {(64, 96)}
    assert all(torch.equal(result.image, results[0].image) for result in results)
    assert TransformConfig().evaluation().short_sides == (800,)
    assert ScaleJitterConfig().evaluation() == TransformConfig().evaluation()

    sizes = {"crop_short_sides": (20,), "crop_range": (384, 600), "short_sides": (20,)}
    config = TransformConfig(flip=0, crop=1, **sizes)
    assert config.apply(picture(20, 30, ()), rng()).size == (20, 30)


# --- large-scale jitter --------------------------------------------------------------------------


def test_jitter_scales_the_longer_side_and_cuts_out_windows_that_move_with_their_boxes():
    config = ScaleJitterConfig(side=50, scales=(0.5, 2.0), flip=0.0)
    sizes = {made(config, seed).size for seed in range(100)}
    assert max(max(size) for size in sizes) == 50
    assert min(max(size) for size in sizes) < 30
    assert {height / width for height, width in sizes} - {1.0}
    result = made(ScaleJitterConfig(side=30, scales=(1.0, 1.0), flip=0.0))
    assert result.size == (20, 30)
    torch.testing.assert_close(result.boxes_xyxy, picture().boxes_xyxy / 2)
    config = ScaleJitterConfig(side=30, scales=(2.0, 2.0), flip=0.0)  # 40 x 60 stays, cut to 30
    cut = [made(config, seed) for seed in range(20)]
    assert {result.size for result in cut} == {(30, 30)}
    for result in cut:
        assert_boxes_follow_their_pixels(result)
    assert len({tuple(result.boxes_xyxy.flatten().tolist()) for result in cut}) > 5

    always = ScaleJitterConfig(side=60, scales=(1.0, 1.0), flip=1.0)
    assert torch.equal(made(always).image, transforms.flip(picture()).image)


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        (TransformConfig, {"flip": 1.5}, "flip must be float <= 1"),
        (TransformConfig, {"crop": math.nan}, "crop must be a finite number"),
        (TransformConfig, {"short_sides": ()}, "short_sides must be array of length >= 1"),
        (TransformConfig, {"crop_range": (0, 5)}, r"crop_range\[0\] must be int >= 1"),
        (TransformConfig, {"crop_range": (9, 5)}, "shortest, longest"),
        (ScaleJitterConfig, {"flip": -0.1}, "flip must be float >= 0"),
        (ScaleJitterConfig, {"side": 0}, "side must be int >= 1"),
        (ScaleJitterConfig, {"scales": (2.0, 1.0)}, "least, largest"),
        (MosaicConfig, {"side": 0}, "side must be int >= 2"),
    ],
)
def test_impossible_configurations_are_refused(config, change, message):
    with pytest.raises(ValueError, match=message):
        from_params(config, change)


# --- mosaics -------------------------------------------------------------------------------------

SIZES = ((20, 30), (64, 64), (50, 10), (16, 32))


def tiles():
    """One colour per tile, its box is all of it, its label its place."""
    for place, (height, width) in enumerate(SIZES):
        image = torch.full((3, height, width), 10 * (place + 1), dtype=torch.uint8)
        box = torch.tensor([[0.0, 0, width, height]])
        yield Picture(image=image, boxes_xyxy=box, labels=torch.tensor([place]))


def laid(seed):
    return transforms.mosaic(list(tiles()), MosaicConfig(side=32), rng(seed))


@pytest.mark.parametrize("seed", range(25))
def test_boxes_are_exactly_the_pixels_of_their_tiles(seed):
    result = laid(seed)
    assert torch.equal(result.image, laid(seed).image)
    assert (result.size, result.labels.tolist()) == ((64, 64), [0, 1, 2, 3])
    covered = torch.zeros(64, 64, dtype=torch.bool)
    for place, box in enumerate(result.boxes_xyxy.tolist()):
        x1, y1, x2, y2 = map(int, box)
        expected = torch.zeros(64, 64, dtype=torch.bool)
        expected[y1:y2, x1:x2] = True
        assert torch.equal((result.image == 10 * (place + 1)).all(0), expected)
        covered |= expected
    assert (result.image[:, ~covered] == 114).all()
    x1, y1, x2, y2 = result.boxes_xyxy.unbind(-1)  # they meet at a centre in the middle half
    centre = (x2[0], y2[0])
    assert all(16 <= place <= 48 for place in centre)
    assert (x1[1], y2[1]) == (x2[2], y1[2]) == (x1[3], y1[3]) == centre


def test_the_longer_side_of_a_tile_fits_and_centres_reach_both_ends_of_their_range():
    boxes = [laid(seed).boxes_xyxy for seed in range(2000)]
    # Nothing is cut off of a mosaic whose centre is in the middle.
    middle = next(b for b in boxes if b[0, 2:].tolist() == [32, 32])
    sizes = (middle[:, 2:] - middle[:, :2]).tolist()
    assert sizes == [[32, 21], [32, 32], [6, 32], [32, 16]]
    centres = {own[0, 2].item() for own in boxes}
    assert (min(centres), max(centres)) == (16, 48)
