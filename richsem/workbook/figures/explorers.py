"""Explorers of the course: each a figure that stands for itself, and the same with controls."""

from collections.abc import Callable
from functools import partial
from math import log10

import ipywidgets as widgets
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from richsem.boxes import in_pixels, overlap
from richsem.data import sampling
from richsem.data.box_sets import BoxDataset
from richsem.models.dino import denoising
from richsem.structures import Target
from richsem.training.run_config import RunConfig
from richsem.workbook import comparison
from richsem.workbook.figures import drawing, style
from richsem.workbook.figures.widgets import explorer
from richsem.workbook.panels import of_classes

_GROUPS = 100  # of denoising queries, behind a histogram


def tail_figure(dataset: BoxDataset, rare: int = 10, common: int = 100, t: float = 0.02) -> Figure:
    """The tail with other borders of its groups, and an epoch with repeat factors from `t` on.

    Classes are rare up to so many images, common up to so many; an image belongs to the group of
    its rarest class.
    """
    counts, factors = dataset.image_counts(), sampling.repeat_factors(dataset, t)
    order = np.argsort(-counts, kind="stable")[: (counts > 0).sum()]
    rarest = np.full(len(dataset), counts.max())
    np.minimum.at(rarest, dataset.box_image, counts[dataset.labels])
    group, images = (
        np.select([own <= rare, own <= common], ["r", "c"], "f") for own in (counts, rarest)
    )
    fig, (left, right) = drawing.grid(2, 2, (4.4, 3.2), width_ratios=(1.4, 1))
    looks = [(style.GROUP_COLORS[g], style.GROUP_HATCHES[g]) for g in style.GROUPS]
    for g, (color, hatch) in zip(style.GROUPS, looks, strict=True):
        (rows,) = np.nonzero(group[order] == g)
        if len(rows):  # one shape for all, which is quicker than bars
            label, edges = f"{style.GROUP_NAMES[g]} ({len(rows)})", np.arange(len(rows) + 1)
            look = {"facecolor": color, "hatch": hatch, "edgecolor": "white", "linewidth": 0}
            left.stairs(counts[order][rows], rows[0] + edges, fill=True, label=label, **look)
    left.plot(sampling.class_shows(dataset, factors)[order], "k-", label="shown in an epoch")
    left.set(yscale="log", ylim=(0.8, None), xlabel="classes, most frequent first")
    left.set(ylabel="training images", title=f"rare to {rare}, common to {common} images")
    left.minorticks_off()
    left.legend(loc="upper right", handlelength=1.2)
    parts = {"classes": (group[order], None), "objects": (group[dataset.labels], None)}
    parts |= {"images": (images, None), "an epoch": (images, factors)}
    shares = [[np.average(own == g, weights=w) for g in style.GROUPS] for own, w in parts.values()]
    style.share_bars(right, pd.DataFrame(shares, list(parts)), looks)
    right.get_legend().remove()
    right.set_title(f"t = {t:.2g}: {factors.sum() / len(dataset):.2f} times the images")
    return fig


def tail_explorer(dataset: BoxDataset) -> widgets.Widget:
    """`tail_figure` with sliders for both borders and the threshold of repeat factors."""
    most = max(200, int(dataset.image_counts().max()))
    controls = {
        "rare": widgets.IntSlider(10, 0, most, description="rare to"),
        "common": widgets.IntSlider(100, 0, most, description="common to"),
        "t": widgets.FloatLogSlider(0.02, min=-4, max=0, step=0.1, description="repeat t"),
    }
    return explorer(partial(tail_figure, dataset), controls, steady=True)


def class_figure(dataset: BoxDataset, label: int) -> Figure:
    """Five images of a class, evenly spread over the file, with its boxes."""
    images = np.unique(dataset.box_image[dataset.labels == label])
    panels = []
    for image in images[np.linspace(0, len(images) - 1, min(5, len(images))).astype(int)]:
        boxes, labels = dataset.boxes_of(image)
        panels.append(of_classes(dataset, image, boxes[labels == label], labels[labels == label]))
    words = f"{dataset.categories[label].name.replace('_', ' ')}: {len(images)} images"
    return drawing.panel_figure(panels, columns=5, side=1.9, row_names=[words])


def class_explorer(dataset: BoxDataset) -> widgets.Widget:
    """`class_figure` with a slider over the classes, most frequent first."""
    counts = dataset.image_counts()
    order = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
    options = [(f"{place} of {len(order)}", i) for place, i in enumerate(order, 1)]
    controls = {"label": widgets.SelectionSlider(options=options, description="class")}
    return explorer(partial(class_figure, dataset), controls)


def denoising_figure(
    image: np.ndarray, target: Target, noise: float = 1.0, seed: int = 0, kinds: int = 2
) -> Figure:
    """One denoising group on its image [H, W, 3], and the overlaps of many groups.

    `kinds` is 0 for the annotated boxes alone, 1 for positives with them, 2 for negatives too.
    """
    torch.manual_seed(seed)
    boxes = target.boxes.expand(1, 2 * _GROUPS, *target.boxes.shape)
    draws = denoising.draw(boxes.shape[:3], 1, boxes.device)
    noisy = denoising.noisy_boxes(boxes, draws, noise)[0]
    noisy[..., 2:].abs_()  # some negatives are turned inside out
    true, moved = in_pixels(target.boxes, target.size), in_pixels(noisy, target.size)
    fig, (scene, ax) = drawing.grid(2, 2, (3.9, 3.4))
    drawing.show(scene, image, f"one group, $\\lambda$ = {noise:g}; annotated boxes are black")
    for box in true:
        drawing.outline(scene, box, "black", 2.2)
    for k, kind in enumerate(("positive", "negative")[:kinds]):
        color, line, hatch = style.SERIES_COLORS[k], style.SERIES_LINES[k], style.SERIES_HATCHES[k]
        for box in moved[k]:
            drawing.outline(scene, box, color, 1.6, line, clip=False)
        ious, look = overlap(moved[k::2], true)[0].ravel(), {"color": color, "hatch": hatch}
        words = f"{kind}: median {ious.median():.2f}"
        ax.hist(ious.numpy(), np.linspace(0, 1, 21), label=words, alpha=0.6, **look)
        ax.legend(loc="upper left", handlelength=1.4)
    ax.set(xlabel="IoU with the annotated box", xlim=(0, 1), yticks=[], title=f"{_GROUPS} groups")
    return fig


def denoising_explorer(image: np.ndarray, target: Target) -> widgets.Widget:
    """`denoising_figure` with a slider for the noise, other draws, and one kind after another."""
    steps = [("annotated", 0), ("+ positives", 1), ("+ negatives", 2)]
    controls = {
        "kinds": widgets.ToggleButtons(options=steps, value=2, description="shown"),
        "noise": widgets.FloatSlider(1.0, min=0.0, max=2.0, step=0.05, description="lambda"),
        "seed": widgets.IntSlider(0, 0, 20, description="draw"),
    }
    draw = partial(denoising_figure, image, target)
    return explorer(draw, controls, steady=True)


def mixture_explorer(draw: Callable[[float, float], Figure], tau: float) -> widgets.Widget:
    """Sliders for the weight of the soft label against the hard one, and for the soft one's tau."""
    ends = {"min": log10(tau) - 1, "max": log10(tau) + 0.5, "step": 0.05}
    controls = {
        "weight": widgets.FloatSlider(0.5, min=0.0, max=1.0, step=0.05, description="soft weight"),
        "tau": widgets.FloatLogSlider(tau, **ends, description="tau"),
    }
    return explorer(draw, controls, steady=True)


# --- 13: two runs on rare classes ----------------------------------------------------------------

_ALL = "all rare classes"


def compared_figure(
    side: comparison.SideBySide,
    config: RunConfig,  # of one of the runs: knows how pictures are drawn
    *,
    category: str = _ALL,
    place: int = 0,
    score: float = 0.3,
    alike: bool = True,
) -> Figure:
    """A picture as annotated and as both runs show it, by its place in the order of gains.

    Of pictures with rare objects, or with those of one rare class. `score` and `alike` choose what
    is shown, see `SideBySide.thresholds`.
    """
    thresholds = side.thresholds(score, alike=alike)
    outcomes = side.outcomes(thresholds)
    if category != _ALL:
        names = [side.dataset.categories[label].name for label in side.dataset.labels]
        outcomes = outcomes[[names[box] == category for box in outcomes["box"]]]
    ranked = comparison.ranking(outcomes)
    images = [int(ranked.index[place])]
    rows = comparison.examples(side.dataset, side.shown(thresholds), outcomes, images)
    scores = ", ".join(f"{run} from {score:.2f}" for run, score in thresholds.items())
    words = f"{place + 1} of {len(ranked)}, gain {ranked['gain'].iloc[place]:+.0%}; {scores}"
    rows = comparison.sharper(rows, images, side.dataset, config)
    return drawing.panel_figure(rows[0], columns=3, side=2.3, row_names=[words])


def compared_explorer(side: comparison.SideBySide, config: RunConfig) -> widgets.Widget:
    """`compared_figure` with a choice of class, those of the largest gain first, and sliders."""
    classes = side.by_class(side.thresholds(0.3))
    numbers = {_ALL: side.found["image"].nunique(), **classes["images"].to_dict()}
    options = [(_ALL, _ALL)]
    options += [(f"{name} ({gain:+.0%})", name) for name, gain in classes["gain"].items()]
    ways = [("same number of wrong boxes", True), ("same score", False)]
    controls = {
        "category": widgets.Dropdown(options=options, description="class"),
        "place": widgets.IntSlider(0, 0, numbers[_ALL] - 1, description="place"),
        "score": widgets.FloatSlider(0.3, min=0.05, max=0.9, step=0.05, description="score"),
        "alike": widgets.ToggleButtons(options=ways, description="compare at"),
    }
    limit = ("place", "category", numbers)
    return explorer(partial(compared_figure, side, config), controls, limit=limit)
