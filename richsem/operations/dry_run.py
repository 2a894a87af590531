"""What a run would do and need, in words, before anything is trained or fetched."""

import math
from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import replace
from itertools import chain
from pathlib import Path

from richsem.config import ConfigError, config_hash, to_json
from richsem.data.box_sets import BoxDataset
from richsem.data.catalog import dataset_spec
from richsem.data.categories import RANGES
from richsem.data.image_sets import ImageSet
from richsem.data.reading import DataError, first_few
from richsem.data.releases import RELEASES
from richsem.data.samples import UNKNOWN, match_classes
from richsem.data.sampling import repeat_factors
from richsem.models.clip import reading_modes
from richsem.operations import burst, cost, store
from richsem.operations.cost import GIGA, Memory, count_parameters
from richsem.paths import CACHE, free_bytes, user_path
from richsem.training import build
from richsem.training.optim import parameter_groups
from richsem.training.parallel import this_process
from richsem.training.run_config import RUN, Detector, RunConfig


def show(config: RunConfig, out: Path | None = None) -> None:
    """Prints a configuration and its `summary`; the run would lie in `out`, or in the store."""
    parts = summary(config, out or CACHE)
    known = [next(parts), ("folder", out or describe_folder(config))]  # or what is wrong
    print(to_json(config), end="")
    for name, value in chain(known, parts):
        print(f"{name:15}{value}", flush=True)


def summary(config: RunConfig, folder: Path = CACHE) -> Iterator[tuple[str, str]]:
    """What a run would do; nothing is trained (but noise, for the time), fetched or cached for it.

    Names and words of each part as soon as they are known, as memory takes seconds and time up to
    minutes; what is wrong with the run is raised before the first one. Published numbers stand in
    for data that is not on disk. The run would lie in or below `folder`.
    """
    data, sets, problem = config.data, {}, ""
    extra, teacher = data.extra, data.teacher
    try:
        sets["detection"] = build.training_dataset(data)
        if extra:
            sets["extra"] = build.open_extra(extra, data, sets["detection"].categories)
    except (ConfigError, DataError) as error:
        if data.own:  # nothing is published about it
            raise
        problem = str(error).partition(". ")[0]
    dataset = sets.get("detection")
    config = with_classes(config, dataset)
    detector = build.in_shapes(config, config.detector.num_classes)
    sizes = [(p.numel(), p.requires_grad) for p in detector.parameters()]
    taught = config.detector.uses_text or data.features
    lines = {
        "run": f"{config.name} ({config_hash(config)})",
        "detection set": _detection_set(config, dataset, problem),
        "extra set": f"{extra.folder or extra.key}, {extra.supervision}" if extra else "none",
        "teacher": f"{teacher.model}: {reading_modes(teacher)}" if taught else "none",
        "parameters": f"{sum(n for n, _ in sizes):,}, trainable {sum(n for n, t in sizes if t):,}",
    }
    if config.init.startswith(RUN):  # trained by the store when it is needed
        lines["start"] = config.init
    elif config.init and not user_path(config.init).exists():  # a folder to be made first
        lines["start"] = f"{config.init}, not there yet"
    elif config.init:
        lines["start"] = build.started(detector, config)[0]
    if data.own:
        lines |= own_parts(config)
    for i, (rate, group) in enumerate(parameter_groups(detector, config.optim).items(), start=1):
        numbers = sum(p.numel() for p in group)
        lines[f"AdamW group {i}"] = f"rate {rate:.1e}: {numbers:,} in {len(group)} tensors"
    lines["steps"] = _steps(config, dataset)
    lines["disk"] = _disk(config, detector, sets, folder)
    lines["device"] = str(this_process().device)
    yield from lines.items()
    yield from _memory(config)
    yield "measuring", burst.patience(config)
    yield from burst.hours(config).items()


def describe_folder(config: RunConfig) -> str:
    """Where a run is kept unless told otherwise; its data, which decides that, may be away."""
    try:
        return str(store.run_folder(config))
    except DataError:
        return f"below {CACHE / store.RUNS}, named after the data once it is there"


def own_sets(config: RunConfig) -> list[BoxDataset | ImageSet]:
    """Of files of one's own what is learnt from, what is judged by, and extra pictures if any."""
    data = config.data
    train, val = (build.open_split(data, part) for part in ("train", data.judge_split))
    extra = [build.open_extra(data.extra, data, train.categories)] if data.extra else []
    return [train, val, *extra]


def own_parts(config: RunConfig, sets: Sequence[BoxDataset | ImageSet] = ()) -> dict[str, str]:
    """What is learnt from files of one's own (their `own_sets`), and what they are judged by."""
    train, val, *further = sets or own_sets(config)
    groups, boxes = train.frequency_groups().tolist(), val.instance_counts()
    pairs = zip(train.categories, match_classes(train.categories, val.categories), strict=True)
    lacking = [c.name for c, place in pairs if place == UNKNOWN or not boxes[place]]
    if len(lacking) == len(groups):
        raise DataError(f"{val.path}: no box of a class of {train.path}. Judge by another file.")
    factors = repeat_factors(train, config.data.repeat_threshold)
    times = f"each {factors.min():.1f} to {factors.max():.1f} times per epoch"
    judged = f"{len(val):,} images of {val.name}, {boxes.sum():,} boxes"
    judged += f"; none of {len(lacking)} classes ({first_few(lacking)})" * bool(lacking)
    lines = {
        "learnt from": f"{len(train):,} images, {len(train.labels):,} boxes, {times}",
        "classes": ", ".join(f"{groups.count(key)} {name}" for key, name in RANGES.items()),
        "judged by": judged,
    }
    for extra in further:
        lines["extra pictures"] = f"{len(extra):,}, {sum(map(bool, extra.labels)):,} with labels"
    return lines


def _memory(config: RunConfig) -> Iterator[tuple[str, str]]:
    kinds, each = cost.memories(config), []
    for kind, (height, width) in cost.image_sizes(config).items():
        need = _gb(kinds[kind].activations + kinds[kind].recomputed)
        each.append(f"{need} activations per {kind} image of {height} x {width}")
    memory = kinds[cost.hungriest(config)]
    words = (
        f"{_gb(memory.weights)} weights, {_gb(memory.gradients)} gradients, "
        f"{_gb(memory.optimiser)} optimiser; {', '.join(each)} (float32; see "
        "richsem.operations.cost.Memory for what is left out)"
    )
    yield "memory", words
    for n, text in memory_by_devices(config, memory):
        yield f"on {n} GPU{'s' * (n > 1)}", text
    flop = cost.training_flops(config)
    each = ", ".join(f"{flop / n / (3600 * 50e12):.2g} on {n}" for n in cost.devices(config))
    yield "arithmetic", f"{flop:.1e} operations; hours if GPUs sustain 50 TFLOP/s: {each}"


def _disk(config: RunConfig, detector: Detector, sets: Mapping[str, Sized], folder: Path) -> str:
    """What a run writes, what is free, and which real sets have to be fetched before."""
    data, kept = config.data, 0
    whole, trained = (sum(count_parameters(detector, only).values()) for only in (False, True))
    # A new state is complete before the old one goes; then weights, and a start for others.
    state = whole + (3 if config.train.average else 2) * trained
    words = f"{_gb(4 * (2 * state + whole + trained))} for state and weights"
    asked = {"detection": data, **({"extra": data.extra} if data.extra else {})}
    for kind, own in asked.items():
        if own.features and kind in sets:
            height, width = cost.image_sizes(config)[kind]
            grids = zip(detector.backbone.channels, detector.backbone.strides, strict=True)
            numbers = sum(c * math.ceil(height / s) * math.ceil(width / s) for c, s in grids)
            kept += 2 * numbers * own.features.views * (own.features.images or len(sets[kind]))
    words += f", {_gb(kept)} for features" * (kept > 0)
    words += f"; {_gb(free_bytes(folder))} free below {folder}"
    absent = {own.key for kind, own in asked.items() if kind not in sets}
    behind = [one for one in RELEASES.values() if absent.intersection(one.keys)]
    if names := dict.fromkeys(name for one in behind for name in (one.name, *one.also)):
        prepared = _gb(sum(RELEASES[name].disk for name in names))
        words += f"; not there: {', '.join(names)} ({prepared} prepared)"
    return words


def with_classes(config: RunConfig, dataset: BoxDataset | None) -> RunConfig:
    """The configuration with a number of classes: the data's, the stated or the published one."""
    if dataset is not None:
        return build.complete(config, dataset)
    classes = config.detector.num_classes or dataset_spec(config.data.key).reference_categories
    if not classes:
        raise ConfigError(
            f"{config.data.key} is not on disk and its number of classes is not published: set "
            "detector.num_classes"
        )
    return replace(config, detector=replace(config.detector, num_classes=classes))


def memory_by_devices(
    config: RunConfig, memory: Memory, limit_gb: float = 80.0
) -> Iterator[tuple[int, str]]:
    """Memory of each of some `cost.devices`, and what it would take to fit in `limit_gb`."""
    batch = cost.batch_sizes(config)[cost.hungriest(config)]
    for devices in cost.devices(config):
        images = batch // (devices * config.train.accumulation)
        need = memory.per_device(images)
        ways = "accumulation" if memory.recomputed else "checkpointing or accumulation"
        advice = f"fits in {limit_gb:g} GB"
        if need > limit_gb * GIGA:
            advice = f"more than {limit_gb:g} GB, it needs more devices, {ways}"
        if images:
            yield devices, f"{images} image{'s' * (images > 1)} at a time, {_gb(need)}; {advice}"


def _detection_set(config: RunConfig, dataset: BoxDataset | None, problem: str) -> str:
    if dataset:
        counts = f"{len(dataset):,} images, {len(dataset.labels):,} boxes"
        return f"{dataset.name}: {counts}, {len(dataset.categories):,} classes"
    spec = dataset_spec(config.data.key)
    published = {"images": spec.reference_images, "classes": spec.reference_categories}
    known = ", ".join(f"{number:,} {what}" for what, number in published.items() if number)
    return f"{spec.name}, not on disk ({problem}); as published: {known or 'nothing stated'}"


def _steps(config: RunConfig, dataset: BoxDataset | None) -> str:
    train = config.train
    seen = train.steps / (2 if config.data.extra else 1) * train.batch_size
    steps = f"{train.steps:,} of {train.batch_size} images"
    if dataset is None:
        return f"{steps}, {seen:,.0f} detection images; epochs need the annotations"
    epochs = seen / repeat_factors(dataset, config.data.repeat_threshold).sum()
    return f"{steps}, {epochs:.1f} epochs of the detection set"


def _gb(number: float) -> str:
    return f"{number / GIGA:.1f} GB" if number >= GIGA / 10 else f"{number / 1e6:.1f} MB"
