"""What others do to the class loss for the long tail: their remedies, on the sigmoid focal loss.

All of them know a class by its number of training images.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from richsem.structures import Target

# Which classes an object of another class says no to less often.
Relief = Literal["none", "equalised", "seesaw"]
SEESAW_POWER = 0.8  # p of Wang et al. (2021)


def spared(relief: Relief, image_counts: Tensor, tail: int) -> Tensor | None:
    """The part of its no that class j is spared where an object of class i is [C, C].

    Equalised (Tan et al. 2020, EQL, equation 4): none where j has at most `tail` training images.
    Seesaw (Wang et al. 2021, mitigation factor, equation 4): the no counts (N_j / N_i)^p where j is
    rarer than i; its second factor, which needs class scores that sum to one, is left out.
    """
    if relief == "none":
        return None
    if relief == "equalised":
        found = (image_counts <= tail).float().repeat(len(image_counts), 1)
    else:
        counts = image_counts.float().clamp(min=1)
        found = 1 - (counts / counts[:, None]).clamp(max=1) ** SEESAW_POWER
    return found.fill_diagonal_(0)


def log_prior(strength: float, image_counts: Tensor) -> Tensor | None:
    """Logit adjustment (Menon et al. 2021, equation 10): what is added to logits in training [C].

    `strength` (tau there) times the logarithm of a class's images, as parts of those of the most
    frequent one. At inference it is left out, so that rare classes score as if they were frequent.
    """
    if not strength:
        return None
    counts = image_counts.float().clamp(min=1)
    return strength * torch.log(counts / counts.max())


def slipped(choices: Tensor, share: float, number: int) -> Tensor:
    """Choices among `number` queries, of which a share, drawn anew, falls on any of them."""
    anything = torch.randint_like(choices, number)
    return torch.where(torch.rand(choices.shape, device=choices.device) < share, anything, choices)


def present_classes(targets: Sequence[Target], num_classes: int) -> Tensor:
    """True for the known classes of each image [1, B, C]."""
    present = [
        F.one_hot(target.labels[target.labels >= 0], num_classes).any(dim=0) for target in targets
    ]
    return torch.stack(present)[None]
