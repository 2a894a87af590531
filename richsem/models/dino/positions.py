"""Where things are: sine codes, reference boxes, and what padding does to both (METHOD 2.1)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

BOX_FLOOR = 1e-3


def inverse_sigmoid(x: Tensor) -> Tensor:
    """Logit of x clamped to [0, 1], with both odds at least 1e-3 (so |logit| <= 6.9)."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=BOX_FLOOR) / (1 - x).clamp(min=BOX_FLOOR))


def level_padding(padding: Tensor, shapes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Padding of an image [B, H, W] at each level, by the nearest pixel: list of [B, h, w]."""
    pixels = padding[:, None].float()
    return [F.interpolate(pixels, size=shape)[:, 0] > 0.5 for shape in shapes]


def valid_ratio(padding: Tensor) -> Tensor:
    """Part of a map [B, h, w] that is image, along x and y: [B, 2]."""
    height, width = padding.shape[-2:]
    rows, columns = (~padding[:, :, 0]).sum(1), (~padding[:, 0]).sum(1)
    return torch.stack([columns / width, rows / height], -1)


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


def cell_centres(shapes: Sequence[tuple[int, int]], like: Tensor) -> Tensor:
    """(x, y) of every cell's centre in 0..1 of its own map, levels concatenated: [S, 2]."""
    centres = []
    for height, width in shapes:
        y = (torch.arange(height, dtype=like.dtype, device=like.device) + 0.5) / height
        x = (torch.arange(width, dtype=like.dtype, device=like.device) + 0.5) / width
        grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)
        centres.append(grid.flatten(0, 1))
    return torch.cat(centres)
