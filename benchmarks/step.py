"""A training step of the demo recipe, part by part, and detection, in images per second.

The baseline is the plain way: pixels are decoded, augmented and sent through the backbone at every
step, and attention samples with `grid_sample`. What is shipped reads cached maps of the frozen
backbone and samples by a sparse product; each of the two is also measured alone.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from unittest import mock

import torch

from benchmarks.timing import Laps, Row, peak_megabytes, show
from richsem.config import Profile
from richsem.data.samples import TrainingSet, collate
from richsem.minilvis.render import prepare
from richsem.models import deformable
from richsem.models.postprocess import postprocess
from richsem.recipes import dino_recipes
from richsem.structures import Batch, Supervision
from richsem.training.build import Setup, build, detection_set, evaluation_set
from richsem.training.loading import Source, StepLoader
from richsem.training.optim import build_optimiser, set_rate
from richsem.training.predict import evaluating

BASELINE, SHIPPED = "pixels, textbook sampling", "as shipped"
STEPS, DETECTED = 4, 64  # steps and images that are timed together


@dataclass(frozen=True)
class Way:
    """One way to do the same work."""

    name: str
    cached: bool
    gathered: bool


WAYS = (
    Way(SHIPPED, True, True),
    Way("textbook sampling", True, False),
    Way("pixels", False, True),
    Way(BASELINE, False, False),
)


def main(repeats: int = 5, profile: Profile = "demo") -> None:
    """Prints training steps and detection, each against the plain way."""
    recipe = dino_recipes.baseline(profile)
    prepare(recipe.data)
    setup = build(recipe)
    device = next(setup.detector.parameters()).device.type
    before = peak_megabytes(device)
    steps = {way.name: partial(train_steps, setup, way) for way in WAYS}
    steps[SHIPPED]()
    after = peak_megabytes(device)
    laps = {name: best_laps(run, repeats) for name, run in steps.items()}
    images = setup.config.train.batch_size
    show(f"training step of {images} images on {device}, milliseconds", table(laps, images))
    total = sum(laps[SHIPPED].values())
    shares = (f"{part} {value / total:.0%}" for part, value in laps[SHIPPED].items())
    print(f"shares as shipped: {', '.join(shares)}")
    print(f"peak memory: {before:.0f} MB before the first step, {after:.0f} MB after it")
    found = {way.name: best_laps(partial(detect, setup, way), repeats) for way in WAYS}
    show(f"detection on {device}, milliseconds per image", table(found, 1))


def best_laps(run: partial, repeats: int) -> dict[str, float]:
    """The parts of the quickest of some runs, after one to warm up."""
    run()
    return min((run() for _ in range(repeats)), key=lambda laps: sum(laps.values()))


def train_steps(setup: Setup, way: Way, num_steps: int = STEPS) -> dict[str, float]:
    """Seconds per step of each part; the weights stay as they are."""
    config = setup.config
    device = next(setup.detector.parameters()).device
    detector, optimiser = setup.detector.train(), build_optimiser(setup.detector, config.optim)
    set_rate(optimiser, 0.0)
    torch.manual_seed(0)
    source = setup.main if way.cached else pixels_of(setup)
    loader = StepLoader(
        [source], config.train, range(num_steps), pad_multiple=config.detector.pad_multiple
    )
    with sampling(way):
        laps = Laps(device.type)
        for (batch,) in loader:
            batch = batch.to(device)
            laps("read")
            output = detector(batch)
            laps("forward")
            losses = setup.criterion(output, batch)
            laps("criterion")
            losses.total.backward()
            laps("backward")
            parameters = [p for p in detector.parameters() if p.requires_grad]
            torch.nn.utils.clip_grad_norm_(parameters, config.optim.clip_norm)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            laps("optimiser")
    return {part: value / num_steps for part, value in laps.seconds.items()}


def detect(setup: Setup, way: Way, num_images: int = DETECTED) -> dict[str, float]:
    """Seconds per image of each part of detection."""
    detector = setup.detector
    device = next(detector.parameters()).device
    _, samples = evaluation_set(setup.config.data, "val", detector if way.cached else None)
    size, number = setup.config.train.batch_size, min(num_images, len(samples))
    laps = Laps(device.type)
    with sampling(way), evaluating(detector):
        for first in range(0, number, size):
            batch = read(samples, range(first, min(first + size, number))).to(device)
            laps("read")
            output = detector(batch)
            laps("forward")
            sizes = [target.original_size for target in batch.targets]
            postprocess(output.logits[-1], output.boxes[-1], sizes)
            laps("postprocess")
    return {part: value / number for part, value in laps.seconds.items()}


def read(samples: TrainingSet, indices: range) -> Batch:
    """A batch of an evaluation set."""
    return collate([samples[i, 0] for i in indices], Supervision.DETECTION)


def pixels_of(setup: Setup) -> Source:
    """The same images without their cached maps."""
    return Source(dataset=detection_set(setup.dataset, setup.config.data), epoch=setup.main.epoch)


def sampling(way: Way) -> AbstractContextManager:
    """Makes attention sample the textbook's way while it lasts."""
    if way.gathered:
        return nullcontext()
    return mock.patch.object(deformable, "sample_gathered", deformable.sample_textbook)


def table(laps: dict[str, dict[str, float]], images: int) -> list[Row]:
    """One line per way: milliseconds of each part, images per second, and the baseline's ratio."""
    totals = {name: sum(parts.values()) for name, parts in laps.items()}
    return [
        {"": name}
        | {part: 1000 * value for part, value in parts.items()}
        | {
            "all": 1000 * totals[name],
            "images/s": images / totals[name],
            "times faster than the last line": totals[BASELINE] / totals[name],
        }
        for name, parts in laps.items()
    ]
