"""Mixed query selection: which encoder tokens become the decoder's first boxes (METHOD 2.2)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from richsem.models.dino.positions import Pyramid
from richsem.models.heads import box_head

ANCHOR = 0.05  # side of an anchor at the finest level; doubles with each level
INSIDE = (0.01, 0.99)  # anchors with a coordinate outside are not used


@dataclass(frozen=True)
class Selected:
    """The Q best tokens of each image."""

    logits: Tensor  # class logits [B, Q, C]
    box_logits: Tensor  # cxcywh before the sigmoid [B, Q, 4]
    index: Tensor  # token index [B, Q]
    # True where an image has no token left, and its query takes part in nothing [B, Q]; None if no
    # image is padded.
    missing: Tensor | None


class Proposals(nn.Module):
    """Scores every token and refines its anchor; keeps the `queries` best."""

    def __init__(
        self, dim: int, queries: int, classifier: nn.Module, padding_too: bool = False
    ) -> None:
        """`padding_too`: tokens of padding may be kept as well, as published (METHOD 7)."""
        super().__init__()
        self.queries, self.padding_too = queries, padding_too
        self.memory = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.classifier = classifier
        self.boxes = box_head(dim)

    def forward(self, memory: Tensor, pyramid: Pyramid, text: Tensor, scale: Tensor) -> Selected:
        """Memory [B, S, dim] -> the selected tokens' predictions, best first."""
        anchors, unusable = anchor_logits(pyramid)
        hidden = self.norm(self.memory(memory.masked_fill(unusable[..., None], 0.0)))
        logits = self.classifier(hidden, text, scale)
        count = min(self.queries, memory.shape[1])
        score, padding = logits.max(-1).values, None if self.padding_too else pyramid.padding
        if padding is not None:
            score = score.masked_fill(padding, -torch.inf)
        index = score.topk(count, dim=1).indices

        def pick(tensor: Tensor) -> Tensor:
            wide = index[..., None].expand(-1, -1, tensor.shape[-1])
            return tensor.expand(len(memory), -1, -1).gather(1, wide)

        # Boxes are needed for the selected tokens only: on 800 px images that is 1 in 20.
        boxes, missing = self.boxes(pick(hidden)) + pick(anchors), None
        if padding is not None:
            missing = padding.gather(1, index)
            boxes = boxes.masked_fill(missing[..., None], -torch.inf)  # no size: never the largest
        return Selected(pick(logits), boxes, index, missing)


def anchor_logits(pyramid: Pyramid) -> tuple[Tensor, Tensor]:
    """One anchor per token, as logits [B or 1, S, 4] (infinite if unusable), and which are not."""
    places = enumerate(pyramid.centres.split(pyramid.sizes, 1))
    sides = [torch.full_like(centres, ANCHOR * 2.0**level) for level, centres in places]
    anchors = torch.cat([pyramid.centres, torch.cat(sides, 1)], -1)
    unusable = ~((anchors > INSIDE[0]) & (anchors < INSIDE[1])).all(-1)
    if pyramid.padding is not None:
        unusable = unusable | pyramid.padding
    logits = torch.log(anchors / (1 - anchors)).masked_fill(unusable[..., None], torch.inf)
    return logits, unusable
