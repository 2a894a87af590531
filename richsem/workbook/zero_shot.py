"""CLIP as a zero-shot classifier of boxes: supplement Table 2, Figure 1, and single boxes.

"Accuracy" is the mean over classes of the share of a class's boxes whose true class is among the
best k, over the classes present: METHOD 5 shows that the published table is such a class average.
It may equally be LVIS AP of the boxes with k classes each, so that reading is computed as well.
"""

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
import pandas as pd
import torch
from PIL import Image
from scipy import sparse
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor
from tqdm import tqdm

from richsem import boxes as box_algebra
from richsem import kept, paths, shards
from richsem.config import REAL, to_json
from richsem.data.box_sets import BoxDataset
from richsem.data.corrupt import jitter_boxes, uniform_draws
from richsem.data.sampling import stratified
from richsem.evaluation import Detections, EvaluationResult, Protocol
from richsem.models import clip as clips
from richsem.workbook import judging
from richsem.workbook.notebook_data import DataConfig, spread
from richsem.workbook.study import mean_interval

TOP = 10  # classes kept per box
TOP_K = (1, 5, 10)
_BOOTSTRAPS = 1000
# Images of a shard, of which an interrupted pass loses one: with RN50 on a CPU, an image takes
# seconds, or a minute under all noise scales.
_SHARD, _SLOW_SHARD = 128, 8
_TIMED = 3  # images by which a forecast is made
# Of LVIS val for the noise curve, and of a part of it, as laptops read it. With RN50 on a CPU the
# 36 crops of each box take 85 CPU-seconds an image, and more where most classes are shown, which
# is where most boxes are: 30 images take an hour, 500 would take eleven or more.
_NOISY, _NOISY_OF_PART = 2000, 30


@dataclass(frozen=True, kw_only=True)
class ZeroShotConfig:
    """Table 2 and Figure 1: how well a frozen CLIP names boxes, and how much noise it bears."""

    data: DataConfig
    clip: clips.ClipConfig = clips.MINI  # the teacher
    seed: int = 0  # first noise seed and seed of every bootstrap and subset
    max_images: int = 0  # images of Table 2 at most, shared out among the classes; 0 takes all
    noise_images: int = 200  # of these for the noise curve, as `noisy_images` chooses them
    # Scales of the curve; the first must be 0.
    noise_scales: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.5)
    noise_seeds: tuple[int, ...]  # one per repeat of the curve


def configure(
    data: DataConfig,
    *,
    seed: int = 0,
    clip_model: str = "",
    clip_weights: str = "",
    max_images: int = 0,  # 0 takes as many as the profile: all, but for smoke
    noise_images: int = 0,  # 0 takes as many as the profile
    part: bool = False,  # whether there is only a part of the images to choose from
) -> ZeroShotConfig:
    """The configuration of Table 2 and Figure 1 for a profile.

    Paper: CLIP-RN50 on all boxes of LVIS v1 val (19,809 images), the curve on 2,000 of them, or on
    30 where a part is read; `forecast` says how long that takes. Demo: MiniLVIS val and the
    embedded CLIP, two minutes on two cores.
    """
    seeds = tuple(range(1000 * seed, 1000 * seed + 3))
    config = ZeroShotConfig(data=data, seed=seed, max_images=max_images, noise_seeds=seeds)
    if data.profile in ("smoke", "rehearsal"):
        less = {"noise_images": 12, "noise_scales": (0.0, 0.5, 1.0), "noise_seeds": seeds[:2]}
        config = replace(config, max_images=max_images or 24, **less)
    elif data.profile == "paper":
        number = _NOISY_OF_PART if part or max_images else _NOISY
        config = replace(config, noise_images=number)
    if data.profile in REAL:
        config = replace(config, clip=clips.RN50)
    config = replace(config, noise_images=noise_images or config.noise_images)
    clip = config.clip
    if clip_model and clip_model != clip.model:
        known = clips.MINI if clip_model == clips.MINI.model else clips.RN50
        clip = replace(known, model=clip_model)
    if data.data_root or data.annotations:
        clips.say_what_it_knows(clip, data.annotations or data.data_root)
    return replace(config, clip=replace(clip, weights=clip_weights or clip.weights))


def chosen_images(dataset: BoxDataset, config: ZeroShotConfig) -> BoxDataset:
    """What Table 2 is measured on: all images, or some in which as many classes are seen."""
    number = config.max_images
    return dataset.select(stratified(dataset, number)) if number else dataset


def noisy_images(scored: BoxDataset, config: ZeroShotConfig) -> BoxDataset:
    """Those of Figure 1: evenly spread over a whole set; of a part those that show most classes."""
    if scored.is_part and config.noise_images < len(scored):
        return scored.select(stratified(scored, config.noise_images))
    return spread(scored, config.noise_images)


# --- reading regions -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ReadConfig:
    """How the boxes are read."""

    mode: clips.RegionMode = "roi"  # the paper's way, or crop
    noise_scales: tuple[float, ...] = (0.0,)  # of `richsem.data.corrupt.jitter_boxes`
    noise_seeds: tuple[int, ...] = (0,)  # one repeat of all scales per seed


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the teacher said about A boxes."""

    ranks: np.ndarray  # classes put before the true one, [S, R, A] (scales, seeds, boxes)
    top_classes: np.ndarray  # the `TOP` best class indices of the first scale and seed, [A, TOP]
    top_scores: np.ndarray  # their probabilities, [A, TOP]


def read_regions(
    clip: clips.FrozenClip, dataset: BoxDataset, names: Sequence[str], config: ReadConfig
) -> Reading:
    """Asks the teacher for the class of every box of `dataset`, at several noise scales.

    The trunk sees each image once; all noise scales and repeats are pooled from the same map.
    Results are kept in shards, so an interrupted pass over LVIS goes on where it stopped.

    Images that are missing on disk must be left out first. `names` are the categories as they are
    put to the text tower.
    """
    if len(names) != len(dataset.categories) or not len(dataset.labels):
        raise ValueError(
            f"{dataset.path}: {len(names)} names for {len(dataset.categories)} categories and "
            f"{len(dataset.labels)} boxes; a reading needs one name per category and some boxes"
        )
    teacher = (clip.fingerprint, to_json(clip.config), *clip.prompts)
    length = _SHARD if clip.config.model == clips.MINI.model else _SLOW_SHARD
    asked = (dataset.fingerprint, *names, to_json(config), length)
    folder = paths.CACHE / "regions" / kept.key(*teacher, *asked, trace=("teacher",))
    parts = shards.cut(folder, len(dataset), length, suffix=".npz")
    text = clip.text_features(names)
    # Of the whole set, so that a box moves alike whatever the shards are.
    draws = [uniform_draws(len(dataset.labels), seed) for seed in config.noise_seeds]

    def read_image(image: int) -> Reading:
        boxes, labels = dataset.boxes_of(image)
        rows = slice(dataset.offsets[image], dataset.offsets[image + 1])
        size = dataset.image_sizes[image]
        moved = [jitter_boxes(boxes, s, size, d[rows]) for s in config.noise_scales for d in draws]
        together = torch.from_numpy(np.concatenate(moved)).to(clip.mean.device)
        features = clip.regions(_pixels(clip, dataset, image), together, config.mode)
        probabilities = clips.soft_labels(features, text.to(features), clip.scale).cpu()
        truth = torch.from_numpy(labels).long().repeat(len(moved))
        ranks = rank_of_label(probabilities, truth).numpy().astype(np.int32)
        first = probabilities[: len(labels)]
        scores, classes = first.topk(min(TOP, first.shape[1]), dim=1)
        return Reading(
            ranks=ranks.reshape(len(config.noise_scales), len(draws), -1),
            top_classes=classes.numpy().astype(np.int32),
            top_scores=scores.numpy(),
        )

    def write(part: shards.Shard) -> None:
        joined = _join([read_image(image) for image in part.items])
        paths.write_atomic(part.path, partial(np.savez, **vars(joined)))

    def read(part: shards.Shard) -> Reading:
        with part.path.open("rb") as file, np.load(file) as stored:
            return Reading(**stored)

    title = f"regions ({config.mode})"
    return _join(shards.made(parts, write, read, title=title, unit="image"))


def forecast(
    clip: clips.FrozenClip, scored: BoxDataset, names: Sequence[str], config: ZeroShotConfig
) -> str:
    """How long Table 2 and Figure 1 take here, in words, measured on the first images with boxes.

    An image costs its trunk and each region its pooling, or as a crop all of it, so reading boxes
    once and twice tells both. The class names come before that, those that are not kept yet.
    """
    noisy = noisy_images(scored, config)
    repeats = len(config.noise_scales) * len(config.noise_seeds)
    few = np.flatnonzero(np.diff(scored.offsets))[:_TIMED].tolist()
    boxes = [torch.from_numpy(scored.boxes_of(i)[0]).to(clip.mean.device) for i in few]

    def seconds(mode: clips.RegionMode, times: int, number: int) -> float:
        start = time.perf_counter()
        for image, own in zip(few[:number], boxes, strict=False):
            clip.regions(_pixels(clip, scored, image), own.repeat(times, 1), mode).cpu()
        return time.perf_counter() - start

    table = figure = first = 0.0
    for mode in ("roi", "crop"):
        seconds(mode, 1, 1)  # the first call of all sets things up
        once, twice = seconds(mode, 1, _TIMED), seconds(mode, 2, _TIMED)
        region = max(0.0, twice - once) / sum(map(len, boxes))
        image = max(0.0, 2 * once - twice) / len(few)
        table += image * len(scored) + region * len(scored.labels)
        figure += image * len(noisy) + region * len(noisy.labels) * repeats
        first = first or image * (100 if config.max_images else min(100, len(scored)))
    parts = (table, figure, first, clip.seconds_of_texts(names))
    times = [tqdm.format_interval(seconds) for seconds in parts]
    return (
        f"On {clip.mean.device}, measured on {len(few)} images, in hours:minutes:seconds: Table 2 "
        f"about {times[0]} ({len(scored):,} images, {len(scored.labels):,} boxes, both ways of "
        f"reading), Figure 1 about {times[1]} (reads {len(noisy):,} of these images, each box "
        f"{repeats} times), the examples before them at most {times[2]}, and first "
        f"of all {len(names):,} names of classes {times[3]}. What was read before is found again; "
        "an interrupted pass goes on."
    )


def region_features(clip: clips.FrozenClip, dataset: BoxDataset) -> Tensor:
    """The teacher's features of all boxes [A, D] of a data set that is small enough to wait for."""
    features = [torch.zeros(0, clip.dim)]
    for image in tqdm(range(len(dataset)), desc="regions (roi)", unit="image"):
        boxes = torch.from_numpy(dataset.boxes_of(image)[0]).to(clip.mean.device)
        if len(boxes):
            features.append(clip.regions(_pixels(clip, dataset, image), boxes, "roi").cpu())
    return torch.cat(features)


def _pixels(clip: clips.FrozenClip, dataset: BoxDataset, image: int) -> Tensor:
    """An image [3, H, W] uint8 on the teacher's device."""
    return pil_to_tensor(dataset.image(image)).to(clip.mean.device)


def _join(parts: Sequence[Reading]) -> Reading:
    return Reading(
        ranks=np.concatenate([part.ranks for part in parts], axis=2),
        top_classes=np.concatenate([part.top_classes for part in parts]),
        top_scores=np.concatenate([part.top_scores for part in parts]),
    )


# --- accuracy ------------------------------------------------------------------------------------


def class_accuracy(ranks: np.ndarray, labels: np.ndarray, k: int) -> pd.Series:
    """Top-k accuracy in percent of each class present, from ranks and true classes of boxes [A]."""
    return pd.Series(100.0 * (ranks < k)).groupby(labels).mean().rename_axis("class")


def accuracy_table(
    ranks: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    *,
    seed: int = 0,
    images: np.ndarray | None = None,  # of each box [A], where a part of a set was read
) -> pd.DataFrame:
    """Class-averaged top-k accuracy over all classes and per frequency group, with intervals.

    From rank and label of each box [A] and the group ("r", "c" or "f") of every class [C]. Columns
    k, group (all, r, c, f), accuracy, ci_low, ci_high (95 %; boxes resampled within each class, or
    `images` as a whole), num_classes, num_boxes.
    """
    rows = []
    for k in TOP_K:
        accuracy = class_accuracy(ranks, labels, k)
        draws = _bootstrap(ranks < k, labels, images, np.random.default_rng(seed))
        for group in ("all", "r", "c", "f"):
            member = (groups[accuracy.index] == group) | (group == "all")
            if not member.any():
                continue
            with warnings.catch_warnings(action="ignore"):  # a draw may lack a whole group
                means = np.nanmean(draws[:, member], axis=1)
            low, high = np.nanpercentile(means, [2.5, 97.5])
            num_boxes = int(np.isin(labels, accuracy.index[member]).sum())
            ends = (accuracy[member].mean(), low, high)
            rows.append((k, group, *ends, int(member.sum()), num_boxes))
    columns = ["k", "group", "accuracy", "ci_low", "ci_high", "num_classes", "num_boxes"]
    return pd.DataFrame(rows, columns=columns)


def _bootstrap(
    hits: np.ndarray, labels: np.ndarray, images: np.ndarray | None, rng: np.random.Generator
) -> np.ndarray:
    """Resampled class accuracies in percent, [draws, classes present].

    A class with n boxes of which a share p is right gives binomial(n, p) / n: the same as
    resampling its boxes with replacement. Images take all their boxes with them; a class of which
    none is drawn is NaN.
    """
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if images is not None:
        numbers, image = np.unique(images, return_inverse=True)
        times = rng.multinomial(len(numbers), [1 / len(numbers)] * len(numbers), size=_BOOTSTRAPS)
        shape = len(numbers), len(counts)
        boxes, right = (
            times @ sparse.csr_array((values.astype(np.int64), (image, inverse)), shape=shape)
            for values in (np.ones_like(hits), hits)
        )
        return 100.0 * right / np.where(boxes, boxes, np.nan)
    right = np.bincount(inverse, weights=hits)
    return 100.0 * rng.binomial(counts, right / counts, size=(_BOOTSTRAPS, len(counts))) / counts


def noise_curve(ranks: np.ndarray, labels: np.ndarray, scales: Sequence[float]) -> pd.DataFrame:
    """Class-averaged top-5 and top-10 accuracy against the noise scale.

    From ranks [S, R, A] at S scales and R seeds and labels [A]. Columns k, scale, accuracy (mean
    over seeds), ci_low, ci_high (95 % of the mean over seeds, Student's t; NaN for one seed),
    relative (to the first scale).
    """
    rows = []
    for k in (5, 10):
        for scale, repeats in zip(scales, ranks, strict=True):
            found = [class_accuracy(own, labels, k).mean() for own in repeats]
            rows.append((k, scale, *mean_interval(found)))
    frame = pd.DataFrame(rows, columns=["k", "scale", "accuracy", "ci_low", "ci_high"])
    start = frame.groupby("k")["accuracy"].transform("first")
    return frame.assign(relative=frame["accuracy"] / start)


def box_ap(
    dataset: BoxDataset, reading: Reading, k: int, *, protocol: Protocol = "lvis"
) -> EvaluationResult:
    """The other reading of Table 2: AP of the true boxes, each carrying its k best classes.

    The softmax probability is the score; a sigmoid of tau times the cosine would tie them all. The
    boxes that were read are evaluated against their own file.
    """
    k = min(k, reading.top_classes.shape[1])
    ids = np.array([category.id for category in dataset.categories])
    xywh = box_algebra.to_xywh(torch.from_numpy(dataset.boxes_xyxy)).numpy()
    detections = Detections(
        image_id=np.repeat(dataset.image_ids[dataset.box_image], k),
        category_id=ids[reading.top_classes[:, :k].ravel()],
        bbox_xywh=np.repeat(xywh, k, axis=0),
        score=reading.top_scores[:, :k].ravel(),
    )
    return judging.evaluate(dataset, detections, protocol)


# --- single boxes, quickly enough for a slider ---------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class View:
    """One box of one image under one noise draw."""

    image: Image.Image  # the whole image
    true_box: tuple[float, ...]  # annotated box, xyxy in pixels
    moved_box: tuple[float, ...]  # the box the teacher was given
    true_name: str  # annotated class
    names: tuple[str, ...]  # class names by falling probability
    probabilities: np.ndarray  # the soft label in the same order

    @property
    def crop(self) -> Image.Image:
        """The pixels inside the moved box."""
        left, top, right, bottom = map(int, self.moved_box)
        return self.image.crop((left, top, max(right, left + 1), max(bottom, top + 1)))


class RegionInspector:
    """Answers for single boxes of a data set; the trunk's maps of the last images are kept."""

    def __init__(self, clip: clips.FrozenClip, dataset: BoxDataset, names: Sequence[str]) -> None:
        """Takes one name per category, as it is put to the text tower."""
        self.clip, self.dataset, self.names = clip, dataset, tuple(names)
        self.text = clip.text_features(names)
        self._pixels = lru_cache(maxsize=1)(partial(_pixels, clip, dataset))
        # Notebook 02 comes back to 100 images; a map of RN50 at 800 x 1067 takes 7 MB.
        self._maps = lru_cache(maxsize=100)(lambda image: clip.trunk_map(self._pixels(image)))

    def view(
        self,
        image: int,
        box: int,
        *,
        scale: float = 0.0,
        seed: int = 0,
        mode: clips.RegionMode = "roi",
        nudge: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0),
    ) -> View:
        """What the teacher says about box number `box` of image number `image`, moved by noise.

        A nudge moves its middle to the right and down, and makes it wider and higher, in parts of
        its sides.
        """
        boxes, labels = self.dataset.boxes_of(image)
        x, y, width, height = nudge
        half_sides = np.array([2 * x - width, 2 * y - height, 2 * x + width, 2 * y + height])
        draws = half_sides + scale * uniform_draws(len(boxes), seed)[box : box + 1]
        size = self.dataset.image_sizes[image]
        moved = jitter_boxes(boxes[box : box + 1], 1.0, size, draws)
        given = torch.from_numpy(moved)
        if mode == "crop":
            features = self.clip.encode_crops(self._pixels(image), given)
        else:
            trunk_map, map_scale = self._maps(image)
            features = self.clip.pool_regions(trunk_map, given, map_scale)
        label = clips.soft_labels(features, self.text, self.clip.scale)[0].cpu()
        order = label.argsort(descending=True)
        return View(
            image=self.dataset.image(image),
            true_box=tuple(map(float, boxes[box])),
            moved_box=tuple(map(float, moved[0])),
            true_name=self.names[labels[box]],
            names=tuple(self.names[i] for i in order.tolist()),
            probabilities=label[order].numpy(),
        )


def rank_of_label(probabilities: Tensor, labels: Tensor) -> Tensor:
    """How many classes the teacher puts before the true one, [N]; 0 means top-1 is right.

    Ties count against the true class, so a constant teacher does not look right by chance.
    """
    own = probabilities.gather(1, labels[:, None])
    return (probabilities >= own).sum(dim=1) - 1
