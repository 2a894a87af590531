"""The two-stage detector that notebook 04 looks at, and what it shows of itself."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torchvision.ops import box_iou

from richsem.data.box_sets import BoxDataset
from richsem.data.categories import spoken_names
from richsem.data.samples import DetectionTrainingSet, collate
from richsem.data.transforms import Transform, TransformConfig
from richsem.losses.centernet2_criterion import CenterNet2Criterion, CenterNet2CriterionConfig
from richsem.losses.centers import CenterTargets, center_targets
from richsem.models.centernet2.assignment import annotated_regions, join, matched
from richsem.models.centernet2.centernet2 import CenterNet2, CenterNet2Config
from richsem.models.centernet2.first_stage import make_cells
from richsem.models.clip import MINI, ClipConfig, FrozenClip
from richsem.paths import ROOT
from richsem.recipes.centernet2_recipes import MINI_CENTERNET2, MINI_LOSS, MINI_OPTIM
from richsem.recipes.dino_recipes import SCENE
from richsem.structures import Batch, Cells, Supervision, TwoStageOutput
from richsem.training.checkpoint import load_detector
from richsem.training.optim import OptimConfig
from richsem.workbook.anatomy import pixel_boxes
from richsem.workbook.notebook_data import DataConfig


@dataclass(frozen=True, kw_only=True)
class TwoStageStudyConfig:
    """A detector and what it learns by heart.

    Attributes:
        data: The images.
        folder: A trained run to look at; empty for a small detector that learns some images.
        detector: The small detector.
        loss: What it minimises.
        clip: Whose text features name its classes.
        transform: How images are resized.
        seed: Of new weights and sampled regions.
        learnt: Images that are learnt by heart.
        steps: How often they are shown.
        optim: How they are learnt.
    """

    data: DataConfig
    folder: str = ""
    detector: CenterNet2Config = MINI_CENTERNET2
    loss: CenterNet2CriterionConfig = MINI_LOSS
    clip: ClipConfig = MINI
    transform: TransformConfig = SCENE
    seed: int = 0
    learnt: int = 12
    steps: int = 160
    optim: OptimConfig = MINI_OPTIM


def study(data: DataConfig, *, seed: int = 0, folder: str = "") -> TwoStageStudyConfig:
    """The configuration of notebook 04 for a profile; at smoke less is learnt."""
    config = TwoStageStudyConfig(data=data, seed=seed, folder=folder)
    return replace(config, learnt=4, steps=6) if data.profile == "smoke" else config


@dataclass(frozen=True, kw_only=True)
class TwoStageSubject:
    """A detector, its loss, and images as it takes them.

    Attributes:
        detector: With new or with trained weights.
        criterion: Its loss.
        samples: The images, resized and not augmented.
        names: What each class index is called.
    """

    detector: CenterNet2
    criterion: CenterNet2Criterion
    samples: DetectionTrainingSet
    names: tuple[str, ...]

    def batch(self, images: Sequence[int]) -> Batch:
        """Some of the images as a batch."""
        pad_multiple = self.detector.config.pad_multiple
        samples = [self.samples[int(image), 0] for image in images]
        return collate(samples, Supervision.DETECTION, pad_multiple)


def open_two_stages(config: TwoStageStudyConfig, dataset: BoxDataset) -> TwoStageSubject:
    """The small detector with the classes of a data set, or the detector of a run.

    Raises:
        ValueError: The run's detector is another one, or has other classes.
    """
    names = tuple(spoken_names(dataset.categories))
    if config.folder:
        detector, _ = load_detector(ROOT / Path(config.folder).expanduser())
    else:
        text, scale = _vocabulary(config.clip, names)
        sizes = {"num_classes": len(text), "text_dim": text.shape[1], "scale": scale}
        torch.manual_seed(config.seed)
        detector = CenterNet2(replace(config.detector, **sizes), text)
    if not isinstance(detector, CenterNet2) or detector.config.num_classes != len(names):
        raise ValueError(
            f"{config.folder}: not a CenterNet2 for the {len(names)} classes of {dataset.name}"
        )
    return TwoStageSubject(
        detector=detector,
        criterion=CenterNet2Criterion(config.loss, len(names), dataset.image_counts()),
        samples=DetectionTrainingSet(dataset, Transform(config.transform.evaluation())),
        names=names,
    )


def wanted_centers(subject: TwoStageSubject, batch: Batch) -> tuple[Cells, list[CenterTargets]]:
    """What the cells of each image should say, whatever the detector says."""
    backbone = subject.detector.backbone
    height, width = batch.images.shape[-2:]
    strides = subject.detector.centers.strides
    shapes = [(-(-height // stride), -(-width // stride)) for stride in strides]
    cells = make_cells(shapes, strides, next(backbone.parameters()).device)
    ranges = subject.criterion.config.ranges
    boxes = (pixel_boxes(target.boxes, target) for target in batch.targets)
    return cells, [center_targets(cells, own, ranges) for own in boxes]


def maps_of_levels(values: Tensor, cells: Cells) -> dict[str, np.ndarray]:
    """Values of all cells [M] as one map [h, w] per level, by its stride."""
    maps = {}
    for level in cells.levels.unique().tolist():
        own = cells.levels == level
        height = len(cells.points[own, 1].unique())
        stride = int(cells.strides[own][0])
        maps[f"stride {stride}"] = values[own].view(height, -1).cpu().numpy()
    return maps


def levels_in_charge(cells: Cells, wanted: Sequence[CenterTargets]) -> pd.DataFrame:
    """By stride: objects whose centre and whose sides a level has to tell, and cells that do."""
    rows = []
    for level in cells.levels.unique().tolist():
        stride = int(cells.strides[cells.levels == level][0])
        centres = sum(int((cells.levels[one.peaks] == level).sum()) for one in wanted)
        telling = sum(int((one.rows[cells.levels == level] >= 0).sum()) for one in wanted)
        rows.append({"stride": stride, "centres": centres, "cells that tell sides": telling})
    return pd.DataFrame(rows).set_index("stride")


def proposal_recall(
    output: TwoStageOutput, batch: Batch, numbers: Sequence[int], overlaps: Sequence[float]
) -> pd.DataFrame:
    """Part of the objects that one of an image's best proposals overlaps so much, by number."""
    first, best = output.stages[0], {}
    for number in numbers:
        ious = []
        for image, target in enumerate(batch.targets):
            boxes = first.boxes[first.images == image][:number]
            ious.append(_best_iou(pixel_boxes(target.boxes, target), boxes))
        found = torch.cat(ious)
        best[number] = {f"IoU {o:g}": float((found >= o).float().mean()) for o in overlaps}
    return pd.DataFrame.from_dict(best, orient="index").rename_axis("proposals")


def region_paths(output: TwoStageOutput, batch: Batch) -> pd.DataFrame:
    """How well the region of each object fits it, from the proposal to the last stage.

    The region is the one whose last box overlaps the object most.

    Returns:
        Columns image, object, region, stage ("proposal", "stage 1", ...), iou.
    """
    names = ["proposal", *(f"stage {k}" for k in range(1, len(output.stages) + 1))]
    last, rows = output.stages[-1], []
    for image, target in enumerate(batch.targets):
        own = (last.images == image).nonzero()[:, 0]
        true = pixel_boxes(target.boxes, target)
        if not len(own) or not len(true):
            continue
        answers = own[box_iou(true, last.refined[own]).argmax(dim=1)]
        for number, region in enumerate(answers.tolist()):
            ious = box_iou(path_of(output, region), true[number : number + 1])[:, 0].tolist()
            record = {"image": image, "object": number, "region": region}
            rows += [record | {"stage": s, "iou": i} for s, i in zip(names, ious, strict=True)]
    return pd.DataFrame(rows, columns=["image", "object", "region", "stage", "iou"])


def path_of(output: TwoStageOutput, region: int) -> Tensor:
    """A region's boxes xyxy in pixels from the proposal to the last stage [stages + 1, 4]."""
    refined = (stage.refined[region] for stage in output.stages)
    return torch.stack([output.stages[0].boxes[region], *refined])


def positives_by_overlap(
    output: TwoStageOutput, batch: Batch, overlaps: Sequence[float]
) -> pd.DataFrame:
    """Part of the boxes that enter each stage that would answer for an object, by threshold."""
    annotated = annotated_regions(batch.targets, output.sizes)
    table = {}
    for number, stage in enumerate(output.stages, 1):
        images = [stage.images == image for image in range(len(batch))]
        regions = join([(stage.boxes[own], stage.scores[own]) for own in images])
        rows = {overlap: matched(regions, annotated, overlap).rows for overlap in overlaps}
        table[f"stage {number}"] = {
            f"IoU {overlap:g}": float((own >= 0).float().mean()) for overlap, own in rows.items()
        }
    return pd.DataFrame(table).T


def _best_iou(true: Tensor, boxes: Tensor) -> Tensor:
    return box_iou(true, boxes).amax(dim=1) if len(boxes) else true.new_zeros(len(true))


@cache
def _vocabulary(clip: ClipConfig, names: tuple[str, ...]) -> tuple[Tensor, float]:
    teacher = FrozenClip(clip)
    return teacher.text_features(names), teacher.scale
