"""The neck (backbone maps to levels of one width) and the encoder (METHOD 2.1)."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from richsem.models.deformable import DeformableAttention
from richsem.models.dino.positions import Pyramid
from richsem.models.heads import group_norm


class Neck(nn.Module):
    """Projects backbone maps to `dim` channels; further levels are strided 3x3 convolutions."""

    def __init__(self, channels: Sequence[int], dim: int, levels: int) -> None:
        super().__init__()
        if levels < len(channels):
            raise ValueError(f"{len(channels)} backbone maps do not fit into levels={levels}")
        convolutions = [nn.Conv2d(channel, dim, 1) for channel in channels]
        for i in range(levels - len(channels)):
            source = channels[-1] if i == 0 else dim
            convolutions.append(nn.Conv2d(source, dim, 3, stride=2, padding=1))
        for convolution in convolutions:
            nn.init.xavier_uniform_(convolution.weight)
            nn.init.zeros_(convolution.bias)
        self.projections = nn.ModuleList(
            nn.Sequential(convolution, group_norm(dim)) for convolution in convolutions
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Backbone maps [B, C_l, h, w] -> level maps [B, dim, h, w]."""
        given = self.projections[: len(features)]
        levels = [project(feature) for project, feature in zip(given, features, strict=True)]
        last = features[-1]
        for project in self.projections[len(features) :]:
            last = project(last)
            levels.append(last)
        return levels


class EncoderLayer(nn.Module):
    """Deformable self-attention over all levels, then a feed-forward network, both post-norm."""

    def __init__(self, dim: int, heads: int, levels: int, points: int, ffn: int) -> None:
        super().__init__()
        self.attention = DeformableAttention(dim, heads, levels, points)
        self.norm1 = nn.LayerNorm(dim)
        self.linear1, self.linear2 = nn.Linear(dim, ffn), nn.Linear(ffn, dim)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor, pyramid: Pyramid) -> Tensor:
        """Tokens [B, S, dim] -> [B, S, dim]."""
        # A cell's centre in the image, placed into the padded map of each level looked at.
        references = pyramid.centres[:, :, None] * pyramid.ratios[:, None]
        queries = tokens + pyramid.positions
        seen = self.attention(queries, references, tokens, pyramid.shapes, pyramid.padding)
        tokens = self.norm1(tokens + seen)
        return self.norm2(tokens + self.linear2(F.relu(self.linear1(tokens))))


class Encoder(nn.Module):
    """A stack of encoder layers without a final norm."""

    def __init__(self, layers: Sequence[EncoderLayer], checkpointing: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.checkpointing = checkpointing

    def forward(self, pyramid: Pyramid) -> Tensor:
        """Memory [B, S, dim]."""
        tokens = pyramid.tokens
        for layer in self.layers:
            if self.checkpointing and self.training:
                tokens = checkpoint(layer, tokens, pyramid, use_reentrant=False)
            else:
                tokens = layer(tokens, pyramid)
        return tokens
