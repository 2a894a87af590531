"""The detectors that notebooks 03 and 04 take apart, the images they see, and what they learn.

To learn one batch by heart is the quickest proof that a detector and its loss fit together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import pandas as pd
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from richsem.boxes import in_pixels
from richsem.data.box_sets import BoxDataset
from richsem.data.categories import spoken_names
from richsem.data.samples import DetectionTrainingSet, collate
from richsem.data.transforms import TransformConfig
from richsem.models import weight_files
from richsem.models.centernet2.centernet2 import CenterNet2, CenterNet2Config
from richsem.models.clip import MINI, RN50, FrozenClip
from richsem.models.dino.dino import Dino, DinoConfig
from richsem.models.published.dino_weights import load_official, official_text
from richsem.paths import ROOT, user_path
from richsem.recipes import centernet2_recipes, dino_recipes
from richsem.structures import Batch, Supervision, Target
from richsem.training import optim as optimisers
from richsem.training.checkpoint import initialise, load_detector
from richsem.training.optim import OptimConfig
from richsem.training.predict import evaluating
from richsem.training.run_config import Criterion, Detector
from richsem.workbook.notebook_data import DataConfig

_SLOW = OptimConfig(lr=1e-3, clip_norm=1.0, schedule="linear", decay_start=0.5, warmup=10)
_HEADS = ("classifier.", "label_embedding.")


@dataclass(frozen=True, kw_only=True)
class SubjectConfig:
    """A detector for the classes of some data, and what it learns by heart."""

    data: DataConfig
    seed: int = 0  # of new weights, noise and sampled regions
    detector: DinoConfig | CenterNet2Config  # a small one, and its embedded CLIP names the classes
    given: str = ""  # another one to look at: a published checkpoint of DINO, a run of CenterNet2
    measured: int = 0  # images that averages are taken over
    learnt: int  # images that are learnt by heart
    steps: int  # how often they are shown
    optim: OptimConfig


def configure_dino(data: DataConfig, *, seed: int = 0, checkpoint: str = "") -> SubjectConfig:
    """The configuration of notebook 03 for a profile; at smoke it measures and learns less.

    The paper profile looks at the small detector, too, unless it is given a checkpoint.
    """
    sizes = {"measured": 8 if checkpoint else 64, "learnt": 4, "steps": 120}
    if data.profile == "smoke":
        sizes = {"measured": 8, "learnt": 2, "steps": 6}
    shared = {"data": data, "seed": seed, "given": checkpoint, "optim": _SLOW}
    return SubjectConfig(detector=dino_recipes.MINI_DINO, **shared, **sizes)


def configure_cascade(data: DataConfig, *, seed: int = 0, folder: str = "") -> SubjectConfig:
    """The configuration of notebook 04 for a profile; at smoke less is learnt."""
    few = data.profile == "smoke"
    sizes = {"learnt": 4 if few else 12, "steps": 6 if few else 160}
    shared = {"data": data, "seed": seed, "given": folder, "optim": centernet2_recipes.MINI_OPTIM}
    return SubjectConfig(detector=centernet2_recipes.MINI_CENTERNET2, **shared, **sizes)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A detector, and images as it takes them."""

    detector: Dino | CenterNet2
    samples: DetectionTrainingSet  # resized, not augmented; labels are the detector's classes
    names: tuple[str, ...]  # what each class index is called; empty where there is no class

    def batch(self, images: Sequence[int]) -> Batch:
        """Some of the images as a batch."""
        samples = [self.samples[int(image), 0] for image in images]
        return collate(samples, Supervision.DETECTION, self.detector.config.pad_multiple)


def _subject(detector: Dino | CenterNet2, dataset: BoxDataset) -> Subject:
    """A small detector with the classes of a data set."""
    samples = DetectionTrainingSet(dataset, dino_recipes.SCENE.evaluation())
    names = tuple(spoken_names(dataset.categories))
    return Subject(detector=detector, samples=samples, names=names)


@cache
def _vocabulary(names: tuple[str, ...]) -> tuple[Tensor, float]:
    teacher = FrozenClip(MINI)
    return teacher.text_features(names), teacher.scale


def _named_after(
    config: SubjectConfig, dataset: BoxDataset
) -> tuple[DinoConfig | CenterNet2Config, Tensor]:
    """The small detector's configuration for the classes of a data set, and their text features."""
    text, scale = _vocabulary(tuple(spoken_names(dataset.categories)))
    sizes = {"num_classes": len(text), "text_dim": text.shape[1], "scale": scale}
    return replace(config.detector, **sizes), text


# --- DINO ----------------------------------------------------------------------------------------


def open_dino(config: SubjectConfig, dataset: BoxDataset) -> Subject:
    """The pre-trained small detector with the classes of a data set, or a published one."""
    if config.given:
        return _published(config, dataset)
    subject = learner(config, dataset, fresh=())
    subject.detector.eval()
    return subject


def learner(
    config: SubjectConfig,
    dataset: BoxDataset,
    classifier: Literal["linear", "text"] = "text",
    fresh: Sequence[str] = _HEADS,
) -> Subject:
    """The small detector, by default with a class head that has learnt nothing yet."""
    detector, text = _named_after(config, dataset)
    embedding = "text" if classifier == "text" else "classifier"
    torch.manual_seed(config.seed)
    model = Dino(replace(detector, classifier=classifier, label_embedding=embedding), text)
    initialise(model, ROOT / dino_recipes.MINI_START, fresh=fresh)
    return _subject(model, dataset)


def _published(config: SubjectConfig, dataset: BoxDataset) -> Subject:
    """A published detector, whose class indices are the ids of its annotation file."""
    state = weight_files.read(user_path(config.given))
    names = {category.id: category.name for category in dataset.categories}
    compares = any("dino_visual_proj" in name for name in state)
    text = official_text(FrozenClip(RN50), names) if compares else None
    model = load_official(state, text)
    if max(names) >= model.config.num_classes:
        raise ValueError(
            f"{config.given} has {model.config.num_classes} classes, but {dataset.name} has "
            f"the category id {max(names)}; use the annotations that it was trained with"
        )
    transform = TransformConfig().evaluation()
    samples = DetectionTrainingSet(dataset, transform, classes=list(names))
    called = tuple(names.get(i, "") for i in range(model.config.num_classes))
    return Subject(detector=model.eval(), samples=samples, names=called)


# --- CenterNet2 ----------------------------------------------------------------------------------


def open_cascade(config: SubjectConfig, dataset: BoxDataset) -> Subject:
    """The small detector with the classes of a data set, or the detector of a run."""
    if config.given:
        detector, _ = load_detector(user_path(config.given))
    else:
        sized, text = _named_after(config, dataset)
        torch.manual_seed(config.seed)
        detector = CenterNet2(sized, text)
    number = len(dataset.categories)
    if not isinstance(detector, CenterNet2) or detector.config.num_classes != number:
        raise ValueError(
            f"{config.given}: not a CenterNet2 for the {number} classes of {dataset.name}"
        )
    return _subject(detector, dataset)


# --- learning by heart ---------------------------------------------------------------------------


def learn_by_heart(
    detector: Detector,
    criterion: Criterion,
    batch: Batch,
    steps: int,
    optim: OptimConfig,
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """Trains a detector on one batch, in place; a row per step: step, total, terms of the loss."""
    torch.manual_seed(seed)  # of the denoising queries
    batch = with_features(detector, batch)
    optimiser = optimisers.build_optimiser(detector, optim)
    detector.train()
    rows = []
    for step in range(steps):
        optimisers.set_rate(optimiser, optimisers.rate_factor(optim, step, steps))
        losses = criterion(detector(batch), batch)
        optimiser.zero_grad()
        losses.total.backward()
        nn.utils.clip_grad_norm_(detector.parameters(), optim.clip_norm or float("inf"))
        optimisers.clip_values(list(detector.parameters()), optim)
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
        return replace(batch, features=detector.backbone.look(batch.images, batch.padding))


@dataclass(frozen=True, kw_only=True)
class Found:
    """Detections of one image beside its objects."""

    boxes_xyxy: Tensor  # in pixels of the augmented image [N, 4], best first
    labels: Tensor  # class indices [N]
    recognised: Tensor  # whether each object has a detection of its class with IoU .5 or more [T]

    @property
    def surplus(self) -> int:
        """Detections beyond one for each recognised object."""
        return len(self.labels) - int(self.recognised.sum())


def detections(detector: Detector, batch: Batch, threshold: float = 0.3) -> list[Found]:
    """What a detector sees in each image with at least this score."""
    with evaluating(detector):
        output = detector(batch)
    sizes, found = torch.tensor([target.size for target in batch.targets]), []
    every = detector.detections(output, sizes)
    for (scores, labels, boxes), target in zip(every, batch.targets, strict=True):
        labels, boxes = labels[scores >= threshold], boxes[scores >= threshold]
        hit = recognised(labels, boxes, target)
        found.append(Found(boxes_xyxy=boxes, labels=labels, recognised=hit))
    return found


def recognised(labels: Tensor, boxes_xyxy: Tensor, target: Target) -> Tensor:
    """For each object whether a box [N, 4] of its class has an IoU of .5 or more with it [T]."""
    true = in_pixels(target.boxes, target.size)
    fits = (box_iou(true, boxes_xyxy) >= 0.5) & (target.labels[:, None] == labels)
    return fits.any(1)
