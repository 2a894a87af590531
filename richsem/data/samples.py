"""What a detector learns from: augmented images with targets, made on demand from (index, seed).

An item depends on its index and its seed alone: not on what was drawn before, on the loader's
workers or on the number of processes.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from richsem import boxes
from richsem.config import to_json
from richsem.data import transforms
from richsem.data.box_sets import BoxDataset
from richsem.data.categories import Category, clean_name
from richsem.data.image_sets import ImageSet
from richsem.data.outlines import Outlines
from richsem.data.transforms import NUM_TILES, Augmentation, MosaicConfig, Picture
from richsem.masks import SIDE
from richsem.structures import Batch, Supervision, Target

UNKNOWN = -1
FROM_BOXES = (Supervision.DETECTION, Supervision.BOXES_ONLY)
LABELLED = (Supervision.IMAGE_LABELS, Supervision.CAPTIONS, Supervision.WHOLE_IMAGES)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One training image."""

    target: Target  # its annotations
    image: Tensor | None = None  # RGB in 0..1 [3, H, W]; None if its features were cached
    features: tuple[Tensor, ...] | None = None  # maps [C_l, H_l, W_l], finest first, instead of it


class TrainingSet(Protocol):
    """What the batch plan, the feature cache and the training loop need of a set."""

    supervision: Supervision
    fingerprint: str

    def __len__(self) -> int:
        """Number of images."""

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """The sample for (image index, item seed)."""


class ChangedSet:
    """The samples of another set with something changed; `marks` tell the change from others."""

    def __init__(self, samples: TrainingSet, *marks: object) -> None:
        self.samples, self.supervision = samples, samples.supervision
        self.fingerprint = set_fingerprint(samples, *marks)

    def __len__(self) -> int:
        return len(self.samples)


class DetectionTrainingSet:
    """Images with annotated boxes; BOXES_ONLY hides all labels.

    `classes` gives for each category of the dataset its class index in the detector; boxes of a
    category with -1 are left out. By default it is the position of the category. With `masks` the
    outlines of the objects are read as well.
    """

    def __init__(
        self,
        dataset: BoxDataset,
        transform: Augmentation,
        *,
        supervision: Supervision = Supervision.DETECTION,
        classes: Sequence[int] | None = None,
        masks: bool = False,
    ) -> None:
        if supervision not in FROM_BOXES:
            raise ValueError(f"{dataset!r} has boxes, it cannot serve as {supervision.value!r}")
        self.dataset, self.transform, self.supervision = dataset, transform, supervision
        self._classes = _class_indices(classes, dataset.categories)
        self._outlines = Outlines(dataset.path) if masks else None
        if self._outlines:
            self._outlines.require(dataset)
        parts = [supervision, self._classes.tolist(), to_json(transform)]
        self.fingerprint = set_fingerprint(dataset, *parts, *[f"masks of {SIDE}"] * masks)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        index, seed = key
        corners, labels = self.dataset.boxes_of(index)
        classes = self._classes[torch.from_numpy(labels)]
        used = classes != UNKNOWN
        if self.supervision is Supervision.BOXES_ONLY:
            classes, used = torch.full_like(classes, UNKNOWN), torch.ones_like(used)
        picture = Picture(
            image=pil_to_tensor(self.dataset.image(index)),
            boxes_xyxy=torch.from_numpy(corners)[used],
            labels=classes[used],
            rows=torch.nonzero(used).flatten(),
            masks=self._outlines.masks(self.dataset, index)[used] if self._outlines else None,
        )
        height, width = (int(side) for side in self.dataset.image_sizes[index])
        return to_sample(
            self.transform.apply(picture, torch.Generator().manual_seed(seed)),
            original_size=(height, width),
            image_id=self.dataset.image_ids[index].item(),
        )


class ReducedTrainingSet(ChangedSet):
    """The samples of a set with some of its annotations taken away.

    The images, their augmented views and so their cached features stay what they are: only the
    targets of `samples`, which must say their `rows` in the complete set, lose the boxes that are
    not in the reduced one (`drop_annotations`).
    """

    def __init__(self, samples: TrainingSet, complete: BoxDataset, reduced: BoxDataset) -> None:
        super().__init__(samples)
        self.fingerprint = set_fingerprint(reduced, samples.fingerprint)
        self._kept = torch.from_numpy(np.isin(complete.annotation_ids, reduced.annotation_ids))
        self._offsets = complete.offsets.tolist()

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        sample = self.samples[key]
        kept = self._kept[self._offsets[key[0]] + sample.target.rows]
        # All tensors of a target have a row per box.
        return replace(sample, target=sample.target.mapped(lambda rows: rows[kept]))


class ExtraTrainingSet:
    """Images without annotated boxes: mosaics of four, or one image under one box.

    The box of an image is all of it; with several labels there is one box per label, without any
    there is one box of unknown class. Where labels are asked for, images that have none are left
    out. In a mosaic the image of the given index is the first tile, the others are drawn.
    `classes` are as in `DetectionTrainingSet`; labels with -1 are left out.
    """

    def __init__(
        self,
        images: ImageSet,
        transform: Augmentation,
        *,
        supervision: Supervision,
        mosaic: MosaicConfig | None = None,
        classes: Sequence[int] | None = None,
    ) -> None:
        if supervision in FROM_BOXES:
            raise ValueError(f"{images!r} has no boxes, it cannot serve as {supervision.value!r}")
        if supervision is Supervision.WHOLE_IMAGES and mosaic is not None:
            raise ValueError("whole images are not laid into mosaics: set data.extra.mosaic=none")
        self.images, self.transform = images, transform
        self.supervision, self.mosaic = supervision, mosaic
        self._classes = _class_indices(classes, images.categories)
        self._used = np.arange(len(images))
        if supervision in LABELLED:
            known = set(torch.nonzero(self._classes != UNKNOWN).flatten().tolist())
            useful = [not known.isdisjoint(labels) for labels in images.labels]
            self._used = np.flatnonzero(useful)
        if not len(self._used):
            raise ValueError(
                f"{images!r} has no label of the detector's classes; choose another supervision "
                f"than {supervision.value!r}, or check the names of the classes"
            )
        self.fingerprint = set_fingerprint(
            images,
            supervision,
            self._classes.tolist(),
            [images.labels[i] for i in self._used] if supervision in LABELLED else "",
            to_json(transform),
            "" if mosaic is None else to_json(mosaic),
        )

    def __len__(self) -> int:
        return len(self._used)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        index, seed = key
        rng = torch.Generator().manual_seed(seed)
        if self.mosaic is None:
            picture = self._picture(index)
            size = picture.size
            picture = self.transform.apply(picture, rng)
        else:
            # The others are drawn by their distance from it, so that an image never meets itself.
            last = len(self) - 1
            steps = [transforms.between(min(1, last), last, rng) for _ in range(NUM_TILES - 1)]
            places = [(index + step) % len(self) for step in (0, *steps)]
            tiles = [self.transform.apply(self._picture(place), rng) for place in places]
            picture = transforms.mosaic(tiles, self.mosaic, rng)
            size = picture.size
        return to_sample(picture, original_size=size, image_id=int(self._used[index]))

    def _picture(self, index: int) -> Picture:
        place = self._used[index]
        image = pil_to_tensor(self.images.image(place))
        labels = torch.full((1,), UNKNOWN)
        if self.supervision in LABELLED:
            labels = self._classes[list(self.images.labels[place])]
            labels = labels[labels != UNKNOWN]
        height, width = image.shape[-2:]
        box = torch.tensor([[0.0, 0.0, width, height]])
        return Picture(image=image, boxes_xyxy=box.repeat(len(labels), 1), labels=labels)


def training_set(
    source: BoxDataset | ImageSet,
    supervision: Supervision,
    transform: Augmentation,
    *,
    classes: Sequence[Category] = (),
    mosaic: MosaicConfig | None = None,
) -> DetectionTrainingSet | ExtraTrainingSet:
    """Samples of a set as this kind of supervision lets a detector of these classes see them.

    Without `classes` they are the set's own. With `mosaic`, images without boxes are in tiles.
    """
    matches = match_classes(source.categories, classes) if classes else None
    how = {"supervision": supervision, "classes": matches}
    if isinstance(source, BoxDataset):
        return DetectionTrainingSet(source, transform, **how)
    return ExtraTrainingSet(source, transform, **how, mosaic=mosaic)


def collate(samples: Sequence[Sample], supervision: Supervision, pad_multiple: int = 1) -> Batch:
    """Put samples into one batch.

    Images are padded bottom and right with zeros to the largest of the batch, and on to a multiple
    of `pad_multiple`; the padding mask is True there, and None if nothing is padded. Feature maps,
    which a cache keeps in one size, become float32.
    """
    targets = tuple(sample.target for sample in samples)
    if samples[0].features is not None:
        levels = zip(*(sample.features for sample in samples), strict=True)
        features = tuple(torch.stack(level).float() for level in levels)
        return Batch(targets=targets, supervision=supervision, features=features)
    sides = zip(*(sample.image.shape[-2:] for sample in samples), strict=True)
    height, width = (-(-max(lengths) // pad_multiple) * pad_multiple for lengths in sides)
    images = samples[0].image.new_zeros(len(samples), 3, height, width)
    padding = torch.ones(len(samples), height, width, dtype=torch.bool)
    for row, sample in enumerate(samples):
        own = (row, ..., slice(sample.image.shape[1]), slice(sample.image.shape[2]))
        images[own], padding[own] = sample.image, False
    padding = padding if padding.any() else None
    return Batch(targets=targets, supervision=supervision, images=images, padding=padding)


def to_picture(sample: Sample) -> Picture:
    """A sample as it can be drawn: pixels 0 to 255, boxes xyxy in pixels."""
    if sample.image is None:
        raise ValueError(f"image {sample.target.image_id} has features only, no pixels to draw")
    return Picture(
        image=(sample.image * 255).round().to(torch.uint8),
        boxes_xyxy=boxes.in_pixels(sample.target.boxes, sample.target.size),
        labels=sample.target.labels,
    )


def match_classes(source: Sequence[Category], target: Sequence[Category]) -> list[int]:
    """For each source category the position of the same class in `target`, or -1 (METHOD 8.2).

    The name as written decides, then the cleaned name, then the cleaned synonyms of the target: the
    first of these that any target class answers to. Where several do, there is no match.
    """
    owners = written, spoken, others = [defaultdict(set) for _ in range(3)]
    for position, category in enumerate(target):
        written[category.name].add(position)
        spoken[clean_name(category.name)].add(position)
        for synonym in category.synonyms:
            others[clean_name(synonym)].add(position)
    matches = []
    for category in source:
        cleaned = clean_name(category.name)
        names = (category.name, cleaned, cleaned)
        found = [table[name] for table, name in zip(owners, names, strict=True) if name in table]
        matches.append(min(found[0]) if found and len(found[0]) == 1 else UNKNOWN)
    return matches


def _class_indices(classes: Sequence[int] | None, categories: Sequence[Category]) -> Tensor:
    """The detector's class of each category [C], by default its own position."""
    return torch.tensor(range(len(categories)) if classes is None else classes, dtype=torch.long)


def to_sample(picture: Picture, original_size: tuple[int, int], image_id: int | str) -> Sample:
    """An augmented picture as the detectors take it; `original_size` is that of the file."""
    target = Target(
        labels=picture.labels,
        boxes=boxes.in_parts(picture.boxes_xyxy, picture.size),
        size=picture.size,
        original_size=original_size,
        image_id=image_id,
        rows=picture.rows,
        masks=picture.masks,
    )
    # Rounding may leave nothing of a box that is thinner than a pixel.
    seen = (target.boxes[:, 2:] > 0).all(dim=1)
    target = target.mapped(lambda rows: rows[seen])
    return Sample(target=target, image=picture.image.float() / 255)


def set_fingerprint(data: BoxDataset | ImageSet | TrainingSet, *parts: object) -> str:
    """Hash of everything an item depends on."""
    text = "\n".join([data.fingerprint, *map(str, parts)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
