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
    parts = shards.cut(folder, total, _SHARD, suffix=".pt")
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
        self.shapes = shapes[0]  # (C, H, W) of each level
        self._parts, self._maps = parts, maps
        self._targets = list(chain.from_iterable(targets))
        self._sizes = list(map(math.prod, self.shapes))

    def __len__(self) -> int:
        return len(self._targets) // self.views

    def __reduce__(self) -> tuple[Any, ...]:  # loader workers map the files themselves
        return FeatureSet, (self._parts, self.views, self.supervision, self.fingerprint)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        index, seed = key
        row = index * self.views + seed % self.views
        levels = self._maps[row // _SHARD][row % _SHARD].split(self._sizes)
        features = tuple(m.view(shape) for m, shape in zip(levels, self.shapes, strict=True))
        return Sample(target=self._targets[row], features=features)


def _write_shard(
    part: shards.Shard, samples: TrainingSet, look: Look, config: FeatureConfig
) -> None:
    """Maps of one shard, a row per view, and targets: what is of boxes, one after the other."""
    views = [divmod(item, config.views) for item in part.items]
    keys = [(index, item_seed(config.seed, index, view)) for index, view in views]
    targets, rows = [], []
    for first in range(0, len(keys), config.batch_size):
        own = [samples[key] for key in keys[first : first + config.batch_size]]
        batch = collate(own, samples.supervision)
        sizes = {target.size for target in batch.targets}
        if len(sizes) > 1:
            raise ValueError(
                f"images of {len(sizes)} sizes, such as {sorted(sizes)[:2]}, cannot be cached as "
                "one array: set keep_aspect=false in their transform, or features=none"
            )
        with torch.no_grad():
            batch, maps = look(batch)
        targets += batch.to("cpu").targets
        rows.append(torch.cat([level.half().cpu().flatten(1) for level in maps], dim=1))
    columns = {name: [getattr(target, name) for target in targets] for name in _OF_IMAGE}
    for name in _OF_BOXES:
        # A teacher may pass over images without boxes, which have no rows anyway.
        given = [own for target in targets if (own := getattr(target, name)) is not None]
        columns |= {name: torch.cat(given)} if given else {}
    counts, shapes = [len(target.labels) for target in targets], [m.shape[1:] for m in maps]
    content = {"maps": torch.cat(rows), "shapes": list(map(tuple, shapes)), "counts": counts}
    paths.write_atomic(part.path, partial(torch.save, content | {"columns": columns}))


def _read_shard(part: shards.Shard) -> tuple[Tensor, list[Target], list[tuple[int, ...]]]:
    """Maps, targets and shapes (C, H, W) of the levels; fails if the file is damaged."""
    # Maps are mapped, not read: pages that are used stay in memory, processes share them, and
    # nothing written to a map reaches its file. Targets are small: what becomes of the file later
    # does not matter to them.
    stored = torch.load(part.path, mmap=True, weights_only=True)
    maps, shapes, fields = stored["maps"], stored["shapes"], stored["columns"]
    for name in fields.keys() & _OF_BOXES:
        fields[name] = fields[name].clone().split(stored["counts"])
    rows = zip(*fields.values(), strict=True)
    targets = [Target(**dict(zip(fields, row, strict=True))) for row in rows]
    expected = (len(part), sum(map(math.prod, shapes)))
    if len(targets) != len(part) or maps.shape != expected or maps.dtype != torch.float16:
        raise ValueError(
            f"maps {tuple(maps.shape)} and {len(targets)} targets of {len(part)} views"
        )
    return maps, targets, shapes
