"""How quick the soft-label explorer is, and what one trunk pass per image saves against crops.

The baseline reads every box as a crop of its own. Weights are random: time does not depend on them.
"""

from functools import partial

import torch
from ipywidgets import FloatSlider

from benchmarks.timing import Runs, against, show
from richsem.data.categories import spoken_names
from richsem.models.clip import MINI, FrozenClip, RegionMode
from richsem.models.miniclip import create_miniclip
from richsem.workbook import notebook_data
from richsem.workbook.figures.widgets import soft_label_explorer
from richsem.workbook.zero_shot import RegionInspector

BASELINE = "crop"
MODES, IMAGES, BOXES = (BASELINE, "roi"), 16, 4


def main(repeats: int = 3) -> None:
    """Prints milliseconds per moved slider, and reading of whole images at several noise draws."""
    clip = FrozenClip(MINI, create_miniclip())
    moves = {"one update": explorers(clip)}
    reads = {f"{draws} noise draws": readers(clip, draws) for draws in (1, 12, 36)}
    titles = ("the explorer (target: below 200 ms)", f"{IMAGES} images with {BOXES} boxes")
    for title, cases in zip(titles, (moves, reads), strict=True):
        show(f"{title}, shortest of {repeats}", against(BASELINE, cases, repeats))


def explorers(clip: FrozenClip) -> Runs:
    """Moves of the noise slider, widget and pictures included, in an explorer of each mode."""
    dataset = notebook_data.open_detection_set(notebook_data.DataConfig(profile="smoke"))
    inspector = RegionInspector(clip, dataset, spoken_names(dataset.categories))
    numbers = [len(dataset.boxes_of(i)[0]) for i in range(len(dataset))]

    def move(slider: FloatSlider) -> None:
        slider.value = 0.5 if slider.value != 0.5 else 1.0

    runs = {}
    for mode in MODES:
        explorer = soft_label_explorer(inspector.view, numbers)
        controls = {child.description: child for child in explorer.children[0].children}
        controls["region"].value = mode
        runs[mode] = partial(move, controls["noise scale"])
    return runs


def readers(clip: FrozenClip, draws: int) -> Runs:
    """All boxes of some images at several noise draws, in each mode."""
    images = torch.randint(256, (IMAGES, 3, 128, 128), dtype=torch.uint8)
    corners = torch.rand(draws * BOXES, 2) * 80
    boxes = torch.cat([corners, corners + 40], dim=1)

    def read(mode: RegionMode) -> None:
        for image in images:
            clip.regions(image, boxes, mode)

    return {mode: partial(read, mode) for mode in MODES}
