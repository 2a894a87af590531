"""Mosaics: four weakly labelled images on one canvas, each tile a box of its own (METHOD 1.3).

A tile is a coarse box whose label is known, at a scale and in surroundings that a detector meets.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from richsem.data.transforms import Picture, between, resize

NUM_TILES = 4


@dataclass(frozen=True, kw_only=True)
class MosaicConfig:
    """Size and background of a mosaic."""

    side: int = 640  # longest side of a tile in pixels; the canvas is a square of twice this side
    fill: int = 114  # grey of the canvas where no tile lies, 0 to 255

    def __post_init__(self) -> None:
        """Refuses an empty canvas and a grey that is none."""
        if self.side < 2 or not 0 <= self.fill <= 255:
            raise ValueError(
                f"side {self.side!r} and fill {self.fill!r}, expected side >= 2 and fill 0 to 255"
            )


def mosaic(tiles: Sequence[Picture], config: MosaicConfig, rng: torch.Generator) -> Picture:
    """Lay four pictures around a random centre.

    The centre is drawn from the middle half of the canvas. Each tile is scaled to fit a square of
    `config.side`, touches the centre with one corner (in the order top left, top right, bottom
    left, bottom right) and is cut off where it leaves the canvas; its boxes with it.
    """
    if len(tiles) != NUM_TILES:
        raise ValueError(f"a mosaic has {NUM_TILES} tiles, got {len(tiles)}")
    side = config.side
    canvas = tiles[0].image.new_full((3, 2 * side, 2 * side), config.fill)
    centre_y, centre_x = (between(side // 2, 2 * side - side // 2, rng) for _ in range(2))
    boxes = []
    for place, tile in enumerate(tiles):
        tile = resize(tile, _fitted_size(tile.size, side))
        height, width = tile.size
        # Tiles 0 and 1 lie above the centre, 0 and 2 to its left.
        top = centre_y if place >= 2 else centre_y - height
        left = centre_x if place % 2 else centre_x - width
        low_y, high_y = max(top, 0), min(top + height, 2 * side)
        low_x, high_x = max(left, 0), min(left + width, 2 * side)
        canvas[:, low_y:high_y, low_x:high_x] = tile.image[
            :, low_y - top : high_y - top, low_x - left : high_x - left
        ]
        boxes.append(tile.boxes_xyxy + torch.tensor([left, top] * 2))
    return Picture(
        image=canvas,
        boxes_xyxy=torch.cat(boxes).clamp(0, 2 * side),
        labels=torch.cat([tile.labels for tile in tiles]),
    )


def _fitted_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Height and width with the longer side scaled to `side`."""
    longest = max(size)
    height, width = (max(1, n * side // longest) for n in size)
    return height, width
