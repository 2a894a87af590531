"""How time and memory grow with the data: each part of the work alone, at several sizes.

Every point is measured in a process of its own, so that the memory is that of one point. Inputs
are made up; what is measured is the code that training and evaluation run.
"""

import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import pandas as pd
import torch
from PIL import Image

from richsem.data.box_sets import BoxDataset
from richsem.data.samples import DetectionTrainingSet
from richsem.data.sampling import BatchPlan, RepeatedEpoch, repeat_factors
from richsem.data.transforms import TransformConfig
from richsem.evaluation import Detections, evaluate
from richsem.losses.classification import FederatedClasses, focal_losses
from richsem.losses.matching import logits_of_targets, match, matching_cost
from richsem.models.clip import soft_labels
from richsem.models.heads import postprocess
from richsem.structures import Target
from richsem.training.loading import LoadConfig, Source, StepLoader

Work = Callable[[], Any]
_QUERIES, _CLASSES, _BATCH, _DIM = 900, 1203, 2, 1024  # of the paper's R50 recipe
_PROCESSES = "processes"  # as many in each profile, unlike all else that grows
_BOXES, _SIDE, _DETECTIONS = 12, 640, 300  # per image, pixels, detections per image


def _file(images: int) -> Path:
    """A federated annotation file with a long tail, written image by image to need no memory."""
    rng = np.random.default_rng(0)
    tail = 1 / np.arange(10, _CLASSES + 10)
    path = Path(tempfile.mkdtemp(), "train.json")
    with path.open("wb") as out:
        out.write(b'{"images":[')
        for image in range(images):
            lists = {"neg_category_ids": [1, 2, 3], "not_exhaustive_category_ids": []}
            name = {"id": image, "file_name": f"{image:012d}.jpg"}
            _write(out, image, {**name, "height": _SIDE, "width": _SIDE, **lists})
        out.write(b'],"annotations":[')
        for image in range(images):
            labels = rng.choice(_CLASSES, _BOXES, p=tail / tail.sum()) + 1
            boxes = rng.uniform(8, _SIDE / 2, (_BOXES, 4)).round(2)
            for box, (label, xywh) in enumerate(zip(labels.tolist(), boxes.tolist(), strict=True)):
                number = image * _BOXES + box
                own = {"id": number, "image_id": image, "category_id": label, "bbox": xywh}
                _write(out, number, own)
        names = [{"id": c, "name": str(c), "frequency": "fcr"[c % 3]} for c in range(1, 1204)]
        out.write(b'],"categories":' + msgspec.json.encode(names) + b"}")
    return path


def _write(out: BinaryIO, number: int, record: dict[str, Any]) -> None:
    out.write((b"," if number else b"") + msgspec.json.encode(record))


def _reading(images: int) -> Work:
    path = _file(images)
    return lambda: BoxDataset.load(path, path.parent)


def _sampling(images: int) -> Work:
    dataset = _reading(images)()

    def plan() -> None:
        epoch = RepeatedEpoch(repeat_factors(dataset))
        BatchPlan(epoch=epoch, batch_size=16, seed=0).items(images // 16)

    return plan


def _evaluating(images: int) -> Work:
    rng, number = np.random.default_rng(1), images * _DETECTIONS
    found = Detections(
        image_id=np.repeat(np.arange(images), _DETECTIONS),
        category_id=rng.integers(1, _CLASSES + 1, number),
        bbox_xywh=rng.uniform(8, _SIDE / 2, (number, 4)),
        score=rng.random(number),
    )
    return partial(evaluate, "lvis", _file(images), found)


def _streaming(images: int, processes: int = 0) -> Work:
    """Batches of so many images, by loaders (0: in place); all are one picture by many names."""
    path = _file(images)
    dataset, first = BoxDataset.load(path, path.parent), path.with_suffix(".jpg")
    noise = np.random.default_rng(0).integers(0, 256, (_SIDE, _SIDE, 3), dtype=np.uint8)
    Image.fromarray(noise).save(first)
    for name in dataset.file_names:
        os.link(first, path.parent / name)
    source = Source(dataset=DetectionTrainingSet(dataset, TransformConfig()))
    config = LoadConfig(batch_size=1, workers=processes)
    loader = StepLoader([source], config, range(images))
    return lambda: sum(map(len, loader))


def _targets(boxes: int, classes: int) -> list[Target]:
    def one() -> Target:
        place = 0.3 + 0.4 * torch.rand(boxes, 4)
        labels, size = torch.randint(classes, (boxes,)), (_SIDE, _SIDE)
        return Target(labels=labels, boxes=place, size=size, original_size=size, image_id=0)

    return [one() for _ in range(_BATCH)]


def _matching(boxes: int, classes: int = _CLASSES) -> Work:
    targets, predicted = _targets(boxes, classes), torch.rand(1, _BATCH, _QUERIES, 4)
    logits, counts = torch.randn(1, _BATCH, _QUERIES, classes), [boxes] * _BATCH
    return lambda: match(
        matching_cost(logits_of_targets(logits, targets), predicted, targets), counts
    )


def _class_loss(classes: int) -> Work:
    matches, labels = _matching(_BOXES, classes)(), torch.randint(classes, (_BATCH * _BOXES,))
    logits = torch.randn(1, _BATCH, _QUERIES, classes, requires_grad=True)
    return lambda: focal_losses(logits, labels, matches).sum().backward()


def _federated(classes: int) -> Work:
    draw = FederatedClasses(50, torch.arange(1, classes + 1))
    labels = torch.arange(_BOXES) % classes
    return lambda: draw(labels, 7)


def _postprocessing(classes: int) -> Work:
    logits, boxes = torch.randn(_BATCH, _QUERIES, classes), torch.rand(_BATCH, _QUERIES, 4)
    return lambda: postprocess(logits, boxes, [(_SIDE, _SIDE)] * _BATCH)


def _soft_labels(classes: int) -> Work:
    regions, text = torch.randn(_BATCH * _BOXES, _DIM), torch.randn(classes, _DIM)
    return lambda: soft_labels(regions, text, 100.0)


# Part of the work -> what grows, what makes the work of a size, and the largest size.
PARTS: Mapping[str, tuple[str, Callable[[int], Work], int]] = {
    "reading annotations": ("images", _reading, 100_000),
    "plan of an epoch": ("images", _sampling, 100_000),
    "pictures to batches": ("pictures", _streaming, 400),
    "evaluation (LVIS)": ("images", _evaluating, 5_000),
    "matching": ("boxes per image", _matching, 300),
    "class loss": ("classes", _class_loss, 13_000),
    "federated draw": ("classes", _federated, 13_000),
    "post-processing": ("classes", _postprocessing, 13_000),
    "soft labels": ("classes", _soft_labels, 13_000),
    # The same pictures, shared by more: that should cost as much.
    "pictures to batches, shared": (_PROCESSES, partial(_streaming, 32), 8),
}
# Of the largest sizes, by profile.
SHARES = {"smoke": 0.02, "demo": 0.1, "rehearsal": 0.02, "paper": 1.0}


def measured(share: float, points: int = 4) -> pd.DataFrame:
    """Seconds of one processor and peak memory of every part at `points` sizes that double.

    `share` of the largest sizes is where the curves end. Columns: part, grows, size, seconds,
    megabytes (NaN where it is not known).
    """
    cases = [
        (part, max(1, int((share if grows != _PROCESSES else 1) * largest / 2**halvings)))
        for part, (grows, _, largest) in PARTS.items()
        for halvings in reversed(range(points))
    ]
    context = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
    if sys.platform != "win32":
        context.set_forkserver_preload([__name__])
    rows = []
    for case in cases:
        # A pool each: those that renew their workers may wait for ever (CPython issue 115634).
        with ProcessPoolExecutor(1, context) as pool:
            rows.append((*case, *pool.submit(_point, *case).result()))
    frame = pd.DataFrame(rows, columns=["part", "size", "seconds", "megabytes"])
    frame.insert(1, "grows", [PARTS[part][0] for part in frame["part"]])
    return frame


def exponents(frame: pd.DataFrame) -> pd.Series:
    """Slope of log seconds over log size of each part: 1 is linear."""
    return frame.groupby("part", sort=False).apply(
        lambda one: float(np.polyfit(np.log(one["size"]), np.log(one["seconds"]), 1)[0]),
        include_groups=False,
    )


def _point(part: str, size: int) -> tuple[float, float]:
    """Processor seconds of one run, and the memory that it adds at most, in MB.

    What takes less than a second is run up to ten times, the first to import; the shortest counts.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    # Loaders start as in a training, whatever this process was started by, and more than cores.
    warnings.filterwarnings("ignore", "This DataLoader will create")
    multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)
    seconds, added = [], []
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder  # of this process, which ends with the point
        while sum(seconds) < 1 and len(seconds) < 10:
            work, before, start = PARTS[part][1](size), _memory("VmRSS"), _processor_seconds()
            work()
            seconds.append(_processor_seconds() - start)
            added.append(_memory("VmHWM") - before)
    return min(seconds), max(added)


def _processor_seconds() -> float:
    """Of this process, and of those that it started, whose clock ticks in hundredths alone."""
    return time.process_time() + sum(os.times()[2:4])


def _memory(kind: str) -> float:
    """What the system says of this process' memory in MB: now (VmRSS), at most since (VmHWM)."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return float("nan")
    if kind == "VmRSS":
        Path("/proc/self/clear_refs").write_text("5")  # the largest so far is the present one
    found = next(line for line in status.read_text().splitlines() if line.startswith(kind))
    return int(found.split()[1]) / 1024
