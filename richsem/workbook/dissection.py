"""The detector that notebook 03 takes apart, and the images it is shown."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from richsem.data.box_sets import BoxDataset
from richsem.data.catalog import dataset_spec
from richsem.data.categories import spoken_names
from richsem.data.samples import DetectionTrainingSet, collate
from richsem.data.transforms import Transform, TransformConfig
from richsem.models.clip import MINI, RN50, ClipConfig, FrozenClip
from richsem.models.dino.dino import Dino, DinoConfig
from richsem.models.published.dino_weights import load_official, official_text
from richsem.models.published.translation import read_checkpoint
from richsem.operations.cost import on_meta
from richsem.paths import ROOT
from richsem.recipes.dino_recipes import MINI_DINO, MINI_START, SCENE
from richsem.structures import Batch, Supervision
from richsem.training.checkpoint import initialise
from richsem.training.optim import OptimConfig
from richsem.workbook.notebook_data import DataConfig

_SLOW = OptimConfig(lr=1e-3, clip_norm=1.0, schedule="linear", decay_start=0.5, warmup=10)
_APART = 0.02  # IoU of two boxes that do not disturb each other
_HEADS = ("classifier.", "label_embedding.")


@dataclass(frozen=True, kw_only=True)
class DissectionConfig:
    """A detector and what is done with it.

    Attributes:
        data: The images.
        checkpoint: A published checkpoint to look at; empty for the small detector.
        detector: The small detector.
        start: Its pre-trained weights; empty for new ones.
        clip: Whose text features name its classes.
        transform: How images are resized for the small detector.
        seed: Of noise and new weights.
        measured: Images that averages are taken over.
        learnt: Images that are learnt by heart.
        steps: How often they are shown.
        optim: How they are learnt.
    """

    data: DataConfig
    checkpoint: str = ""
    detector: DinoConfig = MINI_DINO
    start: str = MINI_START
    clip: ClipConfig = MINI
    transform: TransformConfig = SCENE
    seed: int = 0
    measured: int = 64
    learnt: int = 4
    steps: int = 120
    optim: OptimConfig = field(default_factory=lambda: _SLOW)


def dissection(data: DataConfig, *, seed: int = 0, checkpoint: str = "") -> DissectionConfig:
    """The configuration of notebook 03 for a profile; at smoke it measures and learns less.

    The paper profile looks at the small detector, too, unless it is given a checkpoint.
    """
    config = DissectionConfig(data=data, seed=seed, checkpoint=checkpoint)
    if data.profile == "smoke":
        return replace(config, measured=8, learnt=2, steps=6)
    return replace(config, measured=8) if checkpoint else config


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A detector, and images as it takes them.

    Attributes:
        detector: In evaluation mode.
        samples: The images, resized and not augmented; labels are the detector's class indices.
        names: What each class index is called; empty where the detector has no class.
    """

    detector: Dino
    samples: DetectionTrainingSet
    names: tuple[str, ...]

    def batch(self, images: Sequence[int]) -> Batch:
        """Some of the images as a batch."""
        pad_multiple = self.detector.config.pad_multiple
        samples = [self.samples[int(image), 0] for image in images]
        return collate(samples, Supervision.DETECTION, pad_multiple)


def open_subject(config: DissectionConfig, dataset: BoxDataset) -> Subject:
    """The pre-trained small detector with the classes of a data set, or a published one."""
    if config.checkpoint:
        return _published(config, dataset)
    samples = DetectionTrainingSet(dataset, Transform(config.transform.evaluation()))
    detector = _small(config, dataset, "text", fresh=()).eval()
    return Subject(detector=detector, samples=samples, names=_spoken(dataset))


def learner(
    config: DissectionConfig, dataset: BoxDataset, classifier: Literal["linear", "text"]
) -> Subject:
    """The small detector with a class head that has learnt nothing yet."""
    samples = DetectionTrainingSet(dataset, Transform(config.transform.evaluation()))
    detector = _small(config, dataset, classifier, fresh=_HEADS)
    return Subject(detector=detector, samples=samples, names=_spoken(dataset))


def clear_image(dataset: BoxDataset) -> int:
    """An image of two to four boxes that hardly overlap, the smallest as large as possible.

    Raises:
        ValueError: No image has two to four boxes.
    """
    sizes = np.tile(dataset.image_sizes[:, ::-1], 2)  # width, height, width, height
    clearest, best = -1, (False, 0.0)
    for image in np.flatnonzero(np.isin(np.diff(dataset.offsets), (2, 3, 4))).tolist():
        boxes = torch.from_numpy(dataset.boxes_of(image)[0] / sizes[image])
        apart = bool(box_iou(boxes, boxes).fill_diagonal_(0).max() < _APART)
        worth = (apart, float((boxes[:, 2:] - boxes[:, :2]).prod(1).min()))
        if worth > best:
            clearest, best = image, worth
    if clearest < 0:
        raise ValueError(f"{dataset!r} has no image with two to four boxes; choose one by hand")
    return clearest


def paper_size(config: DinoConfig) -> Dino:
    """A detector for the classes of LVIS v1 that has names and shapes but no weights."""
    num_classes = config.num_classes or dataset_spec("lvis").reference_categories
    return on_meta(replace(config, num_classes=num_classes))


def _small(
    config: DissectionConfig,
    dataset: BoxDataset,
    classifier: Literal["linear", "text"],
    fresh: Sequence[str],
) -> Dino:
    text, scale = _vocabulary(config.clip, _spoken(dataset))
    detector = replace(
        config.detector,
        num_classes=len(text),
        text_dim=text.shape[1],
        scale=scale,
        classifier=classifier,
        label_embedding="text" if classifier == "text" else "classifier",
    )
    torch.manual_seed(config.seed)
    model = Dino(detector, text)
    if config.start:
        initialise(model, ROOT / config.start, fresh=fresh)
    return model


def _published(config: DissectionConfig, dataset: BoxDataset) -> Subject:
    """A published detector, whose class indices are the ids of its annotation file."""
    state = read_checkpoint(ROOT / Path(config.checkpoint).expanduser())
    names = {category.id: category.name for category in dataset.categories}
    compares = any("dino_visual_proj" in name for name in state)
    text = official_text(FrozenClip(RN50), names) if compares else None
    model = load_official(state, text)
    if max(names) >= model.config.num_classes:
        raise ValueError(
            f"{config.checkpoint} has {model.config.num_classes} classes, but {dataset.name} has "
            f"the category id {max(names)}; use the annotations that it was trained with"
        )
    transform = Transform(TransformConfig().evaluation())
    samples = DetectionTrainingSet(dataset, transform, classes=list(names))
    called = tuple(names.get(i, "") for i in range(model.config.num_classes))
    return Subject(detector=model.eval(), samples=samples, names=called)


def _spoken(dataset: BoxDataset) -> tuple[str, ...]:
    return tuple(spoken_names(dataset.categories))


@cache
def _vocabulary(clip: ClipConfig, names: tuple[str, ...]) -> tuple[Tensor, float]:
    teacher = FrozenClip(clip)
    return teacher.text_features(names), teacher.scale
