"""Explorers for a live notebook: static figures, drawn anew for every move of a control."""

import atexit
import base64
import gc
import io
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from html import escape
from itertools import chain
from typing import Any

import ipywidgets as widgets
import matplotlib.pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, FigureBase
from matplotlib.image import imsave
from matplotlib.legend import Legend
from matplotlib.text import Text

from richsem.processes import GARBAGE_AFTER
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
    chosen = widgets.SelectionSlider(options=usable, value=image, description="image")
    box = widgets.IntSlider(description="box")
    widgets.dlink((chosen, "value"), (box, "max"), lambda at: boxes_per_image[at] - 1)
    controls = {
        "image": chosen,
        "box": box,
        **{x: widgets.FloatSlider(min=-1, max=1, step=0.05, description=x) for x in nudges},
        "scale": widgets.FloatSlider(0.0, min=0.0, max=2.0, step=0.05, description="noise scale"),
        "seed": widgets.IntSlider(0, 0, 20, description="noise seed"),
        "mode": widgets.ToggleButtons(options=["roi", "crop"], description="region"),
    }
    words = {"crop": "what CLIP is given", "roi": "the box, read off the map"}

    def draw(mode: str, **values: Any) -> Figure:
        nudge = tuple(values.pop(name) for name in nudges)
        return view_figure(view(mode=mode, nudge=nudge, **values), words[mode])

    return explorer(draw, controls)


def attention_explorer(
    draw: Callable[..., Figure],  # of a `layer`'s name and the `number` of its query
    numbers: Mapping[str, int],  # layer -> number of its queries
) -> widgets.Widget:
    """A choice of layers and a slider over their tokens or queries; the points follow at once."""
    if not numbers:
        raise ValueError("an explorer needs at least one layer to look at")
    layer = widgets.ToggleButtons(options=list(numbers), description="layer")
    number = widgets.IntSlider(description="query")
    widgets.dlink((layer, "value"), (number, "max"), lambda name: numbers[name] - 1)
    return explorer(draw, {"layer": layer, "number": number})


class _Stage:
    """Shows figures of one kind; draws only what the one before did not show as well.

    Axes stay where they were, and their ticks and labels stay as pixels, which saves most of the
    time. One canvas for all figures measures each word and each formula only once.
    """

    def __init__(self) -> None:
        self.canvas, self.places, self.look, self.ground = FigureCanvasAgg(Figure()), {}, [], None

    def show(self, fig: Figure) -> str:
        """The figure as HTML; its titles and legends are its words for who cannot see it."""
        canvas, parts = self.canvas, [fig, *fig.subfigs, *fig.axes]
        fig.set_canvas(canvas)
        canvas.figure = fig
        fig.set_dpi(_DPI)
        moving = [*chain(*map(_moving, parts))]
        shape = (*fig.get_size_inches(), len(fig.axes))
        if shape not in self.places:
            fig.draw_without_rendering()
            self.places[shape] = [ax.get_position(original=True) for ax in fig.axes]
        fig.set_layout_engine("none")
        for ax, place in zip(fig.axes, self.places[shape], strict=True):
            ax.set_position(place)
        look = [shape, *map(_ground_look, fig.axes)]
        if look != self.look:
            plt.setp(moving, animated=True)  # which leaves them out
            canvas.draw()
            self.look, self.ground = look, canvas.copy_from_bbox(fig.bbox)
        canvas.restore_region(self.ground)
        for one in moving:
            one.draw(canvas.get_renderer())
        return _html(canvas, moving)


def _html(canvas: FigureCanvasAgg, shown: Sequence[Artist]) -> str:
    texts = chain(*(one.get_texts() if isinstance(one, Legend) else [one] for one in shown))
    titles = [one.get_text() for one in texts if type(one) is Text]
    words = re.sub(r"[$\\]", "", "; ".join(filter(None, titles)))
    picture, (width, height) = io.BytesIO(), canvas.get_width_height()
    imsave(picture, canvas.buffer_rgba(), format="png", pil_kwargs={"compress_level": 1})
    source = base64.b64encode(picture.getvalue()).decode("ascii")
    sizes = f'width="{width}" height="{height}" style="max-width: 100%; height: auto"'
    where = f'src="data:image/png;base64,{source}" decoding="sync"'  # without a flicker
    return f'<img alt="{escape(words)}" {sizes} {where}>'


def _moving(part: Axes | FigureBase) -> list[Artist]:
    """What a figure or axes hold, from the lowest up, less ticks, labels and background."""
    own = sorted(part.get_children(), key=Artist.get_zorder)
    return [x for x in own if x is not part.patch and not isinstance(x, Axis | Axes | FigureBase)]


def _ground_look(ax: Axes) -> list[Any]:
    """What decides how ticks and labels of axes look, and where they stand."""
    ax.apply_aspect()
    look = [ax.get_position().bounds, ax.get_xlim(), ax.get_ylim()]
    for axis in (ax.xaxis, ax.yaxis):
        ticks = axis.get_majorticklocs()
        look += [axis.get_label_text(), *axis.get_major_formatter().format_ticks(ticks)]
    return look


def explorer(
    draw: Callable[..., Figure],  # takes the value of every control by its name
    controls: Mapping[str, widgets.ValueWidget],
) -> widgets.Widget:
    """Controls above a picture that is drawn once at each of their moves, and a button for a reset.

    What the notebook holds by now is left out of later collections of garbage, and there are fewer:
    one that looks through all of it holds up a move for half a second.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_AFTER)
    picture, stage, shown = widgets.HTML(), _Stage(), {}

    def update(_: Any = None) -> None:
        values = {name: one.value for name, one in controls.items()}
        if values != shown:  # a choice that moves another control calls twice
            shown.update(values)
            fig = draw(**values)
            picture.value = stage.show(fig)
            plt.close(fig)

    begin = {name: one.value for name, one in controls.items()}
    again = widgets.Button(description="reset", tooltip="as it was at the start")

    def reset(_: Any) -> None:
        with ExitStack() as moves:  # told when all are made, so that there is one new picture
            for name, one in controls.items():
                moves.enter_context(one.hold_trait_notifications())
                one.value = begin[name]

    again.on_click(reset)
    for control in controls.values():
        control.observe(update, names="value")
    update()
    rows = widgets.Box([*controls.values(), again], layout=widgets.Layout(flex_flow="row wrap"))
    return widgets.VBox([rows, picture])
