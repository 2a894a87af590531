"""Detections of a whole set or of one picture, in the units of the annotation file.

No image is padded to the size of another, so the batch size does not change what is found. Several
processes share the images out, each one once, and all of them get the whole result.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby, zip_longest
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.transforms.v2.functional import pil_to_tensor
from tqdm import tqdm

from richsem.boxes import to_xywh
from richsem.data.samples import Sample, TrainingSet, collate, to_sample
from richsem.data.transforms import Picture, TransformConfig
from richsem.evaluation import LVIS_MAX_DETS, Detections
from richsem.masks import pasted
from richsem.structures import Batch, DetectorOutput, Supervision, TwoStageOutput
from richsem.training.parallel import gathered, this_process
from richsem.training.run_config import Detector

NOT_IN_FILE = -1

_Rows = dict[str, np.ndarray]  # columns of `Detections`, of one image


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureDetections:
    """Objects of one picture, best first."""

    names: tuple[str, ...]  # N categories
    frequencies: tuple[str, ...]  # N times "r", "c" or "f", or "" where it is not stated
    labels: np.ndarray  # [N] class indices of the detector
    scores: np.ndarray  # [N]
    boxes_xyxy: np.ndarray  # [N, 4] in pixels of the picture

    def __len__(self) -> int:
        return len(self.names)

    def select(self, rows: np.ndarray) -> "PictureDetections":
        """Those at these places, or where a mask is true."""
        rows = np.arange(len(self))[rows]
        names = {key: [getattr(self, key)[i] for i in rows] for key in ("names", "frequencies")}
        arrays = {key: getattr(self, key)[rows] for key in ("labels", "scores", "boxes_xyxy")}
        return PictureDetections(**{k: tuple(v) for k, v in names.items()}, **arrays)

    def to_list(self) -> list[dict[str, Any]]:
        """JSON values: category, frequency, score and box_xyxy of each object."""
        keys = ("category", "frequency", "score", "box_xyxy")
        rows = (self.names, self.frequencies, self.scores.tolist(), self.boxes_xyxy.tolist())
        return [dict(zip(keys, row, strict=True)) for row in zip(*rows, strict=True)]

    def to_supervision(self) -> Any:
        """The same as `supervision.Detections`, for its annotators and trackers."""
        try:
            import supervision
        except ImportError as error:
            needed = 'this needs supervision: pip install "richsem[supervision]"'
            raise ImportError(needed) from error
        return supervision.Detections(
            xyxy=self.boxes_xyxy,
            confidence=self.scores,
            class_id=self.labels,
            data={"class_name": np.array(self.names)},
        )


def predict(
    detector: Detector,  # on its device; its mode is left as it was
    samples: TrainingSet,  # images without augmentation, or their features
    category_ids: Sequence[int],  # of each class the id in the annotation file, or `NOT_IN_FILE`
    *,
    batch_size: int = 8,
    images: range | None = None,  # some of the set, without a progress bar of their own
) -> Detections:
    """Image by image of a set the 300 best, best first, boxes in pixels of the original images.

    A detector with a mask head gives their masks, too.
    """
    state = this_process()
    device = next(detector.parameters()).device
    # Nothing is random in an evaluation set: the seed of an image does not matter.
    chosen = range(len(samples)) if images is None else images
    own = [(i, 0) for i in chosen[state.process_index :: state.num_processes]]
    loader = DataLoader(
        samples,
        batch_sampler=[own[at : at + batch_size] for at in range(0, len(own), batch_size)],
        collate_fn=partial(_batches, pad_multiple=detector.config.pad_multiple),
    )
    found: list[_Rows] = []
    silent = images is not None or not state.is_main_process
    progress = tqdm(loader, desc="detecting", unit="batch", mininterval=2, disable=silent)
    with evaluating(detector):
        for batch in chain.from_iterable(progress):
            found += _detect(detector, batch.to(device), np.asarray(category_ids))
    # Of all processes, by turns, as they were shared out.
    rows = [row for turn in zip_longest(*gathered(found)) for row in turn if row]
    rows = rows or [dict.fromkeys(("image_id", "category_id", "bbox_xywh", "score"), np.zeros(0))]
    return Detections(**{name: np.concatenate([row[name] for row in rows]) for name in rows[0]})


def detect_image(
    detector: Detector, image: Image.Image, transform: TransformConfig, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Detects on one picture, best first; only scores of `threshold` and more.

    Returns scores [N], class indices [N] and boxes xyxy [N, 4] in pixels of the picture.
    """
    pixels = pil_to_tensor(image.convert("RGB"))
    nothing = Picture(image=pixels, boxes_xyxy=torch.zeros(0, 4), labels=torch.zeros(0).long())
    _, output = look(detector, nothing, transform)
    (found,) = detector.detections(output, torch.tensor([nothing.size]), LVIS_MAX_DETS)
    scores, labels, boxes = (values.cpu() for values in found)
    kept = scores >= threshold
    return scores[kept], labels[kept], boxes[kept]


def look(
    detector: Detector, picture: Picture, transform: TransformConfig
) -> tuple[Picture, DetectorOutput | TwoStageOutput]:
    """One picture as it is resized at evaluation, and what a detector makes of it."""
    seen = transform.evaluation().apply(picture, torch.Generator())
    sample = to_sample(seen, picture.size, image_id=0)
    batch = collate([sample], Supervision.DETECTION, detector.config.pad_multiple)
    with evaluating(detector):
        return seen, detector(batch.to(next(detector.parameters()).device))


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the mode of before comes back afterwards."""
    was_training = module.training
    module.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        module.train(was_training)


def _batches(samples: Sequence[Sample], pad_multiple: int) -> list[Batch]:
    """Neighbours of one size as a batch each: what surrounds an image changes its features."""
    groups = groupby(samples, lambda sample: sample.target.size)
    return [collate(list(own), Supervision.DETECTION, pad_multiple) for _, own in groups]


def _detect(detector: Detector, batch: Batch, ids: np.ndarray) -> list[_Rows]:
    """The detections of each image of a batch."""
    output = detector(batch)
    sizes = torch.tensor([target.original_size for target in batch.targets])
    found = detector.detections(output, sizes, LVIS_MAX_DETS)
    outlined = getattr(output, "levels", ())
    masks = detector.masks(output, found, sizes) if outlined else [None] * len(found)
    rows = []
    for target, (scores, labels, boxes), mask in zip(batch.targets, found, masks, strict=True):
        category = ids[labels.cpu().numpy()]
        columns = {
            "image_id": np.full(len(category), target.image_id),
            "category_id": category,
            # Moved before they are widened: accelerators of Macs have no float64.
            "bbox_xywh": to_xywh(boxes.cpu().double()).numpy(),
            "score": scores.cpu().double().numpy(),
        }
        if mask is not None:
            columns["masks"] = np.array(pasted(mask, boxes, target.original_size), dtype=object)
        known = category != NOT_IN_FILE
        rows.append({name: column[known] for name, column in columns.items()})
    return rows
