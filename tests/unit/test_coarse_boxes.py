"""Coarse boxes against the true ones, where these are known."""

import numpy as np
import pytest
from PIL import Image

from richsem.data.catalog import MiniLvisConfig
from richsem.data.image_sets import forget_boxes
from richsem.data.reading import DataError
from richsem.data.transforms import MosaicConfig, Transform, TransformConfig
from richsem.minilvis import scenes
from richsem.minilvis.plans import plan_portraits, stream
from richsem.workbook import coarse_boxes
from richsem.workbook.coarse_boxes import KnownObjects, coarseness, known_scenes, noise_ious

CONFIG = MiniLvisConfig(classes_per_group=2, portraits=2)
AS_IT_IS = Transform(TransformConfig(flip=0, crop=0, short_sides=(40,), max_side=1000))


@pytest.mark.parametrize("index", [0, 5, 11])
def test_the_object_of_a_portrait_is_where_it_was_painted(index, monkeypatch):
    spec = plan_portraits(CONFIG)[index]
    painted = []
    paint = scenes._paint
    monkeypatch.setattr(scenes, "_paint", lambda *args: painted.append(args) or paint(*args))
    size = CONFIG.portrait_size
    scenes.paint_portrait(
        spec.things[0], size=size, scene=spec.scene, rng=stream(CONFIG, "imagenet_lvis", index)
    )
    ((_, sprite, corner, _),) = painted
    mask, _ = scenes._opaque(sprite, corner, size)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    expected = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    box = scenes.portrait_box(
        spec.things[0], size=size, scene=spec.scene, rng=stream(CONFIG, "imagenet_lvis", index)
    )
    assert box.tolist() == expected


def test_portraits_drawn_by_other_code_are_refused(tiny_set):
    images = forget_boxes(tiny_set)
    assert not coarse_boxes.objects_are_known(images)
    with pytest.raises(DataError, match="known_scenes"):
        coarse_boxes.known_portraits(images, 3)


def test_scenes_with_boxes_are_known(tiny_set):
    known = known_scenes(tiny_set, 10)
    assert sorted(known.rows.tolist()) == [0, 1, 3, 4]  # the third image has no box
    assert len(known_scenes(tiny_set, 2).rows) == 2
    for i, row in enumerate(known.rows):
        picture = known.picture(i)
        height, width = tiny_set.image_sizes[row]
        assert picture.boxes_xyxy[0].tolist() == [0, 0, width, height]
        np.testing.assert_array_equal(picture.boxes_xyxy[1:], tiny_set.boxes_of(row)[0])
        assert picture.labels.tolist() == list(range(len(picture.boxes_xyxy)))
    with pytest.raises(DataError, match="no boxes"):
        known_scenes(tiny_set.select([2]), 10)


def test_a_whole_image_fits_as_the_objects_share_of_it(tiny_set):
    known = known_scenes(tiny_set, 10)
    expected = []
    for row in known.rows:
        sides = np.diff(tiny_set.boxes_of(row)[0].reshape(-1, 2, 2), axis=1)[:, 0]
        expected += (sides.prod(1) / tiny_set.image_sizes[row].prod()).tolist()
    for frame in (coarseness(known), coarseness(known, transform=AS_IT_IS)):
        np.testing.assert_allclose(frame["iou"], expected, rtol=1e-4)
        np.testing.assert_allclose(frame["object_side"], np.sqrt(expected), rtol=1e-4)
        np.testing.assert_allclose(frame["coarse_side"], 1)


class Squares:
    """Eight images of 40 x 40 pixels."""

    def image(self, i):
        return Image.new("RGB", (40, 40), (30 * i, 0, 0))


def squares(box):
    boxes = tuple(np.array([box], dtype=np.float32) for _ in range(8))
    return KnownObjects(images=Squares(), rows=np.arange(8), boxes_xyxy=boxes)


def test_in_a_mosaic_coarse_box_and_object_are_cut_together():
    known = squares((0, 0, 40, 40))
    frame = coarseness(known, mosaic_config=MosaicConfig(side=40), seed=3)
    np.testing.assert_allclose(frame["iou"], 1)
    assert frame["coarse_side"].between(0.25, 0.5).all()
    np.testing.assert_array_equal(frame["coarse_side"], frame["object_side"])
    assert frame["coarse_side"].nunique() > 4
    again = coarseness(known, mosaic_config=MosaicConfig(side=40), seed=3)
    assert frame.equals(again)


def test_an_object_that_is_cut_off_fits_not_at_all():
    corner = squares((0, 0, 4, 4))  # a first tile loses its upper left corner
    frame = coarseness(corner, mosaic_config=MosaicConfig(side=40))
    assert (frame["iou"] == 0).any()
    window = Transform(
        TransformConfig(
            flip=0, crop=1, short_sides=(40,), crop_short_sides=(40,), crop_range=(10, 10)
        )
    )
    frame = coarseness(corner, transform=window)
    gone = frame["iou"] == 0
    assert gone.any()
    assert (frame["object_side"][gone] == 0).all()


def test_noisier_boxes_fit_worse(tiny_set):
    curve = noise_ious(tiny_set, (0.0, 0.5, 1.0, 2.0))
    assert curve["iou"][0] == 1
    assert curve["iou"].is_monotonic_decreasing
    assert curve.equals(noise_ious(tiny_set, (0.0, 0.5, 1.0, 2.0)))
