"""Boxes of a batch as one list, and which annotation each of them answers for (METHOD 3.3)."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_iou

from richsem.boxes import clipped, in_pixels
from richsem.structures import Regions, Target

BACKGROUND = -1


def join(proposals: Sequence[tuple[Tensor, Tensor]]) -> Regions:
    """Boxes [N, 4] and scores [N] of each image as regions."""
    boxes, scores = zip(*proposals, strict=True)
    images = [torch.full_like(own, i, dtype=torch.long) for i, own in enumerate(scores)]
    return Regions(torch.cat(images), torch.cat(boxes), torch.cat(scores))


def joined(*parts: Regions) -> Regions:
    """Regions one after the other, nothing matched."""
    names = ("images", "boxes", "scores")
    return Regions(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def annotated_regions(targets: Sequence[Target], sizes: Tensor) -> Regions:
    """The annotated boxes of images of these heights and widths [B, 2], each its own answer."""
    pairs = zip(targets, sizes, strict=True)
    boxes = [in_pixels(target.boxes.float(), size) for target, size in pairs]
    regions = join([(own, own.new_ones(len(own))) for own in boxes])
    return replace(regions, rows=torch.arange(len(regions.boxes), device=sizes.device))


def matched(regions: Regions, annotated: Regions, threshold: float) -> Regions:
    """Regions with the annotation that each overlaps most, if the IoU is `threshold` or more."""
    rows = torch.full_like(regions.images, BACKGROUND)
    if len(annotated.boxes):
        overlap = box_iou(regions.boxes, annotated.boxes)
        overlap = overlap.where(regions.images[:, None] == annotated.images, -1.0)
        best, nearest = overlap.max(dim=1)
        rows = nearest.where(best >= threshold, BACKGROUND)
    return replace(regions, rows=rows)


def sampled(regions: Regions, num_images: int, number: int, positive_part: float) -> Regions:
    """At most `number` random regions of each image, at most a part of them not background.

    The order of images is kept; within an image those that answer for something come first.
    """

    def some(mask: Tensor, most: int) -> Tensor:
        places = mask.nonzero()[:, 0]
        return places[torch.randperm(len(places), device=mask.device)[:most]]

    chosen = []
    for image in range(num_images):
        own = regions.images == image
        positive = some(own & (regions.rows != BACKGROUND), int(number * positive_part))
        negative = some(own & (regions.rows == BACKGROUND), number - len(positive))
        chosen += [positive, negative]
    return regions[torch.cat(chosen)]


def with_whole_images(proposals: Sequence[tuple[Tensor, Tensor]], sizes: Tensor) -> Regions:
    """Proposals clipped to their images, and all of each image as its last region."""
    extended = []
    for (boxes, scores), size in zip(proposals, sizes, strict=True):
        whole = F.pad(size.flip(0), (2, 0))[None]
        extended.append((torch.cat([clipped(boxes, size), whole]), F.pad(scores, (0, 1), value=1)))
    return join(extended)
