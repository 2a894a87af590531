"""A training step of the demo recipe, part by part, and detection, in images per second.

The baseline is the plain way: pixels are decoded, augmented and sent through the backbone at every
step, and attention samples with `grid_sample`. What is shipped reads cached maps of the frozen
backbone and samples by a sparse product; each of the two is also measured alone.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from unittest import mock

import pandas as pd
import torch

from benchmarks.timing import now, peak_megabytes, show
from richsem.config import Profile
from richsem.data.samples import DetectionTrainingSet, collate
from richsem.minilvis.render import prepare
from richsem.models import deformable
from richsem.recipes import dino_recipes
from richsem.structures import Batch, Supervision
from richsem.training import build, optim
from richsem.training.build import Setup
from richsem.training.loading import Source, StepLoader
from richsem.training.predict import evaluating

Seconds = dict[str, float]  # by part of the work
Work = Callable[[Batch], Iterator[str]]

STEPS, DETECTED = 4, 64  # steps and images that are timed together
BASELINE, SHIPPED = "pixels, textbook sampling", "as shipped"
# From cached maps of the backbone? Attention by a sparse product?
WAYS = {SHIPPED: (True, True), "textbook sampling": (True, False), "pixels": (False, True)}
WAYS[BASELINE] = (False, False)


def main(repeats: int = 5, profile: Profile = "demo") -> None:
    """Prints training steps and detection, each against the plain way."""
    setup = opened(profile)
    device, size = device_of(setup), setup.config.train.batch_size
    print(f"peak memory: {peak_megabytes(device):.0f} MB before the first step", end="")
    train_steps(setup, *WAYS[SHIPPED])
    print(f", {peak_megabytes(device):.0f} MB after it")
    training, detection = f"training step of {size} images", "detection, per image"
    for title, run, images in ((training, train_steps, size), (detection, detect, 1)):
        laps = {}
        for name, way in WAYS.items():
            warm = [run(setup, *way) for _ in range(1 + repeats)][1:]
            laps[name] = min(warm, key=lambda seconds: sum(seconds.values()))
        show(f"{title} on {device}, milliseconds", table(laps, images))
        total = sum(laps[SHIPPED].values())
        shares = (f"{part} {value / total:.0%}" for part, value in laps[SHIPPED].items())
        print(f"shares as shipped: {', '.join(shares)}")


def train_steps(setup: Setup, cached: bool, gathered: bool, num_steps: int = STEPS) -> Seconds:
    """Seconds per step of each part; the weights stay as they are."""
    config, detector = setup.config, setup.detector.train()
    optimiser = optim.build_optimiser(detector, config.optim)
    optim.set_rate(optimiser, 0.0)
    parameters = [p for p in detector.parameters() if p.requires_grad]
    torch.manual_seed(0)
    sources, pad = [setup.main if cached else pixels_of(setup)], config.detector.pad_multiple
    batches = StepLoader(sources, config.train, range(num_steps), pad_multiple=pad)

    def learn(batch: Batch) -> Iterator[str]:
        output = detector(batch)
        yield "forward"
        loss = setup.criterion(output, batch).total
        yield "criterion"
        loss.backward()
        yield "backward"
        torch.nn.utils.clip_grad_norm_(parameters, config.optim.clip_norm)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        yield "optimiser"

    return timed(setup, batches, learn, gathered, num_steps)


def detect(setup: Setup, cached: bool, gathered: bool, num_images: int = DETECTED) -> Seconds:
    """Seconds per image of each part of detection."""
    data, detector, size = setup.config.data, setup.detector, setup.config.train.batch_size
    dataset = build.open_split(data, "val")
    samples = build.evaluation_samples(dataset, data, detector if cached else None)
    numbers = torch.arange(min(num_images, len(samples)))
    shown = ([samples[i, 0] for i in part.tolist()] for part in numbers.split(size))
    batches = ([collate(images, Supervision.DETECTION)] for images in shown)

    def find(batch: Batch) -> Iterator[str]:
        output = detector(batch)
        yield "forward"
        detector.detections(output, [target.original_size for target in batch.targets])
        yield "postprocess"

    with evaluating(detector):
        return timed(setup, batches, find, gathered, len(numbers))


def timed(
    setup: Setup, batches: Iterable[list[Batch]], work: Work, gathered: bool, number: int
) -> Seconds:
    """Seconds of reading and of each part of the work, which says what it has done, by `number`."""
    device, seconds = device_of(setup), Counter()
    sample = deformable.sample_gathered if gathered else deformable.sample_textbook
    with mock.patch.object(deformable, "sample_gathered", sample):
        last = now(device)
        for (batch,) in batches:
            for part in chain(["read"], work(batch.to(device))):
                seconds[part] -= last
                last = now(device)
                seconds[part] += last
    return {part: value / number for part, value in seconds.items()}


def opened(profile: Profile) -> Setup:
    """Data and detector of the demo recipe."""
    recipe = dino_recipes.baseline(profile)
    prepare(recipe.data)
    return build.build(recipe)


def device_of(setup: Setup) -> str:
    """Kind of device that the detector is on."""
    return next(setup.detector.parameters()).device.type


def pixels_of(setup: Setup) -> Source:
    """The same images without their cached maps."""
    images = DetectionTrainingSet(setup.dataset, setup.config.data.transform)
    return Source(dataset=images, epoch=setup.main.epoch)


def table(laps: dict[str, Seconds], images: int) -> pd.DataFrame:
    """One line per way: milliseconds of each part, images per second, and the baseline's ratio."""
    seconds = pd.DataFrame(laps).T
    total = seconds.sum(axis=1)
    shown = 1000 * seconds.assign(all=total)
    shown["images/s"] = images / total
    shown["times faster than the last line"] = total[BASELINE] / total
    return shown.rename_axis("").reset_index()
