"""Some images of a set in place of all: which ones, and how far off numbers on them may be."""

from dataclasses import replace

import numpy as np
from scipy import stats

from richsem.data.box_sets import BoxDataset
from richsem.data.sampling import shown_classes
from richsem.evaluation import Detections, GroundTruth

_LEFT_OUT = 20  # parts of the images, one of which is left out at a time


def stratified(dataset: BoxDataset, number: int) -> np.ndarray:
    """Positions of so many images with boxes, ascending, with as many classes as can be.

    Classes take turns, the rarest first: each names the next image that shows it, in an order that
    is drawn once and for all.
    """
    image, label = shown_classes(dataset)
    drawn = np.random.default_rng(0).permutation(len(dataset))[image]
    order = np.lexsort((drawn, label))
    turn = np.empty(len(order), dtype=np.int64)
    turn[order] = np.arange(len(order)) - np.searchsorted(label[order], label[order])
    named = image[np.lexsort((label, dataset.image_counts()[label], turn))]
    _, first = np.unique(named, return_index=True)
    return np.sort(named[np.sort(first)[:number]])


def margins(truth: GroundTruth, detections: Detections) -> dict[str, float]:
    """Half the 95 % interval of each number, as other images of this kind would give it.

    A jackknife: a twentieth of the images, drawn once and for all, is left out at a time.
    """
    ids = np.random.default_rng(0).permutation(truth.image_ids)
    rows, parts = [], min(_LEFT_OUT, len(ids))
    for part in np.array_split(ids, parts):
        kept = _of_images(truth, ~np.isin(truth.image_ids, part))
        rest = detections.select(np.isin(detections.image_id, kept.image_ids))
        rows.append(kept.judge(rest).metrics)
    found = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    factor = stats.t.ppf(0.975, parts - 1) * (parts - 1) ** 0.5
    return {name: float(factor * values.std()) for name, values in found.items()}


def _of_images(truth: GroundTruth, chosen: np.ndarray) -> GroundTruth:
    """What lies on some of the images, of which a mask [N] is given."""
    number = np.concatenate([[0], chosen.cumsum() * chosen])
    used = number[truth.boxes["image_id"]] > 0
    boxes = {name: column[used] for name, column in truth.boxes.items()}
    images = [record for record, kept in zip(truth.images, chosen, strict=True) if kept]
    return replace(
        truth,
        image_ids=truth.image_ids[chosen],
        images=[record | {"id": n} for n, record in enumerate(images, start=1)],
        boxes=boxes | {"image_id": number[boxes["image_id"]]},
    )
