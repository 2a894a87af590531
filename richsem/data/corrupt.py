"""Box noise of supplement Figure 1: how wrong may a box be before CLIP loses the object?"""

from __future__ import annotations

import numpy as np

MIN_SIDE = 1.0


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
    inside the image, so that every box keeps something to look at.

    Args:
        boxes_xyxy: [A, 4] in pixels, inside their images.
        scale: noise scale, 0 leaves the boxes as they are.
        image_sizes: (height, width) of the one image, or [A, 2] per box.
        draws: [A, 4] in [-1, 1], see `uniform_draws`.

    Returns:
        Moved boxes, xyxy, [A, 4], of the input's floating type.

    Raises:
        ValueError: the scale is negative or not finite, or the shapes do not fit.
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
    low, high = _widen(low, high, np.minimum(MIN_SIDE, sides), limits)
    return np.concatenate([low, high], axis=1).astype(np.asarray(boxes_xyxy).dtype)


def _widen(
    low: np.ndarray, high: np.ndarray, min_sides: np.ndarray, limits: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Give every side its least length about its middle, without leaving the image."""
    thin = high - low < min_sides
    start = np.clip((low + high - min_sides) / 2, 0, limits - min_sides)
    return np.where(thin, start, low), np.where(thin, start + min_sides, high)
