"""The soft-label loss: the semantic branch imitates what CLIP sees in a box (METHOD 1, L_soft)."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def soft_label_loss(
    teacher: Tensor, student: Tensor, *, entropy_weight: bool = False, classes: Tensor | None = None
) -> Tensor:
    """KL(teacher || student), summed over classes and boxes: a scalar.

    The teacher gives class probabilities [N, C], the student logits [N, C]; `entropy_weight` weighs
    each box by 2 H / log C, where H is the teacher's entropy; `classes` is True for those to
    compare [C].
    """
    weight = 1.0
    if classes is not None:  # both sides are normalised over these
        teacher = teacher[:, classes]
        teacher = teacher / teacher.sum(dim=-1, keepdim=True).clamp(min=1e-12)
        student = student[:, classes]
    entropy = -torch.xlogy(teacher, teacher).sum(dim=-1)
    cross_entropy = -(teacher * F.log_softmax(student, dim=-1)).sum(dim=-1)
    if entropy_weight:
        weight = 2 * entropy / math.log(teacher.shape[-1])
    return (weight * (cross_entropy - entropy)).sum()
