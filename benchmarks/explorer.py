"""How quick the soft-label explorer is, and what one trunk pass per image saves against crops.

The baseline reads every box as a crop of its own. The weights do not matter for time: none are
needed.
"""

from functools import partial

import torch

from benchmarks.timing import Row, against, shortest, show
from richsem.data.box_sets import BoxDataset
from richsem.models.clip import MINI, FrozenClip
from richsem.models.miniclip import create_miniclip
from richsem.workbook import notebook_data
from richsem.workbook.figures.widgets import soft_label_explorer
from richsem.workbook.inspector import RegionInspector

BASELINE = "crop"
MODES = (BASELINE, "roi")
IMAGES, BOXES = 16, 4


def main(repeats: int = 3) -> None:
    """Prints milliseconds per moved slider, and reading of whole images at several noise draws."""
    clip = FrozenClip(MINI, create_miniclip())
    dataset = notebook_data.detection_set(notebook_data.DataConfig(profile="smoke"))
    names = notebook_data.spoken_names(dataset.categories)
    rows = [move_slider(clip, dataset, names, repeats)]
    show(f"one update of the explorer (target: below 200 ms), shortest of {repeats}", rows)
    rows = [read_images(clip, draws, repeats) for draws in (1, 12, 36)]
    show(f"{IMAGES} images with {BOXES} boxes, shortest of {repeats}", rows)


def move_slider(clip: FrozenClip, dataset: BoxDataset, names: list[str], repeats: int) -> Row:
    """One move of the noise slider, widget and pictures included."""
    inspector = RegionInspector(clip, dataset, names)
    numbers = [len(dataset.boxes_of(i)[0]) for i in range(len(dataset))]
    explorer = soft_label_explorer(inspector.view, numbers)
    controls = {child.description: child for child in explorer.children[0].children[0].children}
    slider = controls["noise scale"]

    def move() -> None:
        slider.value = 0.5 if slider.value != 0.5 else 1.0

    times = {}
    for mode in MODES:
        controls["region"].value = mode
        times |= shortest({mode: move}, repeats)
    return against(times, BASELINE)


def read_images(clip: FrozenClip, draws: int, repeats: int) -> Row:
    """All boxes of some images at several noise draws."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (IMAGES, 3, 128, 128), generator=generator, dtype=torch.uint8)
    corners = torch.rand(draws * BOXES, 2, generator=generator) * 80
    boxes = torch.cat([corners, corners + 40], dim=1)

    def read(mode: str) -> None:
        for image in images:
            clip.regions(image, boxes, mode)

    times = shortest({mode: partial(read, mode) for mode in MODES}, repeats)
    return {"": f"{draws} noise draws"} | against(times, BASELINE)
