"""The criterion of CenterNet2, Detic and RichSem with two stages (METHOD 3.1, 3.3, 3.4)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from richsem.boxes import corrections, in_pixels
from richsem.config import Natural
from richsem.losses.centers import center_targets, distance_loss, heatmap_loss
from richsem.losses.criterion import DetectorCriterion, Normaliser, Term, given, joined_soft_labels
from richsem.losses.image_level import RegionChoice, region_label_loss
from richsem.losses.semantic import soft_label_loss
from richsem.losses.supervision import LossTerms
from richsem.masks import COVERED, resampled
from richsem.structures import RegionOutput, Target, TwoStageOutput

_NO_LIMIT = 1e8  # pixels


@dataclass(frozen=True, kw_only=True)
class CenterNet2CriterionConfig:
    """Weights and variants of the loss; the defaults are the published ones."""

    teacher_boxes: ClassVar[str] = "gt"  # regions learn the soft label of their annotation
    as_released_masks: ClassVar[bool] = False  # there are no encoder's proposals here
    # Controls of the other detector alone.
    coarse_boxes: ClassVar[bool] = True
    own_class_only: ClassVar[bool] = False

    heatmap_weight: float = 0.5  # of the focal loss of the heat map
    distance_weight: float = 1.0  # of the GIoU loss of the first stage's boxes
    class_weight: float = 1.0  # of the binary cross-entropy of the stages
    box_weight: float = 1.0  # of the L1 loss of the stages' corrections
    mask_weight: float = 1.0  # of the binary cross-entropy of masks, where there is a mask head
    soft_weight: float = 0.5  # of the soft-label losses (lambda); 0 for none
    image_level_weight: float = 0.1  # of Detic's loss on whole images
    # By level of the pyramid the least and the largest half diagonal of its objects, in pixels.
    ranges: tuple[tuple[float, float], ...] = (
        (0.0, 80.0),
        (64.0, 160.0),
        (128.0, 320.0),
        (256.0, 640.0),
        (512.0, _NO_LIMIT),
    )
    federated_classes: Natural = 49  # of each class loss; 0: all; the published 50 count background
    unlabelled_boxes: bool = True  # learn boxes from the coarse boxes of unlabelled images, too
    image_level: RegionChoice = "max_size"  # the region that answers for a whole image's label


class CenterNet2Criterion(DetectorCriterion):
    """Sums what the batch's supervision switches on.

    The terms are `heatmap` and `distance` of the first stage and, summed over the stages of the
    cascade, `class`, `box` and `soft`; with a mask head, `mask` of detection batches, which alone
    have masks. Batches of whole images have the one term `image_level`. The heat map says where
    something is and not what, so it follows the switches of box losses.
    """

    def weighted_terms(
        self,
        output: TwoStageOutput,
        targets: Sequence[Target],
        switches: LossTerms,
        num_boxes: Normaliser,
    ) -> Iterator[Term]:
        """Every term that is switched on; they are means over this process's regions and cells.

        `num_boxes` is not read: numbers of regions hardly vary between processes.
        """
        config, stages = self.config, output.stages
        if switches.image_level:
            losses = [region_label_loss(stage, targets, config.image_level) for stage in stages]
            yield "image_level", _total(losses), config.image_level_weight
            return
        sizes = zip(targets, output.sizes, strict=True)
        boxes = [in_pixels(target.boxes.float(), size) for target, size in sizes]
        every = torch.cat(boxes)
        if switches.proposal_boxes:
            heat, distance = self.center_losses(output, boxes)
            yield "heatmap", heat, config.heatmap_weight
            yield "distance", distance, config.distance_weight
        if switches.classes:
            labels = torch.cat([target.labels for target in targets])
            drawn = (self.draw_extra if switches.extra else self.draw_classes)(labels, len(stages))
            pairs = zip(stages, [None] * len(stages) if drawn is None else drawn, strict=True)
            losses = [region_class_loss(stage, labels, classes) for stage, classes in pairs]
            yield "class", _total(losses), config.class_weight
        if switches.boxes:
            losses = [region_box_loss(stage, every) for stage in stages]
            yield "box", _total(losses), config.box_weight
        if output.mask_logits is not None:
            loss = region_mask_loss(output.mask_logits, stages[0], targets, every)
            yield "mask", loss, config.mask_weight
        students = [stage for stage in stages if stage.semantic_logits is not None]
        if switches.soft and config.soft_weight and students:
            losses = [region_soft_loss(stage, targets) for stage in students]
            yield "soft", _total(losses), config.soft_weight

    def center_losses(
        self, output: TwoStageOutput, boxes: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Heat-map loss per centre, and loss of the distances per cell that tells some."""
        heat_sum, distance_sum, num_peaks, num_cells = 0.0, 0.0, 0, 0
        for logits, distances, own in zip(output.heatmap, output.distances, boxes, strict=True):
            wanted = center_targets(output.cells, own, self.config.ranges)
            heat_sum += heatmap_loss(logits.float(), wanted.heat, wanted.peaks)
            cells = (wanted.rows >= 0).nonzero()[:, 0]
            distance_sum += distance_loss(distances.float()[cells], wanted.distances[cells])
            num_peaks, num_cells = num_peaks + len(wanted.peaks), num_cells + len(cells)
        return heat_sum / max(num_peaks, 1), distance_sum / max(num_cells, 1)


def region_class_loss(stage: RegionOutput, labels: Tensor, classes: Tensor | None) -> Tensor:
    """Binary cross-entropy summed over classes, mean over regions (METHOD 3.3).

    A region whose annotation has no known label (-1) is left out: there is nothing right to say.
    Labels are those of the batch's annotations [N]; of `classes` [C], if given, True ones count.
    """
    logits = stage.logits.float()
    foreground = (stage.rows >= 0).nonzero()[:, 0]
    own = labels[stage.rows[foreground]]
    wanted = torch.zeros_like(logits)
    wanted[foreground[own >= 0], own[own >= 0]] = 1.0
    weight = torch.ones_like(logits[:, 0])
    weight[foreground[own < 0]] = 0.0
    if classes is not None:
        logits, wanted = logits[:, classes], wanted[:, classes]
    loss = F.binary_cross_entropy_with_logits(logits, wanted, weight[:, None], reduction="sum")
    return loss / max(len(logits), 1)


def region_box_loss(stage: RegionOutput, boxes: Tensor) -> Tensor:
    """L1 of the corrections of regions that answer for an annotation, over all regions.

    `boxes` are the batch's annotations, xyxy in pixels [N, 4].
    """
    foreground = stage.rows >= 0
    wanted = corrections(stage.boxes[foreground], boxes[stage.rows[foreground]], stage.coding)
    return (stage.deltas.float()[foreground] - wanted).abs().sum() / max(len(foreground), 1)


def region_mask_loss(
    logits: Tensor, stage: RegionOutput, targets: Sequence[Target], boxes: Tensor
) -> Tensor:
    """Mean binary cross-entropy of masks [K, s, s] of regions with an annotation (METHOD 3.5).

    The masks of the targets lie over the batch's annotations, `boxes`, xyxy in pixels [N, 4].
    """
    masks = [target.masks for target in targets]
    if any(own is None for own in masks):
        raise ValueError(
            "the mask head has no masks to learn from: they are read with `masks` of "
            "`DetectionTrainingSet`, or train without it (detector.masks=null)"
        )
    if not len(logits):  # a sum over nothing, but the head stays in the graph
        return logits.sum()
    rows, regions = stage.rows[stage.rows >= 0], stage.boxes[stage.rows >= 0]
    wanted = resampled(torch.cat(masks)[rows], boxes[rows], regions, logits.shape[1:]) >= COVERED
    return F.binary_cross_entropy_with_logits(logits.float(), wanted.float())


def region_soft_loss(stage: RegionOutput, targets: Sequence[Target]) -> Tensor:
    """Mean over the regions that answer for an annotation of KL to its soft label."""
    foreground = stage.rows >= 0
    student = stage.semantic_logits.float()[foreground]
    if not len(student):  # a sum over nothing, but the branch stays in the graph
        return student.sum()
    teacher = given(joined_soft_labels(targets), "gt")[stage.rows[foreground]]
    return soft_label_loss(teacher, student) / len(student)


def _total(losses: Sequence[Tensor]) -> Tensor:
    return torch.stack(losses).sum()
