"""The criterion of DINO and RichSem: one sum for every kind of batch (METHOD 1.1, 1.2)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from richsem.boxes import generalized_iou, to_xyxy
from richsem.config import Natural
from richsem.losses import matching
from richsem.losses.classification import Counts, focal_losses
from richsem.losses.criterion import DetectorCriterion, Normaliser, Term, given, joined_soft_labels
from richsem.losses.image_level import ImageLevel, image_level_loss
from richsem.losses.long_tail import Relief, log_prior, present_classes, spared
from richsem.losses.semantic import soft_label_loss
from richsem.losses.supervision import LossTerms
from richsem.structures import DetectorOutput, Target

# Where the teacher looks: at annotated boxes, or at the boxes that enter the last layer, of the
# matched queries or of all.
TeacherBoxes = Literal["gt", "pred", "pred_all"]


@dataclass(frozen=True, kw_only=True)
class DinoCriterionConfig:
    """Weights and variants of the loss; the defaults are the paper's."""

    class_weight: float = 1.0  # of the focal class losses
    box_weight: float = 5.0  # of the L1 box losses
    giou_weight: float = 2.0
    soft_weight: float = 0.5  # of the soft-label losses (lambda); 0 for none
    image_level_weight: float = 0.1  # of Detic's loss on whole images
    federated_classes: Natural = 50  # classes in each class loss; 0 for all
    teacher_boxes: TeacherBoxes = "gt"
    entropy_weight: bool = False  # weigh soft labels by the teacher's entropy
    federated_soft: bool = False  # compare soft labels over the federated classes only
    unlabelled_boxes: bool = True  # learn boxes from the coarse boxes of unlabelled images, too
    # Do not switch off losses of the encoder's proposals, and let class 0 stand for unknown
    # classes, as the published code does.
    as_released_masks: bool = False
    image_level: ImageLevel = "max_size"  # the query that answers for the label of a whole image
    choice_slips: float = 0.0  # part of these choices that falls on any query, as a control
    coarse_boxes: bool = True  # learn boxes from coarse boxes with labels
    own_class_only: bool = False  # coarse boxes teach their image's classes alone, and no "no"
    prior_strength: float = 0.0  # of logit adjustment
    relief: Relief = "none"  # which classes objects of other classes spare their no
    relief_tail: Natural = 100  # "equalised" spares classes of at most so many training images


@dataclass(frozen=True)
class _Part:
    """Predictions of S output sets that are judged alike, with their pairs and divisor."""

    prefix: str  # of the terms' names
    logits: Tensor  # [S, B, Q, C]
    boxes: Tensor  # cxcywh in 0..1 [S, B, Q, 4]
    semantic_logits: Tensor | None  # of the last set [B, Q, C]
    matches: matching.Matches
    divisor: float | Tensor


class DinoCriterion(DetectorCriterion):
    """Matches predictions with targets and sums what the batch's supervision switches on.

    The terms are sums over the decoder's layers: `class`, `box`, `giou`, `soft`; those of the
    encoder's proposals and of denoising queries begin with `proposal_` and `denoising_`. Batches
    of whole images have the one term `image_level`.
    """

    def __init__(
        self,
        config: DinoCriterionConfig,
        num_classes: int,
        image_counts: Counts,
        extra_counts: Counts | None = None,
    ) -> None:
        super().__init__(config, num_classes, image_counts, extra_counts)
        counts = torch.as_tensor(image_counts)
        relief, prior = config.relief, log_prior(config.prior_strength, counts)
        self.register_buffer("spared", spared(relief, counts, config.relief_tail), persistent=False)
        self.register_buffer("log_prior", prior, persistent=False)

    def weighted_terms(
        self,
        output: DetectorOutput,
        targets: Sequence[Target],
        switches: LossTerms,
        num_boxes: Normaliser,
    ) -> Iterator[Term]:
        """Every term that is switched on."""
        config = self.config
        if switches.image_level:
            logits, boxes = output.logits.float(), output.boxes.float()
            loss = image_level_loss(logits, boxes, targets, config.image_level, config.choice_slips)
            yield "image_level", loss, config.image_level_weight
            return
        if config.as_released_masks:
            targets = [replace(one, labels=one.labels.clamp(min=0)) for one in targets]
        labels = torch.cat([target.labels for target in targets])
        boxes = torch.cat([target.boxes for target in targets]).float()
        soft_labels = joined_soft_labels(targets)
        for part in self._parts(output, targets, num_boxes):
            is_proposal, chosen = part.prefix == "proposal_", None
            if switches.proposal_classes if is_proposal else switches.classes:
                classes, logits, relief = labels, part.logits, self.spared
                if logits.shape[-1] == 1:  # class-agnostic proposals: a target is an object
                    classes, relief = torch.zeros_like(labels), None
                else:
                    if self.log_prior is not None:
                        logits = logits + self.log_prior
                    draw = self.draw_extra if switches.extra else self.draw_classes
                    chosen = draw(labels, len(logits))
                    if not switches.others:
                        chosen = present_classes(targets, logits.shape[-1])
                losses = focal_losses(logits, classes, part.matches, chosen, relief)
                yield f"{part.prefix}class", losses.sum() / part.divisor, config.class_weight
            if switches.proposal_boxes if is_proposal else switches.boxes:
                wanted = boxes[part.matches.targets]
                l1, giou = box_losses(part.matches.pick(part.boxes), wanted)
                yield f"{part.prefix}box", l1.sum() / part.divisor, config.box_weight
                yield f"{part.prefix}giou", giou.sum() / part.divisor, config.giou_weight
            if switches.soft and config.soft_weight and part.semantic_logits is not None:
                loss = self._soft_loss(part, soft_labels, output.query_soft_labels, chosen)
                if loss is not None:
                    yield f"{part.prefix}soft", loss, config.soft_weight

    def _parts(
        self, output: DetectorOutput, targets: Sequence[Target], num_boxes: Normaliser
    ) -> Iterator[_Part]:
        """Decoder layers, proposals and denoising queries, as far as the detector has them."""
        num_layers, logits, boxes = len(output.logits), output.logits.float(), output.boxes.float()
        if num_boxes is None:
            num_boxes = matching.num_matches(targets, logits.shape[2])
        number = torch.as_tensor(num_boxes, device=logits.device).clamp(min=1)
        matches = self.match(output, targets)
        decoder = matches.of(0, num_layers)
        yield _Part("", logits, boxes, output.semantic_logits, decoder, number)
        if output.proposal_logits is not None:
            proposals = output.proposal_logits.float()[None], output.proposal_boxes.float()[None]
            yield _Part("proposal_", *proposals, None, matches.of(num_layers, None), number)
        if (noisy := output.denoising) is not None:
            counts = [len(target.labels) for target in targets]
            pairs = matching.denoising_matches(
                counts, noisy.num_slots, noisy.num_groups, num_layers, logits.device
            )
            predictions = noisy.logits.float(), noisy.boxes.float(), noisy.semantic_logits
            yield _Part("denoising_", *predictions, pairs, number * noisy.num_groups)

    @torch.no_grad()
    def match(self, output: DetectorOutput, targets: Sequence[Target]) -> matching.Matches:
        """Pairs of the decoder layers, first layer first, and then of the proposals."""
        boxes = output.boxes.float()
        wanted = matching.logits_of_targets(output.logits.float(), targets)
        if output.proposal_logits is not None:
            of_proposals = matching.logits_of_targets(output.proposal_logits.float()[None], targets)
            wanted = torch.cat([wanted, of_proposals])
            boxes = torch.cat([boxes, output.proposal_boxes.float()[None]])
        cost = matching.matching_cost(wanted, boxes, targets)
        return matching.match(cost, [len(target.labels) for target in targets])

    def _soft_loss(
        self,
        part: _Part,
        soft_labels: Tensor | None,
        of_queries: Tensor | None,
        chosen: Tensor | None,
    ) -> Tensor | None:
        """The loss on the last layer; None for denoising queries that no teacher looked at.

        The teacher's labels are those of all annotations [N, C] and those of all queries [B, Q, C].
        """
        student, divisor = part.semantic_logits.float(), part.divisor
        last = part.matches.of(-1, None)
        if not len(last.images):  # a sum over nothing, but the branch stays in the graph
            return last.pick(student[None]).sum()
        if part.prefix and soft_labels is None:
            return None
        at = "gt" if part.prefix else self.config.teacher_boxes
        if at == "pred_all":
            teacher = given(of_queries, at).flatten(0, 1)
            student, divisor = student.flatten(0, 1), len(teacher)
        else:
            student = last.pick(student[None])[0]
            if at == "gt":
                teacher = given(soft_labels, at)[last.targets[0]]
            else:
                teacher = last.pick(given(of_queries, at)[None])[0]
        classes = chosen[-1] if self.config.federated_soft and chosen is not None else None
        weighs = self.config.entropy_weight
        return soft_label_loss(teacher, student, entropy_weight=weighs, classes=classes) / divisor


def box_losses(predicted: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """L1 and 1 - GIoU of boxes, cxcywh in 0..1 [S, K, 4], summed over pairs [S] (METHOD 2.5)."""
    distance = (predicted - target).abs().sum(dim=(1, 2))
    giou = generalized_iou(to_xyxy(predicted), to_xyxy(target))
    return distance, (1 - giou).sum(dim=1)
