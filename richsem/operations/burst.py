"""How long a run takes: a few of its steps on this machine, on pictures of noise, timed."""

import math
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import psutil
import torch

from richsem.data.samples import LABELLED, UNKNOWN
from richsem.masks import SIDE
from richsem.models.dino.dino import DinoConfig
from richsem.operations import cost
from richsem.structures import Batch, Supervision, Target
from richsem.training import build
from richsem.training.loop import Training
from richsem.training.parallel import gathered, this_process
from richsem.training.run_config import RunConfig, make_criterion, make_detector

# Steps of a kind of batch that count, after a first one; fewer as soon as they take so long.
_STEPS, _SECONDS = 5, 10.0
_MOST_WORK = 4e12  # operations of an image on a CPU; more than all of R50's recipes take


def patience(config: RunConfig) -> str:
    """How long `hours` takes, in words."""
    seconds = _SECONDS * len(cost.image_sizes(config))
    return f"a few steps, about {seconds:.0f} seconds, or as long as a step of each kind takes"


def hours(config: RunConfig) -> dict[str, str]:
    """An estimate of a run's time, with what was measured for it, or why nothing was.

    The number of classes must be known. Weights are random and nothing is fetched; what is not in
    the loop's own step (reading, a teacher that looks at every batch, judging) is left out.
    """
    process = this_process()
    device, number, fold, most = process.device.type, process.num_processes, 1, math.inf
    sizes = cost.image_sizes(config)
    if device == "cpu":
        memories = cost.memories(config).values()
        states, one = (max(memory.per_device(n) for memory in memories) for n in (0, 1))
        room = min(gathered(0.7 * psutil.virtual_memory().available)) - states
        if 16 * room < one - states:
            gb = f"{one / cost.GIGA:.1f} GB, and {(room + states) / cost.GIGA:.1f} are free"
            return {"hours": f"not measured: an image at a time needs {gb}"}
        flops = (cost.image_flops(cost.looking(config, kind), sizes[kind]) for kind in sizes)
        work = 3 * max(sum(parts.values()) for parts in flops)  # the backward pass takes twice
        # What is kept for the backward pass grows with the pixels, and so does the time.
        fold = math.ceil(math.sqrt(max((one - states) / room, work / _MOST_WORK)))
        most = max(1, room // (one - states))
    sizes = {kind: (h // fold, w // fold) for kind, (h, w) in sizes.items()}
    try:
        training, shown = begun(config), cost.images_shown(config)
        found = {kind: _measured(training, config, kind, sizes[kind], most) for kind in shown}
    except torch.OutOfMemoryError:
        return {
            "hours": "not measured: images do not fit into the memory; raise train.accumulation"
        }
    total = fold**2 * sum(shown[kind] * seconds for kind, (seconds, *_) in found.items()) / 3600
    how = "{}: {:.3g} s per image, median of {} steps of {} at a time"
    each = (how.format(kind, one, steps, images) for kind, (one, images, steps) in found.items())
    threads, load = torch.get_num_threads(), psutil.getloadavg()[0]
    others = [n for n in cost.devices(config) if n != number]
    more = "".join(f"; {total * number / n:.2g} on {n} that never wait" for n in others)
    less = f" by {fold} (else too much for a CPU), {fold**2} times as long at most" * (fold > 1)
    return {
        "hours": f"{total:.2g} on {number} x {device} ({threads} threads, load {load:.1f}); no "
        f"reading, judging or teacher in the loop{more}",
        "measured": f"noise of the largest sides{less}, {cost.OBJECTS} objects; {'; '.join(each)}",
    }


def begun(config: RunConfig) -> Training:
    """The run at its start, with random weights and texts."""
    number = config.detector.num_classes
    torch.manual_seed(config.train.seed)
    detector = make_detector(build.in_shapes(config, number).config)
    if config.detector.uses_text:
        detector.set_vocabulary(torch.randn(number, detector.config.text_dim))
    loss = config.loss
    if isinstance(config.detector, DinoConfig):  # noise comes with soft labels of its objects
        loss = replace(loss, teacher_boxes="gt")
    criterion = make_criterion(loss, number, torch.ones(number))
    return Training(detector, criterion, None, config.train, config.optim, Path(), "")


def _measured(
    training: Training, config: RunConfig, kind: str, shape: cost.Size, most: float
) -> tuple[float, int, int]:
    """Seconds of all processes for an image, by steps of so many (up to `most`), and how many."""
    size, device = cost.batch_sizes(config)[kind], training.accelerator.device
    share = max(1, size // (training.accelerator.num_processes * config.train.accumulation))

    def step(images: int) -> float:
        batch = noise(training, config, kind, images, shape)
        training.step, began = 0, time.perf_counter()
        training.advance([batch], images * cost.OBJECTS)  # of all parts one, as if it were a step
        if device.type != "cpu":
            torch.accelerator.synchronize()
        return max(gathered(time.perf_counter() - began))

    spent = [step(1)]  # warms up, and counts where another one would take too long
    images = int(min(share, most, max(1, _SECONDS // spent[0])))
    if spent[0] < _SECONDS:
        spent = [step(images)]
    while len(spent) < _STEPS and sum(spent) < _SECONDS:
        spent.append(step(images))
    return median(spent) / (images * training.accelerator.num_processes), images, len(spent)


def noise(training: Training, config: RunConfig, kind: str, images: int, size: cost.Size) -> Batch:
    """Pictures of noise with objects, or the backbone's maps of them where those are kept."""
    own, number, device = config.data, cost.OBJECTS, training.accelerator.device
    supervision = Supervision.DETECTION
    if kind == "extra":
        own, supervision = config.data.extra, config.data.extra.supervision
    soft = torch.rand(number, config.detector.num_classes)
    labelled = supervision in (*LABELLED, Supervision.DETECTION)
    target = Target(
        labels=soft.argmax(1) if labelled else torch.full((number,), UNKNOWN),
        boxes=0.3 + 0.2 * torch.rand(number, 4),
        size=size,
        original_size=size,
        image_id=0,
        soft_labels=soft / soft.sum(1, keepdim=True),
        masks=None if config.detector.masks is None else torch.ones(number, SIDE, SIDE) > 0,
    )
    batch = Batch((target,) * images, supervision, torch.rand(images, 3, *size)).to(device)
    if own.features:
        with torch.no_grad():
            maps = training.detector.backbone.look(batch.images)
        batch = replace(batch, images=None, features=maps)
    return batch
