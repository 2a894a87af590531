"""The criterion of CenterNet2, Detic and RichSem with two stages (METHOD 3.1, 3.3, 3.4)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from richsem.boxes import corrections, in_pixels
from richsem.losses.centers import center_targets, distance_loss, heatmap_loss
from richsem.losses.classification import FederatedClasses
from richsem.losses.semantic import soft_label_loss
from richsem.losses.supervision import LossTerms, loss_terms
from richsem.structures import Batch, Losses, RegionOutput, Target, TwoStageOutput

RegionChoice = Literal["max_size", "max_score", "image_box"]

_NO_LIMIT = 1e8  # pixels


@dataclass(frozen=True, kw_only=True)
class CenterNet2CriterionConfig:
    """Weights and variants of the loss; the defaults are the published ones.

    Attributes:
        heatmap_weight: Weight of the focal loss of the heat map.
        distance_weight: Weight of the GIoU loss of the first stage's boxes.
        class_weight: Weight of the binary cross-entropy of the stages.
        box_weight: Weight of the L1 loss of the stages' corrections.
        soft_weight: Weight of the soft-label losses (lambda); 0 for none.
        image_level_weight: Weight of Detic's loss on whole images.
        ranges: By level of the pyramid the least and the largest half diagonal of its objects, in
            pixels.
        federated_classes: Classes in each class loss, 0 for all. The published 50 count the
            background as one.
        entropy_weight: Weigh soft labels by the teacher's entropy.
        unlabelled_boxes: Learn box losses from the coarse boxes of unlabelled images, too.
        image_level: Which region answers for the label of a whole image: the largest proposal, the
            one with the highest score for the label, or all of the image.
    """

    teacher_boxes: ClassVar[str] = "gt"  # regions learn the soft label of their annotation

    heatmap_weight: float = 0.5
    distance_weight: float = 1.0
    class_weight: float = 1.0
    box_weight: float = 1.0
    soft_weight: float = 0.5
    image_level_weight: float = 0.1
    ranges: tuple[tuple[float, float], ...] = (
        (0.0, 80.0),
        (64.0, 160.0),
        (128.0, 320.0),
        (256.0, 640.0),
        (512.0, _NO_LIMIT),
    )
    federated_classes: int = 49
    entropy_weight: bool = False
    unlabelled_boxes: bool = True
    image_level: RegionChoice = "max_size"


class CenterNet2Criterion(nn.Module):
    """Sums what the batch's supervision switches on.

    The terms are `heatmap` and `distance` of the first stage and, summed over the stages of the
    cascade, `class`, `box` and `soft`. Batches of whole images have the one term `image_level`. The
    heat map says where something is and not what, so it follows the switches of box losses.
    """

    def __init__(
        self,
        config: CenterNet2CriterionConfig,
        num_classes: int,
        image_counts: Sequence[int] | Tensor,
    ) -> None:
        """Prepares the federated draw.

        Args:
            config: Weights and variants.
            num_classes: C.
            image_counts: Training images with each class [C].

        Raises:
            ValueError: There is not one count per class.
        """
        super().__init__()
        if len(image_counts) != num_classes:
            raise ValueError(
                f"{len(image_counts)} image counts for {num_classes} classes: the federated loss "
                "needs one count per class"
            )
        self.config = config
        self.draw_classes = FederatedClasses(config.federated_classes, image_counts)

    def forward(
        self, output: TwoStageOutput, batch: Batch, num_boxes: float | Tensor | None = None
    ) -> Losses:
        """Computes the loss of a batch.

        Args:
            output: The detector's predictions for `batch` in training.
            batch: Only its targets and its kind of supervision are read.
            num_boxes: Not read: losses are means over this process's regions and cells, whose
                numbers hardly vary.

        Raises:
            ValueError: The batch teaches nothing, or soft labels are missing.
        """
        config = self.config
        switches = loss_terms(batch.supervision, unlabelled_boxes=config.unlabelled_boxes)
        # A mixed-precision context around the criterion must not round the losses.
        with torch.autocast(output.heatmap.device.type, enabled=False):
            weighted = dict(self._weighted_terms(output, batch.targets, switches))
        if not weighted:
            raise ValueError(
                f"a batch of {batch.supervision} teaches nothing here: it needs the semantic "
                "branch and soft_weight > 0, or unlabelled_boxes=True"
            )
        return Losses(
            {name: term for name, (term, _) in weighted.items()},
            {name: weight for name, (_, weight) in weighted.items()},
        )

    def _weighted_terms(
        self, output: TwoStageOutput, targets: Sequence[Target], switches: LossTerms
    ) -> Iterator[tuple[str, tuple[Tensor, float]]]:
        """Every term with its weight."""
        config, stages = self.config, output.stages
        if switches.image_level:
            losses = [region_label_loss(stage, targets, config.image_level) for stage in stages]
            yield "image_level", (_total(losses), config.image_level_weight)
            return
        pairs = zip(targets, output.sizes, strict=True)
        boxes = [in_pixels(target.boxes.float(), size) for target, size in pairs]
        if switches.proposal_boxes:
            heat, distance = self.center_losses(output, boxes)
            yield "heatmap", (heat, config.heatmap_weight)
            yield "distance", (distance, config.distance_weight)
        if switches.classes:
            labels = torch.cat([target.labels for target in targets])
            chosen = self.draw_classes(labels, len(stages))
            drawn = [None] * len(stages) if chosen is None else chosen
            pairs = zip(stages, drawn, strict=True)
            losses = [region_class_loss(stage, labels, classes) for stage, classes in pairs]
            yield "class", (_total(losses), config.class_weight)
        if switches.boxes:
            losses = [region_box_loss(stage, torch.cat(boxes)) for stage in stages]
            yield "box", (_total(losses), config.box_weight)
        students = [stage for stage in stages if stage.semantic_logits is not None]
        if switches.soft and config.soft_weight and students:
            losses = [self._soft_loss(stage, targets) for stage in students]
            yield "soft", (_total(losses), config.soft_weight)

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

    def _soft_loss(self, stage: RegionOutput, targets: Sequence[Target]) -> Tensor:
        """Mean over the regions that answer for an annotation of KL to its soft label."""
        foreground = stage.rows >= 0
        student = stage.semantic_logits.float()[foreground]
        if not len(student):  # a sum over nothing, but the branch stays in the graph
            return student.sum()
        teacher = _soft_labels(targets)[stage.rows[foreground]]
        entropy_weight = self.config.entropy_weight
        return soft_label_loss(teacher, student, entropy_weight=entropy_weight) / len(student)


def region_class_loss(stage: RegionOutput, labels: Tensor, classes: Tensor | None) -> Tensor:
    """Binary cross-entropy summed over classes, mean over regions (METHOD 3.3).

    A region whose annotation has no known label (-1) is left out: there is nothing right to say.

    Args:
        stage: A stage's predictions.
        labels: Class of each of the batch's annotations [N].
        classes: True for the classes that count [C]; None for all.
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

    Args:
        stage: A stage's predictions.
        boxes: The batch's annotations, xyxy in pixels [N, 4].
    """
    foreground = stage.rows >= 0
    wanted = corrections(stage.boxes[foreground], boxes[stage.rows[foreground]], stage.coding)
    distance = (stage.deltas.float()[foreground] - wanted).abs().sum()
    return distance / max(len(foreground), 1)


def region_label_loss(
    stage: RegionOutput, targets: Sequence[Target], choice: RegionChoice
) -> Tensor:
    """Detic's loss: an image's label is taught to one region of the image (METHOD 3.1).

    Binary cross-entropy summed over all classes, averaged over the labels of an image and over
    images; an image without a known label counts as zero.

    Args:
        stage: A stage's predictions; the last region of each image is all of it.
        targets: One per image; only the labels are read.
        choice: Which region answers.
    """
    known = [target.labels[target.labels >= 0] for target in targets]
    labels = torch.cat(known)
    counts = torch.tensor([len(some) for some in known], device=labels.device)
    images = torch.arange(len(known), device=labels.device).repeat_interleave(counts)
    logits = stage.logits.float()
    answers = logits[answering_regions(stage, images, labels, choice)]  # [N, C]
    wanted = F.one_hot(labels, logits.shape[-1]).to(answers)
    losses = F.binary_cross_entropy_with_logits(answers, wanted, reduction="none").sum(dim=1)
    return (losses / counts[images]).sum() / len(known)


def answering_regions(
    stage: RegionOutput, images: Tensor, labels: Tensor, choice: RegionChoice
) -> Tensor:
    """The region that answers for each label [N] of an image [N]: regions [N].

    Where an image has no proposal, all of it answers.
    """
    own = stage.images == images[:, None]  # [N, R]
    whole = own & (own.cumsum(dim=1) == own.sum(dim=1, keepdim=True))
    if choice == "image_box":
        return whole.long().argmax(dim=1)
    sides = stage.boxes[:, 2:] - stage.boxes[:, :2]
    worth = sides.prod(dim=1) if choice == "max_size" else stage.logits.float()[:, labels].T
    worth = worth.expand_as(own).masked_fill(~own, -torch.inf)
    # Behind every proposal, but before the regions of other images.
    worth = worth.masked_fill(whole, torch.finfo(worth.dtype).min)
    return worth.argmax(dim=1)


def _soft_labels(targets: Sequence[Target]) -> Tensor:
    soft = [target.soft_labels for target in targets if len(target.labels)]
    if any(labels is None for labels in soft):
        raise ValueError(
            "the semantic branch has no soft labels: let a teacher label the batch, or set "
            "soft_weight=0"
        )
    return torch.cat(soft).float()


def _total(losses: Sequence[Tensor]) -> Tensor:
    return torch.stack(losses).sum()
