"""The second stage: regions are pooled, named and moved, three times over (METHOD 3.3)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from richsem.boxes import Coding
from richsem.models.heads import MLP, TextClassifier

_USUAL_SIDE, _USUAL_STRIDE = 224, 16  # a box of this side is pooled from the map of this stride


class Stage(nn.Module):
    """Pooled features to class logits and corrections of boxes, with weights of its own."""

    def __init__(
        self,
        inputs: int,
        hidden: int,
        box_layers: int,
        classifier: nn.Module,
        coding: Coding,
        semantic: TextClassifier | None,
    ) -> None:
        """Builds a stage; `inputs` is the number of pooled values of a region."""
        super().__init__()
        self.body = MLP(inputs, hidden, hidden)
        self.classifier = classifier
        self.boxes = MLP(*[hidden] * box_layers, 4)
        self.coding = coding
        self.semantic = semantic
        for layer in self.body.layers:
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.boxes.layers[-1].weight, std=0.001)
        nn.init.zeros_(self.boxes.layers[-1].bias)

    def forward(
        self, pooled: Tensor, text: Tensor, class_scale: Tensor, scale: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Logits [R, C], corrections [R, 4] and semantic logits [R, C] of regions [R, dim, p, p].

        `class_scale` is the factor on cosines of the classifier, `scale` that of the semantic
        branch, which is tau.
        """
        hidden = F.relu(self.body(pooled.flatten(1)))
        logits = self.classifier(hidden, text, class_scale)
        semantic = None
        if self.training and self.semantic is not None:
            semantic = self.semantic(hidden, text, scale)
        return logits, self.boxes(hidden), semantic


def pool_regions(
    levels: Sequence[Tensor],
    strides: Sequence[int],
    images: Tensor,
    boxes: Tensor,
    size: int,
    samples: int,
) -> Tensor:
    """RoIAlign, each region from the level that suits its size: [R, dim, p, p].

    Args:
        levels: Maps [B, dim, h, w], finest first.
        strides: Of the levels.
        images: Image of each region [R].
        boxes: xyxy in pixels [R, 4].
        size: Side p of the result.
        samples: Points per bin and axis; 0 takes as many as the bin has cells.
    """
    # [R, 5], as RoIAlign wants them
    places = torch.cat([images[:, None].to(boxes), boxes], dim=1)
    best = best_level(boxes, strides)
    pooled = levels[0].new_zeros(boxes.shape[0], levels[0].shape[1], size, size)
    for number, (level, stride) in enumerate(zip(levels, strides, strict=True)):
        own = (best == number).nonzero()[:, 0]
        found = roi_align(level, places[own].to(level.dtype), size, 1 / stride, samples, True)
        pooled = pooled.index_put((own,), found)
    return pooled


def best_level(boxes: Tensor, strides: Sequence[int]) -> Tensor:
    """The level to pool each box [R, 4] from: 224 pixels belong to stride 16, 448 to 32, ..."""
    side = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1).sqrt()
    octave = torch.floor(torch.log2(side / _USUAL_SIDE + 1e-8)) + math.log2(_USUAL_STRIDE)
    return (octave - math.log2(strides[0])).clamp(0, len(strides) - 1).long()
