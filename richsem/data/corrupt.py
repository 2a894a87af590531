"""Worse annotations than there are: box noise and dropped boxes (supplement Figures 1 and 2)."""

from dataclasses import replace

import numpy as np
from msgspec.structs import replace as with_fields

from richsem.data.box_sets import BoxDataset

MIN_SIDE = 1.0  # pixels that noise leaves of a side


def uniform_draws(num_boxes: int, seed: int) -> np.ndarray:
    """Draw U(-1, 1) for the four coordinates of each box, [A, 4].

    One set of draws serves all noise scales of a curve: neighbouring points then differ by the
    scale alone, and a few repeated seeds give its confidence band.
    """
    return np.random.default_rng(seed).uniform(-1.0, 1.0, size=(num_boxes, 4))


def jitter_boxes(
    boxes_xyxy: np.ndarray, scale: float, image_sizes: np.ndarray, draws: np.ndarray
) -> np.ndarray:
    """Move each corner by draw * scale * (width / 2 | height / 2) and clip to the image.

    The formula is the one of the detector's denoising queries. Up to scale 1 the corners never
    pass each other; beyond it they may, and are put in order again. A box left thinner than one
    pixel (or than the original, if that was thinner) is widened to this size about its middle,
    inside the image, so that every box keeps something to look at. Boxes [A, 4] are in pixels and
    inside their images of `image_sizes`, (height, width) of the one image or [A, 2] per box.
    """
    boxes = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
    if not (np.isfinite(scale) and scale >= 0):
        raise ValueError(f"noise scale is {scale!r}, expected a finite number >= 0")
    if np.shape(draws) != boxes.shape:
        raise ValueError(f"draws have shape {np.shape(draws)}, expected {boxes.shape}")
    if scale == 0:
        return np.array(boxes_xyxy)
    sides = boxes[:, 2:] - boxes[:, :2]
    moved = boxes + draws * scale * np.tile(sides / 2, 2)
    low = np.minimum(moved[:, :2], moved[:, 2:])
    high = np.maximum(moved[:, :2], moved[:, 2:])
    limits = np.broadcast_to(np.asarray(image_sizes)[..., ::-1], low.shape)
    low, high = np.clip(low, 0, limits), np.clip(high, 0, limits)
    least = np.minimum(MIN_SIDE, sides)
    thin, start = high - low < least, np.clip((low + high - least) / 2, 0, limits - least)
    low, high = np.where(thin, start, low), np.where(thin, start + least, high)
    return np.concatenate([low, high], axis=1).astype(np.asarray(boxes_xyxy).dtype)


def drop_annotations(dataset: BoxDataset, fraction: float, seed: int = 0) -> BoxDataset:
    """Remove a fraction of the boxes uniformly at random (METHOD 5).

    Every category keeps at least one of its boxes and every image stays, even without boxes. One
    seed gives nested sets: what is left at 0.8 is part of what is left at 0.5, so the points of a
    curve differ by the fraction alone. The lists of absent and of not exhaustively annotated
    classes stay as they are, also where the last box of a class is gone: the object is in the
    image, it is just not marked. Categories are recounted; their frequency groups stay those of
    the complete set.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction of dropped annotations is {fraction!r}, expected 0 to 1")
    if fraction == 0:
        return dataset
    order = np.random.default_rng(seed).permutation(len(dataset.labels))
    _, first = np.unique(dataset.labels[order], return_index=True)
    # The first box of each class in this order goes to the front: it is dropped last.
    last_ones = np.zeros(len(order), dtype=bool)
    last_ones[first] = True
    order = np.concatenate([order[last_ones], order[~last_ones]])
    num_kept = max(len(first), len(order) - round(fraction * len(order)))
    kept = np.sort(order[:num_kept])
    name = f"{dataset.name}, {fraction:.0%} of boxes dropped"
    reduced = dataset.changed(kept, name=name, **dataset.boxes_at(kept))
    columns = (dataset.frequency_groups(), reduced.image_counts(), reduced.instance_counts())
    rows = zip(dataset.categories, *(column.tolist() for column in columns), strict=True)
    categories = tuple(
        with_fields(category, frequency=group, image_count=shown, instance_count=boxes)
        for category, group, shown, boxes in rows
    )
    return replace(reduced, categories=categories)
