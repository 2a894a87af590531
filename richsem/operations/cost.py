"""What a detector costs, from shapes alone: parameters, arithmetic and memory.

On torch's "meta" device a tensor has a shape but no numbers, so a model of any size is built and
run forward on a laptop within seconds. Nothing is timed: all counts are the same on every machine.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker

from richsem.data.transforms import TransformConfig
from richsem.models.dino.dino import Dino, DinoConfig
from richsem.structures import Batch, Target
from richsem.training.run_config import RunConfig, on_meta

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
def image_flops(config: DinoConfig, size: Size) -> dict[str, int]:
    """`forward_flops` of a detector for one image."""
    return forward_flops(on_meta(config), imagined_batch(size))


@cache
def image_bytes(config: DinoConfig, size: Size) -> int:
    """All `saved_by_module` of a detector in training for one image."""
    return saved_by_module(on_meta(config), imagined_batch(size)).total()


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
    """Memory of a run, with its largest images; `num_classes` must be known."""
    detector = on_meta(config.detector)
    numbers = sum(p.numel() for p in detector.parameters() if p.requires_grad)
    everything = [*detector.parameters(), *detector.buffers()]
    size = max(image_sizes(config).values(), key=math.prod)
    return Memory(
        weights=sum(t.numel() * t.element_size() for t in everything),
        gradients=4 * numbers,
        optimiser=4 * numbers * 2,
        activations=image_bytes(config.detector, size),
        recomputed=largest_layer(config.detector, size),
    )


@cache
def largest_layer(config: DinoConfig, size: Size) -> int:
    """What recomputing the largest checkpointed layer needs for a moment; 0 without checkpoints."""
    names = recomputed_layers(on_meta(config))
    if not names:
        return 0
    backbone = replace(config.backbone, checkpointing=False)
    plain = on_meta(replace(config, backbone=backbone, checkpointing=False))
    saved = saved_by_module(plain, imagined_batch(size))
    return max(
        sum(n for place, n in saved.items() if f"{place}.".startswith(f"Dino.{name}."))
        for name in names
    )


def recomputed_layers(detector: Dino) -> list[str]:
    """Names of the modules that the backward pass recomputes, each at once."""
    names = [f"backbone.{name}" for name in detector.backbone.recomputed]
    for kind, part in {"encoder": detector.encoder, "decoder": detector.decoder}.items():
        names += [f"{kind}.layers.{i}" for i in range(len(part.layers)) if part.checkpointing]
    return names


def training_flops(config: RunConfig) -> float:
    """Operations of a whole run, all devices together, with its largest images.

    A backward pass takes twice the operations of the forward pass, recomputed layers once more.
    """
    detector, sizes = config.detector, image_sizes(config)
    passes = 3 + (detector.checkpointing or detector.backbone.checkpointing)
    shown = images_shown(config).items()
    return sum(passes * sum(image_flops(detector, sizes[kind]).values()) * n for kind, n in shown)


def images_shown(config: RunConfig) -> dict[str, int]:
    """Images of a whole run, all devices together, by kind of batch; the two take turns."""
    train, size = config.train, config.train.batch_size
    if not config.data.extra:
        return {"detection": train.steps * size}
    extra = round(train.extra_until * train.steps) // 2
    return {
        "detection": (train.steps - extra) * size,
        "extra": extra * (train.extra_batch_size or size),
    }


def image_sizes(config: RunConfig) -> dict[str, Size]:
    """The largest padded images of detection and extra batches."""
    sizes, extra = {"detection": _largest(config.data.transform)}, config.data.extra
    if extra:
        mosaic = extra.mosaic and (2 * extra.mosaic.side, 2 * extra.mosaic.side)
        sizes["extra"] = mosaic or _largest(extra.transform)
    multiple = config.detector.pad_multiple
    up = {kind: [math.ceil(side / multiple) for side in size] for kind, size in sizes.items()}
    return {kind: (height * multiple, width * multiple) for kind, (height, width) in up.items()}


def _largest(transform: TransformConfig) -> Size:
    short = max(transform.short_sides)
    return short, max(short, transform.max_side) if transform.keep_aspect else short
