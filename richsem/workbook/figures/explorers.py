"""Explorers of the course: each a figure that stands for itself, and the same with controls."""

import ipywidgets as widgets
from matplotlib.figure import Figure

from richsem.training.run_config import RunConfig
from richsem.workbook import comparison
from richsem.workbook.figures import drawing
from richsem.workbook.figures.widgets import explorer

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
    return explorer(lambda **chosen: compared_figure(side, config, **chosen), controls, limit=limit)
