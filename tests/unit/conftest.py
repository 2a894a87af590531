"""A teacher and a data set small enough to be asked anything."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from tiny_files import annotation_file

NAMES = ("dog", "cat", "red boat", "guitar")
SIZES = ((64, 96), (96, 64), (64, 64), (80, 64), (64, 80))  # height, width
# (category id, x, y, width, height); the third image has no box.
BOXES = (
    ((1, 4, 6, 30, 40), (2, 50, 10, 40, 30), (3, 0, 0, 96, 64)),
    ((4, 10, 20, 40, 50),),
    (),
    ((2, 5, 5, 20, 20), (1, 30, 40, 30, 35)),
    ((3, 20, 10, 25, 35), (1, 0, 0, 18, 30)),
)
FREQUENCIES = "rcff"


@pytest.fixture
def cli(capsys):
    """Runs a command, which ends with this code; what it printed, as `out` and `err`."""
    from richsem.__main__ import main

    def run(*words, code=0):
        assert main([*map(str, words)]) == code
        return capsys.readouterr()

    return run


@pytest.fixture
def figure_style():
    """The workbook's style; what a test draws must show something, without a warning."""
    from matplotlib import pyplot as plt

    from richsem.workbook.figures.style import apply_style

    apply_style()
    plt.close("all")
    yield
    for fig in map(plt.figure, plt.get_fignums()):
        fig.canvas.draw()
        assert all(ax.has_data() or not ax.axison for ax in fig.axes)
    plt.close("all")


@pytest.fixture(scope="session")
def untrained():
    """The embedded CLIP before its training: ImageNet's trunk, a random head and text tower."""
    from richsem.models.clip import MINI, FrozenClip
    from richsem.models.miniclip import create_miniclip

    torch.manual_seed(0)
    return FrozenClip(MINI, create_miniclip())


@pytest.fixture(scope="session")
def tiny_set(tmp_path_factory):
    """Five images, one of them empty, eight boxes of four classes, in LVIS form."""
    from richsem.data.box_sets import BoxDataset

    root = tmp_path_factory.mktemp("tiny")
    rng, images = np.random.default_rng(0), {}
    for i, ((height, width), boxes) in enumerate(zip(SIZES, BOXES, strict=True), start=1):
        coarse = rng.integers(60, 200, (8, 8, 3)).astype(np.uint8)
        picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        draw = ImageDraw.Draw(picture)
        for category, x, y, w, h in boxes:
            color = tuple(int(c) for c in np.random.default_rng(category).integers(0, 256, 3))
            draw.ellipse((x, y, x + w, y + h), fill=color)
        picture.save(root / f"{i}.png")
        images[i] = {"file_name": f"{i}.png", "height": height, "width": width}
    boxes = [(i, c, box) for i, own in enumerate(BOXES, start=1) for c, *box in own]
    categories = [
        {"id": i, "name": name.replace(" ", "_"), "frequency": f}
        for i, (name, f) in enumerate(zip(NAMES, FREQUENCIES, strict=True), start=1)
    ]
    return BoxDataset.load(annotation_file(root / "tiny.json", images, boxes, categories), root)


@pytest.fixture(scope="session")
def tiny_names():
    """What the classes of `tiny_set` are called."""
    return list(NAMES)
