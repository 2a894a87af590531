"""Feature maps of a frozen backbone, computed once and read from disk at every step.

Each image is stored in a few augmented views; the item seed picks one. With the maps come the
targets and, if a teacher was at hand, its soft labels, so that training touches no pixels.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from richsem import kept, paths, shards
from richsem.config import Natural, Positive, to_json
from richsem.data.samples import Sample, TrainingSet, collate
from richsem.data.sampling import item_seed
from richsem.structures import Batch, Supervision, Target

_SHARD = 512  # views
# What a target says of its image, and of each of its boxes.
_OF_IMAGE = ("size", "original_size", "image_id")
_OF_BOXES = ("labels", "boxes", "soft_labels", "rows", "masks")

Maps = tuple[Tensor, ...]
Look = Callable[[Batch], tuple[Batch, Maps]]


@dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """How much of a set is cached."""

    views: Positive = 2  # augmented views per image; the disk space is proportional
    images: Natural = 0  # images (mosaics) of the set, from the first on; 0 takes all
    seed: Natural = 0  # of the views
    batch_size: Positive = 32  # images that the backbone sees at once
    soft_labels: bool = True  # whether the teacher's soft labels are stored with the maps


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
    images = min(config.images or len(samples), len(samples))
    folder, total = paths.CACHE / f"features-{key}", images * config.views
    parts = shards.cut(folder, total, _SHARD, suffix=".npz")
    make = partial(_write_shard, samples=samples, look=look, config=config)
    shards.made(parts, make, _read_shard, title="features", unit="view")
    return FeatureSet(parts, config.views, samples.supervision, samples.fingerprint)


class FeatureSet:
    """Cached features, as a training set whose samples have `features` instead of an image."""

    def __init__(
        self,
        parts: list[shards.Shard],  # complete
        views: int,
        supervision: Supervision,  # of the set that was cached, as the fingerprint
        fingerprint: str,
    ) -> None:
        self.views, self.supervision, self.fingerprint = views, supervision, fingerprint
        maps, targets, shapes = zip(*map(_read_shard, parts), strict=True)
        self.shapes = [tuple(shape) for shape in shapes[0]]  # (C, H, W) of each level
        self._parts, self._maps = parts, list(map(torch.from_numpy, maps))
        self._targets = list(chain.from_iterable(targets))
        self._sizes = list(map(math.prod, self.shapes))

    def __len__(self) -> int:
        return len(self._targets) // self.views

    def __reduce__(self) -> tuple[Any, ...]:  # loader workers map the files themselves
        return FeatureSet, (self._parts, self.views, self.supervision, self.fingerprint)

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
    paths.write_atomic(part.path.with_suffix(".npy"), partial(np.save, arr=torch.cat(rows).numpy()))
    shapes = np.array([level.shape[1:] for level in batches[0][1]])
    paths.write_atomic(part.path, partial(np.savez, shapes=shapes, **_columns(targets)))


def _columns(targets: list[Target]) -> dict[str, np.ndarray]:
    """Targets as arrays: those with one entry per box are laid one after the other."""
    columns = {f"{name}s": np.array([getattr(one, name) for one in targets]) for name in _OF_IMAGE}
    columns["counts"] = np.array([len(target.labels) for target in targets])
    for name in _OF_BOXES:
        # A teacher may pass over images without boxes, which have no rows anyway.
        given = [rows for one in targets if (rows := getattr(one, name)) is not None]
        columns |= {name: torch.cat(given).numpy()} if given else {}
    return columns


def _read_shard(part: shards.Shard) -> tuple[np.ndarray, list[Target], list[list[int]]]:
    """Maps, targets and shapes [C, H, W] of the levels; fails if one of the files is damaged."""
    with part.path.open("rb") as file, np.load(file) as stored:
        columns = {name: stored[name] for name in stored.files}
    targets, shapes = _targets(columns), columns["shapes"].tolist()
    # Mapped, not read: pages that are used stay in memory, processes share them, and nothing
    # written to a map reaches its file.
    maps = np.load(part.path.with_suffix(".npy"), mmap_mode="c")
    expected = (len(part), sum(map(math.prod, shapes)))
    if len(targets) != len(part) or maps.shape != expected or maps.dtype != np.float16:
        raise ValueError(f"maps {maps.shape} and {len(targets)} targets of {len(part)} views")
    return maps, targets, shapes


def _targets(columns: dict[str, np.ndarray]) -> list[Target]:
    counts = columns["counts"].tolist()
    fields = {name: columns[f"{name}s"].tolist() for name in _OF_IMAGE}
    for name in ("size", "original_size"):
        fields[name] = map(tuple, fields[name])
    for name in columns.keys() & _OF_BOXES:
        fields[name] = torch.from_numpy(columns[name]).split(counts)
    rows = zip(*fields.values(), strict=True)
    return [Target(**dict(zip(fields, row, strict=True))) for row in rows]
