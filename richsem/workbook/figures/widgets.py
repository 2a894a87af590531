"""Explorers for a live notebook: static figures, drawn anew for every move of a control."""

import atexit
import gc
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as widgets
import matplotlib.pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from richsem.workbook.figures.charts import view_figure
from richsem.workbook.zero_shot import View

_DPI = 80

atexit.register(gc.unfreeze)  # libraries complain of what is never collected


def soft_label_explorer(
    view: Callable[..., View], boxes_per_image: Sequence[int], *, image: int | None = None
) -> widgets.Widget:
    """Sliders that choose a box, nudge it and disturb it; the soft label follows at once.

    `view` is `RegionInspector.view`; `image`, by default the first one with a box, is shown first.
    Nudges are in parts of the box's sides; noise of some scale, drawn from a seed, is added.
    """
    usable = [i for i, number in enumerate(boxes_per_image) if number]
    image = next(iter(usable), None) if image is None else image
    if image not in usable:
        raise ValueError(f"image {image} has no box to explore; {len(usable)} images have one")
    nudges = ("x", "y", "width", "height")
    sides = {"min": -1.0, "max": 1.0, "step": 0.05}
    controls = {
        "image": widgets.SelectionSlider(options=usable, value=image, description="image"),
        "box": widgets.IntSlider(0, 0, boxes_per_image[image] - 1, description="box"),
        **{name: widgets.FloatSlider(0.0, **sides, description=name) for name in nudges},
        "scale": widgets.FloatSlider(0.0, min=0.0, max=2.0, step=0.05, description="noise scale"),
        "seed": widgets.IntSlider(0, 0, 20, description="noise seed"),
        "mode": widgets.ToggleButtons(options=["roi", "crop"], description="region"),
    }
    limit = ("box", "image", boxes_per_image)
    words = {"crop": "what CLIP is given", "roi": "the box, read off the map"}

    def draw(mode: str, **chosen: Any) -> Figure:
        nudge = tuple(chosen.pop(name) for name in nudges)
        return view_figure(view(mode=mode, nudge=nudge, **chosen), words[mode])

    return explorer(draw, controls, limit=limit, steady=True)


def attention_explorer(
    draw: Callable[..., Figure],  # of a `layer`'s name and the `number` of its query
    numbers: Mapping[str, int],  # layer -> number of its queries
) -> widgets.Widget:
    """A choice of layers and a slider over their tokens or queries; the points follow at once."""
    if not numbers:
        raise ValueError("an explorer needs at least one layer to look at")
    layer = widgets.ToggleButtons(options=list(numbers), description="layer")
    number = widgets.IntSlider(0, 0, numbers[layer.value] - 1, description="query")
    controls = {"layer": layer, "number": number}
    return explorer(draw, controls, limit=("number", "layer", numbers))


def _png(fig: Figure, canvas: FigureCanvasAgg, places: Sequence[Bbox]) -> bytes:
    """A figure as a file; its axes stand at `places`, if any, instead of being laid out.

    One `canvas` for many figures measures each word and each formula only once.
    """
    fig.set_canvas(canvas)
    canvas.figure = fig
    fig.set_dpi(_DPI)
    if places:
        fig.set_layout_engine("none")
        for ax, place in zip(fig.axes, places, strict=True):
            ax.set_position(place)
    content = io.BytesIO()
    # Half of the time of `savefig`, which draws everything twice and compresses with care.
    canvas.print_png(content, pil_kwargs={"compress_level": 1})
    return content.getvalue()


def explorer(
    draw: Callable[..., Figure],  # takes the value of every control by its name
    controls: Mapping[str, widgets.ValueWidget],
    *,
    limit: tuple[str, str, Any] = ("", "", ()),  # a slider, a choice, and its numbers for each
    steady: bool = False,  # what stands around the axes keeps its size: laid out once, for speed
) -> widgets.Widget:
    """Controls above a picture that is drawn once at each of their moves.

    What the notebook holds by now is left out of later collections of garbage: one that looks
    through all of it holds up a move for half a second.
    """
    gc.collect()
    gc.freeze()
    picture, (limited, choice, numbers), places = widgets.Image(), limit, []
    canvas = FigureCanvasAgg(Figure())

    def update(_: Any = None) -> None:
        fig = draw(**{name: one.value for name, one in controls.items()})
        picture.value = _png(fig, canvas, places)
        places[:] = [ax.get_position() for ax in fig.axes] if steady else []
        plt.close(fig)

    def choose(change: Any) -> None:
        slider = controls[limited]
        before, slider.max = slider.value, numbers[change.new] - 1
        if slider.value == before:  # or it was moved below the new maximum, which updates
            update()

    for name, control in controls.items():
        control.observe(choose if name == choice else update, names="value")
    update()
    rows = widgets.Box(list(controls.values()), layout=widgets.Layout(flex_flow="row wrap"))
    return widgets.VBox([rows, picture])
