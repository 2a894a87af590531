"""What flows from data to metrics: targets, batches, detector outputs and losses.

Boxes are (cx, cy, w, h) in 0..1, relative to the image before padding. In padding masks True means
padding. A label of -1 stands for an unknown class.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any, Self

import torch
from torch import Tensor


class Supervision(StrEnum):
    """What the annotations of a batch are worth (METHOD 1.2)."""

    DETECTION = "detection"  # annotated boxes and labels
    IMAGE_LABELS = "image labels"  # coarse boxes (tile, whole image) with the image's label
    CAPTIONS = "captions"  # the same with labels read from the caption
    UNLABELLED = "unlabelled"  # coarse boxes, no labels
    BOXES_ONLY = "boxes only"  # annotated boxes, no labels
    WHOLE_IMAGES = "whole images"  # image labels without boxes, for Detic's loss


class Record:
    """A record of tensors, in tuples and further records too, that can be changed as a whole."""

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same with every tensor changed."""
        new = {field.name: _mapped(getattr(self, field.name), change) for field in fields(self)}
        return replace(self, **new)

    def to(self, device: torch.device | str) -> Self:
        """The same on a device."""
        return self.mapped(lambda tensor: tensor.to(device))

    def in_float32(self) -> Self:
        """The same in float32, but for whole numbers."""
        return self.mapped(lambda tensor: tensor.float() if tensor.is_floating_point() else tensor)


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, tuple):
        return tuple(_mapped(item, change) for item in value)
    if isinstance(value, Record):
        return value.mapped(change)
    return change(value) if isinstance(value, Tensor) else value


@dataclass(frozen=True)
class Target(Record):
    """Annotations of one image."""

    labels: Tensor  # class indices [N]; -1 where unknown
    boxes: Tensor  # cxcywh in 0..1 of the un-padded image [N, 4]
    size: tuple[int, int]  # height and width in pixels of the augmented image, before padding
    original_size: tuple[int, int]  # height and width of the image on disk
    image_id: int | str  # the image's id in its annotation file
    # The teacher's class probabilities [N, C], if there is a teacher.
    soft_labels: Tensor | None = None
    # Which of the image's annotations each box is [N], where boxes are annotated.
    rows: Tensor | None = None
    # What the object covers of a grid over its box [N, SIDE, SIDE], where masks are learnt.
    masks: Tensor | None = None


@dataclass(frozen=True)
class Batch(Record):
    """Images of one kind of supervision; pixels or, if these were cached, feature maps."""

    targets: tuple[Target, ...]  # one per image
    supervision: Supervision = Supervision.DETECTION  # which loss terms apply
    images: Tensor | None = None  # RGB in 0..1, padded bottom and right with zeros [B, 3, H, W]
    padding: Tensor | None = None  # True on padding [B, H, W]; None if no image is padded
    # Backbone maps [B, C_l, H_l, W_l], finest first, instead of images.
    features: tuple[Tensor, ...] | None = None

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class DetectorOutput(Record):
    """Predictions of L decoder layers for Q matching and P denoising queries."""

    logits: Tensor  # class logits [L, B, Q, C], first layer first
    boxes: Tensor  # cxcywh in 0..1 [L, B, Q, 4]
    # Of the selected encoder tokens [B, Q, C], or [B, Q, 1] if class-agnostic.
    proposal_logits: Tensor | None = None
    proposal_boxes: Tensor | None = None  # [B, Q, 4]
    # Semantic branch on the last layer [B, Q, C]; None without the branch.
    semantic_logits: Tensor | None = None
    # Boxes entering the last layer [B, Q, 4], without gradient.
    last_references: Tensor | None = None
    # Teacher's probabilities at `last_references` [B, Q, C], if asked for.
    query_soft_labels: Tensor | None = None
    denoising: "DenoisingOutput | None" = None  # the same predictions for denoising queries


@dataclass(frozen=True)
class DenoisingOutput(Record):
    """Predictions for denoising queries, laid out [group][positive half, negative half]."""

    logits: Tensor  # [L, B, P, C] with P = 2 * num_slots * num_groups
    boxes: Tensor  # [L, B, P, 4]
    semantic_logits: Tensor | None  # [B, P, C] or None
    num_groups: int  # G
    num_slots: int  # largest number of targets of an image in the batch; slot j belongs to target j


@dataclass(frozen=True)
class Cells(Record):
    """The cells of M = M_1 + M_2 + ... places on all levels of a pyramid, finest level first."""

    points: Tensor  # centre (x, y) of each cell in pixels [M, 2]
    strides: Tensor  # its side in pixels [M]
    levels: Tensor  # its level, from 0 [M]


@dataclass(frozen=True)
class Regions(Record):
    """R boxes of a batch, image after image."""

    images: Tensor  # image of each [R]
    boxes: Tensor  # xyxy in pixels [R, 4]
    scores: Tensor  # of the proposal each comes from, 0 to 1 [R]
    # Row of the annotation it answers for, counted over the batch's targets, -1 for background [R];
    # None where nothing was matched.
    rows: Tensor | None = None

    def __getitem__(self, index: Tensor) -> Self:
        return self.mapped(lambda values: values[index])


@dataclass(frozen=True, kw_only=True)
class RegionOutput(Regions):
    """What one stage of a cascade says about regions as they enter it, without gradient."""

    logits: Tensor  # class logits [R, C]
    deltas: Tensor  # predicted corrections of the boxes, see `richsem.boxes.corrected` [R, 4]
    coding: tuple[float, float, float, float]  # factors on the corrections of (x, y, w, h)
    refined: Tensor  # the boxes after the correction, clipped to the image [R, 4]
    semantic_logits: Tensor | None = None  # semantic branch [R, C]; None without one


@dataclass(frozen=True)
class TwoStageOutput(Record):
    """Predictions of a two-stage detector: where objects are, then regions refined in stages."""

    sizes: Tensor  # height and width in pixels of each image before padding [B, 2]
    cells: Cells  # where the first stage looks
    heatmap: Tensor  # logits of "here is the centre of an object" [B, M]
    # From a cell's centre to the box's left, top, right and bottom, in strides [B, M, 4].
    distances: Tensor
    # The cascade. In training on whole images the last region of each image is all of it.
    stages: tuple[RegionOutput, ...]
    # With a mask head: in training its logits over the boxes of those K regions of the first stage
    # that answer for an annotation [K, s, s], in evaluation the maps [B, dim, h, w] that it looks
    # at when boxes are final.
    mask_logits: Tensor | None = None
    levels: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Losses:
    """Named loss terms (scalars) and the weight of each; a term without weight is for reading."""

    terms: Mapping[str, Tensor]
    weights: Mapping[str, float]

    @property
    def total(self) -> Tensor:
        """The weighted sum, what is minimised."""
        return torch.stack([w * self.terms[name] for name, w in self.weights.items()]).sum()
