"""Where things are (METHOD 2.1): sine codes, reference boxes, and maps as one row of tokens."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

BOX_FLOOR = 1e-3


def inverse_sigmoid(x: Tensor) -> Tensor:
    """Logit of x clamped to [0, 1], with both odds at least 1e-3 (so |logit| <= 6.9)."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=BOX_FLOOR) / (1 - x).clamp(min=BOX_FLOOR))


def sine_code(positions: Tensor, dim: int, temperature: float) -> Tensor:
    """Sines and cosines, interleaved, at `dim / 2` frequencies: [...] -> [..., dim]."""
    index = torch.arange(dim // 2, dtype=positions.dtype, device=positions.device)
    phase = positions[..., None] / temperature ** (2 * index / dim)
    return torch.stack([phase.sin(), phase.cos()], -1).flatten(-2)


def map_code(padding: Tensor, dim: int, temperature: Sequence[float] = (20.0, 20.0)) -> Tensor:
    """Sine code of every cell: padding [B, h, w] -> [B, h * w, dim], y in the first half, x next.

    `temperature` is that of the y and the x axis.
    """
    valid = (~padding).float()
    codes = []
    for axis, heat in zip((1, 2), temperature, strict=True):
        count = valid.cumsum(axis)  # in valid cells, normalised to 2 pi
        last = count.select(axis, -1).unsqueeze(axis)
        codes.append(sine_code(count / (last + 1e-6) * 2 * math.pi, dim // 2, heat))
    return torch.cat(codes, -1).flatten(1, 2)


def box_code(boxes: Tensor, dim: int) -> Tensor:
    """Sine code of boxes or points [..., 4 or 2] in the order y, x, w, h: [..., 4 * dim]."""
    order = [1, 0, *range(2, boxes.shape[-1])]
    return sine_code(boxes[..., order] * 2 * math.pi, dim, 10000.0).flatten(-2)


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
    like = maps[0]
    shapes = [tuple(level.shape[-2:]) for level in maps]
    pixels = None if padding is None else padding[:, None].float()
    masks, codes, ratios, centres = [], [], [], []
    for (height, width), embed in zip(shapes, level_embed, strict=True):
        if pixels is None:
            mask = like.new_zeros((1, height, width), dtype=torch.bool)
        else:  # by the nearest pixel
            mask = F.interpolate(pixels, size=(height, width))[:, 0] > 0.5
        masks.append(mask.flatten(1))
        codes.append(map_code(mask, like.shape[1]) + embed)  # [B or 1, h * w, dim]
        rows, columns = (~mask[:, :, 0]).sum(1), (~mask[:, 0]).sum(1)
        ratios.append(torch.stack([columns / width, rows / height], -1))
        y = (torch.arange(height, dtype=like.dtype, device=like.device) + 0.5) / height
        x = (torch.arange(width, dtype=like.dtype, device=like.device) + 0.5) / width
        grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)
        centres.append(grid.flatten(0, 1) / ratios[-1][:, None])  # [B or 1, h * w, 2]
    return Pyramid(
        # [B, dim, h, w] of each level -> [B, S, dim]
        tokens=torch.cat([level.flatten(2) for level in maps], 2).transpose(1, 2),
        positions=torch.cat(codes, 1),
        shapes=shapes,
        padding=None if padding is None else torch.cat(masks, 1),
        ratios=torch.stack(ratios, 1),
        centres=torch.cat(centres, 1),
    )
