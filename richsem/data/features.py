"""Feature maps of a frozen backbone, computed once and read from disk at every step.

Each image is stored in a few augmented views; the item seed picks one. With the maps come the
targets and, if a teacher was at hand, its soft labels, so that training touches no pixels.
"""

import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from richsem import kept, paths, shards
from richsem.config import to_json
from richsem.data.samples import Sample, TrainingSet, collate
from richsem.data.sampling import item_seed
from richsem.structures import Batch, Supervision, Target

_SHARD = 512  # views
_DESCRIPTION = "features.json"

Maps = tuple[Tensor, ...]
Look = Callable[[Batch], tuple[Batch, Maps]]


@dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """How much of a set is cached."""

    views: int = 2  # augmented views per image; the disk space is proportional
    images: int = 0  # images (mosaics) of the set, from the first on; 0 takes all
    seed: int = 0  # of the views
    batch_size: int = 32  # images that the backbone sees at once
    soft_labels: bool = True  # whether the teacher's soft labels are stored with the maps

    def __post_init__(self) -> None:
        if self.views < 1 or self.images < 0 or self.batch_size < 1:
            raise ValueError(f"{self}: expected views >= 1, images >= 0 and batch_size >= 1")


def cached_features(
    samples: TrainingSet, look: Look, look_key: str, config: FeatureConfig
) -> "FeatureSet":
    """Compute what is missing of a set's features and open them.

    Processes that need the same features share the work. Finished shards are never computed
    again, so an interrupted run goes on where it stopped. All images of the set must come out in
    one size. `look` gives the batch, with `soft_labels` in its targets if a teacher was at hand,
    and its maps [B, C_l, H_l, W_l], finest first; `look_key` names all that decides this:
    networks, weights, texts.
    """
    key = kept.key(samples.fingerprint, look_key, to_json(config), trace=("features", "teacher"))
    folder = paths.CACHE / f"features-{key}"
    num_images = min(config.images or len(samples), len(samples))
    make = partial(_write_shard, samples=samples, look=look, config=config)
    parts = _shards(folder, num_images * config.views)
    (*_, shapes), *_ = shards.made(parts, make, _read_shard, title="features", unit="view")
    description = {
        "views": config.views,
        "images": num_images,
        "shapes": shapes,
        "supervision": samples.supervision.value,
        "fingerprint": samples.fingerprint,
    }
    path = folder / _DESCRIPTION
    if path.is_file():
        with kept.made_anew(path):
            if json.loads(path.read_bytes()) != description:
                raise ValueError("it describes other features")
            return FeatureSet(folder)
    paths.write_atomic(path, json.dumps(description, indent=1))
    return FeatureSet(folder)


class FeatureSet:
    """Cached features, as a training set whose samples have `features` instead of an image."""

    def __init__(self, folder: Path) -> None:
        path = folder / _DESCRIPTION
        if not path.is_file():
            raise ValueError(f"{path} is missing: no complete features there; compute them first")
        description = json.loads(path.read_bytes())
        self.folder = folder
        self.views: int = description["views"]
        self.shapes = [tuple(shape) for shape in description["shapes"]]  # (C, H, W) of each level
        # Both are those of the set that was cached.
        self.supervision = Supervision(description["supervision"])
        self.fingerprint: str = description["fingerprint"]
        self._images: int = description["images"]
        parts = _shards(folder, self._images * self.views)
        maps, targets, _ = zip(*map(_read_shard, parts), strict=True)
        self._maps = list(map(torch.from_numpy, maps))
        self._targets = list(chain.from_iterable(targets))
        self._sizes = [int(np.prod(shape)) for shape in self.shapes]

    def __len__(self) -> int:
        return self._images

    def __reduce__(self) -> tuple[Any, ...]:
        return FeatureSet, (self.folder,)  # loader workers map the files themselves

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        index, seed = key
        return self.view(index, seed % self.views)

    def view(self, index: int, number: int) -> Sample:
        """One view of an image."""
        row = index * self.views + number
        levels = self._maps[row // _SHARD][row % _SHARD].split(self._sizes)
        features = tuple(m.view(shape) for m, shape in zip(levels, self.shapes, strict=True))
        return Sample(target=self._targets[row], features=features)


def _compute(
    samples: TrainingSet, keys: list[tuple[int, int]], look: Look
) -> tuple[tuple[Target, ...], list[Tensor]]:
    """Targets and half-precision maps of some items, on the CPU."""
    batch = collate([samples[key] for key in keys], samples.supervision)
    sizes = {target.size for target in batch.targets}
    if len(sizes) > 1:
        raise ValueError(
            f"images of {len(sizes)} sizes, such as {sorted(sizes)[:2]}, cannot be cached as one "
            "array: set keep_aspect=false in their transform, or features=none"
        )
    with torch.no_grad():
        batch, maps = look(batch)
    return batch.to("cpu").targets, [level.half().cpu() for level in maps]


def _write_shard(
    part: shards.Shard, samples: TrainingSet, look: Look, config: FeatureConfig
) -> None:
    """Maps of one shard to .npy, one row per view; then targets to .npz, which marks it done."""
    views = [divmod(item, config.views) for item in part.items]
    keys = [(index, item_seed(config.seed, index, view)) for index, view in views]
    batches = [
        _compute(samples, keys[first : first + config.batch_size], look)
        for first in range(0, len(keys), config.batch_size)
    ]
    rows = [torch.cat([level.flatten(1) for level in maps], dim=1) for _, maps in batches]
    targets = [target for batch, _ in batches for target in batch]
    buffer = io.BytesIO()
    np.save(buffer, torch.cat(rows).numpy())
    paths.write_atomic(_maps_path(part), buffer.getvalue())
    buffer = io.BytesIO()
    shapes = [level.shape[1:] for level in batches[0][1]]
    np.savez(buffer, shapes=np.array(shapes), **_columns(targets))
    paths.write_atomic(part.path, buffer.getvalue())


def _columns(targets: list[Target]) -> dict[str, np.ndarray]:
    """Targets as arrays: those with one entry per box are laid one after the other."""
    columns = {
        "counts": np.array([len(target.labels) for target in targets]),
        "labels": torch.cat([target.labels for target in targets]).numpy(),
        "boxes": torch.cat([target.boxes for target in targets]).numpy(),
        "sizes": np.array([target.size for target in targets]),
        "original_sizes": np.array([target.original_size for target in targets]),
        "image_ids": np.array([target.image_id for target in targets]),
    }
    if all(target.rows is not None for target in targets):
        columns["rows"] = torch.cat([target.rows for target in targets]).numpy()
    if all(target.masks is not None for target in targets):
        columns["masks"] = torch.cat([target.masks for target in targets]).numpy()
    soft = [target.soft_labels for target in targets if target.soft_labels is not None]
    if soft:  # a teacher may pass over images without boxes, which have no rows anyway
        columns["soft_labels"] = torch.cat(soft).float().numpy()
    return columns


def _read_shard(part: shards.Shard) -> tuple[np.ndarray, list[Target], list[list[int]]]:
    """Maps, targets and shapes [C, H, W] of the levels; fails if one of the files is damaged."""
    with part.path.open("rb") as file, np.load(file) as stored:
        columns = {name: stored[name] for name in stored.files}
    targets, shapes = _targets(columns), columns["shapes"].tolist()
    # Mapped, not read: pages that are used stay in memory, processes share them, and nothing
    # written to a map reaches its file.
    maps = np.load(_maps_path(part), mmap_mode="c")
    expected = (len(part), sum(map(math.prod, shapes)))
    if len(targets) != len(part) or maps.shape != expected or maps.dtype != np.float16:
        raise ValueError(f"maps {maps.shape} and {len(targets)} targets of {len(part)} views")
    return maps, targets, shapes


def _targets(columns: dict[str, np.ndarray]) -> list[Target]:
    counts = columns["counts"].tolist()
    labels, boxes = (torch.from_numpy(columns[name]).split(counts) for name in ("labels", "boxes"))
    sizes, original_sizes = (columns[n].tolist() for n in ("sizes", "original_sizes"))
    targets = [
        Target(
            labels=labels[row],
            boxes=boxes[row],
            size=tuple(sizes[row]),
            original_size=tuple(original_sizes[row]),
            image_id=image_id,
        )
        for row, image_id in enumerate(columns["image_ids"].tolist())
    ]
    for name in {"soft_labels", "rows", "masks"} & set(columns):
        parts = torch.from_numpy(columns[name]).split(counts)
        pairs = zip(targets, parts, strict=True)
        targets = [replace(target, **{name: part}) for target, part in pairs]
    return targets


def _shards(folder: Path, num_views: int) -> list[shards.Shard]:
    return shards.cut(folder, num_views, _SHARD, suffix=".npz")


def _maps_path(part: shards.Shard) -> Path:
    return part.path.with_suffix(".npy")
