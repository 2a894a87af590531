"""The data that notebooks look at: where it is, its long tail, and what scarcity does to classes.

Going from the embedded benchmark to real data changes values here, never the code path.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import box_iou, roi_align
from torchvision.transforms.v2.functional import pil_to_tensor
from tqdm import tqdm

from richsem import kept, paths
from richsem.config import REAL, Profile
from richsem.data import catalog
from richsem.data.box_sets import BoxDataset
from richsem.data.categories import read_categories
from richsem.data.drawn import DEMO, SMOKE
from richsem.data.image_sets import ImageSet
from richsem.data.reading import DataError
from richsem.minilvis.render import prepare
from richsem.models.clip import MINI, FrozenClip
from richsem.operations import recipe_book
from richsem.training.build import data_root
from richsem.training.run_config import TrainingDataConfig
from richsem.workbook import reference

REAL_COUNTS = "LVIS v1, real counts"
_APART = 0.02  # IoU of two boxes that do not disturb each other
_SIDE = 64  # pixels of a region for the probe's backbone
_OBJECT = 36  # pixels of an object in an average scene: extra images are seen at that sharpness


# --- where the data is ---------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which data a notebook looks at."""

    profile: Profile = "demo"  # smoke and demo draw the embedded benchmark, others need real data
    data_root: str = ""  # folder of the real sets (layout: data/README.md); empty for embedded ones
    annotations: str = ""  # a single LVIS or COCO file to use as the detection set instead
    images: str = ""  # its image folder
    split: str = "val"  # of the detection set that is evaluated
    categories: str = ""  # JSON list of categories with real counts (LVIS v1's), shown beside


def benchmark_root(config: DataConfig) -> Path:
    """Folder that holds all data sets: the real ones, or MiniLVIS, rendered first if need be."""
    if config.profile in REAL and not (config.data_root or config.annotations):
        raise ValueError(
            f"the {config.profile} profile needs real data: set DATA_ROOT to the folder of the "
            "data sets (layout: data/README.md), or ANNOTATIONS and IMAGES to one LVIS or COCO file"
        )
    embedded = SMOKE if config.profile == "smoke" else DEMO
    data = TrainingDataConfig(benchmark=embedded, root=config.data_root)
    prepare(data)
    return data_root(data)


def open_detection_set(config: DataConfig, split: str | None = None) -> BoxDataset:
    """The detection set of a split, without images that are not on disk (counted in a warning)."""
    if config.annotations:
        path = paths.user_path(config.annotations)
        images = paths.user_path(config.images) if config.images else path.parent
        return BoxDataset.load(path, images).subset_with_images()
    if config.images:
        raise ValueError("IMAGES needs ANNOTATIONS, the file that they belong to")
    root = benchmark_root(config)
    return catalog.open_boxes("lvis", split or config.split, root=root).subset_with_images()


def class_called(name: str, names: Sequence[str]) -> int:
    """The index of a class; where there is none of that name, the error lists similar ones."""
    if name not in names:
        close = ", ".join(get_close_matches(name, names, n=5, cutoff=0))
        raise ValueError(f"no class is called {name!r}; the nearest names are {close}")
    return list(names).index(name)


def is_there(key: str, root: Path) -> bool:
    """Whether a set of the catalogue (its training part) is below a data root."""
    try:
        catalog.locate(catalog.dataset_spec(key), root, "train")
    except DataError:
        return False
    return True


def extra_sets(config: DataConfig) -> dict[str, ImageSet]:
    """The image-level extra sets that are on disk, by catalogue key."""
    root = benchmark_root(config)
    return {k: catalog.open_images(k, root=root) for k in catalog.IMAGE_KEYS if is_there(k, root)}


def own_files(profile: Profile, given: Mapping[str, str]) -> dict[str, Any]:
    """The files that are named by parameters, for runs; where none are, the drawn benchmark's.

    A `ValueError` says which is missing.
    """
    files = {name: paths.user_path(value) for name, value in given.items() if value}
    return recipe_book.own_files(str.upper, **(files or _drawn_files(profile)))


def _drawn_files(profile: Profile) -> dict[str, Path]:
    """Pictures with boxes and extra ones with labels, as if the drawn benchmark was one's own."""
    root = benchmark_root(DataConfig(profile=profile))
    annotations, images = catalog.locate(catalog.dataset_spec("lvis"), root, "train")
    extra = catalog.open_images("inet_lvis", root=root)
    lines = [
        f"{file},{extra.categories[label].name}\n"
        for file, (label,) in zip(extra.file_names, extra.labels, strict=True)
    ]
    table = paths.CACHE / "own" / f"{root.name}.csv"
    paths.write_atomic(table, "".join(lines))
    own = {"annotations": annotations, "images": images}
    return {**own, "extra": extra.image_root, "extra_labels": table}


def spread(dataset: BoxDataset, max_images: int) -> BoxDataset:
    """At most `max_images` images, evenly spaced over the file; 0 keeps all."""
    if not max_images or len(dataset) <= max_images:
        return dataset
    return dataset.select(np.linspace(0, len(dataset) - 1, max_images).round().astype(int))


def spaced(dataset: BoxDataset, number: int) -> np.ndarray:
    """At most `number` images, evenly spaced; in the place of one without a box the next with one.

    A `DataError` says that no image has a box.
    """
    shown = np.flatnonzero(np.diff(dataset.offsets))
    if not len(shown):
        raise DataError(f"{dataset.path}: no image has a box, there is nothing to look at")
    rows = np.linspace(0, len(dataset) - 1, min(number, len(dataset))).round().astype(int)
    return np.unique(shown[np.searchsorted(shown, rows).clip(max=len(shown) - 1)])


def clear_image(dataset: BoxDataset) -> int:
    """An image of two to four boxes of different classes, the smallest as large as possible.

    Those whose boxes hardly overlap come first. Where there is none, the one with the most boxes.
    """
    numbers = np.diff(dataset.offsets)
    labels = {i: dataset.boxes_of(i)[1] for i in np.flatnonzero(np.isin(numbers, (2, 3, 4)))}
    few = [i for i, own in labels.items() if len(np.unique(own)) == len(own)]

    def worth(image: int) -> tuple[bool, float]:
        boxes = torch.from_numpy(dataset.boxes_of(image)[0])
        apart = box_iou(boxes, boxes).fill_diagonal_(0).max() < _APART
        parts = (boxes[:, 2:] - boxes[:, :2]).prod(1) / dataset.image_sizes[image].prod()
        return bool(apart), float(parts.min())

    return int(max(few, key=worth) if few else numbers.argmax())


# --- the long tail (Figure 3 and the data-set table) ---------------------------------------------


def long_tails(config: DataConfig) -> tuple[pd.DataFrame, dict[str, str]]:
    """Figure 3: columns dataset, category, group, instances; and the fingerprint of each set."""
    if config.annotations:
        sets = [open_detection_set(config)]
    else:
        root = benchmark_root(config)
        keys = [key for key in ("lvis", "visual_genome", "openimages") if is_there(key, root)]
        sets = [catalog.open_boxes(key, "train", root=root) for key in keys or ["lvis"]]
    prints, rows = {one.name: one.fingerprint for one in sets}, []
    for one in sets:
        told = zip(one.categories, one.frequency_groups(), one.instance_counts(), strict=True)
        rows += [(one.name, category.name, group, number) for category, group, number in told]
    if config.categories:
        path = paths.user_path(config.categories)
        listed = read_categories(path)
        rows += [(REAL_COUNTS, one.name, one.frequency, one.instance_count) for one in listed]
        prints[REAL_COUNTS] = kept.digest(path)
    return pd.DataFrame(rows, columns=["dataset", "category", "group", "instances"]), prints


def dataset_rows(config: DataConfig) -> list[dict[str, Any]]:
    """The data-set table's measured rows: the whole catalogue, or the one file that was named."""
    if not config.annotations:
        return reference.summary_rows(benchmark_root(config))
    dataset = open_detection_set(config)
    return [
        {
            "name": dataset.name,
            "role": "detection",
            "supervision": "boxes and labels" + ", federated" * dataset.is_federated,
            "images": len(dataset),
            "categories": int((dataset.instance_counts() > 0).sum()),
            "boxes": len(dataset.labels),
        }
    ]


# --- the scarcity probe --------------------------------------------------------------------------

# Is scarcity what limits the rare classes? A linear probe on frozen features of true boxes tells.
# The features are ImageNet's, so no class of the benchmark had a head start, and the probe is
# trained to convergence, so training time cannot be the reason. If rare classes lose on the
# long-tailed set and gain when extra images are added, the benchmark measures data, not schedules.


@torch.inference_mode()
def box_features(dataset: BoxDataset) -> tuple[Tensor, Tensor]:
    """Frozen ImageNet features of every box, [A, 2304], and its label, [A]."""
    clip, features = FrozenClip(MINI), []
    for index in tqdm(range(len(dataset)), desc=f"features of {dataset.name}", mininterval=2):
        boxes, _ = dataset.boxes_of(index)
        if len(boxes):
            pixels = clip.normalise(pil_to_tensor(dataset.image(index)))
            cuts = roi_align(pixels[None], [torch.from_numpy(boxes)], _SIDE, aligned=True)
            features.append(_pooled(clip, cuts))
    return torch.cat(features), torch.from_numpy(dataset.labels)


@torch.inference_mode()
def image_features(images: ImageSet) -> tuple[Tensor, Tensor]:
    """The same features of object-centric images, one label each."""
    clip, features = FrozenClip(MINI), []
    for start in tqdm(range(0, len(images), 64), desc="features of extra images", mininterval=2):
        batch = [images.image(i) for i in range(start, min(start + 64, len(images)))]
        small = [image.resize((_OBJECT, _OBJECT), Image.Resampling.BILINEAR) for image in batch]
        pixels = torch.stack([clip.normalise(pil_to_tensor(image)) for image in small])
        features.append(_pooled(clip, F.interpolate(pixels, _SIDE, mode="bilinear")))
    return torch.cat(features), torch.tensor([labels[0] for labels in images.labels])


def _pooled(clip: FrozenClip, pixels: Tensor) -> Tensor:
    trunk = clip.model.visual.trunk
    column = trunk.hypercolumn(pixels.contiguous(memory_format=torch.channels_last))
    return F.adaptive_avg_pool2d(column, 2).flatten(1)


def linear_probe(
    parts: Iterable[tuple[Tensor, Tensor]],
    test: tuple[Tensor, Tensor],
    groups: np.ndarray,
    *,
    corrected: bool,
    seed: int,
    steps: int,
) -> dict[str, float]:
    """Trains a linear classifier on `parts` and returns class-averaged test accuracy per group.

    Percent for "all", "r", "c", "f", and "train", the accuracy on the training set. A corrected
    loss adds the log class frequencies to the logits (balanced softmax), so that a rare class is
    not lost to the prior alone; what remains is what its few examples cannot teach.
    """
    features, labels = (torch.cat(own) for own in zip(*parts, strict=True))
    mean, std = features.mean(0), features.std(0) + 1e-3
    train_x, test_x = (features - mean) / std, (test[0] - mean) / std
    counts = torch.bincount(labels, minlength=len(groups)).clamp_min(1)
    log_prior = corrected * torch.log(counts / counts.sum())
    classifier = _fit(train_x, labels, log_prior, steps, seed)
    with torch.no_grad():
        right = (classifier(test_x).argmax(1) == test[1]).numpy()
        train = (classifier(train_x).argmax(1) == labels).float().mean().item()
    per_class = pd.Series(100.0 * right).groupby(test[1].numpy()).mean()
    of = {g: per_class[groups[per_class.index] == g].mean() for g in "rcf"}
    return {"all": per_class.mean(), **of, "train": 100 * train}


def _fit(x: Tensor, labels: Tensor, log_prior: Tensor, steps: int, seed: int) -> nn.Module:
    """As many steps for a small training set as for a large one: more data is not more training."""
    generator = torch.Generator().manual_seed(seed)
    classifier = nn.Linear(x.shape[1], len(log_prior))
    nn.init.zeros_(classifier.weight)
    nn.init.zeros_(classifier.bias)
    optimiser = torch.optim.AdamW(classifier.parameters(), weight_decay=0.3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps + 1)
    for _ in range(steps):
        batch = torch.randint(len(x), (256,), generator=generator)
        loss = F.cross_entropy(classifier(x[batch]) + log_prior, labels[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return classifier
