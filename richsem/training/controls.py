"""What a run's controls change in its sets, and what a detector finds in tiles.

Pseudo-boxes are in the spirit of MosaicOS (Zhang et al. 2021), which compares ways to localise
labelled images for a second training; pseudo-labels in that of SimLTD (Tran 2025), where unlabelled
images teach what a first training finds in them. Here the detector that a run starts from does it,
once and for all; SimLTD's is averaged from its student along the way.
"""

import copy
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms

from richsem.boxes import to_cxcywh, to_xyxy
from richsem.config import ConfigError
from richsem.data.altered import AlteredTeacher, ShuffledTeacher, WrongLabels
from richsem.data.drawn import pretrained_file
from richsem.data.samples import ChangedSet, Sample, TrainingSet, collate
from richsem.data.sampling import RepeatedEpoch
from richsem.models.clip import ClipConfig
from richsem.models.dino.dino import Dino, DinoConfig
from richsem.models.miniclip import MINI_CLIP
from richsem.structures import Supervision
from richsem.training.run_config import Detector, DetectorConfig, ExtraConfig, TrainingDataConfig
from richsem.training.teacher import Teacher

DOUBLE = 0.5  # IoU from which two pseudo-labels are taken for one object


def check_controls(data: TrainingDataConfig, detector: DetectorConfig) -> None:
    """Refuses what can be altered only where it is cached, in one teacher or for one detector."""
    how = (data.teacher_rest, data.teacher_sharpness, data.teacher_unseen, data.teacher_corrected)
    if (data.teacher_shuffled or how != ("seen", 1, 0, 0)) and not data.features:
        raise ConfigError("soft labels can be altered only where they are cached: set features")
    extra = data.extra
    if extra and (extra.as_frequent or extra.own_counts) and not extra.features:
        raise ConfigError(
            "data.extra.as_frequent and own_counts need the labels of cached mosaics: set features"
        )
    finds = extra and (extra.pseudo_boxes or extra.pseudo_score)
    if finds and not isinstance(detector, DinoConfig):
        raise ConfigError("data.extra.pseudo_boxes and pseudo_score need a DINO's recipe")
    if data.teacher_training and data.teacher.model != MINI_CLIP:
        raise ConfigError(f"data.teacher_training trains {MINI_CLIP}: set data.teacher.model to it")


def teacher_of(data: TrainingDataConfig) -> ClipConfig:
    """The teacher; one that was trained anew lies in the cache."""
    if not data.teacher_training:
        return data.teacher
    return replace(data.teacher, weights=str(pretrained_file(data.teacher_training)))


def extra_controls(
    samples: TrainingSet | None, extra: ExtraConfig | None, image_counts: np.ndarray
) -> tuple[RepeatedEpoch | None, np.ndarray | None]:
    """How an extra set is shown, if not plainly; counts [C] for draws on it, if not these."""
    shown = extra_epoch(samples, image_counts) if extra and extra.as_frequent else None
    own = label_counts(samples, len(image_counts)) if extra and extra.own_counts else None
    return shown, own


def extra_epoch(samples: TrainingSet, image_counts: np.ndarray) -> RepeatedEpoch:
    """Epochs of an extra set in which classes are as frequent as in detection (counts [C]).

    Items are shown in proportion to the mean count of their labels, on average once.
    """
    known = _known_labels(samples)
    shows = np.array([image_counts[own].mean() if len(own) else 0.0 for own in known])
    return RepeatedEpoch(shows / shows.mean())


def label_counts(samples: TrainingSet, num_classes: int) -> np.ndarray:
    """How many items of a set have each class [C]."""
    present = np.concatenate([np.unique(own) for own in _known_labels(samples)])
    return np.bincount(present, minlength=num_classes)


def _known_labels(samples: TrainingSet) -> list[np.ndarray]:
    labels = (samples[index, 0].target.labels.numpy() for index in range(len(samples)))
    return [own[own >= 0] for own in labels]


def with_controls(
    sets: dict[str, TrainingSet],  # by role, with an extra set "extra" among them
    data: TrainingDataConfig,
    groups: np.ndarray,  # "r", "c" or "f" of each class
    detector: Detector,  # before the run
    teacher: Teacher | None,  # if soft labels are kept
) -> dict[str, TrainingSet]:
    """The sets with what a run's controls change in them; in most runs that is nothing."""
    extra, how = data.extra, (data.teacher_rest, data.teacher_sharpness)
    if extra and extra.pseudo_boxes:
        sets = sets | {"extra": PseudoBoxes(sets["extra"], detector)}
    if extra and extra.pseudo_score:
        sets = sets | {"extra": PseudoLabels(sets["extra"], detector, extra.pseudo_score)}
    if data.teacher_shuffled:
        sets = {role: ShuffledTeacher(samples) for role, samples in sets.items()}
    if extra and extra.wrong_labels:
        sets = sets | {"extra": WrongLabels(sets["extra"], extra.wrong_labels, len(groups))}
    if how != ("seen", 1) or data.teacher_unseen or data.teacher_corrected:
        rare = np.random.default_rng(0).permutation(np.flatnonzero(groups == "r"))
        unseen = rare[: round(data.teacher_unseen * len(rare))].tolist()
        altered = (teacher.text.cpu(), teacher.clip.scale, *how, unseen, data.teacher_corrected)
        sets = {role: AlteredTeacher(samples, *altered) for role, samples in sets.items()}
    return sets


class _Found(ChangedSet):
    """A set in whose images a detector, as it is before the run, finds something."""

    mark: str  # of the change

    def __init__(self, samples: TrainingSet, detector: Dino, *marks: object) -> None:
        super().__init__(samples, self.mark, *marks)
        # The run changes its own, and this one has to see what a set holds, on the CPU.
        self._detector = copy.deepcopy(detector).cpu().eval()

    @torch.no_grad()
    def found(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """Logits [Q, C] and boxes cxcywh in 0..1 [Q, 4] of its last layer."""
        output = self._detector(collate([sample], self.samples.supervision))
        return output.logits[-1, 0], output.boxes[-1, 0]


class PseudoBoxes(_Found):
    """A set of labelled tiles each of whose boxes is one that the detector finds in it.

    Of those whose middle is in the tile, the one with the best score for the tile's label counts,
    as far as it is inside; where there is none, the tile.
    """

    mark = "pseudo-boxes"

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        sample = self.samples[key]
        logits, boxes = self.found(sample)
        labels, tiles = sample.target.labels, sample.target.boxes
        best = _best(logits[:, labels].T, boxes, tiles)
        return replace(sample, target=replace(sample.target, boxes=best))


class PseudoLabels(_Found):
    """A set of unlabelled images that teaches, with names, what the detector finds in them.

    That is the best class of each query, if its probability is above `score`, less the boxes that
    overlap a surer one by half. Soft labels, which are the tiles', are left out.
    """

    mark = "pseudo-labels"

    def __init__(self, samples: TrainingSet, detector: Dino, score: float) -> None:
        super().__init__(samples, detector, score)
        self.supervision, self._score = Supervision.IMAGE_LABELS, score

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        sample = self.samples[key]
        logits, boxes = self.found(sample)
        scores, labels = logits.sigmoid().max(dim=1)
        kept = nms(to_xyxy(boxes), scores, DOUBLE)
        kept = kept[scores[kept] > self._score]
        target = replace(sample.target, labels=labels[kept], boxes=boxes[kept], soft_labels=None)
        return replace(sample, target=target)


def _best(scores: Tensor, boxes: Tensor, tiles: Tensor) -> Tensor:
    """For each tile [N, 4] the best of the boxes [Q, 4] by its scores [N, Q]; all cxcywh."""
    away = (boxes[:, :2] - tiles[:, None, :2]).abs() - tiles[:, None, 2:] / 2
    inside = (away <= 0).all(dim=2)
    best = boxes[scores.masked_fill(~inside, -torch.inf).argmax(dim=1)]
    best = torch.where(inside.any(dim=1, keepdim=True), best, tiles)
    low, high = to_xyxy(tiles).split(2, dim=1)
    corners = to_xyxy(best)
    return to_cxcywh(torch.cat([corners[:, :2].maximum(low), corners[:, 2:].minimum(high)], dim=1))
