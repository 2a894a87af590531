"""Extra data by what their annotation is worth, and how coarse the resulting boxes are."""

import numpy as np
import pandas as pd

from richsem.data.box_sets import BoxDataset
from richsem.data.catalog import open_boxes, open_images
from richsem.data.categories import Category
from richsem.data.image_sets import ImageSet, forget_boxes
from richsem.data.samples import FROM_BOXES, DetectionTrainingSet, ExtraTrainingSet, match_classes
from richsem.data.transforms import MosaicConfig, Transform, TransformConfig
from richsem.structures import Supervision
from richsem.workbook.coarse_boxes import (
    KnownObjects,
    coarseness,
    known_portraits,
    known_scenes,
    objects_are_known,
)
from richsem.workbook.notebook_data import (
    DataConfig,
    ExtraDataConfig,
    benchmark_root,
    detection_set,
    is_there,
)

EXTRA_KEYS = {
    Supervision.IMAGE_LABELS: "inet_lvis",
    Supervision.UNLABELLED: "inet_unl",
    Supervision.CAPTIONS: "cc3m",
    Supervision.BOXES_ONLY: "o365_box",
}


def weak_sources(config: DataConfig) -> dict[Supervision, ImageSet | BoxDataset]:
    """One extra set for each kind of annotation.

    Where a set is not on disk, the detection set takes its place with everything forgotten that
    the extra set would not have told. Nothing takes the place of captions.
    """
    root = None if config.annotations else benchmark_root(config)
    train = detection_set(config, "train")
    forgotten = forget_boxes(train)
    sources: dict[Supervision, ImageSet | BoxDataset] = {
        Supervision.IMAGE_LABELS: forgotten,
        Supervision.UNLABELLED: forgotten.without_labels(),
        Supervision.BOXES_ONLY: train.without_labels(),
    }
    for supervision, key in EXTRA_KEYS.items():
        if root is None or not is_there(key, root):
            continue
        if supervision in FROM_BOXES:
            sources[supervision] = open_boxes(key, "train", root=root)
        else:
            sources[supervision] = open_images(key, root=root, categories=train.categories)
    return sources


def training_set(
    source: ImageSet | BoxDataset,
    supervision: Supervision,
    transform: TransformConfig,
    *,
    classes: tuple[Category, ...] = (),
    mosaic: MosaicConfig | None = None,
) -> DetectionTrainingSet | ExtraTrainingSet:
    """Samples of a set as this kind of supervision lets a detector see them.

    Args:
        source: The images.
        supervision: What their annotation is worth.
        transform: Augmentation.
        classes: The detector's classes, found by name; by default those of the set itself.
        mosaic: Lays image-level images on mosaics.
    """
    if supervision in FROM_BOXES:
        return DetectionTrainingSet(source, Transform(transform), supervision=supervision)
    matches = match_classes(source.categories, classes) if classes else None
    return ExtraTrainingSet(
        source, Transform(transform), supervision=supervision, mosaic=mosaic, classes=matches
    )


def telling_image(dataset: BoxDataset) -> int:
    """An image with two to four boxes of different classes, the smallest as large as possible.

    Where there is none, the image with the most boxes.
    """
    areas = np.diff(dataset.boxes_xyxy.reshape(-1, 2, 2), axis=1).prod(axis=(1, 2))
    areas = areas / dataset.image_sizes[dataset.box_image].prod(axis=1)
    smallest = {
        i: areas[dataset.offsets[i] : dataset.offsets[i + 1]].min()
        for i in np.flatnonzero(np.isin(np.diff(dataset.offsets), (2, 3, 4))).tolist()
        if len(set(dataset.boxes_of(i)[1].tolist())) == dataset.offsets[i + 1] - dataset.offsets[i]
    }
    if not smallest:
        return int(np.argmax(np.diff(dataset.offsets)))
    return max(smallest, key=smallest.__getitem__)


def known_objects(config: ExtraDataConfig) -> dict[str, KnownObjects]:
    """Images whose objects are known, by what kind of image they are."""
    labelled = weak_sources(config.data)[Supervision.IMAGE_LABELS]
    known = {}
    if objects_are_known(labelled):
        portraits = known_portraits(labelled, config.measured, seed=config.seed)
        known["object-centric images"] = portraits
    train = detection_set(config.data, "train")
    return known | {"scenes": known_scenes(train, config.measured, seed=config.seed)}


def fit_by_stage(config: ExtraDataConfig, known: dict[str, KnownObjects]) -> pd.DataFrame:
    """Coarse against true boxes: of the image as it is, augmented, and as a tile of a mosaic.

    Returns:
        What `coarse.coarseness` returns, with the columns source and stage.
    """
    stages = {
        "whole image": {},
        "augmented": {"transform": Transform(config.tile)},
        "tile of a mosaic": {
            "transform": Transform(config.tile),
            "mosaic_config": config.mosaic,
        },
    }
    frames = [
        coarseness(objects, seed=config.seed, **how).assign(source=source, stage=stage)
        for source, objects in known.items()
        for stage, how in stages.items()
    ]
    return pd.concat(frames, ignore_index=True)
