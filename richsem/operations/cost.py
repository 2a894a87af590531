"""What a detector costs, from shapes alone: parameters, arithmetic and memory.

On torch's "meta" device a tensor has a shape but no numbers, so a model of any size is built and
run forward on a laptop within seconds. Nothing is timed: all counts are the same on every machine.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker

from richsem.data.transforms import ScaleJitterConfig, TransformConfig
from richsem.models.centernet2.centernet2 import CenterNet2
from richsem.models.dino.dino import Dino, DinoConfig
from richsem.structures import Batch, Supervision, Target
from richsem.training.run_config import Detector, DetectorConfig, RunConfig, on_meta

Size = tuple[int, int]  # height, width in pixels

GIGA = 1e9  # memory is given in GB of 10^9 bytes, arithmetic in GFLOP
OBJECTS = 10  # annotated objects of an imagined image; LVIS v1 train has 12.7 on average


def count_parameters(model: nn.Module, trained_only: bool = False) -> dict[str, int]:
    """Parameters of each direct part of a model, all of them or those that are trained."""
    parts = Counter()
    for name, parameter in model.named_parameters():
        counts = parameter.requires_grad or not trained_only
        parts[name.split(".")[0]] += parameter.numel() * counts
    return dict(parts)


def imagined_batch(size: Size) -> Batch:
    """One image with some annotated objects, as shapes."""
    with torch.device("meta"):
        labels, boxes = torch.zeros(OBJECTS, dtype=torch.int64), torch.zeros(OBJECTS, 4)
        target = Target(labels=labels, boxes=boxes, size=size, original_size=size, image_id=0)
        return Batch(targets=(target,), images=torch.zeros(1, 3, *size))


@cache
def image_flops(config: DetectorConfig, size: Size) -> dict[str, int]:
    """`forward_flops` of a detector for one image; of a CenterNet2 all in one, as it trains."""
    return forward_flops(on_shapes(config), imagined_batch(size))


def image_bytes(config: DetectorConfig, size: Size) -> int:
    """All `saved_by_module` of a detector in training for one image."""
    return _saved(config, size).total()


@cache
def _saved(config: DetectorConfig, size: Size) -> Counter[str]:
    return saved_by_module(on_shapes(config), imagined_batch(size))


def on_shapes(config: DetectorConfig) -> nn.Module:
    """A detector on "meta" that goes through all its parts, in training as far as it matters."""
    detector = on_meta(config)
    return detector if isinstance(detector, Dino) else MostRegions(detector)


class MostRegions(nn.Module):
    """A CenterNet2 in training that looks at as many regions of each image as it ever does.

    How many it looks at is decided by numbers: by proposals, and by those that meet an object.
    """

    def __init__(self, detector: CenterNet2) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, batch: Batch) -> None:
        """Nothing comes of it but what is saved and computed on the way."""
        detector, config = self.detector, self.detector.config
        levels = detector.pyramid(detector.backbone.finish(detector.backbone.look(batch.images)))
        detector.centers(levels)
        pooled = partial(levels[0].new_empty, requires_grad=True)
        number, side = len(batch) * config.cascade.regions, config.cascade.pooled
        for stage in detector.stages:
            regions = pooled((number, config.dim, side, side))
            stage(regions, detector.text, config.class_scale, config.scale)
        if config.masks:
            number, side = int(number * config.cascade.positive_part), config.masks.pooled
            detector.mask_head(pooled((number, config.dim, side, side)))


def forward_flops(model: nn.Module, *inputs: Any) -> dict[str, int]:
    """Floating-point operations of a forward pass at inference, by direct part of the model.

    A multiplication with its addition counts as two. Norms, activations and the sampling of
    deformable attention, which move memory rather than multiply, are not counted.
    """
    training = model.training
    with FlopCounterMode(display=False) as counter:
        model.eval()(*inputs)
    model.train(training)
    counted, whole = counter.get_flop_counts(), type(model).__name__
    names = [name for name, _ in model.named_children()]
    found = {name: _counted_below(counted, f"{whole}.{name}") for name in names}
    rest = counter.get_total_flops() - sum(found.values())
    return {**found, "(between parts)": rest} if rest else found


def _counted_below(counted: Mapping[str, Mapping[Any, int]], place: str) -> int:
    """Operations of a module, or of those in it, where a method of its own calls these."""
    below = [name for name in counted if f"{name}.".startswith(f"{place}.")]
    outermost = [one for one in below if not any(one.startswith(f"{up}.") for up in below)]
    return sum(sum(counted[name].values()) for name in outermost)


def saved_by_module(model: nn.Module, *inputs: Any) -> Counter[str]:
    """Bytes kept for the backward pass, by the innermost module that saved them.

    Names begin with the model's class. Tensors that share memory count once, and parameters and
    buffers, which are there anyway, not at all. The decoder's attention counts with its weights;
    fused kernels keep less.
    """
    there = [tensor.untyped_storage() for tensor in [*model.parameters(), *model.buffers()]]
    seen = {id(storage): storage for storage in there}  # alive, so that no id is used twice
    saved, modules = Counter(), ModuleTracker()

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if id(storage) not in seen:
            seen[id(storage)] = storage
            saved[max(modules.parents - {"Global"}, key=len)] += storage.nbytes()
        return tensor

    with modules, saved_tensors_hooks(keep, lambda tensor: tensor):
        model(*inputs)
    return saved


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on a device while a detector is trained with AdamW in float32.

    It needs more: losses, matching, teacher, buffers of libraries and fragments are not included.
    """

    weights: int  # parameters and buffers
    gradients: int  # one number per trainable parameter
    optimiser: int  # AdamW's running means of the gradient and of its square
    activations: int  # kept for the backward pass, per image
    recomputed: int = 0  # with checkpointing, the largest layer while it is recomputed, per image

    def per_device(self, images: int) -> int:
        """Bytes with so many images at a time; every device holds all states."""
        states = self.weights + self.gradients + self.optimiser
        return states + images * (self.activations + self.recomputed)


def training_memory(config: RunConfig) -> Memory:
    """Memory of a run with images of the `hungriest` kind; `num_classes` must be known."""
    return memories(config)[hungriest(config)]


def hungriest(config: RunConfig) -> str:
    """The kind of batch that needs most memory, all its images together."""
    found, images = memories(config), batch_sizes(config)
    return max(images, key=lambda kind: found[kind].per_device(images[kind]))


@cache
def memories(config: RunConfig) -> dict[str, Memory]:
    """Memory of a run with its largest images of each kind; `num_classes` must be known."""
    detector = on_meta(config.detector)
    numbers = sum(p.numel() for p in detector.parameters() if p.requires_grad)
    everything = [*detector.parameters(), *detector.buffers()]
    weights = sum(t.numel() * t.element_size() for t in everything)
    states = {"weights": weights, "gradients": 4 * numbers, "optimiser": 4 * numbers * 2}
    given = {kind: (looking(config, kind), size) for kind, size in image_sizes(config).items()}
    return {
        kind: Memory(**states, activations=image_bytes(*one), recomputed=largest_layer(*one))
        for kind, one in given.items()
    }


def looking(config: RunConfig, kind: str) -> DetectorConfig:
    """The detector that looks at images of a kind; masks are learnt from detection images alone."""
    detector, extra = config.detector, config.data.extra
    if kind == "detection" or isinstance(detector, DinoConfig):
        return detector
    cascade = detector.cascade
    if extra.supervision is Supervision.WHOLE_IMAGES:
        cascade = replace(cascade, regions=cascade.image_regions + 1)
    return replace(detector, cascade=cascade, masks=None)


@cache
def largest_layer(config: DetectorConfig, size: Size) -> int:
    """What recomputing the largest checkpointed layer needs for a moment; 0 without checkpoints."""
    names = recomputed_layers(on_meta(config))
    if not names:
        return 0
    plain = replace(config, backbone=replace(config.backbone, checkpointing=False))
    if isinstance(plain, DinoConfig):
        plain = replace(plain, checkpointing=False)
    saved = _saved(plain, size)
    return max(sum(n for place, n in saved.items() if f".{name}." in f"{place}.") for name in names)


def recomputed_layers(detector: Detector) -> list[str]:
    """Names of the modules that the backward pass recomputes, each at once."""
    names = [f"backbone.{name}" for name in detector.backbone.recomputed]
    for kind in ("encoder", "decoder") if isinstance(detector, Dino) else ():
        part = getattr(detector, kind)
        names += [f"{kind}.layers.{i}" for i in range(len(part.layers)) if part.checkpointing]
    return names


def training_flops(config: RunConfig) -> float:
    """Operations of a whole run, all devices together, with its largest images.

    A backward pass takes twice the operations of the forward pass, recomputed layers once more.
    """
    passes, sizes = 3 + bool(recomputed_layers(on_meta(config.detector))), image_sizes(config)
    forward = {kind: image_flops(looking(config, kind), size) for kind, size in sizes.items()}
    return sum(passes * sum(forward[kind].values()) * n for kind, n in images_shown(config).items())


def images_shown(config: RunConfig) -> dict[str, int]:
    """Images of a whole run, all devices together, by kind of batch; the two take turns."""
    train, sizes = config.train, batch_sizes(config)
    until = 1.0 if train.extra_rest else train.extra_until
    extra = round(until * train.steps) // 2 if "extra" in sizes else 0
    turns = {"detection": train.steps - extra, "extra": extra}
    return {kind: turns[kind] * size for kind, size in sizes.items()}


def batch_sizes(config: RunConfig) -> dict[str, int]:
    """Images of a batch, all devices together, by kind of batch."""
    size = config.train.batch_size
    extra = {"extra": config.train.extra_batch_size or size} if config.data.extra else {}
    return {"detection": size} | extra


def devices(config: RunConfig) -> list[int]:
    """Which of 1, 8 and 32 devices can share the batches of a run out evenly."""
    return [n for n in (1, 8, 32) if not any(size % n for size in batch_sizes(config).values())]


def image_sizes(config: RunConfig) -> dict[str, Size]:
    """The largest padded images of detection and extra batches."""
    sizes, extra = {"detection": _largest(config.data.transform)}, config.data.extra
    if extra:
        mosaic = extra.mosaic and (2 * extra.mosaic.side, 2 * extra.mosaic.side)
        sizes["extra"] = mosaic or _largest(extra.transform)
    multiple = config.detector.pad_multiple
    up = {kind: [math.ceil(side / multiple) for side in size] for kind, size in sizes.items()}
    return {kind: (height * multiple, width * multiple) for kind, (height, width) in up.items()}


def _largest(transform: TransformConfig | ScaleJitterConfig) -> Size:
    if isinstance(transform, ScaleJitterConfig):
        return transform.side, transform.side
    short = max(transform.short_sides)
    return short, max(short, transform.max_side) if transform.keep_aspect else short
