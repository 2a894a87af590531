"""Detic's loss: an image's label is taught to one prediction of the image (METHOD 3.1, 3.2, 8.8).

Binary cross-entropy summed over all classes, averaged over the labels of an image and over images;
an image without a known label counts as zero.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from richsem.losses.long_tail import slipped
from richsem.structures import RegionOutput, Target

# What answers for a label: the largest box, the highest score for the label or, in two stages, the
# region that is all of the image.
ImageLevel = Literal["max_size", "max_score"]
RegionChoice = Literal["max_size", "max_score", "image_box"]


def image_level_loss(
    logits: Tensor, boxes: Tensor, targets: Sequence[Target], choice: ImageLevel, slip: float = 0.0
) -> Tensor:
    """The loss of DINO, summed over its layers: a scalar.

    Logits [L, B, Q, C] and boxes, cxcywh in 0..1 [L, B, Q, 4], are those of the matching queries;
    of the targets, one per image, only the labels are read. With `slip`, see `slipped`.
    """
    labels, images, shares = _known_labels(targets)
    queries = answering_queries(logits, boxes, images, labels, choice)
    if slip:
        queries = slipped(queries, slip, boxes.shape[2])
    layers = torch.arange(len(logits), device=logits.device)[:, None]
    return _loss_of_answers(logits[layers, images, queries], labels, shares) / len(targets)


def region_label_loss(
    stage: RegionOutput, targets: Sequence[Target], choice: RegionChoice
) -> Tensor:
    """The loss of one stage of a cascade, where the last region of each image is all of it."""
    labels, images, shares = _known_labels(targets)
    answers = stage.logits.float()[answering_regions(stage, images, labels, choice)]  # [N, C]
    return _loss_of_answers(answers[None], labels, shares) / len(targets)


def answering_queries(
    logits: Tensor, boxes: Tensor, images: Tensor, labels: Tensor, choice: ImageLevel
) -> Tensor:
    """The query of each layer that answers for each label [N] of an image [N]: queries [L, N].

    Logits are [L, B, Q, C], boxes cxcywh in 0..1 [L, B, Q, 4].
    """
    if choice == "max_size":
        return boxes[..., 2:].prod(dim=-1).argmax(dim=2)[:, images]
    return logits[:, images, :, labels].argmax(dim=-1).T  # the index puts labels first: [N, L, Q]


def answering_regions(
    stage: RegionOutput, images: Tensor, labels: Tensor, choice: RegionChoice
) -> Tensor:
    """The region that answers for each label [N] of an image [N]: regions [N].

    Where an image has no proposal, all of it answers.
    """
    own = stage.images == images[:, None]  # [N, R]
    whole = own & (own.cumsum(dim=1) == own.sum(dim=1, keepdim=True))  # an image's last region
    if choice == "image_box":
        return whole.long().argmax(dim=1)
    sides = stage.boxes[:, 2:] - stage.boxes[:, :2]
    worth = sides.prod(dim=1) if choice == "max_size" else stage.logits.float()[:, labels].T
    worth = worth.expand_as(own).masked_fill(~own, -torch.inf)
    # Behind every proposal, but before the regions of other images.
    worth = worth.masked_fill(whole, torch.finfo(worth.dtype).min)
    return worth.argmax(dim=1)


def _known_labels(targets: Sequence[Target]) -> tuple[Tensor, Tensor, Tensor]:
    """Known labels of the images [N], the image of each [N], and how many that image has [N]."""
    known = [target.labels[target.labels >= 0] for target in targets]
    labels = torch.cat(known)
    counts = torch.tensor([len(some) for some in known], device=labels.device)
    images = torch.arange(len(known), device=labels.device).repeat_interleave(counts)
    return labels, images, counts[images]


def _loss_of_answers(answers: Tensor, labels: Tensor, shares: Tensor) -> Tensor:
    """Cross-entropy of what answers for each label in L layers [L, N, C], summed over images."""
    wanted = F.one_hot(labels, answers.shape[-1]).to(answers).expand_as(answers)
    losses = F.binary_cross_entropy_with_logits(answers, wanted, reduction="none").sum(dim=(0, 2))
    return (losses / shares).sum()
