"""Extra sets by what their annotation is worth; a single file plays all of them."""

import numpy as np
import pytest

from richsem.data.box_sets import BoxDataset
from richsem.data.samples import FROM_BOXES
from richsem.data.transforms import MosaicConfig, TransformConfig
from richsem.structures import Supervision
from richsem.workbook import coarse_data, notebook_data
from richsem.workbook.notebook_data import DataConfig

VIEW = TransformConfig(flip=0, crop=0, short_sides=(64,), max_side=200)


@pytest.fixture
def data(tiny_set):
    return DataConfig(
        profile="smoke", annotations=str(tiny_set.path), images=str(tiny_set.image_root)
    )


def test_a_single_file_takes_the_place_of_all_but_captions(data, tiny_set):
    sources = coarse_data.weak_sources(data)
    assert set(sources) == set(coarse_data.EXTRA_KEYS) - {Supervision.CAPTIONS}
    assert sources[Supervision.IMAGE_LABELS].labels[0] == (0, 1, 2)
    assert not any(sources[Supervision.UNLABELLED].labels)
    assert isinstance(sources[Supervision.BOXES_ONLY], BoxDataset)


@pytest.mark.parametrize("level", Supervision)
def test_every_level_has_the_targets_it_promises(data, tiny_set, level):
    source = tiny_set
    if level not in FROM_BOXES:
        source = coarse_data.weak_sources(data)[Supervision.IMAGE_LABELS]
    target = coarse_data.training_set(source, level, VIEW, classes=tiny_set.categories)[
        (0, 1)
    ].target
    unknown = level in (Supervision.UNLABELLED, Supervision.BOXES_ONLY)
    assert (target.labels == -1).all() == unknown
    assert len(target.labels) == (1 if level is Supervision.UNLABELLED else 3)
    whole = (target.boxes == target.boxes.new_tensor([0.5, 0.5, 1, 1])).all(dim=1)
    assert whole.all() == (level not in FROM_BOXES)


def test_mosaics_are_laid_where_asked_for(data):
    source = coarse_data.weak_sources(data)[Supervision.UNLABELLED]
    laid = coarse_data.training_set(
        source, Supervision.UNLABELLED, VIEW, mosaic=MosaicConfig(side=32)
    )
    assert len(laid[(0, 1)].target.boxes) == 4


def test_the_telling_image_has_few_large_boxes_of_different_classes(tiny_set):
    assert coarse_data.telling_image(tiny_set) == 0
    assert coarse_data.telling_image(tiny_set.select([3, 4])) == 1
    assert coarse_data.telling_image(tiny_set.select([2, 1])) == 1


def test_the_fit_is_measured_stage_by_stage(data, tiny_set):
    config = notebook_data.extra_data(data)
    known = coarse_data.known_objects(config)
    assert set(known) == {"scenes"}
    frame = coarse_data.fit_by_stage(config, known)
    assert list(frame["stage"].unique()) == ["whole image", "augmented", "tile of a mosaic"]
    assert len(frame) == 3 * len(tiny_set.labels)
    whole = frame[frame["stage"] == "whole image"]
    np.testing.assert_allclose(whole["iou"], whole["object_side"] ** 2, rtol=1e-5)


def test_the_paper_profile_is_the_papers_mosaic():
    config = notebook_data.extra_data(DataConfig(profile="paper"))
    assert (config.mosaic, config.tile) == (MosaicConfig(), TransformConfig())
    demo = notebook_data.extra_data(DataConfig(profile="demo"))
    assert demo.mosaic.side * 10 == config.mosaic.side
    assert [round(s / 10) for s in config.tile.short_sides] == list(demo.tile.short_sides)
