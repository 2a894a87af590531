"""Learning one batch by heart: the quickest proof that a detector and its loss fit together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from richsem.boxes import in_pixels
from richsem.structures import Batch, Target
from richsem.training.optim import OptimConfig, build_optimiser, clip_values, rate_factor, set_rate
from richsem.training.predict import evaluating
from richsem.training.run_config import Criterion, Detector


def learn_by_heart(
    detector: Detector,
    criterion: Criterion,
    batch: Batch,
    steps: int,
    optim: OptimConfig,
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """Trains a detector on the same batch again and again; it changes in place.

    Returns:
        A row per step: step, total and every term of the loss.
    """
    torch.manual_seed(seed)  # of the denoising queries
    batch = with_features(detector, batch)
    optimiser = build_optimiser(detector, optim)
    detector.train()
    rows = []
    for step in range(steps):
        set_rate(optimiser, rate_factor(optim, step, steps))
        losses = criterion(detector(batch), batch)
        optimiser.zero_grad()
        losses.total.backward()
        nn.utils.clip_grad_norm_(detector.parameters(), optim.clip_norm or float("inf"))
        clip_values(list(detector.parameters()), optim)
        optimiser.step()
        terms = {name: float(term.detach()) for name, term in losses.terms.items()}
        rows.append({"step": step + 1, "total": float(losses.total.detach()), **terms})
    detector.eval()
    return pd.DataFrame(rows)


def with_features(detector: Detector, batch: Batch) -> Batch:
    """The batch with the maps of a frozen backbone, which would be the same at every step."""
    if detector.config.backbone.trainable or batch.features is not None:
        return batch
    with torch.no_grad():
        return replace(batch, features=detector.backbone(batch.images, batch.padding))


@dataclass(frozen=True, kw_only=True)
class Found:
    """Detections of one image beside its objects.

    Attributes:
        boxes_xyxy: In pixels of the augmented image [N, 4], best first.
        labels: Class indices [N].
        scores: [N].
        recognised: Whether each object has a detection of its class with IoU .5 or more [T].
    """

    boxes_xyxy: Tensor
    labels: Tensor
    scores: Tensor
    recognised: Tensor


def detections(detector: Detector, batch: Batch, threshold: float = 0.3) -> list[Found]:
    """What a detector sees in each image with at least this score."""
    with evaluating(detector):
        output = detector(batch)
    sizes = torch.tensor([target.size for target in batch.targets])
    found = []
    for (scores, labels, boxes), target in zip(
        detector.detections(output, sizes), batch.targets, strict=True
    ):
        kept = scores >= threshold
        scores, labels, boxes = scores[kept], labels[kept], boxes[kept]
        hit = recognised(labels, boxes, target)
        found.append(Found(boxes_xyxy=boxes, labels=labels, scores=scores, recognised=hit))
    return found


def recognised(labels: Tensor, boxes_xyxy: Tensor, target: Target) -> Tensor:
    """For each object whether a box [N, 4] of its class has an IoU of .5 or more with it [T]."""
    true = in_pixels(target.boxes, target.size)
    fits = (box_iou(true, boxes_xyxy) >= 0.5) & (target.labels[:, None] == labels)
    return fits.any(1)


def num_surplus(found: Sequence[Found]) -> int:
    """Detections beyond one for each recognised object."""
    total = sum(len(one.labels) for one in found)
    return total - sum(int(one.recognised.sum()) for one in found)
