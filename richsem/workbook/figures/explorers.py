"""Explorers of the course: each a figure that stands for itself, and the same with controls."""

from collections.abc import Callable, Mapping, Sequence
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
from richsem.data.categories import spoken_names
from richsem.data.corrupt import drop_annotations
from richsem.losses.classification import FederatedClasses
from richsem.models.dino import denoising
from richsem.structures import Target
from richsem.training.run_config import RunConfig
from richsem.workbook import comparison, error_verdicts, judging
from richsem.workbook.coarse import Proposed
from richsem.workbook.error_verdicts import Judgement
from richsem.workbook.figures import charts, drawing, style
from richsem.workbook.figures.widgets import explorer
from richsem.workbook.panels import Panel, of_classes

_GROUPS = 100  # of denoising queries, behind a histogram
_RANKS = 20  # errors of a kind that can be leafed through
_ALL = "all rare classes"


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
    fig, (left, right) = drawing.grid(2, (4.4, 3.2), width_ratios=(1.4, 1))
    shows = sampling.class_shows(dataset, factors)[order]
    left.plot(shows, "k-", label="shown in an epoch")
    frame = pd.DataFrame({"instances": counts, "group": group})
    charts.tail(left, frame, f"rare to {rare}, common to {common} images")
    top = 10 ** np.ceil(np.log10(shows.max()))  # seldom another: ticks take most of a move's time
    left.set(ylim=(0.8, top), xlabel="classes, most frequent first", ylabel="training images")
    left.minorticks_off()
    looks = {group: style.look_of(group, "color", "hatch") for group in style.GROUPS}
    parts = {"classes": (group[order], None), "objects": (group[dataset.labels], None)}
    parts |= {"images": (images, None), "an epoch": (images, factors)}
    shares = [[np.average(own == g, weights=w) for g in style.GROUPS] for own, w in parts.values()]
    style.share_bars(right, pd.DataFrame(shares, list(parts), style.GROUPS), looks)
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
    return explorer(partial(tail_figure, dataset), controls)


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
    """`class_figure` with a list of the classes to click, most frequent first, and a slider.

    Where a list has the focus, JupyterLab takes keys for its own commands; a slider gets them.
    """
    counts = dataset.image_counts()
    order = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
    names = spoken_names(dataset.categories)
    options = [(f"{names[i]}: {counts[i]} images", i) for i in order]
    clicked = widgets.Select(options=options, rows=8, description="class")
    stepped = widgets.SelectionSlider(options=options, readout=False, description="or step")
    widgets.link((clicked, "value"), (stepped, "value"))
    controls = {"label": clicked, "step": stepped}
    return explorer(lambda label, step: class_figure(dataset, label), controls)


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
    fig, (scene, ax) = drawing.grid(2, (3.9, 3.4))
    drawing.show(scene, image, f"one group, $\\lambda$ = {noise:g}; annotated boxes are black")
    for box in true:
        drawing.outline(scene, box, "black", 2.2)
    for k, kind in enumerate(("positive", "negative")[:kinds]):
        for box in moved[k]:
            look = style.look_of(k, "color", "linestyle")
            drawing.outline(scene, box, width=1.6, clip_on=False, **look)
        ious, look = overlap(moved[k::2], true)[0].ravel(), style.look_of(k, "color", "hatch")
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
    return explorer(partial(denoising_figure, image, target), controls)


def mixture_explorer(draw: Callable[[float, float], Figure], tau: float) -> widgets.Widget:
    """Sliders for the weight of the soft label against the hard one, and for the soft one's tau."""
    ends = {"min": log10(tau) - 1, "max": log10(tau) + 0.5, "step": 0.05}
    controls = {
        "weight": widgets.FloatSlider(0.5, min=0.0, max=1.0, step=0.05, description="soft weight"),
        "tau": widgets.FloatLogSlider(tau, **ends, description="tau"),
    }
    return explorer(draw, controls)


def choice_figure(
    found: Proposed, names: Sequence[str], order: str = "sizes", place: int = 0
) -> Figure:
    """A proposal beside the tile and the label's object, and all by size and by how they fit.

    `place` counts from the largest, or by "scores" from the highest score for the label. Detic's
    choice is the largest.
    """
    row = np.argsort(-getattr(found, order), kind="stable")[place]
    *ious, tile = found.ious
    fig, (scene, ax) = drawing.grid(2, (3.7, 3.5))
    boxes = np.concatenate([found.picture.boxes_xyxy.numpy(), found.boxes_xyxy[[row]]])
    inner = len(boxes) - 2
    shown = Panel(
        image=found.picture.image.permute(1, 2, 0).numpy(),
        boxes_xyxy=boxes,
        names=["tile", *[""] * inner, f"score {found.scores[row]:.2f}"],
        kinds=["other", *["object"] * inner, "target"],
        title=f'label "{names[found.label]}", proposal {place + 1} of {len(ious)}',
    )
    drawing.draw_panel(scene, shown)
    ax.axhline(tile, color="black", linestyle="--", label=f"the tile: IoU {tile:.2f}")
    ax.scatter(found.sizes, ious, s=16, color="#aaaaaa")
    marks = {
        "largest, Detic's choice": (found.sizes.argmax(), 11.4, "s", 0),
        "highest score": (found.scores.argmax(), 9.5, "D", 2),
        "the one on the left": (row, 6.7, "o", 1),
    }
    for name, (at, size, marker, color) in marks.items():
        look = {"ms": size, "mfc": "none", "mew": 2, "color": style.SERIES_COLORS[color], "ls": ""}
        words = f"{name}: IoU {ious[at]:.2f}"
        ax.plot(found.sizes[at], ious[at], marker, label=words, **look)
    ax.set(xlabel="size, part of the image", xlim=(0, 1.05))
    ax.set(ylabel="IoU with the object", ylim=(-0.05, 1.05))
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), handlelength=1.6)
    return fig


def choice_explorer(
    found: Mapping[str, Sequence[Proposed]], names: Sequence[str]
) -> widgets.Widget:
    """`choice_figure` with a choice of the image and of the order, and a slider over proposals."""
    images = [(f"{kind}, {i}", one) for kind, own in found.items() for i, one in enumerate(own)]
    orders, number = [("size", "sizes"), ("score", "scores")], len(images[0][1].scores)
    controls = {
        "found": widgets.SelectionSlider(options=images, description="image"),
        "order": widgets.ToggleButtons(options=orders, description="order by"),
        "place": widgets.IntSlider(0, 0, number - 1, description="proposal"),
    }
    return explorer(partial(choice_figure, names=names), controls)


def error_figure(judgement: Judgement, kind: str, group: str = "all", place: int = 0) -> Figure:
    """A detection with a verdict in its image with all true boxes, and cut out beside it.

    `place` counts from the strongest one; beyond the last one, that is shown.
    """
    number = len(judgement.strongest(kind, _RANKS, group))
    place = min(place, number - 1)
    words = f"{kind}, {style.GROUP_NAMES[group]} classes: {place + 1} of the {number} strongest"
    show = partial(judging.error_example, judgement, kind, place, group)
    sides = [show(whole=True), show()] if number else [Panel(image=np.ones((2, 4, 3)))]
    return drawing.panel_figure(sides, columns=len(sides), side=3.4, row_names=[words])


def error_explorer(judgement: Judgement) -> widgets.Widget:
    """`error_figure` with choices of kind and frequency group, and a slider over the ranks."""
    groups = [(style.GROUP_NAMES[g], g) for g in error_verdicts.group_masks(judgement.dataset)]
    kinds = (*error_verdicts.FALSE, error_verdicts.CORRECT)
    controls = {
        "kind": widgets.Dropdown(options=kinds, description="verdict"),
        "group": widgets.ToggleButtons(options=groups, value="all", description="classes"),
        "place": widgets.IntSlider(0, 0, _RANKS - 1, description="rank"),
    }
    return explorer(partial(error_figure, judgement), controls)


def dropping_figure(
    dataset: BoxDataset, share: float = 0.5, t: float = 0.02, seed: int = 0
) -> Figure:
    """Boxes, shows and federated odds of every class, with all annotations and after dropping.

    Shows: how often an epoch with repeat factors from `t` on shows an image of the class. Odds:
    the class's part of the draws of a federated loss, in percent.
    """
    order = np.argsort(-dataset.instance_counts(), kind="stable")
    order, rows = order[: (dataset.instance_counts() > 0).sum()], []
    reduced = drop_annotations(dataset, share, seed)
    for name, one in {"all annotations": dataset, f"{share:.0%} dropped": reduced}.items():
        shows = sampling.class_shows(one, sampling.repeat_factors(one, t))
        odds = FederatedClasses(1, one.image_counts()).weights.numpy()
        columns = {"boxes": one.instance_counts(), "odds": 100 * odds / odds.sum()}
        columns["shows"] = shows / np.maximum(one.image_counts(), 1)
        rows.append(pd.DataFrame(columns).iloc[order].assign(set=name, place=range(len(order))))
    fig, axes = drawing.grid(3, (3.2, 2.9))
    titles = {"boxes": "boxes", "shows": "shows of an image per epoch", "odds": "federated odds, %"}
    frame, full = pd.concat(rows), rows[0]
    # The same for nearly all moves, as above: a class in one image has the largest factor.
    tops = {"boxes": 0, "shows": np.sqrt(t * len(dataset)), "odds": 1.3 * full["odds"].max()}
    for ax, (column, title) in zip(axes, titles.items(), strict=True):
        style.lines(ax, frame, "place", column, "set", marker="", drawstyle="steps-mid")
        ax.set(title=title, xlabel="classes, most frequent first")
        ax.locator_params(nbins=4)
        ax.set_ylim(0, 1.05 * max(tops[column], frame[column].max()))
    axes[0].set(yscale="symlog", yticks=[0, 1, 10, 100], yticklabels=[0, 1, 10, 100])
    axes[0].minorticks_off()
    drawing.legend_below(fig, axes[0])
    return fig


def dropping_explorer(dataset: BoxDataset, t: float = 0.02, seed: int = 0) -> widgets.Widget:
    """`dropping_figure` with a slider over the share that is dropped, and another draw."""
    controls = {
        "share": widgets.FloatSlider(0.5, min=0.0, max=0.95, step=0.05, description="dropped"),
        "seed": widgets.IntSlider(seed, 0, max(20, seed), description="draw"),
    }
    return explorer(partial(dropping_figure, dataset, t=t), controls)


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
    category = widgets.Dropdown(options=options, description="class")
    place = widgets.IntSlider(description="place")
    widgets.dlink((category, "value"), (place, "max"), lambda name: numbers[name] - 1)
    ways = [("same number of wrong boxes", True), ("same score", False)]
    controls = {
        "category": category,
        "place": place,
        "score": widgets.FloatSlider(0.3, min=0.05, max=0.9, step=0.05, description="score"),
        "alike": widgets.ToggleButtons(options=ways, description="compare at"),
    }
    return explorer(partial(compared_figure, side, config), controls)
