"""What the criteria of both detectors share; what each of them adds up is said in their files."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from richsem.losses.classification import Counts, FederatedClasses
from richsem.losses.supervision import loss_terms
from richsem.structures import Batch, Losses, Target

Term = tuple[str, Tensor, float]  # name, value and weight
Normaliser = float | Tensor | None  # N of DINO's losses; None: the matches of this process


class DetectorCriterion(nn.Module):
    """A weighted sum of what a subclass yields: the terms that the supervision switches on."""

    def __init__(
        self,
        config: Any,
        num_classes: int,
        image_counts: Counts,
        extra_counts: Counts | None = None,  # by which classes are drawn for extra images
    ) -> None:
        """Prepares the federated draws."""
        super().__init__()
        if len(image_counts) != num_classes:
            raise ValueError(
                f"{len(image_counts)} image counts for {num_classes} classes: the federated loss "
                "needs one count per class"
            )
        self.config = config
        number, own = config.federated_classes, extra_counts is not None
        self.draw_classes = FederatedClasses(number, image_counts)
        self.draw_extra = FederatedClasses(number, extra_counts) if own else self.draw_classes

    def forward(self, output: Any, batch: Batch, num_boxes: Normaliser = None) -> Losses:
        """The loss of a batch, of which only targets and kind of supervision are read.

        `num_boxes` is DINO's normaliser N: `num_matches`, averaged over processes. By default this
        process counts alone.
        """
        switches = loss_terms(
            batch.supervision,
            unlabelled_boxes=self.config.unlabelled_boxes,
            as_released=self.config.as_released_masks,
            coarse_boxes=self.config.coarse_boxes,
            own_class_only=self.config.own_class_only,
        )
        # A mixed-precision context around the criterion must not round costs and losses.
        with torch.autocast(batch.targets[0].boxes.device.type, enabled=False):
            found = list(self.weighted_terms(output, batch.targets, switches, num_boxes))
        if not found:
            raise ValueError(
                f"a batch of {batch.supervision} teaches nothing here: it needs the semantic "
                "branch and loss.soft_weight above 0, or loss.unlabelled_boxes=true"
            )
        weights = {name: weight for name, _, weight in found}
        return Losses({name: term for name, term, _ in found}, weights)


def joined_soft_labels(targets: Sequence[Target]) -> Tensor | None:
    """The teacher's probabilities for all boxes of a batch [N, C]; None if some are missing."""
    soft = [target.soft_labels for target in targets if len(target.labels)]
    complete = soft and all(labels is not None for labels in soft)
    return torch.cat(soft).float() if complete else None


def given(soft_labels: Tensor | None, teacher_boxes: str) -> Tensor:
    """Soft labels, which a semantic branch cannot do without."""
    if soft_labels is None:
        raise ValueError(
            f"the semantic branch has no soft labels for loss.teacher_boxes={teacher_boxes}: let a "
            "teacher label the batch, or set loss.soft_weight=0"
        )
    return soft_labels.float()
