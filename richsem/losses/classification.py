"""The class loss: sigmoid focal loss over a federated choice of classes (METHOD 2.5, 2.8).

In LVIS an image's annotations say nothing about most classes, so each loss looks at the classes
that are present and at a few random others only.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from richsem.losses.matching import ALPHA, GAMMA, Matches

Counts = Sequence[int] | Tensor  # training images with each class [C]


def focal_losses(
    logits: Tensor,
    labels: Tensor,
    matches: Matches,
    classes: Tensor | None = None,
    spared: Tensor | None = None,
) -> Tensor:
    """Sigmoid focal loss of S output sets [S, B, Q, C], summed over queries and classes: [S].

    Every query should say no to every class, except for the label [N] of its target. A query whose
    target has no known label (-1) is left out: there is nothing right to say. Where `classes` are
    given, for each set [S, C] or each of its images [S, B, C], only those that are True count.
    Where an object of class i is, class j is spared a part `spared[i, j]` of its no.
    """
    if classes is not None and classes.ndim == 2:
        classes = classes[:, None]  # the same for all images
    sets = torch.arange(len(logits), device=logits.device)[:, None]
    wanted = labels[matches.targets]
    known = (wanted >= 0).to(logits.dtype)  # [S, K]
    columns = wanted.clamp(min=0)

    # Few entries are positive: say no everywhere first, then correct the exceptions.
    by_query = _SayNo.apply(logits, classes)  # [S, B, Q]
    counted = torch.ones_like(by_query).index_put(
        (sets.expand_as(wanted), matches.images.expand_as(wanted), matches.queries), known
    )
    own = logits[sets, matches.images, matches.queries, columns]  # [S, K]
    yes, no = focal_terms(own, alpha=ALPHA, gamma=GAMMA)
    weight = known
    if classes is not None:
        every = classes.expand(*logits.shape[:2], -1)
        weight = known * every[sets, matches.images, columns]
    loss = (by_query * counted).sum(dim=(1, 2)) + ((yes - no) * weight).sum(dim=1)
    if spared is not None:
        answers = logits[sets, matches.images, matches.queries]  # [S, K, C]
        refusals = focal_terms(answers, alpha=ALPHA, gamma=GAMMA)[1] * spared[columns]
        if classes is not None:
            refusals = refusals * every[sets, matches.images]
        loss = loss - (refusals.sum(dim=2) * known).sum(dim=1)
    return loss


def focal_terms(logits: Tensor, *, alpha: float, gamma: float) -> tuple[Tensor, Tensor]:
    """Focal loss of class logits [...] if the right answer is yes, and if it is no.

    `alpha` is the weight of yes, 1 - alpha that of no; `gamma` fades out what is right already.
    """
    yes = alpha * torch.sigmoid(-logits) ** gamma * F.softplus(-logits)
    no = (1 - alpha) * torch.sigmoid(logits) ** gamma * F.softplus(logits)
    return yes, no


class FederatedClasses(nn.Module):
    """Draws the classes that count: those present, filled up with random others.

    The others are drawn without replacement with odds sqrt(image_count), anew for each output set.
    """

    def __init__(self, number: int, image_counts: Counts) -> None:
        """Prepares the draw of `number` classes; 0 for all classes, always.

        A class without an image is never drawn, and counts only where it is present.
        """
        super().__init__()
        self.number = number
        weights = torch.as_tensor(image_counts, dtype=torch.float32).sqrt()
        if number and not (weights > 0).any():
            raise ValueError(
                f"no class has an image among {len(weights)} image counts: give the counts of the "
                "training set, or set loss.federated_classes=0"
            )
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, labels: Tensor, num_sets: int) -> Tensor | None:
        """True for each class that counts in each of S output sets [S, C], or None for all.

        `labels` are those of the batch [N]; -1 is ignored.
        """
        if not self.number:
            return None
        present = torch.zeros_like(self.weights, dtype=torch.bool)
        present[labels[labels >= 0]] = True
        # The winners of a race with exponential arrival times are a weighted draw without
        # replacement; the present classes start as winners.
        times = torch.empty(num_sets, len(present), device=present.device).exponential_()
        speed = (self.weights / times).masked_fill(present, torch.inf)
        best = speed.topk(min(self.number, len(present)), dim=1)
        drawn = torch.zeros_like(speed, dtype=torch.bool).scatter(1, best.indices, best.values > 0)
        return drawn | present


class _SayNo(torch.autograd.Function):
    """Focal loss of negatives, summed over the classes that count: [S, B, Q, C] -> [S, B, Q].

    This is the criterion's only large tensor. Value and slope share their factors, so writing the
    slope down beside the value takes half the time and a fraction of the memory of autograd.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, classes: Tensor | None) -> Tensor:  # [S, B or 1, C]
        probability = torch.sigmoid(logits)
        loss = F.softplus(logits)
        factor = probability**GAMMA
        factor *= 1 - ALPHA if classes is None else (1 - ALPHA) * classes[:, :, None]
        if ctx.needs_input_grad[0]:
            slope = torch.addcmul(probability, loss, 1 - probability, value=GAMMA)
            ctx.save_for_backward(slope.mul_(factor))
        return loss.mul_(factor).sum(dim=-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return gradient[..., None] * slope, None
