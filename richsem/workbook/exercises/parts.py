"""Exercises of notebooks 00 to 07: the data, the teacher, the detectors, the losses."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from torch import Tensor
from torchvision.ops import box_iou

from richsem.data.box_sets import BoxDataset
from richsem.data.transforms import Picture
from richsem.operations.store import Judged
from richsem.training.run_config import RunConfig
from richsem.workbook.course import close, near, points


def share_of_mistakes(answer: Any, *, soft: Tensor, labels: Tensor) -> str | None:
    """05, compute: share of soft labels whose likeliest class is not the annotated one."""
    wrong = (soft.argmax(dim=1) != labels).float().mean().item()
    if close(answer, wrong, 0.005):
        return None
    if close(answer, 1 - wrong, 0.005):
        return "that is how often the teacher is right."
    if close(answer, 100 * wrong, 0.005):
        return "a share lies between 0 and 1."
    return "compare `soft.argmax(dim=1)` with `labels`, object by object."


def threshold_of_three(answer: Any, *, dataset: BoxDataset) -> str | None:
    """06, compute: the repeat-factor threshold that asks for the rarest class three times."""
    counts = dataset.image_counts()
    share = counts[counts > 0].min() / len(dataset)
    slips = {
        "the factor is the *root* of t / f.": 1000 * 3 * share,
        "t is compared with a *share* of the images, not with a number.": 9000
        * share
        * len(dataset),
    }
    return near(1000 * float(answer), 9000 * share, slips, "solve 3 = sqrt(t / f) for t.")


def cut_that_fits(answer: Picture, *, original: Picture) -> str | None:
    """06, change: a window of a known picture whose coarse box fits an object above IoU 0.8."""
    if answer.size == original.size:
        return "this is the whole picture: cut something away."
    coarse = answer.labels == 0
    ious = box_iou(answer.boxes_xyxy[coarse], answer.boxes_xyxy[~coarse])
    if not ious.numel():
        return "the object is gone: where is it in `original.boxes_xyxy`?"
    if ious.max() > 0.8:
        return None
    return f"the IoU is {ious.max():.2f}: cut nearer to the object's own box."


def which_box_to_trust(answer: Any) -> str | None:
    """06, argue: when does Detic's choice, when does a tile point at the object?"""
    portraits = "portrait|one object|single object|object-centric|alone"
    others = "scene|other object|several|crowd|many objects"
    return points(answer, portraits=portraits, others=others, look="soft|clip|teacher")


def points_of_a_group(answer: Any, *, classes: pd.DataFrame) -> str | None:
    """07, compute: how many points of the gain in AP come from rare classes.

    `classes` has the AP of every class under baseline and RichSem, in percent, and its group.
    """
    gain = (classes["RichSem"] - classes["baseline"]).dropna()
    rare = gain[classes["group"].reindex(gain.index) == "r"]
    slips = {
        "this is AP_r's own gain: a mean over rare classes, and AP is one over all.": rare.mean(),
        "a sum; AP is a mean over all classes.": rare.sum(),
        "this is the whole gain in AP.": gain.mean(),
    }
    hint = "add up the gains of rare classes; by how many classes is AP divided?"
    return near(answer, rare.sum() / len(gain), slips, hint)


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


def what_one_seed_leaves_open(answer: Any) -> str | None:
    """07, argue: what a fair comparison of these two runs needs besides one seed."""
    cost = "compute|longer|twice|double|cost|equal"
    return points(answer, cost=cost, seeds="seed|repeat|chance", cause="label|control|soft|clip")
