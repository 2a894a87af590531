"""Contrastive denoising: annotated boxes, shifted, as further queries (METHOD 2.4).

Slots are laid out [group][positive half, negative half]; slot j of each half belongs to the image's
target j. Positives are shifted by less than half a side and shall find their box, negatives by more
and shall find nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from richsem.boxes import to_cxcywh, to_xyxy
from richsem.config import Amount, Natural, Share
from richsem.models.dino.positions import inverse_sigmoid
from richsem.structures import Target

MANY = 100  # from this many denoising queries on, they are a total; below, a number of groups


@dataclass(frozen=True, kw_only=True)
class DenoisingConfig:
    """How much noise, how many queries."""

    # 50 and more: about 2 * number queries; fewer: 2 * number groups (as released). 0 turns
    # denoising off.
    number: Natural = 100
    label_noise: Share = 0.5  # half of this share of labels is replaced by a random class
    box_noise: Amount = 1.0  # each corner of a positive moves by up to this part of half the side


@dataclass(frozen=True)
class Draws:
    """The random numbers of a batch; R = 2 * groups copies of M slots."""

    replace: Tensor  # uniform in 0..1 [B, R, M]; a label below half the label noise is replaced
    classes: Tensor  # the class instead [B, R, M]
    sign: Tensor  # -1 or 1 per corner coordinate [B, R, M, 4]
    part: Tensor  # uniform in 0..1 per corner coordinate [B, R, M, 4]


@dataclass(frozen=True)
class DenoisingQueries:
    """Queries to put before the Q matching ones."""

    content: Tensor  # [B, P, dim]; zero in slots without a target or with an unknown class
    box_logits: Tensor  # cxcywh before the sigmoid [B, P, 4]; zero in slots without a target
    num_groups: int  # G
    num_slots: int  # M; P = 2 * M * G


def count_groups(number: int, num_slots: int) -> int:
    """Groups of denoising queries for images of at most `num_slots` targets."""
    if not num_slots:
        return 1
    total = 2 * number
    return max(1, total // (2 * num_slots)) if total >= MANY else max(1, total)


def draw(shape: tuple[int, int, int], num_classes: int, device: torch.device) -> Draws:
    """Random numbers for [B, R, M] slots from torch's generator."""
    return Draws(
        replace=torch.rand(shape, device=device),
        classes=torch.randint(num_classes, shape, device=device),
        sign=torch.randint(0, 2, (*shape, 4), device=device) * 2.0 - 1.0,
        part=torch.rand((*shape, 4), device=device),
    )


def build_queries(
    targets: Sequence[Target],
    config: DenoisingConfig,
    num_classes: int,
    embed: Callable[[Tensor], Tensor],
    draws: Draws | None = None,
) -> DenoisingQueries:
    """Denoising queries for the B targets of a batch.

    `embed` turns class indices [...] into content [..., dim]; random numbers are drawn here if
    there are none.
    """
    # [B, M] and [B, M, 4], the targets of an image first
    labels = pad_sequence([t.labels for t in targets], batch_first=True, padding_value=-1)
    boxes = pad_sequence([t.boxes for t in targets], batch_first=True)
    counts = torch.tensor([len(t.labels) for t in targets], device=labels.device)
    num_slots = labels.shape[1]
    groups = count_groups(config.number, num_slots)
    shape = (len(targets), 2 * groups, num_slots)
    draws = draws or draw(shape, num_classes, labels.device)
    used = torch.arange(num_slots, device=labels.device) < counts[:, None]
    labels = noisy_labels(labels[:, None].expand(shape), draws, config.label_noise)
    logits = inverse_sigmoid(noisy_boxes(boxes[:, None].expand(*shape, 4), draws, config.box_noise))
    content = embed(labels.clamp(min=0)) * (labels >= 0)[..., None]
    return DenoisingQueries(
        content.flatten(1, 2), (logits * used[:, None, :, None]).flatten(1, 2), groups, num_slots
    )


def noisy_labels(labels: Tensor, draws: Draws, label_noise: float) -> Tensor:
    """Replace labels [B, R, M] where drawn; unknown ones (-1) stay unknown."""
    replaced = (draws.replace < label_noise / 2) & (labels >= 0)
    return torch.where(replaced, draws.classes, labels)


def noisy_boxes(boxes: Tensor, draws: Draws, box_noise: float) -> Tensor:
    """Shift the corners of cxcywh boxes [B, R, M, 4]; odd copies (negatives) by more than half.

    Corners are cut off at the image; a negative may turn inside out, its size is negative then.
    """
    negative = torch.arange(boxes.shape[1], device=boxes.device) % 2
    part = draws.part + negative.to(boxes)[:, None, None]
    half = boxes[..., 2:].repeat(1, 1, 1, 2) / 2
    corners = to_xyxy(boxes) + draws.sign * part * half * box_noise
    return to_cxcywh(corners.clamp(0, 1))


def attention_mask(
    num_groups: int, num_slots: int, num_queries: int, device: torch.device
) -> Tensor:
    """True where a query (row) must not see another (column): [P + Q, P + Q].

    Groups see themselves and the matching queries; matching queries see no group.
    """
    group = torch.arange(num_groups, device=device).repeat_interleave(2 * num_slots)
    group = torch.cat([group, group.new_full((num_queries,), -1)])
    return (group[None] != group[:, None]) & (group[None] >= 0)
