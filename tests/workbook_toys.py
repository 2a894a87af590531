"""Shared by the tests of the workbook: values of arms, and what is read off a drawn figure."""

import numpy as np
import pandas as pd
import torch
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from richsem.boxes import to_xywh
from richsem.evaluation import Detections


def frame_of(values, *metrics):
    """Arm -> a value per seed, the same for every metric."""
    return pd.DataFrame(
        {"arm": arm, "seed": seed, "metric": metric, "value": float(value)}
        for arm, own in values.items()
        for seed, value in enumerate(own)
        for metric in metrics
    )


def outlines(ax):
    """The boxes' own lines, without the white halo below each."""
    patches = [p for p in ax.patches if isinstance(p, Rectangle) and not p.get_fill()]
    return [p for p in patches if to_hex(p.get_ec()) != "#ffffff"]


def legend(owner):
    """Names in the legend of axes, or of a figure."""
    one = owner.legends[0] if hasattr(owner, "legends") else owner.get_legend()
    return [text.get_text() for text in one.get_texts()]


def words(texts):
    """What is written beside the ticks, or on axes."""
    return [text.get_text() for text in getattr(texts, "texts", texts)]


def opened(explorer):
    """Its controls by what they are called, and the picture below them."""
    rows, picture = explorer.children
    return {control.description: control for control in rows.children}, picture


def titles(fig):
    return [ax.get_title(loc="left") or ax.get_title() for ax in fig.axes]


def files_of(dataset):
    """Where a set lies, as notebooks are told."""
    return {"annotations": str(dataset.path), "images": str(dataset.image_root)}


def found_at(dataset, labels):
    """Detections at all boxes of a set with other class indices, from the strongest down."""
    ids = np.array([category.id for category in dataset.categories])
    boxes = to_xywh(torch.from_numpy(dataset.boxes_xyxy)).numpy()
    return Detections(
        image_id=np.asarray(dataset.image_ids)[dataset.box_image],
        category_id=ids[labels],
        bbox_xywh=boxes,
        score=np.linspace(0.9, 0.1, len(boxes)),
    )


def found_among(dataset, rows):
    """Detections exactly on annotated boxes: (image, its box, score, category id)."""
    images, boxes, score, category = map(np.array, zip(*rows, strict=True))
    xyxy = torch.from_numpy(dataset.boxes_xyxy[dataset.offsets[images] + boxes])
    known = {"image_id": dataset.image_ids[images], "category_id": category, "score": score}
    return Detections(bbox_xywh=to_xywh(xyxy).numpy(), **known)
