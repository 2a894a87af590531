"""Parts that encoder, proposals and decoder share."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from richsem.models.dino.positions import cell_centres, level_padding, map_code, valid_ratio


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


@dataclass(frozen=True)
class Pyramid:
    """Feature maps of all levels as one row of tokens, and their geometry.

    Attributes:
        tokens: [B, S, dim], finest level first, row by row.
        positions: Sine code plus level embedding [B or 1, S, dim].
        shapes: (height, width) of each level.
        padding: True on padding [B, S]; None if no image is padded.
        ratios: Part of each map that is image, along x and y [B or 1, L, 2].
        centres: (x, y) of every cell in 0..1 of the un-padded image [B or 1, S, 2].
    """

    tokens: Tensor
    positions: Tensor
    shapes: Sequence[tuple[int, int]]
    padding: Tensor | None
    ratios: Tensor
    centres: Tensor

    @property
    def sizes(self) -> list[int]:
        """Tokens per level."""
        return [height * width for height, width in self.shapes]


def build_pyramid(
    maps: Sequence[Tensor], padding: Tensor | None, level_embed: Tensor, temperature: float = 20.0
) -> Pyramid:
    """Flatten maps [B, dim, h, w] and compute what depends on their shapes and padding alone."""
    shapes = [tuple(level.shape[-2:]) for level in maps]
    like = maps[0]
    dim = like.shape[1]
    if padding is None:
        masks = [like.new_zeros((1, *shape), dtype=torch.bool) for shape in shapes]
    else:
        masks = level_padding(padding, shapes)
    codes = [
        map_code(mask, dim, (temperature, temperature)) + embed
        for mask, embed in zip(masks, level_embed, strict=True)
    ]
    ratios = torch.stack([valid_ratio(mask) for mask in masks], 1)
    sizes = [height * width for height, width in shapes]
    repeats, total = torch.tensor(sizes, device=like.device), sum(sizes)
    # Told how many there will be, an accelerator need not be waited for.
    own_ratio = ratios.repeat_interleave(repeats, 1, output_size=total)
    return Pyramid(
        tokens=torch.cat([level.flatten(2) for level in maps], 2).transpose(1, 2),
        positions=torch.cat(codes, 1),
        shapes=shapes,
        padding=None if padding is None else torch.cat([mask.flatten(1) for mask in masks], 1),
        ratios=ratios,
        centres=cell_centres(shapes, like) / own_ratio,
    )
