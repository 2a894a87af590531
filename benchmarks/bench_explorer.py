"""How quick the explorer is, and what one trunk pass per image saves against crops.

Run: `python benchmarks/bench_explorer.py`. It prints milliseconds per moved slider and, for
both ways of reading regions, images per second as well as their ratio, which depends on the
machine far less than the times do. The weights do not matter for time: none are needed.
"""

import time
from collections.abc import Callable

import torch

from richsem import experiments
from richsem.data.boxes import BoxDataset
from richsem.engine.inspector import RegionInspector
from richsem.models.clip import MINI, FrozenClip
from richsem.models.miniclip import create_miniclip
from richsem.viz.widgets import soft_label_explorer

IMAGES, BOXES, REPEATS = 16, 4, 3


def seconds(run: Callable[[], object]) -> float:
    """Shortest of some runs, after one to warm up."""
    run()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def milliseconds_per_update(clip: FrozenClip, dataset: BoxDataset, names: list[str]) -> dict:
    """Time of one move of the noise slider, widget and pictures included, by region mode."""
    inspector = RegionInspector(clip, dataset, names)
    numbers = [len(dataset.boxes_of(i)[0]) for i in range(len(dataset))]
    explorer = soft_label_explorer(inspector.view, numbers)
    controls = {child.description: child for child in explorer.children[0].children[0].children}
    slider = controls["noise scale"]

    def move() -> None:
        slider.value = 0.5 if slider.value != 0.5 else 1.0

    result = {}
    for mode in ("roi", "crop"):
        controls["region"].value = mode
        result[mode] = 1000 * seconds(move)
    return result


def images_per_second(clip: FrozenClip, repeats: int) -> dict[str, float]:
    """Images with `BOXES` boxes read at `repeats` noise draws each, by region mode."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (IMAGES, 3, 128, 128), generator=generator, dtype=torch.uint8)
    corners = torch.rand(repeats * BOXES, 2, generator=generator) * 80
    boxes = torch.cat([corners, corners + 40], dim=1)

    def read(mode: str) -> None:
        for image in images:
            clip.regions(image, boxes, mode)

    return {mode: IMAGES / seconds(lambda mode=mode: read(mode)) for mode in ("roi", "crop")}


def main() -> None:
    """Print both measurements."""
    clip = FrozenClip(MINI, create_miniclip())
    dataset = experiments.detection_set(experiments.DataConfig(profile="smoke"))
    names = experiments.spoken_names(dataset.categories)
    for mode, value in milliseconds_per_update(clip, dataset, names).items():
        print(f"one update of the explorer, {mode}: {value:.0f} ms (target: below 200)")
    for repeats in (1, 12, 36):
        speed = images_per_second(clip, repeats)
        print(
            f"{BOXES} boxes, {repeats} noise draws: roi {speed['roi']:.1f} images/s, "
            f"crop {speed['crop']:.1f} images/s, roi/crop {speed['roi'] / speed['crop']:.2f}"
        )


if __name__ == "__main__":
    main()
