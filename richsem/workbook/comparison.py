"""Two or more trained detectors side by side: tables for figures, and examples by a stated rule."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn
from torchvision.ops import box_convert, box_iou

from richsem.data.box_sets import BoxDataset
from richsem.evaluation import Detections, EvaluationResult
from richsem.training.run_config import RunConfig

Row = dict[str, Any]

METRICS = ("AP", "AP50", "AP75", "APr", "APc", "APf")
BEST = 20  # detections of an image that a user would look at
FOUND_IOU = 0.5
FOUND, MISNAMED, UNSEEN = "found", "box with another name", "no box"


@dataclass(frozen=True, kw_only=True)
class ComparisonConfig:
    """What a comparison was made from.

    Attributes:
        runs: The runs.
        split: Where they are judged.
    """

    runs: tuple[RunConfig, ...]
    split: str


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One image with the boxes of one detector, or the annotated ones.

    Attributes:
        image: The image.
        title: Whose boxes these are.
        boxes_xyxy: In pixels [n, 4].
        names: n class names.
        rare: Which boxes are of rare classes [n].
        arrows_xyxy: Boxes that an arrow points at [k, 4].
    """

    image: Image.Image
    title: str
    boxes_xyxy: np.ndarray
    names: list[str]
    rare: np.ndarray
    arrows_xyxy: np.ndarray | tuple = ()


def with_steps(configs: Mapping[str, RunConfig], steps: int) -> dict[str, RunConfig]:
    """The same runs with another number of detection steps; 0 keeps their own."""
    changed = {}
    for name, config in configs.items():
        turns = 2 if config.data.extra else 1
        train = replace(config.train, steps=steps * turns or config.train.steps)
        changed[name] = replace(config, train=train)
    return changed


def history_frame(histories: Mapping[str, Sequence[Row]]) -> pd.DataFrame:
    """Losses: columns run, step, cpu_seconds, kind (of batch), term, value."""
    return pd.DataFrame(
        {
            "run": run,
            "step": row["step"],
            "cpu_seconds": row["cpu_seconds"],
            "kind": kind,
            "term": term,
            "value": value,
        }
        for run, rows in histories.items()
        for row in rows
        for kind, terms in row["losses"].items()
        for term, value in terms.items()
    )


def curve_frame(histories: Mapping[str, Sequence[Row]]) -> pd.DataFrame:
    """Learning curves in percent: columns run, step, cpu_seconds, metric, value."""
    return pd.DataFrame(
        [
            {
                "run": run,
                "step": row["step"],
                "cpu_seconds": row["cpu_seconds"],
                "metric": metric,
                "value": 100 * row["metrics"][metric],
            }
            for run, rows in histories.items()
            for row in rows
            if "metrics" in row
            for metric in METRICS
            if metric in row["metrics"]
        ],
        columns=["run", "step", "cpu_seconds", "metric", "value"],
    )


def metrics_frame(results: Mapping[str, EvaluationResult]) -> pd.DataFrame:
    """The main metrics in percent, one row per run."""
    rows = {
        run: {name: 100 * result.metrics[name] for name in METRICS if name in result.metrics}
        for run, result in results.items()
    }
    return pd.DataFrame(rows).T


def verdict(table: pd.DataFrame, baseline: str, other: str) -> str:
    """The differences of two runs in words; one seed is an example and no proof."""
    gains = table.loc[other] - table.loc[baseline]
    parts = [f"{name} {gain:+.1f}" for name, gain in gains.items() if name != "AP75"]
    return (
        f"**What we saw.** {other} against {baseline}, one seed: {', '.join(parts)}. "
        "Seeds differ by a point or so: read a small difference as none. Whether the difference "
        "is real, and what is left of it at equal compute, takes several seeds."
    )


def class_frame(results: Mapping[str, EvaluationResult], dataset: BoxDataset) -> pd.DataFrame:
    """AP of every judged class in percent: one column per run, and name and frequency group."""
    frame = pd.DataFrame({run: 100 * pd.Series(r.per_category) for run, r in results.items()})
    groups = dataset.frequency_groups()
    known = {c.id: (c.name, g) for c, g in zip(dataset.categories, groups, strict=True)}
    frame[["category", "group"]] = [known[i] for i in frame.index]
    return frame


def rare_found(dataset: BoxDataset, detections: Detections) -> np.ndarray:
    """Share of the rare objects of each image that are found, [N]; NaN where there are none.

    Found means: a detection of the class among the `BEST` of the image overlaps by `FOUND_IOU`.
    """
    rare = (dataset.frequency_groups() == "r")[dataset.labels]
    found = box_outcomes(dataset, detections.best_per_image(BEST))[0] == FOUND
    objects, hits = (
        np.bincount(dataset.box_image[rows], minlength=len(dataset))
        for rows in (rare, rare & found)
    )
    return np.divide(hits, objects, out=np.full(len(dataset), np.nan), where=objects > 0)


def box_outcomes(dataset: BoxDataset, detections: Detections) -> tuple[np.ndarray, np.ndarray]:
    """What becomes of every annotated box, and which detections are right.

    A box is found, and a detection right, if a pair of one class overlaps by `FOUND_IOU`; several
    detections may find one box.

    Returns:
        `FOUND`, `MISNAMED` (only another class overlaps) or `UNSEEN` for each box [n], and whether
        each detection is right [D].
    """
    ids = np.array([category.id for category in dataset.categories])
    outcomes = np.full(len(dataset.labels), UNSEEN, dtype=object)
    right = np.zeros(len(detections), dtype=bool)
    corners = _xyxy(detections)
    order = np.argsort(detections.image_id, kind="stable")
    starts, ends = (
        np.searchsorted(detections.image_id[order], dataset.image_ids, side)
        for side in ("left", "right")
    )
    for image in range(len(dataset)):
        rows = slice(dataset.offsets[image], dataset.offsets[image + 1])
        own = order[starts[image] : ends[image]]
        boxes = torch.from_numpy(dataset.boxes_xyxy[rows]).double()
        over = box_iou(boxes, corners[own]).numpy() >= FOUND_IOU
        agree = over & (ids[dataset.labels[rows]][:, None] == detections.category_id[own][None])
        outcomes[rows][over.any(axis=1)] = MISNAMED
        outcomes[rows][agree.any(axis=1)] = FOUND
        right[own] = agree.any(axis=0)
    return outcomes, right


def largest_changes(
    dataset: BoxDataset, detections: Mapping[str, Detections], count: int
) -> list[int]:
    """Images where the last run gains and loses most of the first one's rare objects found.

    `count` gains, largest first, then as many losses; ties go to the image that comes first.
    """
    first, *_, last = (rare_found(dataset, found) for found in detections.values())
    change = np.nan_to_num(last - first)
    gains, losses = (np.argsort(-sign * change, kind="stable")[:count] for sign in (1, -1))
    return [int(i) for i in gains if change[i] > 0] + [int(i) for i in losses if change[i] < 0]


def panels(
    dataset: BoxDataset,
    detections: Mapping[str, Detections],
    images: Sequence[int],
    threshold: float = 0.3,
) -> list[list[Panel]]:
    """For each image the annotated boxes and every run's detections above a score."""
    is_rare = dataset.frequency_groups() == "r"
    label_of = {category.id: i for i, category in enumerate(dataset.categories)}
    shown = {run: _by_image(dataset, found, threshold) for run, found in detections.items()}
    rows = []
    for image in images:
        boxes, labels = dataset.boxes_of(image)
        names = [dataset.categories[label].name for label in labels]
        truth = Panel(
            image=dataset.image(image),
            title="annotated",
            boxes_xyxy=boxes,
            names=names,
            rare=is_rare[labels],
        )
        rows.append([truth])
        for run, by_image in shown.items():
            own = by_image[image]
            labels = np.array([label_of[i] for i in own.category_id], dtype=int)
            names = [dataset.categories[label].name for label in labels]
            boxes = _xyxy(own).numpy()
            seen = replace(truth, title=run, boxes_xyxy=boxes, names=names, rare=is_rare[labels])
            rows[-1].append(seen)
    return rows


def size_frame(detectors: Mapping[str, nn.Module]) -> pd.DataFrame:
    """Parameters of each detector, in all and by part."""
    rows = {}
    for run, detector in detectors.items():
        counts = pd.Series(dtype=int)
        for name, parameter in detector.named_parameters():
            part = name.split(".")[0]
            counts[part] = counts.get(part, 0) + parameter.numel()
        rows[run] = {"all": counts.sum(), **counts}
    return pd.DataFrame(rows).fillna(0).astype(int)


def _by_image(
    dataset: BoxDataset, detections: Detections, threshold: float = 0.0
) -> list[Detections]:
    """The detections of each image of the set, in its order."""
    found = []
    for image_id in dataset.image_ids:
        own = (detections.image_id == image_id) & (detections.score >= threshold)
        found.append(
            Detections(
                image_id=detections.image_id[own],
                category_id=detections.category_id[own],
                bbox_xywh=detections.bbox_xywh[own],
                score=detections.score[own],
            )
        )
    return found


def _xyxy(detections: Detections) -> torch.Tensor:
    return box_convert(torch.from_numpy(detections.bbox_xywh), "xywh", "xyxy")
