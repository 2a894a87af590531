"""Sets of which something is altered, as controls: teachers that know less, labels that are wrong,
boxes that are shifted, images in which things are smaller or not alone.

Of the teachers one sees nothing; the others keep what is given to an object's own class, and change
how the rest is divided.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from richsem.data.box_sets import BoxDataset
from richsem.data.corrupt import jitter_boxes, uniform_draws
from richsem.data.samples import ChangedSet, Sample, TrainingSet

# Who gets the rest: whom the teacher sees; in blocks of like classes at random; unlike classes in
# place of like ones; by the likeness of names alone; all the same.
Rest = Literal["seen", "like", "unlike", "names", "even"]
_BLOCK = 10  # classes that count as like one another


class ShuffledTeacher(ChangedSet):
    """A set whose images have the soft labels of other images' boxes: a teacher that sees nothing.

    The labels stay those of real boxes, so nothing but their relation to the image is lost; the
    seed decides who gets whose.
    """

    def __init__(self, samples: TrainingSet, seed: int = 0) -> None:
        super().__init__(samples, "shuffled", seed)
        draw = torch.Generator().manual_seed(seed)
        self._others = torch.randperm(len(samples), generator=draw).tolist()

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        sample, other = self.samples[key], self._others[key[0]]
        number = len(sample.target.labels)
        while not len(found := self.samples[other, key[1]].target.soft_labels):
            other = (other + 1) % len(self)
        rows = torch.arange(number) % len(found)
        return replace(sample, target=replace(sample.target, soft_labels=found[rows]))


class AlteredTeacher(ChangedSet):
    """A set whose soft labels [N, C] give the rest to others, or are sharper, flatter or righter.

    `text` are the classes' features [C, D] of length 1, `scale` is tau. With `sharpness` s a label
    is p^s, made to sum to one, before the rest is divided. What `unseen` classes have goes to the
    others, as each of them has already; `corrected` is the part of all other shares that goes to
    the box's own class, as a surer teacher would have it. Boxes of unknown class stay as they are.
    """

    def __init__(
        self,
        samples: TrainingSet,
        text: Tensor,
        scale: float,
        rest: Rest,
        sharpness: float,
        unseen: Sequence[int] = (),
        corrected: float = 0.0,
    ) -> None:
        marks = [f"corrected {corrected}"] if corrected else []
        super().__init__(samples, "altered", rest, sharpness, *unseen, *marks)
        self.rest, self.sharpness, self.unseen = rest, sharpness, list(unseen)
        self.corrected = corrected
        likeness = text @ text.T
        self._names = (scale * likeness).softmax(dim=1)
        self._source = _sources(likeness, rest)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        sample = self.samples[key]
        target = sample.target
        known = target.labels >= 0
        soft = target.soft_labels.clone()
        soft[known] = self._altered(soft[known].float(), target.labels[known]).to(soft)
        return replace(sample, target=replace(target, soft_labels=soft))

    def _altered(self, soft: Tensor, labels: Tensor) -> Tensor:
        soft = soft**self.sharpness
        soft[:, self.unseen] = 0
        soft = soft / soft.sum(dim=1, keepdim=True).clamp(min=1e-12)
        soft = soft.lerp(F.one_hot(labels, soft.shape[1]).to(soft), self.corrected)
        if self.rest == "seen":
            return soft
        given = {"names": self._names[labels], "even": torch.ones_like(soft)}
        new = given.get(self.rest, soft.gather(1, self._source[labels]))
        own = soft.gather(1, labels[:, None])
        new = new.scatter(1, labels[:, None], 0.0)
        new = new * ((1 - own) / new.sum(dim=1, keepdim=True).clamp(min=1e-12))
        return new.scatter(1, labels[:, None], own)


class WrongLabels(ChangedSet):
    """A set a `share` of whose labels are those of other classes, drawn once for each box."""

    def __init__(self, samples: TrainingSet, share: float, num_classes: int) -> None:
        self.share, self.num_classes = share, num_classes
        super().__init__(samples, "wrong labels", share, num_classes)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        sample, draw = self.samples[key], torch.Generator().manual_seed(key[0])
        labels = sample.target.labels
        wrong = (torch.rand(len(labels), generator=draw) < self.share) & (labels >= 0)
        steps = torch.randint(1, self.num_classes, labels.shape, generator=draw)
        labels = torch.where(wrong, (labels + steps) % self.num_classes, labels)
        return replace(sample, target=replace(sample.target, labels=labels))


def shift_annotations(dataset: BoxDataset, scale: float, seed: int = 0) -> BoxDataset:
    """Shift all boxes by noise of a scale (`jitter_boxes`), as hasty annotators would.

    Labels, images and lists stay as they are. One seed shifts the same corners the same way at
    every scale, so the points of a curve differ by the scale alone.
    """
    if scale == 0:
        return dataset
    boxes, sizes = dataset.boxes_xyxy, dataset.image_sizes[dataset.box_image]
    moved = jitter_boxes(boxes, scale, sizes, uniform_draws(len(boxes), seed))
    name = f"{dataset.name}, boxes shifted by {scale:g}"
    return dataset.changed(moved, name=name, boxes_xyxy=moved)


def _sources(likeness: Tensor, rest: Rest) -> Tensor:
    """Whose share class j gets in a label of class i [C, C]; the own class keeps its own.

    Other classes are put in order of their likeness to i. "like" permutes within blocks of that
    order, the same way in every label of i; "unlike" turns the order around.
    """
    draw = torch.Generator().manual_seed(0)
    sources = torch.arange(len(likeness)).repeat(len(likeness), 1)
    for label, row in enumerate(likeness):
        order = row.argsort(descending=True)
        order = order[order != label]
        if rest == "like":
            blocks = order.split(_BLOCK)
            mixed = [block[torch.randperm(len(block), generator=draw)] for block in blocks]
            sources[label, order] = torch.cat(mixed)
        elif rest == "unlike":
            sources[label, order] = order.flip(0)
    return sources
