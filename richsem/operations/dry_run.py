"""What a run would do and need, in words, before anything is trained or fetched."""

import math
from collections.abc import Iterator
from dataclasses import replace

from accelerate import PartialState

from richsem.config import ConfigError, config_hash
from richsem.data.box_sets import BoxDataset
from richsem.data.catalog import dataset_spec
from richsem.data.reading import DataError
from richsem.data.sampling import repeat_factors
from richsem.models.dino.dino import DinoConfig
from richsem.operations.cost import GIGA, Memory, image_sizes, on_meta, training_memory
from richsem.training.build import complete, training_dataset
from richsem.training.optim import parameter_groups
from richsem.training.run_config import RunConfig

DEVICE_GB = 80.0  # memory that sharding is judged by
_DEVICES = (1, 8, 64)


def summary(config: RunConfig) -> dict[str, str]:
    """What a run would do; nothing is trained, fetched or cached for it.

    Data that is not on disk is named as such, and published numbers stand in for what it would
    have told.
    """
    dataset, problem = _dataset(config)
    config = with_classes(config, dataset)
    detector, extra = on_meta(config.detector), config.data.extra
    sizes = [(p.numel(), p.requires_grad) for p in detector.parameters()]
    lines = {
        "run": f"{config.name} ({config_hash(config)})",
        "detection set": _describe(dataset) if dataset else _describe_absent(config, problem),
        "extra set": f"{extra.key}, {extra.supervision}" if extra else "none",
        "parameters": f"{sum(n for n, _ in sizes):,}, trainable {sum(n for n, t in sizes if t):,}",
    }
    for i, (rate, group) in enumerate(parameter_groups(detector, config.optim).items(), start=1):
        numbers = sum(p.numel() for p in group)
        lines[f"AdamW group {i}"] = f"rate {rate:.1e}: {numbers:,} in {len(group)} tensors"
    lines["steps"] = _describe_steps(config, dataset)
    lines["device"] = str(PartialState().device)
    if isinstance(config.detector, DinoConfig):  # regions are drawn from numbers, not from shapes
        lines |= _describe_memory(config)
    return lines


def _describe_memory(config: RunConfig) -> dict[str, str]:
    memory = training_memory(config)
    height, width = max(image_sizes(config).values(), key=math.prod)
    states = (
        f"{_gb(memory.weights)} weights, {_gb(memory.gradients)} gradients, "
        f"{_gb(memory.optimiser)} optimiser; {_gb(memory.per_image)} activations per image of "
        f"{height} x {width} (float32; see richsem.operations.cost.Memory for what is left out)"
    )
    lines = {"memory": states}
    for devices, text in memory_by_devices(config, memory):
        lines[f"on {devices} GPU{'s' * (devices > 1)}"] = text
    return lines


def with_classes(config: RunConfig, dataset: BoxDataset | None) -> RunConfig:
    """The configuration with a number of classes: the data's, the stated or the published one.

    Raises:
        ConfigError: The data contradicts the configuration, or nothing says how many there are.
    """
    if dataset is not None:
        return complete(config, dataset)
    published = dataset_spec(config.data.key).reference_categories
    classes = config.detector.num_classes or published
    if not classes:
        raise ConfigError(
            f"{config.data.key} is not on disk and its number of classes is not published: set "
            "detector.num_classes"
        )
    return replace(config, detector=replace(config.detector, num_classes=classes))


def memory_by_devices(
    config: RunConfig, memory: Memory, limit_gb: float = DEVICE_GB
) -> Iterator[tuple[int, str]]:
    """Memory of each of 1, 8 and 64 devices, and what it would take to fit in `limit_gb`."""
    train = config.train
    for devices in _DEVICES:
        images = max(train.batch_size, train.extra_batch_size) // (devices * train.accumulation)
        if not images:
            continue
        need = memory.per_device(images)
        shards = memory.fewest_shards(images, limit_gb * GIGA)
        many = f"{images} image{'s' * (images > 1)} at a time, {_gb(need)}"
        if shards is None:
            ways = "accumulation" if memory.recomputed else "checkpointing or accumulation"
            advice = f"activations alone exceed {limit_gb:.0f} GB, it needs {ways}"
        elif shards == 1:
            advice = f"fits in {limit_gb:.0f} GB, no sharding"
        else:
            whole = f"states sharded over {shards}: {_gb(memory.per_device(images, shards))}"
            advice = whole if shards <= devices else f"{whole}; use more devices or accumulation"
        yield devices, f"{many}; {advice}"


def _dataset(config: RunConfig) -> tuple[BoxDataset | None, str]:
    """The detection set, or None and why it cannot be had."""
    try:
        return training_dataset(config.data), ""
    except (ConfigError, DataError) as error:
        return None, str(error).splitlines()[0]


def _describe(dataset: BoxDataset) -> str:
    return (
        f"{dataset.name}: {len(dataset):,} images, {len(dataset.labels):,} boxes, "
        f"{len(dataset.categories):,} classes"
    )


def _describe_absent(config: RunConfig, problem: str) -> str:
    spec = dataset_spec(config.data.key)
    published = {"images": spec.reference_images, "classes": spec.reference_categories}
    known = ", ".join(f"{number:,} {what}" for what, number in published.items() if number)
    return f"{spec.name}, not on disk ({problem}); as published: {known or 'nothing stated'}"


def _describe_steps(config: RunConfig, dataset: BoxDataset | None) -> str:
    train = config.train
    seen = train.steps / (2 if config.data.extra else 1) * train.batch_size
    steps = f"{train.steps:,} of {train.batch_size} images"
    if dataset is None:
        return f"{steps}, {seen:,.0f} detection images; epochs need the annotations"
    epochs = seen / repeat_factors(dataset, config.data.repeat_threshold).sum()
    return f"{steps}, {epochs:.1f} epochs of the detection set"


def _gb(number: float) -> str:
    return f"{number / GIGA:.1f} GB"
