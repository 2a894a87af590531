"""The criterion of DINO and RichSem: one sum for every kind of batch (METHOD 1.1, 1.2)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from richsem.boxes import generalized_iou, to_xyxy
from richsem.losses.classification import FederatedClasses, focal_losses
from richsem.losses.image_level import ImageLevel, image_level_loss
from richsem.losses.matching import (
    Matches,
    MatchingConfig,
    denoising_matches,
    logits_of_targets,
    match,
    matching_cost,
    num_matches,
)
from richsem.losses.semantic import soft_label_loss
from richsem.losses.supervision import LossTerms, loss_terms
from richsem.structures import Batch, DetectorOutput, Losses, Target

TeacherBoxes = Literal["gt", "pred", "pred_all"]


@dataclass(frozen=True, kw_only=True)
class DinoCriterionConfig:
    """Weights and variants of the loss; the defaults are the paper's.

    Attributes:
        class_weight: Weight of the focal class losses.
        box_weight: Weight of the L1 box losses.
        giou_weight: Weight of the GIoU losses.
        soft_weight: Weight of the soft-label losses (lambda); 0 for none.
        image_level_weight: Weight of Detic's loss on whole images.
        focal_alpha: Weight of positives in the focal loss.
        focal_gamma: Exponent of the focal loss.
        federated_classes: Classes in each class loss; 0 for all.
        matching: The matching cost.
        teacher_boxes: Where the teacher looks: at the annotated boxes, or at the boxes that enter
            the last layer, of the matched queries or of all.
        entropy_weight: Weigh soft labels by the teacher's entropy.
        federated_soft: Compare soft labels over the federated classes only.
        unlabelled_boxes: Learn box losses from the coarse boxes of unlabelled images, too.
        as_released_masks: Do not switch off losses of the encoder's proposals, and let class 0
            stand for unknown classes, as the published code does.
        image_level: Which query answers for the label of a whole image.
    """

    class_weight: float = 1.0
    box_weight: float = 5.0
    giou_weight: float = 2.0
    soft_weight: float = 0.5
    image_level_weight: float = 0.1
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    federated_classes: int = 50
    matching: MatchingConfig = field(default_factory=MatchingConfig)
    teacher_boxes: TeacherBoxes = "gt"
    entropy_weight: bool = False
    federated_soft: bool = False
    unlabelled_boxes: bool = True
    as_released_masks: bool = False
    image_level: ImageLevel = "max_size"


@dataclass(frozen=True)
class _Part:
    """Predictions of S output sets that are judged alike, with their pairs and divisor."""

    prefix: str
    logits: Tensor
    boxes: Tensor
    semantic_logits: Tensor | None
    matches: Matches
    divisor: float | Tensor


@dataclass(frozen=True)
class _Targets:
    """The targets of a batch, images one after the other."""

    labels: Tensor
    boxes: Tensor
    soft_labels: Tensor | None


class DinoCriterion(nn.Module):
    """Matches predictions with targets and sums what the batch's supervision switches on.

    The terms are sums over the decoder's layers: `class`, `box`, `giou`, `soft`; those of the
    encoder's proposals and of denoising queries begin with `proposal_` and `denoising_`. Batches
    of whole images have the one term `image_level`.
    """

    def __init__(
        self,
        config: DinoCriterionConfig,
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
        self, output: DetectorOutput, batch: Batch, num_boxes: float | Tensor | None = None
    ) -> Losses:
        """Computes the loss of a batch.

        Args:
            output: The detector's predictions for `batch`.
            batch: Only its targets and its kind of supervision are read.
            num_boxes: The normaliser N: `num_matches`, averaged over processes. By default this
                process counts alone.

        Raises:
            ValueError: The batch teaches nothing, or soft labels are missing.
        """
        config = self.config
        switches = loss_terms(
            batch.supervision,
            unlabelled_boxes=config.unlabelled_boxes,
            as_released=config.as_released_masks,
        )
        # A mixed-precision context around the criterion must not round the costs.
        with torch.autocast(output.logits.device.type, enabled=False):
            weighted = self._weighted_terms(output, batch.targets, switches, num_boxes)
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
        self,
        output: DetectorOutput,
        targets: Sequence[Target],
        switches: LossTerms,
        num_boxes: float | Tensor | None,
    ) -> dict[str, tuple[Tensor, float]]:
        """Every term with its weight."""
        config = self.config
        if switches.image_level:
            term = image_level_loss(
                output.logits.float(), output.boxes.float(), targets, config.image_level
            )
            return {"image_level": (term, config.image_level_weight)}
        if config.as_released_masks:
            targets = [replace(one, labels=one.labels.clamp(min=0)) for one in targets]
        joined = _join(targets)
        weighted = {}
        for part in self._parts(output, targets, num_boxes):
            is_proposal = part.prefix == "proposal_"
            chosen = None
            if switches.proposal_classes if is_proposal else switches.classes:
                chosen = self._chosen_classes(part, joined.labels)
                term = self._class_loss(part, joined.labels, chosen)
                weighted[f"{part.prefix}class"] = term, config.class_weight
            if switches.proposal_boxes if is_proposal else switches.boxes:
                wanted = joined.boxes[part.matches.targets]
                l1, giou = box_losses(part.matches.pick(part.boxes), wanted)
                weighted[f"{part.prefix}box"] = l1.sum() / part.divisor, config.box_weight
                weighted[f"{part.prefix}giou"] = giou.sum() / part.divisor, config.giou_weight
            if switches.soft and config.soft_weight and part.semantic_logits is not None:
                term = self._soft_loss(part, joined, output.query_soft_labels, chosen)
                if term is not None:
                    weighted[f"{part.prefix}soft"] = term, config.soft_weight
        return weighted

    def _parts(
        self,
        output: DetectorOutput,
        targets: Sequence[Target],
        num_boxes: float | Tensor | None,
    ) -> Iterator[_Part]:
        """Decoder layers, proposals and denoising queries, as far as the detector has them."""
        num_layers, logits, boxes = len(output.logits), output.logits.float(), output.boxes.float()
        if num_boxes is None:
            num_boxes = num_matches(targets, logits.shape[2])
        number = torch.as_tensor(num_boxes, device=logits.device).clamp(min=1)
        matches = self.match(output, targets)
        decoder = matches.of(0, num_layers)
        yield _Part("", logits, boxes, output.semantic_logits, decoder, number)
        if output.proposal_logits is not None:
            proposals = output.proposal_logits.float()[None], output.proposal_boxes.float()[None]
            yield _Part("proposal_", *proposals, None, matches.of(num_layers, None), number)
        noisy = output.denoising
        if noisy is not None:
            counts = [len(target.labels) for target in targets]
            pairs = denoising_matches(
                counts, noisy.num_slots, noisy.num_groups, num_layers, logits.device
            )
            predictions = noisy.logits.float(), noisy.boxes.float(), noisy.semantic_logits
            yield _Part("denoising_", *predictions, pairs, number * noisy.num_groups)

    @torch.no_grad()
    def match(self, output: DetectorOutput, targets: Sequence[Target]) -> Matches:
        """Pairs of the decoder layers, first layer first, and then of the proposals."""
        boxes = output.boxes.float()
        wanted = logits_of_targets(output.logits.float(), targets)
        if output.proposal_logits is not None:
            of_proposals = logits_of_targets(output.proposal_logits.float()[None], targets)
            wanted = torch.cat([wanted, of_proposals])
            boxes = torch.cat([boxes, output.proposal_boxes.float()[None]])
        cost = matching_cost(wanted, boxes, targets, self.config.matching)
        return match(cost, [len(target.labels) for target in targets])

    def _chosen_classes(self, part: _Part, labels: Tensor) -> Tensor | None:
        num_sets, *_, num_classes = part.logits.shape
        return None if num_classes == 1 else self.draw_classes(labels, num_sets)

    def _class_loss(self, part: _Part, labels: Tensor, chosen: Tensor | None) -> Tensor:
        if part.logits.shape[-1] == 1:  # class-agnostic proposals: every target is an object
            labels = torch.zeros_like(labels)
        alpha, gamma = self.config.focal_alpha, self.config.focal_gamma
        losses = focal_losses(
            part.logits, labels, part.matches, classes=chosen, alpha=alpha, gamma=gamma
        )
        return losses.sum() / part.divisor

    def _soft_loss(
        self, part: _Part, targets: _Targets, of_queries: Tensor | None, chosen: Tensor | None
    ) -> Tensor | None:
        """Soft labels on the last layer; None for denoising queries that no teacher looked at."""
        student, divisor = part.semantic_logits.float(), part.divisor
        last = part.matches.of(-1, None)
        if not len(targets.labels):  # a sum over nothing, but the branch stays in the graph
            return last.pick(student[None]).sum()
        if self.config.teacher_boxes == "gt" or part.prefix:
            if targets.soft_labels is None and part.prefix:
                return None
            teacher = _given(targets.soft_labels, "gt")[last.targets[0]]
            student = last.pick(student[None])[0]
        elif self.config.teacher_boxes == "pred":
            teacher = last.pick(_given(of_queries, "pred")[None])[0]
            student = last.pick(student[None])[0]
        else:
            teacher = _given(of_queries, "pred_all").flatten(0, 1)
            student, divisor = student.flatten(0, 1), len(teacher)
        classes = chosen[-1] if self.config.federated_soft and chosen is not None else None
        entropy_weight = self.config.entropy_weight
        loss = soft_label_loss(teacher, student, entropy_weight=entropy_weight, classes=classes)
        return loss / divisor


def box_losses(predicted: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """L1 and 1 - GIoU of matched boxes, summed over the pairs (METHOD 2.5).

    Args:
        predicted: cxcywh in 0..1 [S, K, 4].
        target: The boxes that they should be [S, K, 4].

    Returns:
        Two sums [S].
    """
    distance = (predicted - target).abs().sum(dim=(1, 2))
    giou = generalized_iou(to_xyxy(predicted), to_xyxy(target))
    return distance, (1 - giou).sum(dim=1)


def _join(targets: Sequence[Target]) -> _Targets:
    soft = [target.soft_labels for target in targets if len(target.labels)]
    some = [one for one in soft if one is not None]
    return _Targets(
        torch.cat([target.labels for target in targets]),
        torch.cat([target.boxes for target in targets]).float(),
        torch.cat(some).float() if some and len(some) == len(soft) else None,
    )


def _given(soft_labels: Tensor | None, teacher_boxes: TeacherBoxes) -> Tensor:
    if soft_labels is None:
        raise ValueError(
            f"the semantic branch has no soft labels for teacher_boxes={teacher_boxes!r}: let a "
            "teacher label the batch, or set soft_weight=0"
        )
    return soft_labels.float()
