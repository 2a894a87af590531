"""Extra sets by what their annotation is worth; coarse boxes against true ones."""

import numpy as np
import pytest
import torch
from workbook_toys import files_of

from richsem.data.box_sets import BoxDataset
from richsem.data.drawn import MiniLvisConfig
from richsem.data.image_sets import forget_boxes
from richsem.data.reading import DataError
from richsem.data.samples import FROM_BOXES
from richsem.data.transforms import MosaicConfig, Picture, TransformConfig
from richsem.minilvis import scenes
from richsem.minilvis.plans import plan_portraits, stream
from richsem.structures import Supervision
from richsem.workbook import coarse
from richsem.workbook.notebook_data import DataConfig

VIEW = TransformConfig(flip=0, crop=0, short_sides=(64,), max_side=200)


@pytest.fixture
def data(tiny_set):
    return DataConfig(profile="smoke", **files_of(tiny_set))


def test_a_single_file_serves_all_but_captions_and_fits_stage_by_stage_of_the_mosaic(
    data, tiny_set
):
    sources = coarse.weak_sources(data)
    assert set(sources) == set(coarse.EXTRA_KEYS) - {Supervision.CAPTIONS}
    assert sources[Supervision.IMAGE_LABELS].labels[0] == (0, 1, 2)
    assert not any(sources[Supervision.UNLABELLED].labels)
    assert isinstance(sources[Supervision.BOXES_ONLY], BoxDataset)
    source = sources[Supervision.UNLABELLED]
    laid = coarse.training_set(source, Supervision.UNLABELLED, VIEW, mosaic=MosaicConfig(side=32))
    assert len(laid[(0, 1)].target.boxes) == 4
    config = coarse.configure(data)
    known = coarse.known_objects(config)
    assert set(known) == {"scenes"}
    frame = coarse.fit_by_stage(config, known)
    assert list(frame["stage"].unique()) == ["whole image", "augmented", "tile of a mosaic"]
    assert len(frame) == 3 * len(tiny_set.labels)
    config = coarse.configure(DataConfig(profile="paper"))
    assert (config.mosaic, config.tile) == (MosaicConfig(), TransformConfig())
    demo = coarse.configure(DataConfig(profile="demo"))
    assert demo.mosaic.side * 10 == config.mosaic.side
    assert [round(s / 10) for s in config.tile.short_sides] == list(demo.tile.short_sides)


@pytest.mark.parametrize("level", Supervision)
def test_every_level_has_the_targets_it_promises(data, tiny_set, level):
    source = tiny_set
    if level not in FROM_BOXES:
        source = coarse.weak_sources(data)[Supervision.IMAGE_LABELS]
    target = coarse.training_set(source, level, VIEW, classes=tiny_set.categories)[(0, 1)].target
    unknown = level in (Supervision.UNLABELLED, Supervision.BOXES_ONLY)
    assert (target.labels == -1).all() == unknown
    assert len(target.labels) == (1 if level is Supervision.UNLABELLED else 3)
    whole = (target.boxes == target.boxes.new_tensor([0.5, 0.5, 1, 1])).all(dim=1)
    assert whole.all() == (level not in FROM_BOXES)


CONFIG = MiniLvisConfig(classes_per_group=2, portraits=2)
AS_IT_IS = TransformConfig(flip=0, crop=0, short_sides=(40,), max_side=1000)


@pytest.mark.parametrize("index", [0, 5, 11])
def test_the_object_of_a_portrait_is_where_it_was_painted(index, monkeypatch):
    spec = plan_portraits(CONFIG)[index]
    painted = []
    paint = scenes._paint
    monkeypatch.setattr(scenes, "_paint", lambda *args: painted.append(args) or paint(*args))
    known = {"size": CONFIG.portrait_size, "scene": spec.scene}
    rngs = (stream(CONFIG, "imagenet_lvis", index) for _ in range(2))
    scenes.paint_portrait(spec.things[0], rng=next(rngs), **known)
    ((_, sprite, corner, _),) = painted
    mask, _ = scenes._opaque(sprite, corner, CONFIG.portrait_size)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = scenes.portrait_box(spec.things[0], rng=next(rngs), **known)
    assert box.tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def test_objects_are_known_in_scenes_with_boxes_and_not_in_other_images(tiny_set):
    known = coarse.known_scenes(tiny_set, 10)
    assert sorted(len(picture.labels) for picture in known) == [2, 3, 3, 4]  # one has no box
    assert len(coarse.known_scenes(tiny_set, 2)) == 2
    expected = {}
    for row in (0, 1, 3, 4):
        whole = [0, 0, *tiny_set.image_sizes[row, ::-1]]
        boxes = np.array([whole, *tiny_set.boxes_of(row)[0]], dtype=np.float32)
        expected[boxes.tobytes()] = np.array(tiny_set.image(row))
    for picture in known:
        pixels = expected.pop(picture.boxes_xyxy.numpy().tobytes())
        np.testing.assert_array_equal(picture.image.permute(1, 2, 0), pixels)
        assert picture.labels.tolist() == list(range(len(picture.boxes_xyxy)))
    with pytest.raises(DataError, match="no boxes"):
        coarse.known_scenes(tiny_set.select([2]), 10)
    assert coarse.known_portraits(forget_boxes(tiny_set), 3) == []


def test_a_whole_image_fits_as_the_objects_share_of_it_and_noise_spoils_boxes(tiny_set):
    known = coarse.known_scenes(tiny_set, 10)
    expected = []
    for picture in known:
        sides = np.diff(picture.boxes_xyxy.numpy().reshape(-1, 2, 2), axis=1)[:, 0]
        expected += (sides[1:].prod(1) / sides[0].prod()).tolist()
    for frame in (coarse.coarseness(known), coarse.coarseness(known, transform=AS_IT_IS)):
        np.testing.assert_allclose(frame["iou"], expected, rtol=1e-4)
        np.testing.assert_allclose(frame["object_side"], np.sqrt(expected), rtol=1e-4)
        np.testing.assert_allclose(frame["coarse_side"], 1)
    curve = coarse.noise_ious(tiny_set, (0.0, 0.5, 1.0, 2.0))
    assert curve["iou"][0] == 1 and curve["iou"].is_monotonic_decreasing
    assert curve.equals(coarse.noise_ious(tiny_set, (0.0, 0.5, 1.0, 2.0)))


def squares(box):
    """Eight images of 40 x 40 pixels with this box."""
    boxes, image = torch.tensor([(0, 0, 40, 40), box]).float(), torch.zeros(3, 40, 40)
    return 8 * [Picture(image=image.byte(), boxes_xyxy=boxes, labels=torch.arange(2))]


def test_in_a_mosaic_coarse_box_and_object_are_cut_together_or_fit_not_at_all():
    known, laid = squares((0, 0, 40, 40)), {"mosaic_config": MosaicConfig(side=40)}
    frame = coarse.coarseness(known, **laid, seed=3)
    np.testing.assert_allclose(frame["iou"], 1)
    assert frame["coarse_side"].between(0.25, 0.5).all()
    np.testing.assert_array_equal(frame["coarse_side"], frame["object_side"])
    assert frame["coarse_side"].nunique() > 4
    assert frame.equals(coarse.coarseness(known, **laid, seed=3))
    corner = squares((0, 0, 4, 4))  # a first tile loses its upper left corner
    assert (coarse.coarseness(corner, **laid)["iou"] == 0).any()
    sizes = {"short_sides": (40,), "crop_short_sides": (40,), "crop_range": (10, 10)}
    window = TransformConfig(flip=0, crop=1, **sizes)
    frame = coarse.coarseness(corner, transform=window)
    gone = frame["iou"] == 0
    assert gone.any() and (frame["object_side"][gone] == 0).all()
