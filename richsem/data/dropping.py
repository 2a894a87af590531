"""Annotation dropping of supplement Figure 2: the same images with fewer boxes."""

import hashlib
from dataclasses import replace

import msgspec
import numpy as np

from richsem.data.box_sets import BoxDataset


def drop_annotations(dataset: BoxDataset, fraction: float, seed: int = 0) -> BoxDataset:
    """Remove a fraction of the boxes uniformly at random (METHOD 5).

    Every category keeps at least one of its boxes and every image stays, even without boxes. One
    seed gives nested sets: what is left at 0.8 is part of what is left at 0.5, so the points of a
    curve differ by the fraction alone. The lists of absent and of not exhaustively annotated
    classes stay as they are, also where the last box of a class is gone: the object is in the
    image, it is just not marked.

    Args:
        dataset: The complete annotations.
        fraction: Share of the boxes to remove; where one box per category is more than what
            should be left, that one is.
        seed: Seed of the order in which boxes go.

    Returns:
        The reduced set; counts of its categories are recounted, their frequency groups stay those
        of the complete set.

    Raises:
        ValueError: The fraction is outside 0 to 1.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction of dropped annotations is {fraction!r}, expected 0 to 1")
    if fraction == 0:
        return dataset
    order = np.random.default_rng(seed).permutation(len(dataset.labels))
    _, first = np.unique(dataset.labels[order], return_index=True)
    last_ones = np.zeros(len(order), dtype=bool)
    last_ones[first] = True
    order = np.concatenate([order[last_ones], order[~last_ones]])
    num_kept = max(len(first), len(order) - round(fraction * len(order)))
    kept = np.sort(order[:num_kept])
    digest = hashlib.sha256(dataset.content.encode() + kept.tobytes()).hexdigest()[:16]
    reduced = replace(
        dataset,
        name=f"{dataset.name}, {fraction:.0%} of boxes dropped",
        boxes_xyxy=dataset.boxes_xyxy[kept],
        labels=dataset.labels[kept],
        box_image=dataset.box_image[kept],
        annotation_ids=dataset.annotation_ids[kept],
        content=digest,
    )
    return _recounted(reduced, dataset.frequency_groups())


def _recounted(dataset: BoxDataset, groups: np.ndarray) -> BoxDataset:
    counts = zip(
        dataset.categories,
        groups.tolist(),
        dataset.image_counts().tolist(),
        dataset.instance_counts().tolist(),
        strict=True,
    )
    categories = tuple(
        msgspec.structs.replace(
            category, frequency=group, image_count=images, instance_count=instances
        )
        for category, group, images, instances in counts
    )
    return replace(dataset, categories=categories)
