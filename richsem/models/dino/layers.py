"""What encoder, proposals and decoder share: the pyramid of tokens and the box head."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from richsem.models.dino.positions import cell_centres, level_padding, map_code, valid_ratio
from richsem.models.heads import MLP


def box_head(dim: int) -> MLP:
    """Three layers to box logits, starting at "no change" (METHOD 2.6)."""
    head = MLP(dim, dim, dim, 4)
    nn.init.zeros_(head.layers[-1].weight)
    nn.init.zeros_(head.layers[-1].bias)
    return head


@dataclass(frozen=True)
class Pyramid:
    """Feature maps of all levels as one row of tokens, and their geometry."""

    tokens: Tensor  # [B, S, dim], finest level first, row by row
    positions: Tensor  # sine code plus level embedding [B or 1, S, dim]
    shapes: Sequence[tuple[int, int]]  # (height, width) of each level
    padding: Tensor | None  # True on padding [B, S]; None if no image is padded
    ratios: Tensor  # part of each map that is image, along x and y [B or 1, L, 2]
    centres: Tensor  # (x, y) of every cell in 0..1 of the un-padded image [B or 1, S, 2]

    @property
    def sizes(self) -> list[int]:
        """Tokens per level."""
        return [height * width for height, width in self.shapes]


def build_pyramid(maps: Sequence[Tensor], padding: Tensor | None, level_embed: Tensor) -> Pyramid:
    """Flatten maps [B, dim, h, w] and compute what depends on their shapes and padding alone."""
    shapes = [tuple(level.shape[-2:]) for level in maps]
    like = maps[0]
    dim = like.shape[1]
    if padding is None:
        masks = [like.new_zeros((1, *shape), dtype=torch.bool) for shape in shapes]
    else:
        masks = level_padding(padding, shapes)
    pairs = zip(masks, level_embed, strict=True)
    codes = [map_code(mask, dim) + embed for mask, embed in pairs]  # [B or 1, h * w, dim] each
    ratios = torch.stack([valid_ratio(mask) for mask in masks], 1)  # [B or 1, L, 2]
    sizes = [height * width for height, width in shapes]
    repeats, total = torch.tensor(sizes, device=like.device), sum(sizes)
    # Told how many there will be, an accelerator need not be waited for.
    own_ratio = ratios.repeat_interleave(repeats, 1, output_size=total)
    return Pyramid(
        # [B, dim, h, w] of each level -> [B, S, dim]
        tokens=torch.cat([level.flatten(2) for level in maps], 2).transpose(1, 2),
        positions=torch.cat(codes, 1),
        shapes=shapes,
        padding=None if padding is None else torch.cat([mask.flatten(1) for mask in masks], 1),
        ratios=ratios,
        centres=cell_centres(shapes, like) / own_ratio,
    )
