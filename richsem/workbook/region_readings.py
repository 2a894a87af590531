"""Running the teacher over every box of a data set, at several noise scales, resumably.

The trunk sees each image once; all noise scales and repeats are pooled from the same map. Results
are kept in shards on disk, so an interrupted pass over LVIS goes on where it stopped.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from richsem import paths
from richsem.config import to_json
from richsem.data.box_sets import BoxDataset
from richsem.data.corrupt import jitter_boxes, uniform_draws
from richsem.models.clip import FrozenClip, RegionMode, rank_of_label, soft_labels
from richsem.paths import in_keys, write_atomic
from richsem.workbook.zero_shot import TOP, Reading

_SHARD = 128  # images


@dataclass(frozen=True, kw_only=True)
class ReadConfig:
    """How the boxes are read.

    Attributes:
        mode: `roi` (the paper's way) or `crop`.
        noise_scales: Scales of `richsem.data.corrupt.jitter_boxes`.
        noise_seeds: One repeat of all scales per seed.
    """

    mode: RegionMode = "roi"
    noise_scales: tuple[float, ...] = (0.0,)
    noise_seeds: tuple[int, ...] = (0,)


def read_regions(
    clip: FrozenClip,
    dataset: BoxDataset,
    names: Sequence[str],
    config: ReadConfig,
    *,
    cache: Path | None = None,
) -> Reading:
    """Asks the teacher for the class of every box of `dataset`.

    Args:
        clip: The teacher.
        dataset: Boxes and images; images that are missing on disk must be left out first.
        names: Class names as they are put to the text tower, in the order of the categories.
        config: Region mode and noise.
        cache: Folder for finished shards; by default the project's cache.

    Raises:
        ValueError: There is not one name per category, or the data set has no box.
    """
    if len(names) != len(dataset.categories) or not len(dataset.labels):
        raise ValueError(
            f"{dataset.path}: {len(names)} names for {len(dataset.categories)} categories and "
            f"{len(dataset.labels)} boxes; a reading needs one name per category and some boxes"
        )
    cache = cache or paths.CACHE
    text = clip.text_features(names, cache / "text")
    folder = cache / "regions" / _key(clip, dataset, names, config)
    draws = [uniform_draws(len(dataset.labels), seed) for seed in config.noise_seeds]
    shards = []
    with tqdm(total=len(dataset), desc=f"regions ({config.mode})", unit="image") as progress:
        for first in range(0, len(dataset), _SHARD):
            images = range(first, min(first + _SHARD, len(dataset)))
            path = folder / f"{images.start:06d}-{images.stop:06d}.npz"
            if not path.is_file():
                _write_shard(
                    path, [_read_image(clip, dataset, i, text, config, draws) for i in images]
                )
            with np.load(path) as stored:
                shards.append({name: stored[name] for name in stored.files})
            progress.update(len(images))
    return _join(shards)


def region_features(clip: FrozenClip, dataset: BoxDataset, mode: RegionMode = "roi") -> Tensor:
    """The teacher's features of all boxes [A, D] of a data set that is small enough to wait for."""
    features = [torch.zeros(0, clip.dim)]
    for index in tqdm(range(len(dataset)), desc=f"regions ({mode})", unit="image"):
        boxes = torch.from_numpy(dataset.boxes_of(index)[0]).to(clip.mean.device)
        if len(boxes):
            image = torch.from_numpy(np.array(dataset.image(index))).permute(2, 0, 1)
            features.append(clip.regions(image.to(boxes.device), boxes, mode).cpu())
    return torch.cat(features)


def _key(clip: FrozenClip, dataset: BoxDataset, names: Sequence[str], config: ReadConfig) -> str:
    """Hash of everything a reading depends on; the folder stands for the pixels in it."""
    teacher = (clip.fingerprint, to_json(clip.config), *clip.prompts)
    data = (dataset.fingerprint, in_keys(dataset.image_root), *names)
    text = "\n".join([*teacher, *data, to_json(config)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read_image(
    clip: FrozenClip,
    dataset: BoxDataset,
    index: int,
    text: Tensor,
    config: ReadConfig,
    draws: list[np.ndarray],
) -> Reading:
    boxes, labels = dataset.boxes_of(index)
    rows = slice(dataset.offsets[index], dataset.offsets[index + 1])
    image = torch.from_numpy(np.array(dataset.image(index))).permute(2, 0, 1)
    size = dataset.image_sizes[index]
    moved = [jitter_boxes(boxes, s, size, d[rows]) for s in config.noise_scales for d in draws]
    together = torch.from_numpy(np.concatenate(moved)).to(clip.mean.device)
    features = clip.regions(image.to(clip.mean.device), together, config.mode)
    probabilities = soft_labels(features, text.to(features), clip.scale).cpu()
    truth = torch.from_numpy(labels).long()
    ranks = rank_of_label(probabilities, truth.repeat(len(moved)))
    clean = probabilities[: len(labels)]
    scores, classes = clean.topk(min(TOP, clean.shape[1]), dim=1)
    return Reading(
        ranks=ranks.numpy().astype(np.int32).reshape(len(config.noise_scales), len(draws), -1),
        top_classes=classes.numpy().astype(np.int32),
        top_scores=scores.numpy(),
        own_scores=clean.gather(1, truth[:, None])[:, 0].numpy(),
    )


def _write_shard(path: Path, readings: list[Reading]) -> None:
    joined = _join([{f.name: getattr(r, f.name) for f in fields(Reading)} for r in readings])
    buffer = io.BytesIO()
    np.savez(buffer, **{f.name: getattr(joined, f.name) for f in fields(Reading)})
    write_atomic(path, buffer.getvalue())


def _join(parts: list[dict[str, np.ndarray]]) -> Reading:
    axes = {"ranks": 2}
    return Reading(
        **{
            f.name: np.concatenate([part[f.name] for part in parts], axis=axes.get(f.name, 0))
            for f in fields(Reading)
        }
    )
