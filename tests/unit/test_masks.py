"""Masks over their boxes: drawn from outlines, sampled elsewhere, pasted into images."""

import numpy as np
import pytest
import torch
from pycocotools import mask as coco
from scipy import ndimage

from richsem.masks import COVERED, SIDE, drawn, pasted, resampled, run_lengths

HEIGHT, WIDTH = 160, 224
CORNERS = [[28, 2], [34, 16], [50, 18], [38, 26], [42, 38], [27, 30], [10, 37], [17, 22]]
STAR = (4.0 * np.array(CORNERS)).ravel().tolist()
BOX = torch.tensor([40.0, 8.0, 200.0, 152.0])  # just holds it


def filled(outline):
    """Pixels [H, W] by pycocotools itself."""
    if isinstance(outline, list):
        return coco.decode(coco.merge(coco.frPyObjects(outline, HEIGHT, WIDTH))).astype(bool)
    return coco.decode(outline).astype(bool)


def iou(one, other):
    one, other = (np.asarray(mask, dtype=bool) for mask in (one, other))
    return (one & other).sum() / (one | other).sum()


def compressed(outline=(STAR,)):
    runs = coco.merge(coco.frPyObjects(list(outline), HEIGHT, WIDTH))
    return runs | {"counts": runs["counts"].decode()}


def uncompressed():
    pixels = filled([STAR]).T.ravel().astype(int)  # columns first
    changes = np.flatnonzero(np.diff(pixels, prepend=0, append=0))
    counts = np.diff(changes, prepend=0, append=pixels.size).tolist()
    return {"size": [HEIGHT, WIDTH], "counts": counts}


OUTLINES = {"polygons": [STAR], "run lengths": compressed(), "uncompressed": uncompressed()}


@pytest.mark.parametrize("outline", OUTLINES.values(), ids=OUTLINES)
def test_drawn_over_its_box_pasted_back_or_as_run_lengths_it_covers_the_same_pixels(outline):
    mask = drawn(outline, BOX, (HEIGHT, WIDTH))
    assert mask.shape == (SIDE, SIDE) and mask.dtype == torch.bool
    (back,) = pasted(mask[None], BOX[None], (HEIGHT, WIDTH))
    assert iou(coco.decode(back), filled([STAR])) > 0.96
    shifted = BOX + torch.tensor([20.0, -12.0, 80.0, 24.0])  # also beyond the image
    wanted = resampled(mask[None], BOX[None], shifted[None], (28, 28))[0] >= COVERED
    low, sides = shifted[:2].numpy(), (shifted[2:] - shifted[:2]).numpy()
    polygon = 28 * (np.reshape(STAR, (-1, 2)) - low) / sides
    exact = coco.decode(coco.merge(coco.frPyObjects([polygon.ravel().tolist()], 28, 28)))
    assert iou(wanted, exact) > 0.9
    runs = run_lengths(outline, (HEIGHT, WIDTH))
    assert isinstance(runs["counts"], str) and runs["size"] == [HEIGHT, WIDTH]
    assert np.array_equal(coco.decode(runs), filled([STAR]))


def test_several_polygons_are_one_object_and_parts_outside_the_box_are_left_out():
    square = [0.0, 120.0, 32.0, 120.0, 32.0, 156.0, 0.0, 156.0]
    whole = torch.tensor([0.0, 0.0, WIDTH, HEIGHT])
    both = drawn([STAR, square], whole, (HEIGHT, WIDTH))
    (back,) = pasted(both[None], whole[None], (HEIGHT, WIDTH))
    assert iou(coco.decode(back), filled([STAR, square])) > 0.95
    inside = drawn([STAR, square], BOX, (HEIGHT, WIDTH))
    assert torch.equal(inside, drawn([STAR], BOX, (HEIGHT, WIDTH)))


@pytest.mark.parametrize(
    ("outline", "problem"),
    [
        ([], "three points"),
        ([[1.0, 2.0, 3.0, 4.0]], "three points"),
        ([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]], "three points"),
        ("x", "expected polygons"),
        ([[1.0, 2.0, 3.0, 4.0, 5.0, 1e9]], "polygons within"),
        ([[1.0, 2.0, 3.0, 4.0, 5.0, float("nan")]], "polygons within"),
        ({"size": [HEIGHT, 9], "counts": "0"}, "run lengths of size"),
        ({"size": [HEIGHT, WIDTH]}, "that sum up to"),
        *(
            ({"size": [HEIGHT, WIDTH], "counts": counts}, "that sum up to")
            for text in [compressed()["counts"]]  # others would be compared for ever
            for counts in (None, "", text[:-3], text + text, f"b'{text}'", "ü", [HEIGHT, -1], [0.5])
        ),
    ],
)
def test_what_is_no_outline_of_the_image_is_refused(outline, problem):
    with pytest.raises(ValueError, match=problem):
        drawn(outline, BOX, (HEIGHT, WIDTH))
    with pytest.raises(ValueError, match=problem):
        run_lengths(outline, (HEIGHT, WIDTH))


def random_masks(number, side):
    draws = torch.Generator().manual_seed(0)
    low = torch.rand(number, 2, generator=draws) * torch.tensor([WIDTH - 80, HEIGHT - 80])
    sides = 24 + 56 * torch.rand(number, 2, generator=draws)
    soft = torch.rand(number, 1, 4, 4, generator=draws)
    masks = torch.nn.functional.interpolate(soft, (side, side), mode="bilinear")[:, 0]
    return masks, torch.cat([low, low + sides], dim=1)


def test_pasting_is_interpolation_at_the_centres_of_pixels_and_nothing_outside():
    masks, boxes = random_masks(12, 28)
    for runs, mask, box in zip(pasted(masks, boxes, (HEIGHT, WIDTH)), masks, boxes, strict=True):
        left, top, right, bottom = box.tolist()
        rows = (np.arange(HEIGHT) + 0.5 - top) / (bottom - top) * 28 - 0.5
        columns = (np.arange(WIDTH) + 0.5 - left) / (right - left) * 28 - 0.5
        places = np.meshgrid(rows, columns, indexing="ij")
        value = ndimage.map_coordinates(mask.numpy(), places, order=1, mode="grid-constant")
        doubtful = abs(value - COVERED) < 1e-4
        assert ((coco.decode(runs) == (value >= COVERED)) | doubtful).all()
    boxes = torch.tensor([[4.0, 4.0, 4.0, 4.0], [300.0, 300.0, 320.0, 320.0]])
    found = pasted(torch.ones(2, 28, 28), boxes, (HEIGHT, WIDTH))
    assert [coco.area(runs) for runs in found] == [0, 0]
