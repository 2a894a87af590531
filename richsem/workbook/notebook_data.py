"""What each notebook runs, as data: one frozen configuration, one visible block per profile.

Going from the embedded benchmark to real data changes values here, never the code path.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from richsem.config import Profile
from richsem.data.box_sets import BoxDataset
from richsem.data.catalog import (
    DEMO,
    IMAGE_KEYS,
    SMOKE,
    dataset_spec,
    locate,
    open_boxes,
    open_images,
    summary_rows,
)
from richsem.data.categories import Category, read_categories
from richsem.data.categories import spoken_names as spoken_names
from richsem.data.image_sets import ImageSet
from richsem.data.reading import DataError
from richsem.data.transforms import MosaicConfig, TransformConfig
from richsem.losses.classification import FederatedClasses
from richsem.minilvis.render import build_minilvis
from richsem.models.clip import MINI, RN50, ClipConfig
from richsem.paths import ROOT
from richsem.workbook import signals


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which data a notebook looks at.

    Attributes:
        profile: `smoke` and `demo` render the embedded benchmark; `paper` needs real data.
        data_root: Folder of the real sets (layout: data/README.md); empty for the embedded ones.
        annotations: A single LVIS or COCO file to use as the detection set instead.
        images: Its image folder.
        split: Split of the detection set that is evaluated.
    """

    profile: Profile = "demo"
    data_root: str = ""
    annotations: str = ""
    images: str = ""
    split: str = "val"


@dataclass(frozen=True, kw_only=True)
class ZeroShotConfig:
    """Table 2 and Figure 1: how well a frozen CLIP names boxes, and how much noise it bears.

    Attributes:
        data: The boxes.
        clip: The teacher.
        seed: First noise seed and seed of every bootstrap and subset.
        max_images: Images evaluated at most, evenly spread; 0 takes all.
        noise_images: The same for the noise curve.
        noise_scales: Scales of the curve; the first must be 0.
        noise_repeats: Noise seeds per scale.
    """

    data: DataConfig
    clip: ClipConfig = MINI
    seed: int = 0
    max_images: int = 0
    noise_images: int = 200
    noise_scales: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.5)
    noise_repeats: int = 3

    @property
    def noise_seeds(self) -> tuple[int, ...]:
        """One seed per repeat."""
        return tuple(1000 * self.seed + repeat for repeat in range(self.noise_repeats))


def zero_shot(
    data: DataConfig, *, seed: int = 0, clip_model: str = "", clip_weights: str = ""
) -> ZeroShotConfig:
    """The configuration of Table 2 and Figure 1 for a profile.

    Paper: CLIP-RN50 on all boxes of LVIS v1 val (19,809 images; about an hour on a GPU). Demo:
    MiniLVIS val and the embedded CLIP, two minutes on two cores.
    """
    config = ZeroShotConfig(data=data, seed=seed)
    match data.profile:
        case "smoke":
            few = (0.0, 0.5, 1.0)
            config = replace(
                config, max_images=24, noise_images=12, noise_scales=few, noise_repeats=2
            )
        case "paper":
            config = replace(config, clip=RN50, noise_images=2000)
    if clip_model and clip_model != config.clip.model:
        config = replace(config, clip=MINI if clip_model == MINI.model else RN50)
        config = replace(config, clip=replace(config.clip, model=clip_model))
    if clip_weights:
        config = replace(config, clip=replace(config.clip, weights=clip_weights))
    return config


def benchmark_root(config: DataConfig) -> Path:
    """Folder that holds all data sets: the real ones, or MiniLVIS, rendered first if need be.

    Raises:
        ValueError: The paper profile without real data.
    """
    if config.data_root:
        return ROOT / Path(config.data_root).expanduser()
    if config.profile == "paper" and not config.annotations:
        raise ValueError(
            "the paper profile needs real data: set DATA_ROOT to the folder of the data sets "
            "(layout: data/README.md), or ANNOTATIONS and IMAGES to one LVIS or COCO file"
        )
    return build_minilvis(SMOKE if config.profile == "smoke" else DEMO)


def detection_set(config: DataConfig, split: str | None = None) -> BoxDataset:
    """The detection set of a split, without images that are not on disk (counted in a warning)."""
    if config.annotations:
        path = ROOT / Path(config.annotations).expanduser()
        images = ROOT / Path(config.images).expanduser() if config.images else path.parent
        return BoxDataset.load(path, images).subset_with_images()
    root = benchmark_root(config)
    return open_boxes("lvis", split or config.split, root=root).subset_with_images()


def spread(dataset: BoxDataset, max_images: int) -> BoxDataset:
    """At most `max_images` images, evenly spaced over the file; 0 keeps all."""
    if not max_images or len(dataset) <= max_images:
        return dataset
    return dataset.select(np.linspace(0, len(dataset) - 1, max_images).round().astype(int))


@dataclass(frozen=True, kw_only=True)
class TailConfig:
    """Figure 3, the data-set table and the scarcity probe.

    Attributes:
        data: Where the data sets are.
        categories: A JSON list of categories with real counts (such as LVIS v1's), shown beside.
        seed: Seed of the probe.
        probe_steps: Optimiser steps of the probe, the same for every training set.
    """

    data: DataConfig
    categories: str = ""
    seed: int = 0
    probe_steps: int = 1000


def long_tails(config: TailConfig) -> tuple[pd.DataFrame, dict[str, str]]:
    """Instances per category of every long-tailed training set, for Figure 3.

    Returns:
        Columns dataset, category, group, instances; and the fingerprint of each set by name.
    """
    data = config.data
    if data.annotations:
        sets = [detection_set(data)]
    else:
        root = benchmark_root(data)
        keys = [key for key in ("lvis", "visual_genome", "openimages") if is_there(key, root)]
        sets = [open_boxes(key, "train", root=root) for key in keys or ["lvis"]]
    parts = [_tail(s.name, s.categories, s.frequency_groups(), s.instance_counts()) for s in sets]
    prints = {s.name: s.fingerprint for s in sets}
    if config.categories:
        path = ROOT / Path(config.categories).expanduser()
        listed = read_categories(path)
        groups = np.array([c.frequency for c in listed])
        counts = np.array([c.instance_count for c in listed])
        parts.append(_tail("LVIS v1, real counts", listed, groups, counts))
        prints["LVIS v1, real counts"] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return pd.concat(parts, ignore_index=True), prints


def dataset_rows(config: DataConfig) -> list[dict[str, Any]]:
    """The data-set table's measured rows: the whole catalogue, or the one file that was named."""
    if not config.annotations:
        return summary_rows(benchmark_root(config))
    dataset = detection_set(config)
    return [
        {
            "name": dataset.name,
            "stands_for": "",
            "role": "detection",
            "supervision": "boxes and labels" + ", federated" * dataset.is_federated,
            "images": len(dataset),
            "categories": int((dataset.instance_counts() > 0).sum()),
            "boxes": len(dataset.labels),
        }
    ]


def extra_sets(config: DataConfig) -> dict[str, ImageSet]:
    """The image-level extra sets that are on disk, by catalogue key."""
    root = benchmark_root(config)
    return {key: open_images(key, root=root) for key in IMAGE_KEYS if is_there(key, root)}


@dataclass(frozen=True, kw_only=True)
class ExtraDataConfig:
    """What extra images are worth, how they are laid out and how coarse their boxes are.

    Attributes:
        data: Where the data sets are.
        seed: Seed of augmentation, mosaics and of the images that are measured.
        tile: Augmentation of a tile.
        mosaic: Size of the mosaics.
        view: How an image is shown as it is.
        measured: Images on which coarse boxes are compared with true ones.
    """

    data: DataConfig
    seed: int = 0
    tile: TransformConfig
    mosaic: MosaicConfig
    view: TransformConfig
    measured: int


def extra_data(data: DataConfig, *, seed: int = 0) -> ExtraDataConfig:
    """The configuration of the extra data for a profile.

    Paper: tiles of 640 pixels on a canvas of 1280 (METHOD 1.3). Demo and smoke: all lengths a
    tenth of that, on images of 64 and 128 pixels.
    """
    if data.profile == "paper":
        tile, mosaic, side, measured = TransformConfig(), MosaicConfig(), 480, 3000
    else:
        tile = TransformConfig(
            short_sides=(48, 51, 54, 58, 61, 64, 67, 70, 74, 77, 80),
            max_side=133,
            crop_short_sides=(40, 50, 60),
            crop_range=(38, 60),
        )
        mosaic, side, measured = MosaicConfig(side=64), 128, 40 if data.profile == "smoke" else 300
    view = TransformConfig(flip=0.0, crop=0.0, short_sides=(side,), max_side=2 * side)
    return ExtraDataConfig(
        data=data, seed=seed, tile=tile, mosaic=mosaic, view=view, measured=measured
    )


def is_there(key: str, root: Path) -> bool:
    """Whether a set of the catalogue (its training part) is below a data root."""
    try:
        locate(dataset_spec(key), root, "train")
    except DataError:
        return False
    return True


def _tail(
    name: str, categories: tuple[Category, ...], groups: np.ndarray, counts: np.ndarray
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "dataset": name,
            "category": [category.name for category in categories],
            "group": groups,
            "instances": counts,
        }
    )


@dataclass(frozen=True, kw_only=True)
class SignalsConfig:
    """What soft labels and losses tell each class.

    Attributes:
        data: The detection set, of which the training split is looked at.
        clip: The teacher.
        categories: A JSON list of categories with real counts (such as LVIS v1's), shown beside.
        categories_images: Number of training images behind these counts.
        seed: Seed of all examples and draws.
        images_per_class: Images of each class that the teacher reads.
        batch_size: Images of a step on one device; the paper's recipe has 2 on each of 8.
        federated_classes: Classes in a step of the federated loss.
        steps: Steps drawn to check the calculated shares.
    """

    data: DataConfig
    clip: ClipConfig = MINI
    categories: str = ""
    categories_images: int = 100_170
    seed: int = 0
    images_per_class: int = 4
    batch_size: int = 2
    federated_classes: int = 50
    steps: int = 2000


def signals_of_losses(
    data: DataConfig,
    *,
    seed: int = 0,
    categories: str = "",
    clip_model: str = "",
    clip_weights: str = "",
) -> SignalsConfig:
    """The configuration of notebook 05 for a profile; the teacher is that of Table 2."""
    clip = zero_shot(data, clip_model=clip_model, clip_weights=clip_weights).clip
    config = SignalsConfig(data=data, clip=clip, categories=categories, seed=seed)
    if data.profile == "smoke":
        config = replace(config, images_per_class=2, federated_classes=6, steps=500)
    return config


def few_per_class(dataset: BoxDataset, number: int) -> BoxDataset:
    """The images that hold `number` images of each class, evenly spaced over the file."""
    chosen = set()
    for label in range(len(dataset.categories)):
        images = np.unique(dataset.box_image[dataset.labels == label])
        places = np.linspace(0, len(images) - 1, min(number, len(images)))
        chosen.update(images[places.round().astype(int)].tolist())
    return dataset.select(sorted(chosen))


def federated_tables(config: SignalsConfig, dataset: BoxDataset) -> dict[str, pd.DataFrame]:
    """Steps in which each class is taught yes and no, for the benchmark and for real counts.

    Returns:
        Name of the set -> `signals.class_steps` with the columns category, group and seen (the
        share of steps that drew the class, counted instead of calculated).
    """
    rng = np.random.default_rng(config.seed)
    sizes = {"batch_size": config.batch_size, "steps": config.steps, "rng": rng}
    batches = signals.label_batches(dataset, **sizes)
    counted = [(dataset.name, dataset.categories, dataset.image_counts(), len(dataset), batches)]
    if config.categories:
        listed = read_categories(ROOT / Path(config.categories).expanduser())
        counts, images = np.array([c.image_count for c in listed]), config.categories_images
        batches = signals.imagined_batches(counts, images, **sizes)
        counted.append(("LVIS v1, real counts", listed, counts, images, batches))
    tables, number = {}, config.federated_classes
    for name, categories, counts, images, batches in counted:
        table = signals.class_steps(counts, images, batch_size=config.batch_size, number=number)
        groups = [c.frequency for c in categories]
        if name == dataset.name:
            groups = dataset.frequency_groups()
        seen = signals.drawn_steps(FederatedClasses(number, counts), batches)["drawn"]
        named = {"category": [c.name for c in categories], "group": groups, "seen": seen}
        tables[name] = table.assign(**named)
    return tables
