"""Pictures of a detector's parts: maps, tokens, attention, proposals, boxes on their way.

Everything is drawn on the image as the detector sees it, padding included; nothing is computed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullFormatter

from richsem.workbook.figures.style import SEQUENTIAL, SERIES_COLORS, SERIES_LINES, SERIES_MARKERS

_TRUE = {"edgecolor": "black", "linewidth": 1.6, "linestyle": (0, (3, 2))}
_SIDE = 2.9  # inches of a picture


class _Look(Protocol):
    """Where the queries of a layer look; see `richsem.workbook.anatomy.Look`."""

    references: Any
    locations: Any
    weights: Any


@dataclass(frozen=True, kw_only=True)
class AttentionPanel:
    """One query and where it looks, in pixels.

    Attributes:
        image: [H, W, 3].
        locations: Sampling points (x, y) [heads, levels, points, 2].
        weights: Attention weights [heads, levels, points].
        reference: (x, y), or a box xyxy.
        title: Above the image.
    """

    image: np.ndarray
    locations: np.ndarray
    weights: np.ndarray
    reference: np.ndarray
    title: str = ""

    @classmethod
    def of_look(
        cls, image: np.ndarray, look: _Look, query: int, *, row: int = 0, title: str = ""
    ) -> "AttentionPanel":
        """One query of an attention layer, on the padded image that it looks at."""
        sides = np.array(image.shape[1::-1])
        reference = look.references[row, query, 0].cpu().numpy()
        place = reference[:2] * sides
        if len(reference) == 4:
            extent = reference[2:] * sides / 2
            place = np.concatenate([place - extent, place + extent])
        return cls(
            image=image,
            locations=look.locations[row, query].cpu().numpy() * sides,
            weights=look.weights[row, query].cpu().numpy(),
            reference=place,
            title=title,
        )


def maps_figure(
    image: np.ndarray, maps: Mapping[str, np.ndarray], *, largest: float | None = None
) -> Figure:
    """The image beside maps of any resolution, shown as squares of their cells.

    Args:
        image: [H, W, 3].
        maps: Title -> map [h, w] (light is high) or picture [h, w, 3].
        largest: The maps' common scale ends here and begins at 0; by default each has its own.
    """
    fig, axes = _row(1 + len(maps), extra=0.0 if largest is None else 0.5)
    _show(axes[0], image, "image")
    for ax, (title, values) in zip(axes[1:], maps.items(), strict=True):
        drawn = _show_map(ax, values, title, image, vmin=0 if largest else None, vmax=largest)
    if largest is not None:
        fig.colorbar(drawn, ax=list(axes[1:]), shrink=0.75)
    return fig


def code_figure(
    channels: Mapping[str, np.ndarray],
    likeness: Mapping[str, np.ndarray],
    marks: Mapping[str, tuple[float, float]],
) -> Figure:
    """Entries of a position code as maps and, below, how like one cell's code all codes are.

    Args:
        channels: Title -> one entry of the code for all cells [h, w], -1 to 1.
        likeness: Title -> cosine with the marked cell's code [h, w], -1 to 1.
        marks: Title in `likeness` -> (row, column) of that cell, where the map has it.
    """
    columns = max(len(channels), len(likeness))
    fig, axes = plt.subplots(2, columns, figsize=(2.3 * columns + 0.6, 5.0), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    shades = {"vmin": -1, "vmax": 1, "interpolation": "nearest"}
    for row, maps in zip(axes, (channels, likeness), strict=True):
        for ax, (title, values) in zip(row, maps.items(), strict=False):
            drawn = ax.imshow(values, cmap="gray" if maps is channels else SEQUENTIAL, **shades)
            ax.set_title(title, fontsize=9)
            if maps is likeness and title in marks:
                place = marks[title][::-1]
                ax.plot(*place, marker="s", markersize=9, color="none", markeredgecolor="white")
                ax.plot(*place, marker="s", markersize=11, color="none", markeredgecolor="black")
        fig.colorbar(drawn, ax=list(row), shrink=0.8, ticks=[-1, 0, 1])
    return fig


def cells_figure(
    images: Sequence[np.ndarray], centres: Sequence[Sequence[np.ndarray]], titles: Sequence[str]
) -> Figure:
    """The centres of all cells on padded images: where encoder tokens are, by level.

    Args:
        images: [H, W, 3] each.
        centres: Per image and level (x, y) in pixels [n, 2].
        titles: Above each image.
    """
    fig, axes = _row(len(images), side=3.4)
    for ax, image, levels, title in zip(axes, images, centres, titles, strict=True):
        _show(ax, image, title)
        for i, points in reversed(list(enumerate(levels))):
            look = {"marker": SERIES_MARKERS[i], "color": SERIES_COLORS[i]}
            size = 8 * 3.2 ** min(i, 4)
            ax.scatter(*points.T, s=size, edgecolor="white", linewidth=0.5, label=_level(i), **look)
    _legend_below(fig, axes[0])
    return fig


def attention_figure(panels: Sequence[AttentionPanel], columns: int) -> Figure:
    """Queries and their sampling points: colour and marker tell the level, area the weight.

    A point of average weight is as large as those in the legend; lines join the points to the
    reference, stronger ones for larger weights.
    """
    rows = -(-len(panels) // columns)
    size = (3.6 * columns, 3.75 * rows + 0.4)
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for ax in axes.flat[len(panels) :]:
        ax.axis("off")
    for ax, panel in zip(axes.flat, panels, strict=False):
        _show(ax, panel.image, panel.title)
        _draw_reference(ax, panel.reference)
        _draw_points(ax, panel)
        _widen(ax)
    _legend_below(fig, axes.flat[0])
    return fig


def proposals_figure(
    image: np.ndarray,
    boxes_xyxy: np.ndarray,
    scores: np.ndarray,
    true_boxes: np.ndarray,
    maps: Mapping[str, np.ndarray],
    chosen: Mapping[str, np.ndarray],
) -> Figure:
    """The best boxes on the image, and the scores of all tokens with the chosen ones marked.

    Args:
        image: [H, W, 3].
        boxes_xyxy: In pixels [N, 4].
        scores: 0 to 1 [N]; high ones have strong lines.
        true_boxes: In pixels [K, 4], dashed.
        maps: Title of a level -> scores [h, w]; NaN where a token cannot be chosen.
        chosen: Title of a level -> (row, column) of chosen tokens [n, 2].
    """
    fig, axes = _row(1 + len(maps), extra=0.5)
    _show(axes[0], image, f"the {len(boxes_xyxy)} best boxes")
    top = max(float(scores.max()), 1e-9)
    for i in np.argsort(scores):
        part = float(scores[i]) / top
        _outline(axes[0], boxes_xyxy[i], "white", 1.4 + 1.6 * part, alpha=0.6 * part)
        _outline(axes[0], boxes_xyxy[i], SERIES_COLORS[0], 0.6 + 1.6 * part, alpha=0.2 + 0.8 * part)
    for box in true_boxes:
        _outline(axes[0], box, "white", 3.0)
        axes[0].add_patch(Rectangle(*_corner_and_sides(box), fill=False, **_TRUE))
    for ax, (title, values) in zip(axes[1:], maps.items(), strict=True):
        drawn = _show_map(ax, values, title, image, vmin=0, vmax=top)
        ax.set_facecolor("#bbbbbb")  # shows where a value is not a number
        rows, columns = chosen[title].T
        ax.scatter(columns, rows, s=26, facecolor="none", edgecolor="white", linewidth=2.2)
        ax.scatter(columns, rows, s=26, facecolor="none", edgecolor="black", linewidth=1.0)
    fig.colorbar(drawn, ax=list(axes[1:]), shrink=0.75, label="score")
    return fig


def noise_figure(
    image: np.ndarray,
    true_box: np.ndarray,
    noisy: Mapping[str, Mapping[str, np.ndarray]],
) -> Figure:
    """Noisy copies of one box.

    Args:
        image: [H, W, 3].
        true_box: xyxy in pixels.
        noisy: Title of a panel -> kind -> boxes xyxy in pixels [n, 4].
    """
    fig, axes = _row(len(noisy), side=3.6, extra=0.4)
    for ax, (title, kinds) in zip(axes, noisy.items(), strict=True):
        _show(ax, image, title)
        for i, (kind, boxes) in enumerate(kinds.items()):
            for k, box in enumerate(boxes):
                _outline(ax, box, "white", 2.6, alpha=0.5)
                look = {"linestyle": SERIES_LINES[i], "label": kind if not k else None}
                _outline(ax, box, SERIES_COLORS[i], 1.5, **look)
        _outline(ax, true_box, "white", 4.5)
        _outline(ax, true_box, "black", 2.4, label="annotated")
        _widen(ax)
    _legend_below(fig, axes[0])
    return fig


def mask_figure(masks: Mapping[str, np.ndarray], spans: Mapping[str, Mapping[str, int]]) -> Figure:
    """Who may see whom among the decoder's queries: dark is hidden.

    Args:
        masks: Title -> True where the query of a row must not see that of a column [N, N].
        spans: Title -> name of each run of queries -> its length; names are written at the side.
    """
    fig, axes = _row(len(masks), side=3.9)
    colours = ListedColormap(["#f2f2f2", SERIES_COLORS[0]])
    for ax, (title, mask) in zip(axes, masks.items(), strict=True):
        ax.imshow(mask, cmap=colours, vmin=0, vmax=1, interpolation="nearest")
        ax.set_title(title, fontsize=9)
        ends = np.cumsum(list(spans[title].values()))
        for end in ends[:-1]:
            ax.axhline(end - 0.5, color="black", linewidth=0.7)
            ax.axvline(end - 0.5, color="black", linewidth=0.7)
        middles = ends - np.array(list(spans[title].values())) / 2 - 0.5
        ax.set_yticks(middles, list(spans[title]), fontsize=8)
        ax.set(xticks=[], xlabel="is seen", ylabel="sees")
        ax.tick_params(length=0)
    return fig


def path_figure(
    images: Sequence[np.ndarray],
    paths: Sequence[np.ndarray],
    true_boxes: Sequence[np.ndarray],
    stages: Sequence[str],
    titles: Sequence[str],
) -> Figure:
    """Boxes on their way through the decoder, one object per panel, with the image around it.

    Args:
        images: Per object its image [H, W, 3].
        paths: Per object its query's boxes xyxy in pixels, one per stage [S, 4].
        true_boxes: Per object its annotated box.
        stages: Names of the S boxes.
        titles: Above each panel.
    """
    fig, axes = _row(len(paths), extra=0.4)
    colours = plt.get_cmap(SEQUENTIAL)(np.linspace(0.95, 0.0, len(stages)))
    for ax, image, path, true, title in zip(axes, images, paths, true_boxes, titles, strict=True):
        _show(ax, image, title)
        _outline(ax, true, "white", 3.2)
        _outline(ax, true, "black", 1.6, linestyle=(0, (3, 2)), label="annotated")
        for i, (stage, box) in enumerate(zip(stages, path, strict=True)):
            _outline(ax, box, "black", 3.0, alpha=0.6)
            _outline(ax, box, colours[i], 1.8, label=stage)
        _zoom(ax, np.concatenate([path, true[None]]), image.shape[:2])
    _legend_below(fig, axes[0])
    return fig


def stages_figure(paths: pd.DataFrame) -> Figure:
    """IoU of the objects' boxes from stage to stage: mean, and where half and most of them are.

    Args:
        paths: Columns image, object, stage, iou; see `engine.anatomy.box_paths`.
    """
    stages = list(dict.fromkeys(paths["stage"]))
    objects = paths.pivot(index=["image", "object"], columns="stage", values="iou")[stages]
    fig, ax = plt.subplots(figsize=(5.4, 3.2))
    for low, high, alpha in ((0.05, 0.95, 0.2), (0.25, 0.75, 0.4)):
        band = (objects.quantile(low), objects.quantile(high))
        words = f"{low:.0%} to {high:.0%} of the objects"
        ax.fill_between(
            stages, *band, color=SERIES_COLORS[0], alpha=alpha, linewidth=0, label=words
        )
    look = {"color": "black", "marker": "o", "linewidth": 2.4}
    ax.plot(stages, objects.mean(), label=f"mean of {len(objects)} objects", **look)
    ax.set(ylabel="IoU with the annotated box", ylim=(0, 1))
    ax.legend(loc="lower right", handlelength=1.8)
    return fig


def heart_figure(histories: Mapping[str, pd.DataFrame], terms: Sequence[str]) -> Figure:
    """Loss curves of detectors that learn one batch, a panel per term, logarithmic.

    Args:
        histories: Name -> columns step and terms.
        terms: The columns shown.
    """
    fig, axes = _row(len(terms), side=3.0, bare=False)
    for ax, term in zip(axes, terms, strict=True):
        for i, (name, history) in enumerate(histories.items()):
            look = {"color": SERIES_COLORS[i], "linestyle": SERIES_LINES[i]}
            ax.plot(history["step"], history[term], label=name, **look)
        ax.set(yscale="log", xlabel="steps on the same images")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.set_title(term, fontsize=9)
    axes[0].set_ylabel("loss")
    axes[0].legend(loc="lower left")
    return fig


def _row(
    number: int, side: float = _SIDE, extra: float = 0.0, bare: bool = True
) -> tuple[Figure, np.ndarray]:
    """A row of axes; without ticks where they show pictures."""
    fig, axes = plt.subplots(1, number, figsize=(side * number, side + extra + 0.3), squeeze=False)
    if bare:
        for ax in axes[0]:
            ax.set(xticks=[], yticks=[])
            ax.grid(visible=False)
    return fig, axes[0]


def _show(ax: Axes, image: np.ndarray, title: str) -> None:
    height, width = image.shape[:2]
    ax.imshow(image, extent=(0, width, height, 0), interpolation="bicubic")
    ax.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.set_title(title, fontsize=9)


def _show_map(
    ax: Axes, values: np.ndarray, title: str, image: np.ndarray, **look: Any
) -> AxesImage:
    """A map stretched to the shape of the image."""
    drawn = ax.imshow(values, cmap=SEQUENTIAL, interpolation="nearest", aspect="auto", **look)
    ax.set_box_aspect(image.shape[0] / image.shape[1])
    ax.spines[:].set_visible(False)
    ax.set_title(title, fontsize=9)
    return drawn


def _widen(ax: Axes) -> None:
    """Leaves a margin around the image for what lies on its edge or beyond."""
    width, height = ax.get_xlim()[1], ax.get_ylim()[0]
    margin = 0.04 * max(height, width)
    ax.set(xlim=(-margin, width + margin), ylim=(height + margin, -margin))


def _level(number: int) -> str:
    return f"level {number}"


def _corner_and_sides(box: Sequence[float]) -> tuple[tuple[float, float], float, float]:
    left, top, right, bottom = (float(value) for value in box)
    return (left, top), right - left, bottom - top


def _outline(ax: Axes, box: Sequence[float], colour: Any, width: float, **look: Any) -> None:
    shape = Rectangle(*_corner_and_sides(box), fill=False, edgecolor=colour, linewidth=width)
    shape.set(**look)
    ax.add_patch(shape)


def _draw_reference(ax: Axes, reference: np.ndarray) -> None:
    if len(reference) == 4:
        _outline(ax, reference, "white", 3.4)
        _outline(ax, reference, "black", 1.6, linestyle=(0, (3, 2)))
    else:
        for colour, width in (("white", 4.5), ("black", 2.2)):
            ax.plot(*reference, marker="+", markersize=13, markeredgewidth=width, color=colour)


def _draw_points(ax: Axes, panel: AttentionPanel) -> None:
    centre = panel.reference
    if len(centre) == 4:
        centre = (centre[:2] + centre[2:]) / 2
    heads, levels, points = panel.weights.shape
    strongest = panel.weights.max()
    for head in range(heads):
        places, parts = panel.locations[head].reshape(-1, 2), panel.weights[head].ravel()
        for place, part in zip(places, parts / strongest, strict=True):
            ends = zip(centre, place, strict=True)
            ax.plot(*ends, color="white", alpha=0.8 * float(part) ** 0.5, linewidth=0.9)
    for level in range(levels):
        areas = 34 * panel.weights[:, level].ravel() * levels * points  # 1 is the average weight
        ax.scatter(
            *panel.locations[:, level].reshape(-1, 2).T, s=areas, color=SERIES_COLORS[level],
            marker=SERIES_MARKERS[level], edgecolor="white", linewidth=0.6, zorder=3,
        )  # fmt: skip
        ax.scatter([], [], s=34, color=SERIES_COLORS[level], marker=SERIES_MARKERS[level],
                   label=_level(level))  # fmt: skip


def _legend_below(fig: Figure, ax: Axes) -> None:
    handles, words = ax.get_legend_handles_labels()
    order = np.argsort(words, kind="stable") if words and words[0].startswith("level") else None
    if order is not None:
        handles, words = [handles[i] for i in order], [words[i] for i in order]
    fig.legend(handles, words, loc="outside lower center", ncols=len(words), handlelength=1.8)


def _zoom(ax: Axes, boxes: np.ndarray, size: tuple[int, int]) -> None:
    """Limits the view to the boxes and some of their surroundings, square and within the image."""
    low, high = boxes[:, :2].min(0), boxes[:, 2:].max(0)
    half = 0.7 * max(high - low)
    centre = (low + high) / 2
    left, top = np.maximum(centre - half, 0)
    right, bottom = np.minimum(centre + half, [size[1], size[0]])
    ax.set(xlim=(left, right), ylim=(bottom, top))
