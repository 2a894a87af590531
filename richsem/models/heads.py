"""What both detectors have: MLPs, class heads (METHOD 1.5), classes as text, best detections."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from richsem.boxes import in_pixels

Sizes = Tensor | Sequence[tuple[int, int]]  # height and width in pixels of each image [B, 2]
Detected = tuple[Tensor, Tensor, Tensor]  # scores [N], class indices [N], xyxy in pixels [N, 4]
ClassifierKind = Literal["linear", "text", "agnostic"]

PRIOR = 0.01  # probability of a class that a linear classifier starts from


class MLP(nn.Module):
    """Linear layers with ReLU in between."""

    def __init__(self, *dims: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(dims))

    def forward(self, x: Tensor) -> Tensor:
        """[..., dims[0]] -> [..., dims[-1]]."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


def box_head(dim: int) -> MLP:
    """Three layers to box logits, starting at "no change" (METHOD 2.6)."""
    head = MLP(dim, dim, dim, 4)
    nn.init.zeros_(head.layers[-1].weight)
    nn.init.zeros_(head.layers[-1].bias)
    return head


def group_norm(dim: int) -> nn.GroupNorm:
    """Normalises 32 groups of channels, or groups of 8 where 32 do not come out even."""
    if dim % 8:
        raise ValueError(f"dim {dim} is not a multiple of 8, the width of a group (GroupNorm)")
    return nn.GroupNorm(32 if dim % 32 == 0 else dim // 8, dim)


class LinearClassifier(nn.Linear):
    """Logits = W h + b, starting at probability .01 for every class."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__(dim, num_classes)
        nn.init.constant_(self.bias, -math.log((1 - PRIOR) / PRIOR))

    def forward(self, hidden: Tensor, text: Tensor, scale: Tensor | float) -> Tensor:
        """Hidden states [..., dim] -> logits [..., C]; text and scale are not needed."""
        return super().forward(hidden)


class TextClassifier(nn.Module):
    """Logits = tau cos(H h, F) with a projection H and frozen text features F.

    Used as class head, as encoder head and, with its own projection, as the semantic branch.
    """

    def __init__(self, dim: int, text_dim: int, bias: bool = False, affine: bool = False) -> None:
        """`bias`: one learnt number is added to all logits; `affine`: the projection has a bias."""
        super().__init__()
        self.projection = nn.Linear(dim, text_dim, bias=affine)
        nn.init.normal_(self.projection.weight, std=text_dim**-0.5)
        self.bias = nn.Parameter(torch.tensor(-math.log((1 - PRIOR) / PRIOR))) if bias else None

    def forward(self, hidden: Tensor, text: Tensor, scale: Tensor | float) -> Tensor:
        """Hidden states [..., dim], raw text features [C, D], tau -> logits [..., C]."""
        projected = self.projection(hidden)
        # tau of 100 on half-precision cosines would leave steps of a quarter between logits.
        kind = hidden.device.type  # "meta" tensors are shapes and have no precision to guard
        with nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False):
            directions = F.normalize(projected.float(), dim=-1)
            logits = F.linear(scale * directions, F.normalize(text, dim=-1))
        return logits if self.bias is None else logits + self.bias


def build_classifier(
    kind: ClassifierKind, dim: int, config: Any, affine: bool = False
) -> nn.Module:
    """The class head of a kind for a detector's configuration; `agnostic` has one class."""
    if kind == "text":
        return TextClassifier(dim, config.text_dim, config.class_bias, affine)
    return LinearClassifier(dim, config.num_classes if kind == "linear" else 1)


class WithVocabulary(nn.Module):
    """A detector that compares with CLIP's text features; CLIP itself is not needed for that."""

    text: Tensor  # raw text features F [C, D]; a buffer
    log_scale: Tensor  # logarithm of tau, the factor on cosines; a buffer

    def __init__(self, config: Any, text: Tensor | None = None) -> None:
        """Without raw text features F [C, D], weights must be loaded that hold them."""
        super().__init__()
        self.config = config
        # NaN, not zero: a vocabulary that was never set must not look like a weak model.
        unset = torch.full((config.num_classes, config.text_dim), torch.nan)
        self.register_buffer("text", unset)
        self.register_buffer("log_scale", torch.tensor(math.log(config.scale)))
        if text is not None:
            self.set_vocabulary(text)

    def set_vocabulary(self, text: Tensor) -> None:
        """Takes raw text features F [C, D]; CLIP itself is not needed from then on."""
        if text.shape != self.text.shape:
            raise ValueError(
                f"text features {tuple(text.shape)} do not fit num_classes and text_dim "
                f"{tuple(self.text.shape)} of the detector"
            )
        self.text.copy_(text)

    def inference_state(self) -> dict[str, Tensor]:
        """State dict without what only training needs: semantic branches and label embedding."""
        unused = (".semantic.", ".label_embedding.")
        state = self.state_dict().items()
        return {name: t for name, t in state if not any(part in f".{name}" for part in unused)}


def postprocess(
    logits: Tensor, boxes: Tensor, sizes_hw: Sizes, max_dets: int = 300
) -> list[Detected]:
    """Picks the highest class scores of each image; a query may be picked for several classes.

    From logits [B, Q, C] and boxes, cxcywh in 0..1 [B, Q, 4], of the last layer to at most
    `max_dets` scores in descending order and boxes scaled to `sizes_hw`, usually the image files',
    which may reach beyond the image; boxes of one thing do not suppress each other. Logits of minus
    infinity are of queries that look at nothing and never picked.
    """
    num_classes = logits.shape[-1]
    # Chosen by logit: sigmoid makes ties of high ones.
    pairs = logits.float().flatten(1)  # [B, Q * C]
    best, places = pairs.topk(min(max_dets, pairs.shape[1]), dim=1)
    scores = best.sigmoid()
    queries, labels = places // num_classes, places % num_classes
    sizes = torch.as_tensor(sizes_hw).to(boxes.device, torch.float32)
    corners = in_pixels(boxes.float(), sizes[:, None])  # [B, Q, 4]
    corners = corners.gather(1, queries[..., None].expand(-1, -1, 4))
    columns = zip(best, scores, labels, corners, strict=True)
    return [tuple(v[logit != -torch.inf] for v in own) for logit, *own in columns]
