"""Image augmentation: flip, multi-scale resizing and cropping, large-scale jitter, mosaics.

Every size is configuration, so a 128-pixel demo runs the same code as 800-pixel training, with
smaller numbers. All randomness comes from the generator passed in.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import msgspec
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from richsem.config import Positive, Share, Sides
from richsem.masks import COVERED, SIDE, resampled


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image with boxes, on its way through the augmentation."""

    image: Tensor  # RGB, uint8 [3, H, W]
    boxes_xyxy: Tensor  # float [N, 4] in pixels
    labels: Tensor  # class indices [N]; -1 where unknown
    rows: Tensor | None = None  # which of the image's annotations each box is [N]; None if coarse
    masks: Tensor | None = None  # of each box, over it [N, SIDE, SIDE]; None where nobody asks

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.image.shape[-2:]
        return height, width


@dataclass(frozen=True, kw_only=True)
class TransformConfig:
    """Augmentation of training images (METHOD 1.3, 2.7); the defaults are DINO's."""

    flip: Share = 0.5  # probability of a horizontal flip
    short_sides: Sides = tuple(range(480, 801, 32))  # in pixels, one is drawn
    max_side: Positive = 1333  # limit of the longer side
    crop: Share = 0.5  # probability of cutting out a window before the resizing to `short_sides`
    crop_short_sides: Sides = (400, 500, 600)  # before cropping, one is drawn
    crop_range: tuple[Positive, Positive] = (384, 600)  # shortest and longest side of the window
    # False makes every image a square of one of `short_sides`. Images of one size need no padding
    # and their features can be cached as one array.
    keep_aspect: bool = True

    def __post_init__(self) -> None:
        if self.crop_range[0] > self.crop_range[1]:
            raise ValueError(f"crop_range is {self.crop_range!r}, expected (shortest, longest)")

    def apply(self, picture: Picture, rng: torch.Generator) -> Picture:
        """Augment one picture; the same generator state gives the same bits.

        Boxes and their masks follow the image; a window clips them, and boxes it misses are dropped
        with their labels.
        """
        if chance(self.flip, rng):
            picture = flip(picture)
        if chance(self.crop, rng):
            short = pick(self.crop_short_sides, rng)
            picture = resize(picture, resized_size(picture.size, short))
            picture = crop(picture, _window(picture.size, self.crop_range, rng))
        short = pick(self.short_sides, rng)
        if not self.keep_aspect:
            return resize(picture, (short, short))
        return resize(picture, resized_size(picture.size, short, self.max_side))

    def evaluation(self) -> "TransformConfig":
        """The same sizes without randomness: resize to the largest of `short_sides`."""
        return replace(self, flip=0.0, crop=0.0, short_sides=(max(self.short_sides),))


@dataclass(frozen=True, kw_only=True)
class ScaleJitterConfig:
    """Large-scale jitter, how detectors of two stages are trained (METHOD 3.3)."""

    flip: Share = 0.5  # probability of a horizontal flip
    # The longer side is resized to this times a random scale, then a window of at most this side is
    # cut out at random.
    side: Positive = 640
    scales: tuple[float, float] = (0.1, 2.0)  # least and largest
    # At evaluation the shorter side gets the largest of these, the longer at most `max_side`.
    short_sides: Sides = (800,)
    max_side: Positive = 1333

    def __post_init__(self) -> None:
        if not 0 < self.scales[0] <= self.scales[1]:
            raise ValueError(f"scales is {self.scales!r}, expected (least, largest), above 0")

    def apply(self, picture: Picture, rng: torch.Generator) -> Picture:
        """Augment one picture; boxes follow as in `TransformConfig`."""
        if chance(self.flip, rng):
            picture = flip(picture)
        low, high = self.scales
        scale = low + (high - low) * torch.rand((), generator=rng).item()
        factor = scale * self.side / max(picture.size)
        picture = resize(picture, tuple(max(1, round(factor * n)) for n in picture.size))
        return crop(picture, _window(picture.size, (self.side, self.side), rng))

    def evaluation(self) -> TransformConfig:
        """Resizing without randomness, as for other detectors."""
        return TransformConfig(
            flip=0.0, crop=0.0, short_sides=(max(self.short_sides),), max_side=self.max_side
        )


Augmentation = TransformConfig | ScaleJitterConfig


def resized_size(
    size: tuple[int, int], short_side: int, max_side: int | None = None
) -> tuple[int, int]:
    """Height and width after resizing the shorter side to `short_side`, the longer capped.

    Rounds as DETR does, so that released checkpoints see the very sizes they were measured at.
    """
    low, high = min(size), max(size)
    if max_side is not None and high * short_side > max_side * low:
        short_side = max(1, round(max_side * low / high))
    long_side = int(short_side * high / low)
    height, width = size
    return (long_side, short_side) if height > width else (short_side, long_side)


def flip(picture: Picture) -> Picture:
    """Mirror left and right."""
    left, top, right, bottom = picture.boxes_xyxy.unbind(-1)
    width = picture.size[1]
    return replace(
        picture,
        image=picture.image.flip(-1),
        boxes_xyxy=torch.stack([width - right, top, width - left, bottom], dim=-1),
        masks=None if picture.masks is None else picture.masks.flip(-1),
    )


def resize(picture: Picture, size: tuple[int, int]) -> Picture:
    """Resize to (height, width), bilinear with antialiasing."""
    if size == picture.size:
        return picture
    (height, width), (new_height, new_width) = picture.size, size
    scale = torch.tensor([new_width / width, new_height / height] * 2)
    return replace(
        picture,
        image=tv.resize(picture.image, list(size), antialias=True),
        boxes_xyxy=picture.boxes_xyxy * scale,
    )


def crop(picture: Picture, window: tuple[int, int, int, int]) -> Picture:
    """Cut out a window (top, left, height, width); boxes are clipped, those outside dropped."""
    top, left, height, width = window
    whole = picture.boxes_xyxy - torch.tensor([left, top, left, top])
    boxes = whole.clamp(min=0).minimum(torch.tensor([width, height] * 2))
    inside = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    masks = picture.masks
    if masks is not None:
        visible = resampled(masks[inside], whole[inside], boxes[inside], (SIDE, SIDE))
        masks = visible >= COVERED
    return Picture(
        image=picture.image[:, top : top + height, left : left + width],
        boxes_xyxy=boxes[inside],
        labels=picture.labels[inside],
        rows=None if picture.rows is None else picture.rows[inside],
        masks=masks,
    )


def chance(probability: float, rng: torch.Generator) -> bool:
    """True with this probability; draws in any case, so later draws do not depend on it."""
    return torch.rand((), generator=rng).item() < probability


def pick(values: Sequence[int], rng: torch.Generator) -> int:
    """One of the values, each equally likely."""
    return values[between(0, len(values) - 1, rng)]


def between(low: int, high: int, rng: torch.Generator) -> int:
    """An integer from `low` to `high`, both included."""
    return int(torch.randint(low, high + 1, (), generator=rng))


def _window(
    size: tuple[int, int], limits: tuple[int, int], rng: torch.Generator
) -> tuple[int, int, int, int]:
    """Draw a window (top, left, height, width) with sides within `limits`, where these fit."""
    height, width = (between(min(limits[0], n), min(limits[1], n), rng) for n in size)
    top, left = between(0, size[0] - height, rng), between(0, size[1] - width, rng)
    return top, left, height, width


# --- mosaics: four weakly labelled images on one canvas, each a box of its own (METHOD 1.3) -------
# A tile is a coarse box whose label is known, at a scale and in surroundings a detector meets.

NUM_TILES = 4


@dataclass(frozen=True, kw_only=True)
class MosaicConfig:
    """Size and background of a mosaic."""

    # Longest side of a tile in pixels; the canvas is a square of twice this side.
    side: Annotated[int, msgspec.Meta(ge=2)] = 640
    fill: Annotated[int, msgspec.Meta(ge=0, le=255)] = 114  # grey of the canvas beside its tiles


def mosaic(tiles: Sequence[Picture], config: MosaicConfig, rng: torch.Generator) -> Picture:
    """Lay four pictures around a random centre.

    The centre is drawn from the middle half of the canvas. Each tile is scaled to fit a square of
    `config.side`, touches the centre with one corner (in the order top left, top right, bottom
    left, bottom right) and is cut off where it leaves the canvas; its boxes with it.
    """
    side = config.side
    canvas = tiles[0].image.new_full((3, 2 * side, 2 * side), config.fill)
    centre_y, centre_x = (between(side // 2, 2 * side - side // 2, rng) for _ in range(2))
    boxes = []
    for place, tile in enumerate(tiles):
        # The longer side is `side`.
        height, width = (max(1, length * side // max(tile.size)) for length in tile.size)
        tile = resize(tile, (height, width))
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
