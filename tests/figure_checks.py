"""What is asked of every module of figures."""

from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle


def assert_drawn(draw):
    """A figure is drawn without warnings, shows something in every panel and can be closed."""
    fig = draw()
    assert isinstance(fig, Figure)
    fig.canvas.draw()
    assert all(ax.has_data() or not ax.axison for ax in fig.axes)
    plt.close(fig)
    assert plt.get_fignums() == []


def assert_complete(module, figures):
    """Every public function of a module is called by one of these functions."""
    functions = {name for name in vars(module) if name.endswith("_figure")}
    assert functions <= {name for draw in figures.values() for name in draw.__code__.co_names}


def outlines(ax):
    """The boxes' own lines, without the white halo below each."""
    patches = [p for p in ax.patches if isinstance(p, Rectangle) and not p.get_fill()]
    return [p for p in patches if to_hex(p.get_ec()) != "#ffffff"]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def words(ax):
    return [text.get_text() for text in ax.texts]
