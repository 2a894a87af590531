"""Detic's loss on DINO: an image's label is taught to one query of the image (METHOD 3.2, 8.8)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from richsem.structures import Target

ImageLevel = Literal["max_size", "max_score"]


def image_level_loss(
    logits: Tensor, boxes: Tensor, targets: Sequence[Target], choice: ImageLevel
) -> Tensor:
    """Binary cross-entropy of one query per layer and image label, over all classes: a scalar.

    Summed over classes and layers, averaged over the labels of an image and over images; an image
    without a known label counts as zero.

    Args:
        logits: Of the matching queries [L, B, Q, C].
        boxes: Predicted cxcywh in 0..1 [L, B, Q, 4].
        targets: One per image; only the labels are read.
        choice: The query that answers for the label: the one with the largest box, or the one
            with the highest score for the label.
    """
    known = [target.labels[target.labels >= 0] for target in targets]
    labels = torch.cat(known)
    counts = torch.tensor([len(some) for some in known], device=logits.device)
    images = torch.arange(len(known), device=logits.device).repeat_interleave(counts)
    queries = answering_queries(logits, boxes, images, labels, choice)
    layers = torch.arange(len(logits), device=logits.device)[:, None]
    answers = logits[layers, images, queries]  # [L, N, C]
    wanted = F.one_hot(labels, logits.shape[-1]).to(answers).expand_as(answers)
    losses = F.binary_cross_entropy_with_logits(answers, wanted, reduction="none").sum(dim=(0, 2))
    return (losses / counts[images]).sum() / len(known)


def answering_queries(
    logits: Tensor, boxes: Tensor, images: Tensor, labels: Tensor, choice: ImageLevel
) -> Tensor:
    """The query of each layer that answers for an image's label.

    Args:
        logits: [L, B, Q, C].
        boxes: cxcywh in 0..1 [L, B, Q, 4].
        images: Image of each label [N].
        labels: [N].
        choice: As in `image_level_loss`.

    Returns:
        Queries [L, N].
    """
    if choice == "max_size":
        return boxes[..., 2:].prod(dim=-1).argmax(dim=2)[:, images]
    return logits[:, images, :, labels].argmax(dim=-1).T
