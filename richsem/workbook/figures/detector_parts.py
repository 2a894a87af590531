"""Pictures of a detector's parts on images as it sees them, with padding; nothing is computed."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from richsem.workbook.anatomy import Gaze
from richsem.workbook.figures import drawing, style

_SQUARE = (2.9, 2.9)  # inches of a picture


def maps_figure(
    image: np.ndarray,  # [H, W, 3]
    maps: Mapping[str, np.ndarray],  # title -> map [h, w] (light is high) or picture [h, w, 3]
    *,
    largest: float | None = None,  # end of a common scale from 0; by default each has its own
) -> Figure:
    """The image beside maps of any resolution, shown as squares of their cells."""
    below = 0.3 if largest is None else 0.8
    fig, (first, *others) = drawing.grid(1 + len(maps), _SQUARE, extra=below)
    drawing.show(first, image, "image")
    for ax, (title, values) in zip(others, maps.items(), strict=True):
        drawn = ax.imshow(values, aspect="auto", vmin=0 if largest else None, vmax=largest)
        ax.set_box_aspect(image.shape[0] / image.shape[1])
        ax.set_facecolor("#bbbbbb")  # shows where a value is not a number
        drawing.strip(ax)
        ax.set_title(title, **drawing.TITLE)
    if largest is not None:
        fig.colorbar(drawn, ax=others, shrink=0.75)
    return fig


def code_figure(
    channels: Mapping[str, np.ndarray],  # title -> an entry of the code of all cells [h, w], -1..1
    likeness: Mapping[str, np.ndarray],  # title -> cosine with the marked cell's code [h, w], -1..1
    marks: Mapping[str, tuple[float, float]],  # title -> (row, column) of that cell, if it is there
) -> Figure:
    """Entries of a position code as maps and, below, how like one cell's code all codes are."""
    columns = max(len(channels), len(likeness))
    fig, axes = plt.subplots(2, columns, figsize=(2.3 * columns + 0.6, 5), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for row, maps in zip(axes, (channels, likeness), strict=True):
        for ax, (title, values) in zip(row, maps.items(), strict=False):
            drawn = ax.imshow(values, cmap="gray" if maps is channels else None, vmin=-1, vmax=1)
            ax.set_title(title, **drawing.TITLE)
            if maps is likeness and title in marks:
                for color, width in (("black", 11), ("white", 9)):  # seen on light and dark
                    look = {"marker": "s", "color": "none", "markeredgecolor": color}
                    ax.plot(*marks[title][::-1], markersize=width, **look)
        fig.colorbar(drawn, ax=list(row), shrink=0.8, ticks=[-1, 0, 1])
    return fig


def cells_figure(
    images: Sequence[np.ndarray],  # [H, W, 3] each
    centres: Sequence[Sequence[np.ndarray]],  # per image and level (x, y) in pixels [n, 2]
    titles: Sequence[str],
) -> Figure:
    """The centres of all cells on padded images: where encoder tokens are, by level."""
    fig, axes = drawing.grid(len(images), (3.4, 3.4), extra=0.3)
    for ax, image, levels, title in zip(axes, images, centres, titles, strict=True):
        drawing.show(ax, image, title)
        for level, points in enumerate(levels):
            look = style.look_of(level, "color", "marker")
            look |= {"label": f"level {level}", "zorder": 3 - 0.1 * level}  # small points on top
            area = 8 * 3.2 ** min(level, 4)
            ax.scatter(*points.T, s=area, edgecolor="white", linewidth=0.5, **look)
    drawing.legend_below(fig, axes[0])
    return fig


def attention_figure(
    image: np.ndarray,  # [H, W, 3], padded
    looks: Mapping[str, tuple[Gaze, int]],  # title -> an attention of the first image, and a query
    columns: int,
) -> Figure:
    """Queries and their sampling points: colour and marker tell the level, area the weight.

    A point of average weight is as large as those in the legend; lines join the points to the
    reference, stronger ones for larger weights. Below is the share of each level.
    """
    fig, axes = drawing.grid(len(looks), (3.6, 3.9), columns, 0.4)
    sides = np.array(image.shape[1::-1])
    for ax, (title, (gaze, query)) in zip(axes, looks.items(), strict=True):
        drawing.show(ax, image, title, rim=0.04)
        reference, locations, weights = (
            part[0, query].cpu().numpy() for part in (gaze.references, gaze.locations, gaze.weights)
        )
        centre, extent, locations = reference[0, :2] * sides, reference[0, 2:], locations * sides
        if len(extent):
            box = [*(centre - extent * sides / 2), *(centre + extent * sides / 2)]
            drawing.outline(ax, box, "black", 1.6, drawing.DASHED)
        else:
            for color, width in (("white", 4.5), ("black", 2.2)):
                ax.plot(*centre, marker="+", markersize=13, markeredgewidth=width, color=color)
        parts = (weights / weights.max()).ravel() ** 0.5
        for place, part in zip(locations.reshape(-1, 2), parts.tolist(), strict=True):
            x, y = zip(centre, place, strict=True)
            ax.plot(x, y, color="white", alpha=0.8 * part, linewidth=0.9)
        _, levels, points = weights.shape
        for level in range(levels):
            areas = 34 * weights[:, level].ravel() * levels * points  # 1 is the average weight
            look = style.look_of(level, "color", "marker")
            ax.scatter([], [], s=34, label=f"level {level}", **look)
            look |= {"edgecolor": "white", "linewidth": 0.6, "zorder": 3}
            ax.scatter(*locations[:, level].reshape(-1, 2).T, s=areas, **look)
        shares = weights.sum(-1).mean(0)
        ax.set_xlabel(", ".join(f"{share:.0%}" for share in shares) + " by level", fontsize=8)
    drawing.legend_below(fig, axes[0])
    return fig


def proposals_figure(
    image: np.ndarray,  # [H, W, 3]
    boxes_xyxy: np.ndarray,  # in pixels [N, 4]
    scores: np.ndarray,  # 0 to 1 [N]; high ones have strong lines
    true_boxes: np.ndarray,  # in pixels [K, 4], dashed
    maps: Mapping[str, np.ndarray],  # level -> scores [h, w]; NaN where a token cannot be chosen
    chosen: Mapping[str, np.ndarray],  # level -> (row, column) of chosen tokens [n, 2]
) -> Figure:
    """The best boxes on the image, and the scores of all tokens with the chosen ones marked."""
    top = max(float(scores.max()), 1e-9)
    fig = maps_figure(image, maps, largest=top)
    first, *others, bar = fig.axes
    first.set_title(f"the {len(boxes_xyxy)} best boxes", **drawing.TITLE)
    bar.set_ylabel("score")
    for i in np.argsort(scores):
        part = float(scores[i]) / top
        look = {"alpha": 0.2 + 0.8 * part, "halo": ("white", 0.6 * part)}
        drawing.outline(first, boxes_xyxy[i], style.SERIES_COLORS[0], 0.6 + 1.6 * part, **look)
    for box in true_boxes:
        drawing.outline(first, box, "black", 1.6, drawing.DASHED)
    for ax, title in zip(others, maps, strict=True):
        rows, columns = chosen[title].T
        for color, width in (("white", 2.2), ("black", 1.0)):
            ax.scatter(columns, rows, s=26, facecolor="none", edgecolor=color, linewidth=width)
    return fig


def matching_figure(
    image: np.ndarray,  # [H, W, 3]
    objects: Mapping[str, np.ndarray],  # name -> annotated box xyxy in pixels
    boxes_xyxy: np.ndarray,  # predicted, in pixels [Q, 4]
    costs: Mapping[str, np.ndarray],  # title -> cost of each prediction for each object [Q, N]
    matched: np.ndarray,  # the query of each object [N]
) -> Figure:
    """Who answers for which object: the pairs on the image, and the costs that decided."""
    fig = plt.figure(figsize=(10.0, 1.0 * len(costs) + 0.6))
    left, right = fig.subfigures(1, 2, width_ratios=(1, 2))
    scene = left.subplots()
    drawing.show(scene, image, "objects (dashed) and the queries that answer")
    for (name, true), query in zip(objects.items(), matched, strict=True):
        drawing.outline(scene, true, "black", 1.6, drawing.DASHED)
        drawing.outline(scene, boxes_xyxy[query], style.SERIES_COLORS[1], 1.6)
        drawing.write(scene, true[:2], f"{name[0]}: {query}", va="top")
    axes = right.subplots(len(costs), 1, sharex=True, squeeze=False)[:, 0]
    for ax, (title, cost) in zip(axes, costs.items(), strict=True):
        drawn = ax.imshow(cost.T, aspect="auto")
        ax.scatter(matched, range(len(matched)), s=30, facecolor="white", edgecolor="black")
        ax.set_yticks(range(len(objects)), list(objects), fontsize=7)
        ax.grid(visible=False)
        ax.set_title(title, **drawing.TITLE)
        right.colorbar(drawn, ax=ax, pad=0.01)
    axes[-1].set_xlabel("query")
    return fig


def mask_figure(
    masks: Mapping[str, np.ndarray],  # title -> where a row must not see a column [N, N]
    spans: Mapping[str, Mapping[str, int]],  # title -> name at the side -> its number of queries
) -> Figure:
    """Who may see whom among the decoder's queries: dark is hidden."""
    fig, axes = drawing.grid(len(masks), (3.9, 3.9), extra=0.5)
    colors = ListedColormap(["#f2f2f2", style.SERIES_COLORS[0]])
    for ax, (title, mask) in zip(axes, masks.items(), strict=True):
        ax.imshow(mask, cmap=colors, vmin=0, vmax=1)
        ax.grid(visible=False)
        ax.set_title(title, **drawing.TITLE)
        lengths = np.array(list(spans[title].values()))
        ends = np.cumsum(lengths)
        for end in ends[:-1]:
            ax.axhline(end - 0.5, color="black", linewidth=0.7)
            ax.axvline(end - 0.5, color="black", linewidth=0.7)
        ax.set_yticks(ends - lengths / 2 - 0.5, list(spans[title]), fontsize=8)
        ax.set(xticks=[], xlabel="is seen", ylabel="sees")
        ax.tick_params(length=0)
    for color, word in zip(colors.colors, ("may see", "must not see"), strict=True):
        axes[0].scatter([], [], s=60, marker="s", color=color, edgecolor="black", label=word)
    drawing.legend_below(fig, axes[0])
    return fig


def boxes_figure(
    images: Sequence[np.ndarray],  # [H, W, 3] each
    boxes: Sequence[Mapping[str, np.ndarray]],  # per image, by name: xyxy in pixels [n, 4]
    titles: Sequence[str],
    *,
    stages: bool = False,  # the names are successive: colours from light to dark, a close view
) -> Figure:
    """Boxes by name on images; those called "annotated" are black."""
    size = _SQUARE if stages else (3.6, 3.6)
    fig, axes = drawing.grid(len(images), size, extra=0.7)
    names = [name for name in boxes[0] if name != "annotated"]
    looks = {"annotated": ("black", 1.6, drawing.DASHED) if stages else ("black", 2.4)}
    shades = plt.get_cmap()(np.linspace(0.95, 0.0, len(names)))
    for place, name in enumerate(names):
        color, _, line = style.look_of(place).values()
        looks[name] = (shades[place], 1.8) if stages else (color, 1.5, line)
    for ax, image, own, title in zip(axes, images, boxes, titles, strict=True):
        drawing.show(ax, image, title, rim=0 if stages else 0.04)
        for name, some in own.items():
            halo = ("black", 0.6) if stages and name != "annotated" else ("white", 0.5)
            for k, box in enumerate(np.reshape(some, (-1, 4))):
                drawing.outline(ax, box, *looks[name], label=None if k else name, halo=halo)
        if stages:  # a close view, square and within the image
            corners = np.concatenate([np.reshape(some, (-1, 4)) for some in own.values()])
            low, high = corners[:, :2].min(0), corners[:, 2:].max(0)
            centre, half = (low + high) / 2, 0.7 * max(high - low)
            left, top = np.maximum(centre - half, 0)
            right, foot = np.minimum(centre + half, image.shape[1::-1])
            ax.set(xlim=(left, right), ylim=(foot, top))
    drawing.legend_below(fig, axes[0])
    return fig


def stages_figure(paths: pd.DataFrame) -> Figure:  # of `anatomy.box_paths`
    """IoU of the objects' boxes from stage to stage: mean, and where half and most of them are."""
    fig, ax = plt.subplots(figsize=(5.4, 3.2))
    ious = paths.groupby("stage", sort=False)["iou"]
    for low, alpha, words in ((0.05, 0.2, "5% to 95%"), (0.25, 0.4, "25% to 75%")):
        look = {"color": style.SERIES_COLORS[0], "alpha": alpha, "linewidth": 0}
        band = ious.quantile(low), ious.quantile(1 - low)
        ax.fill_between(band[0].index, *band, label=f"{words} of the objects", **look)
    words = f"mean of {len(paths.drop_duplicates(['image', 'object']))} objects"
    look = {"color": "black", "markersize": 7, "markeredgecolor": "white", "linewidth": 2.4}
    ax.plot(ious.mean(), "o-", label=words, **look)
    ax.set(ylabel="IoU with the annotated box", ylim=(0, 1))
    ax.legend(loc="lower right", handlelength=1.8)
    return fig
