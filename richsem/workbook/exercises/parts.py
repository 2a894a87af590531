"""Exercises of notebooks 00 to 07: the data, the teacher, the detectors, the losses."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torchvision.ops import box_iou

from richsem.boxes import generalized_iou, overlap, to_xyxy
from richsem.data.box_sets import BoxDataset
from richsem.data.transforms import Picture
from richsem.models.clip import soft_labels
from richsem.models.dino import denoising
from richsem.operations.store import Judged
from richsem.training.run_config import RunConfig
from richsem.workbook import signals
from richsem.workbook.course import close
from richsem.workbook.zero_shot import RegionInspector


def rare_boxes(*, dataset: BoxDataset, groups: np.ndarray) -> dict[str, float]:
    """00, compute: share of a set's boxes that belong to rare classes."""
    return {"right": (groups[dataset.labels] == "r").mean(), "classes": (groups == "r").mean()}


def misnamed_box(answer: Any, *, inspector: RegionInspector) -> str | None:
    """00, change: an image and a box of it whose likeliest class is not the annotated one."""
    seen = inspector.view(*map(int, answer))
    hint = f"here CLIP's first class is the annotated one, {seen.true_name}."
    return hint if seen.names[0] == seen.true_name else None


def classes_of_share(*, tails: pd.DataFrame) -> dict[str, float]:
    """01, compute: how many of the first set's most frequent classes hold 80 % of its objects."""
    first = tails.loc[tails["dataset"] == tails["dataset"].iloc[0], "instances"]
    before = (first.sort_values(ascending=False).cumsum() < 0.8 * first.sum()).sum()
    return {"right": before + 1, "before": before}


def cost_of_the_prior(*, probe: Callable[..., dict[str, float]]) -> dict[str, float]:
    """01, change: rare accuracy in percent of the probe without the correction of its prior."""
    return {"right": probe(corrected=False)["r"], "corrected": probe(corrected=True)["r"]}


def right_in_five(*, ranks: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """02, compute: share of boxes [A] whose true class is among the first five."""
    by_class = pd.Series(ranks < 5).groupby(labels).mean().mean()
    return {"right": (ranks < 5).mean(), "six": (ranks <= 5).mean(), "by_class": by_class}


def tau_of_doubt(answer: Any, *, features: Tensor, text: Tensor, classes: float) -> str | None:
    """02, change: the tau with which soft labels are as uncertain as so many classes."""
    found = signals.effective_classes(soft_labels(features, text, float(answer))).mean().item()
    if close(found, classes, 0.03):
        return None
    return f"there they are like {found:.1f} classes; a smaller tau makes them flatter."


def giou_by_hand(*, first: Tensor, second: Tensor) -> dict[str, float]:
    """03, compute: the generalised IoU of two boxes xyxy [4]."""
    iou, truth = float(overlap(first, second)[0]), float(generalized_iou(first, second))
    return {"right": truth, "iou": iou, "added": 2 * iou - truth}


def noise_of_overlap(answer: Any, *, box: Tensor, wanted: float) -> str | None:
    """03, change: the noise with which positives of a box cxcywh [4] have a median IoU."""
    torch.manual_seed(0)
    draws = denoising.draw((1, 4000, 1), 1, box.device)
    noisy = denoising.noisy_boxes(box.expand(1, 4000, 1, 4), draws, float(answer))[0, ::2, 0]
    median = overlap(to_xyxy(noisy), to_xyxy(box))[0].median().item()
    return None if close(median, wanted, 0.02) else f"there the median IoU is {median:.2f}."


def strongest_stage(*, steps: pd.DataFrame) -> dict[str, float]:
    """04, compute: how much the mean IoU gains in the stage that gains most."""
    means = steps.mean()
    every = means.iloc[-1] - means.iloc[0]
    return {"right": means.diff().max(), "every": every, "mean": means.iloc[1]}


def ranges_apart(answer: Any, *, levels: int) -> str | None:
    """04, change: half diagonals (from, to) by level, so that each object is on one level."""
    edges = np.array(answer, dtype=float).reshape(levels, 2)
    gaps = edges[1:, 0] - edges[:-1, 1]
    if (gaps < 0).any() or (edges[:, 0] >= edges[:, 1]).any():
        return "some sizes still belong to two levels, or a range ends before it begins."
    whole = edges[0, 0] == 0 and not gaps.any() and edges[-1, 1] > 1000
    return None if whole else "some sizes belong to no level now; their objects are not learnt."


def share_of_mistakes(*, soft: Tensor, labels: Tensor, asked: Tensor) -> dict[str, float]:
    """05, compute: share of the `asked` soft labels whose likeliest class is not the annotated."""
    wrong = (soft.argmax(dim=1) != labels).float()
    truth = wrong[asked].mean().item()
    return {"right": truth, "teacher_right": 1 - truth, "every": wrong.mean().item()}


def steps_to_unlearn(*, target: Tensor, label: int, other: int) -> dict[str, float]:
    """05, change: steps until a class is likelier than one whose logit began 3 higher."""
    start = torch.zeros(len(target)).index_fill(0, torch.tensor(other), 3.0)
    path = signals.pull(target, start, steps=256, rate=0.5)
    return {"right": int((path[:, label] > path[:, other]).nonzero()[0]), "no_lead": 1}


def threshold_of_three(*, dataset: BoxDataset) -> dict[str, float]:
    """06, compute: the repeat-factor threshold that asks for the rarest class three times."""
    counts = dataset.image_counts()
    number = 9 * counts[counts > 0].min()
    right = number / len(dataset)
    return {"right": right, "root": right / 3, "number": number, "percent": 100 * right}


def cut_that_fits(answer: Picture, *, original: Picture) -> str | None:
    """06, change: a window of a known picture whose coarse box fits an object above IoU 0.9."""
    if answer.size == original.size:
        return "this is the whole picture: cut something away."
    coarse = answer.labels == 0
    ious = box_iou(answer.boxes_xyxy[coarse], answer.boxes_xyxy[~coarse])
    if not ious.numel():
        return "the object is gone: where is it in `original.boxes_xyxy`?"
    if ious.max() > 0.9:  # the notebook itself shows one of .87
        return None
    return f"the IoU is {ious.max():.2f}: cut nearer to the object's own box."


def points_of_a_group(*, classes: pd.DataFrame) -> dict[str, float]:
    """07, compute: how many points of the gain in AP come from rare classes.

    `classes` has the AP of every class under baseline and RichSem, in percent, and its group.
    """
    gain = (classes["RichSem"] - classes["baseline"]).dropna()
    rare = gain[classes["group"].reindex(gain.index) == "r"]
    right = rare.sum() / len(gain)
    return {"right": right, "of_rare": rare.mean(), "sum": rare.sum(), "whole": gain.mean()}


def quarter_of_the_steps(
    answer: Mapping[str, Judged], *, configs: Mapping[str, RunConfig]
) -> str | None:
    """07, change: both runs, judged, with a quarter of the detection steps."""
    if set(answer) != set(configs):
        return f"two judged runs are asked for: {', '.join(configs)}."
    steps = {name: run.config.train.steps for name, run in answer.items()}
    quarter = configs["baseline"].train.steps // 4
    if steps["baseline"] != quarter:
        return f"the baseline took {steps['baseline']} steps; a quarter is {quarter}."
    if steps["RichSem"] != 2 * quarter:
        return "RichSem takes an extra step after each *detection* step: `comparison.pair` does it."
    return None
