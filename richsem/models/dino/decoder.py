"""The decoder: queries refine boxes layer by layer, looking forward twice (METHOD 2.1-2.3)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from richsem.models.deformable import DeformableAttention
from richsem.models.dino.positions import Pyramid, box_code, inverse_sigmoid
from richsem.models.heads import MLP, box_head


class DecoderLayer(nn.Module):
    """Self-attention among queries, deformable attention to the memory, feed-forward network."""

    def __init__(self, dim: int, heads: int, levels: int, points: int, ffn: int) -> None:
        super().__init__()
        self.self_attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.self_norm = nn.LayerNorm(dim)
        self.cross_attention = DeformableAttention(dim, heads, levels, points)
        self.cross_norm = nn.LayerNorm(dim)
        self.linear1, self.linear2 = nn.Linear(dim, ffn), nn.Linear(ffn, dim)
        self.ffn_norm = nn.LayerNorm(dim)

    def forward(
        self,
        content: Tensor,
        position: Tensor,
        references: Tensor,
        memory: Tensor,
        pyramid: Pyramid,
        mask: Tensor | None,
        missing: Tensor | None,
    ) -> Tensor:
        """Content and position [B, Q, dim], references [B, Q, L or 1, 4] -> content [B, Q, dim]."""
        query = content + position
        seen, _ = self.self_attention(
            query, query, content, missing, need_weights=False, attn_mask=mask
        )
        content = self.self_norm(content + seen)
        seen = self.cross_attention(
            content + position, references, memory, pyramid.shapes, pyramid.padding
        )
        content = self.cross_norm(content + seen)
        return self.ffn_norm(content + self.linear2(F.relu(self.linear1(content))))


@dataclass(frozen=True)
class Decoded:
    """What L layers made of the queries."""

    hidden: Tensor  # normalised states [L, B, Q, dim]
    boxes: Tensor  # cxcywh in 0..1 [L, B, Q, 4]
    last_references: Tensor  # boxes that entered the last layer [B, Q, 4], without gradient


class Decoder(nn.Module):
    """Decoder layers with one box head for all of them."""

    def __init__(
        self, layers: Sequence[DecoderLayer], dim: int, queries: int, checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.content = nn.Embedding(queries, dim)
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(dim)
        self.position = MLP(2 * dim, dim, dim)
        self.boxes = box_head(dim)
        self.checkpointing = checkpointing

    def forward(
        self,
        content: Tensor,
        box_logits: Tensor,
        memory: Tensor,
        pyramid: Pyramid,
        mask: Tensor | None = None,
        missing: Tensor | None = None,
    ) -> Decoded:
        """Refines queries with content [B, Q, dim] on a memory [B, S, dim].

        `box_logits` are their first boxes, before the sigmoid, without gradient [B, Q, 4]; `mask`
        is True where a query (row) must not see another (column) [Q, Q], `missing` where a query
        must not be seen by any [B, Q].
        """
        ratios = torch.cat([pyramid.ratios, pyramid.ratios], -1)[:, None]  # [B, 1, L, 4]
        reference = box_logits.sigmoid()
        start = reference  # of the box that is reported; keeps the previous layer's gradient
        hidden, boxes = [], []
        for i, layer in enumerate(self.layers):
            entering = reference
            references = reference[:, :, None] * ratios
            position = self.position(box_code(references[:, :, 0], content.shape[-1] // 2))
            arguments = (content, position, references, memory, pyramid, mask, missing)
            if self.checkpointing and self.training:
                content = checkpoint(layer, *arguments, use_reentrant=False)
            else:
                content = layer(*arguments)
            hidden.append(self.norm(content))
            # The same head twice: with the norm for the reported box, without it for the next
            # reference. Published weights depend on it.
            boxes.append((self.boxes(hidden[-1]) + inverse_sigmoid(start)).sigmoid())
            if i + 1 < len(self.layers):
                start = (self.boxes(content) + inverse_sigmoid(reference)).sigmoid()
                reference = start.detach()
        return Decoded(torch.stack(hidden), torch.stack(boxes), entering)
