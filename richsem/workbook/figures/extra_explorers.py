"""Explorers of notebooks 06, 08 and 10: each a static figure, and the same with controls."""

from collections.abc import Mapping, Sequence
from functools import partial

import ipywidgets as widgets
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from richsem.data import sampling
from richsem.data.box_sets import BoxDataset
from richsem.data.corrupt import drop_annotations
from richsem.losses.classification import FederatedClasses
from richsem.workbook import error_verdicts, judging
from richsem.workbook.coarse import Proposed
from richsem.workbook.error_verdicts import Judgement
from richsem.workbook.figures import drawing, style
from richsem.workbook.figures.widgets import explorer
from richsem.workbook.panels import Panel

_RANKS = 20  # errors of a kind that can be leafed through


def choice_figure(
    found: Proposed, names: Sequence[str], order: str = "sizes", place: int = 0
) -> Figure:
    """A proposal beside the tile and the label's object, and all by size and by how they fit.

    `place` counts from the largest, or by "scores" from the highest score for the label. Detic's
    choice is the largest.
    """
    row = np.argsort(-getattr(found, order), kind="stable")[place]
    *ious, tile = found.ious
    fig, (scene, ax) = drawing.grid(2, 2, (3.7, 3.5))
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
        "largest, Detic's choice": (found.sizes.argmax(), 130, "s", 0),
        "highest score": (found.scores.argmax(), 90, "D", 2),
        "the one on the left": (row, 45, "o", 1),
    }
    for name, (at, size, marker, color) in marks.items():
        look = {"s": size, "marker": marker, "edgecolor": style.SERIES_COLORS[color]}
        look |= {"facecolor": "none", "linewidth": 2, "zorder": 3}
        ax.scatter(found.sizes[at], ious[at], label=f"{name}: IoU {ious[at]:.2f}", **look)
    ax.set(xlabel="size, part of the image", ylabel="IoU with the object")
    ax.set(xlim=(0, 1.05), ylim=(-0.05, 1.05))
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
    return explorer(partial(choice_figure, names=names), controls, steady=True)


def error_figure(judgement: Judgement, kind: str, group: str = "all", place: int = 0) -> Figure:
    """A detection with a verdict in its image with all true boxes, and cut out beside it.

    `place` counts from the strongest one; beyond the last one, that is shown.
    """
    number = len(judgement.strongest(kind, _RANKS, group))
    place, words = min(place, number - 1), f"{kind}, {style.GROUP_NAMES[group]} classes"
    if not number:
        return drawing.panel_figure([Panel(image=np.ones((2, 4, 3)))], columns=1, row_names=[words])
    sides = [
        judging.error_example(judgement, kind, place, group, whole=whole) for whole in (True, False)
    ]
    words = f"{words}: {place + 1} of the {number} strongest"
    return drawing.panel_figure(sides, columns=2, side=3.4, row_names=[words])


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
        part = pd.DataFrame(columns).iloc[order].reset_index(drop=True)
        rows.append(part.reset_index(names="place").assign(set=name))
    fig, axes = drawing.grid(3, 3, (3.2, 2.9))
    titles = {"boxes": "boxes", "shows": "shows of an image per epoch", "odds": "federated odds, %"}
    for ax, (column, title) in zip(axes, titles.items(), strict=True):
        style.lines(ax, pd.concat(rows), "place", column, "set", marker="", drawstyle="steps-mid")
        ax.set(title=title, xlabel="classes, most frequent first", ylim=(0, None))
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
    return explorer(partial(dropping_figure, dataset, t=t), controls, steady=True)
