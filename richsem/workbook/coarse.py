"""Extra data by what their annotation is worth, and how coarse the resulting boxes are.

Extra images come without boxes: the box of a whole image or tile stands for the objects inside it.
How well it fits is measured where the objects are known, on images of a detection set and on drawn
portraits, whose drawing can be repeated up to the object's place.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torchvision.ops import box_iou
from torchvision.transforms.v2.functional import pil_to_tensor

from richsem import kept
from richsem.boxes import in_pixels
from richsem.config import REAL, from_params
from richsem.data import samples, transforms
from richsem.data.box_sets import BoxDataset
from richsem.data.catalog import open_boxes, open_images
from richsem.data.corrupt import jitter_boxes, uniform_draws
from richsem.data.drawn import MiniLvisConfig
from richsem.data.image_sets import ImageSet, forget_boxes
from richsem.data.reading import DataError
from richsem.data.transforms import MosaicConfig, Picture, TransformConfig
from richsem.minilvis import plans, scenes
from richsem.structures import Supervision
from richsem.training.predict import look
from richsem.training.runs import Trained
from richsem.workbook import notebook_data

PORTRAITS, SCENES = "object-centric images", "scenes"  # kinds of images whose objects are known
EXTRA_KEYS = {
    Supervision.IMAGE_LABELS: "inet_lvis",
    Supervision.UNLABELLED: "inet_unl",
    Supervision.CAPTIONS: "cc3m",
    Supervision.BOXES_ONLY: "o365_box",
}
_FOLDER = "imagenet_lvis"  # folder of the drawn images with one object each
_NOISY_BOXES = 2000  # enough for the median of a noise scale

training_set = samples.training_set  # what training makes of a set, for the notebook


@dataclass(frozen=True, kw_only=True)
class ExtraDataConfig:
    """What extra images are worth, how they are laid out and how coarse their boxes are."""

    data: notebook_data.DataConfig
    seed: int = 0  # of augmentation, mosaics and the choice of images that are measured
    tile: TransformConfig  # augmentation of a tile
    mosaic: MosaicConfig
    view: TransformConfig  # how an image is shown as it is
    measured: int  # images on which coarse boxes are compared with true ones


def configure(data: notebook_data.DataConfig, *, seed: int = 0) -> ExtraDataConfig:
    """The configuration of the extra data for a profile.

    Paper: tiles of 640 pixels on a canvas of 1280 (METHOD 1.3). Demo and smoke: all lengths a
    tenth of that, on images of 64 and 128 pixels.
    """
    tile, laid, side, measured = TransformConfig(), MosaicConfig(), 480, 3000
    if data.profile not in REAL:
        names = ("short_sides", "crop_short_sides", "crop_range")
        tenths = {name: tuple(round(s / 10) for s in getattr(tile, name)) for name in names}
        tile = replace(tile, **tenths, max_side=133)
        laid, side, measured = MosaicConfig(side=64), 128, 40 if data.profile == "smoke" else 300
    view = TransformConfig(flip=0.0, crop=0.0, short_sides=(side,), max_side=2 * side)
    shown = {"tile": tile, "mosaic": laid, "view": view}
    return ExtraDataConfig(data=data, seed=seed, measured=measured, **shown)


def weak_sources(config: notebook_data.DataConfig) -> dict[Supervision, ImageSet | BoxDataset]:
    """One extra set for each kind of annotation.

    Where a set is not on disk, the detection set takes its place with everything forgotten that
    the extra set would not have told. Nothing takes the place of captions.
    """
    root = None if config.annotations else notebook_data.benchmark_root(config)
    train = notebook_data.open_detection_set(config, "train")
    forgotten = forget_boxes(train)
    sources: dict[Supervision, ImageSet | BoxDataset] = {
        Supervision.IMAGE_LABELS: forgotten,
        Supervision.UNLABELLED: forgotten.without_labels(),
        Supervision.BOXES_ONLY: train.without_labels(),
    }
    for supervision, key in EXTRA_KEYS.items():
        if root is None or not notebook_data.is_there(key, root):
            continue
        if supervision in samples.FROM_BOXES:
            sources[supervision] = open_boxes(key, "train", root=root)
        else:
            sources[supervision] = open_images(key, root=root, categories=train.categories)
    return sources


def known_objects(config: ExtraDataConfig) -> dict[str, list[Picture]]:
    """Pictures whose objects are known, although a detector would be given coarse boxes only.

    By what kind of image they are. The first box of each is the whole image, the others are its
    objects. The labels are the positions of the boxes, so that each can be found again after an
    augmentation that drops some.
    """
    labelled = weak_sources(config.data)[Supervision.IMAGE_LABELS]
    train = notebook_data.open_detection_set(config.data, "train")
    portraits = known_portraits(labelled, config.measured, seed=config.seed)
    known = {PORTRAITS: portraits} if portraits else {}
    return known | {SCENES: known_scenes(train, config.measured, seed=config.seed)}


def known_portraits(images: ImageSet, max_images: int, *, seed: int = 0) -> list[Picture]:
    """Some drawn portraits with their object's box; none if today's code draws other pictures."""
    root = images.path.parent.parent
    manifest = root / "manifest.json"
    drawn = manifest.is_file() and root.name.endswith(kept.key(trace=("pictures",))[:8])
    if not drawn or images.image_root.name != _FOLDER:
        return []
    config = from_params(MiniLvisConfig, json.loads(manifest.read_bytes())["config"])
    specs, found = plans.plan_portraits(config), []
    for row in _some(len(images), max_images, seed):
        index = int(Path(images.file_names[row]).stem) - 1
        rng, spec = plans.stream(config, _FOLDER, index), specs[index]
        how = {"size": config.portrait_size, "scene": spec.scene, "rng": rng}
        found.append(
            known_picture(images.image(int(row)), [scenes.portrait_box(spec.things[0], **how)])
        )
    return found


def known_scenes(dataset: BoxDataset, max_images: int, *, seed: int = 0) -> list[Picture]:
    """Some images of a detection set that have boxes, with these."""
    shown = np.flatnonzero(np.diff(dataset.offsets))
    if not len(shown):
        raise DataError(f"{dataset!r} has no boxes. Nothing to compare whole images with.")
    rows = shown[_some(len(shown), max_images, seed)].tolist()
    return [known_picture(dataset.image(row), dataset.boxes_of(row)[0]) for row in rows]


def known_picture(image: Image.Image, objects_xyxy: Sequence[np.ndarray]) -> Picture:
    """A picture with the box of all of it, and then those of its objects."""
    boxes = torch.from_numpy(np.array([(0, 0, *image.size), *objects_xyxy])).float()
    return Picture(image=pil_to_tensor(image), boxes_xyxy=boxes, labels=torch.arange(len(boxes)))


def _some(number: int, max_number: int, seed: int) -> np.ndarray:
    """At most so many of the numbers from 0, in random order."""
    return np.random.default_rng(seed).permutation(number)[:max_number]


def fit_by_stage(config: ExtraDataConfig, known: dict[str, list[Picture]]) -> pd.DataFrame:
    """`coarseness` of images as they are, augmented, and on mosaics: by source and stage."""
    stages = {
        "whole image": {},
        "augmented": {"transform": config.tile},
        "tile of a mosaic": {"transform": config.tile, "mosaic_config": config.mosaic},
    }
    frames = [
        coarseness(pictures, seed=config.seed, **how).assign(source=source, stage=stage)
        for source, pictures in known.items()
        for stage, how in stages.items()
    ]
    return pd.concat(frames, ignore_index=True)


def coarseness(
    known: Sequence[Picture],  # see `known_objects`
    *,
    transform: TransformConfig | None = None,  # of each image; none leaves it whole
    mosaic_config: MosaicConfig | None = None,  # lays each image with three others on a canvas
    seed: int = 0,  # of augmentation and mosaics
) -> pd.DataFrame:
    """Compare the coarse box of each image with each object inside it.

    A line per object: `iou` of the coarse box with what is visible of the object (0 if a crop or
    the edge of the canvas has taken all of it), `coarse_side` and `object_side`, the square roots
    of both areas relative to the image that the detector sees.
    """
    rng, frames = torch.Generator().manual_seed(seed), []
    tiles = [transform.apply(picture, rng) for picture in known] if transform else known
    for i, tile in enumerate(tiles):
        seen = tile
        if mosaic_config is not None:
            others = [tiles[(i + step) % len(tiles)] for step in range(1, transforms.NUM_TILES)]
            seen = transforms.mosaic([tile, *others], mosaic_config, rng)
        boxes = torch.zeros(len(known[i].labels), 4)
        boxes[tile.labels] = seen.boxes_xyxy[: len(tile.labels)]
        extents = boxes[:, 2:] - boxes[:, :2]
        sides = (extents.prod(dim=1) / (seen.size[0] * seen.size[1])).sqrt().numpy()
        ious = box_iou(boxes[:1], boxes[1:])[0].numpy()
        columns = {"iou": ious, "coarse_side": sides[0], "object_side": sides[1:]}
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class Proposed:
    """What a detector proposes on an image of which a label is known, and where its objects are."""

    picture: Picture  # its first box is the whole image, the others are the label's objects
    label: int  # class index
    boxes_xyxy: np.ndarray  # of Q queries, in pixels of the picture [Q, 4]
    scores: np.ndarray  # of the label [Q]

    @property
    def sizes(self) -> np.ndarray:
        """Areas as parts of the picture's [Q]."""
        sides = self.boxes_xyxy[:, 2:] - self.boxes_xyxy[:, :2]
        return sides.prod(axis=1) / np.prod(self.picture.size)

    @property
    def ious(self) -> np.ndarray:
        """IoU of each proposal and, last, of the tile with the object that it fits best [Q + 1]."""
        tile, objects = self.picture.boxes_xyxy[:1], self.picture.boxes_xyxy[1:]
        boxes = torch.cat([torch.from_numpy(self.boxes_xyxy), tile])
        return box_iou(boxes, objects).amax(dim=1).numpy()


def propose(trained: Trained, picture: Picture, label: int) -> Proposed:
    """What the queries of a DINO answer on a picture whose boxes are the tile and its objects."""
    seen, output = look(trained.detector, picture, trained.transform)
    boxes = in_pixels(output.boxes[-1, 0].cpu(), seen.size).numpy()
    scores = output.logits[-1, 0, :, label].sigmoid().cpu().numpy()
    return Proposed(picture=seen, label=label, boxes_xyxy=boxes, scores=scores)


def proposals(config: ExtraDataConfig, trained: Trained, number: int) -> dict[str, list[Proposed]]:
    """Proposals on some portraits and scenes, by kind; a scene's label is one of its classes.

    The detector's classes are those of the detection set.
    """
    labelled = weak_sources(config.data)[Supervision.IMAGE_LABELS]
    train = notebook_data.open_detection_set(config.data, "train")
    matches = samples.match_classes(labelled.categories, train.categories)
    pictures = known_portraits(labelled, number, seed=config.seed)
    portraits = zip(pictures, _some(len(labelled), number, config.seed), strict=False)
    found = {PORTRAITS: [(one, matches[labelled.labels[row][0]]) for one, row in portraits]}
    found[SCENES] = []
    shown = np.flatnonzero(np.diff(train.offsets))
    for row in shown[_some(len(shown), number, config.seed)]:
        boxes, labels = train.boxes_of(row)
        picture = known_picture(train.image(row), boxes[labels == labels[0]])
        found[SCENES].append((picture, int(labels[0])))
    return {
        kind: [propose(trained, *pair) for pair in pairs] for kind, pairs in found.items() if pairs
    }


def noise_ious(dataset: BoxDataset, scales: Sequence[float], *, seed: int = 0) -> pd.DataFrame:
    """Median IoU of true boxes with those shifted at scales of Figure 1: columns scale, iou."""
    rows = _some(len(dataset.labels), _NOISY_BOXES, seed)
    boxes, sizes = dataset.boxes_xyxy[rows], dataset.image_sizes[dataset.box_image[rows]]
    draws = uniform_draws(len(rows), seed)
    medians = []
    for scale in scales:
        moved = jitter_boxes(boxes, scale, sizes, draws)
        pairs = box_iou(torch.from_numpy(moved), torch.from_numpy(boxes)).diagonal()
        medians.append(float(np.median(pairs.numpy())))
    return pd.DataFrame({"scale": scales, "iou": medians})
