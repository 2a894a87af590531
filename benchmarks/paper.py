"""A step of the paper's RichSem on noise of the published sizes: share by part, memory, variants.

`python -m richsem bench paper --device cuda` measures all that is open on a GPU; `--size 0.1`
makes every side a tenth, to try it. Weights are random: time does not depend on them.
"""

from collections import Counter
from dataclasses import replace
from typing import Any

import open_clip
import pandas as pd
import torch
from torch import Tensor, nn

from benchmarks import attention
from benchmarks.timing import now, peak_megabytes, show
from richsem.config import with_settings
from richsem.models.clip import RN50, FrozenClip
from richsem.operations import burst, cost
from richsem.recipes import dino_recipes
from richsem.structures import Batch
from richsem.training.loop import Training
from richsem.training.parallel import this_process
from richsem.training.run_config import RunConfig
from richsem.training.teacher import Teacher

BASELINE = "float32"
VARIANTS = {
    BASELINE: [],
    "bf16": ["train.precision=bf16"],
    "checkpointing": ["detector.checkpointing=true", "detector.backbone.checkpointing=true"],
}


def main(repeats: int = 3, device: str = "", size: float = 1.0, images: int = 2) -> None:
    """Prints both kinds of steps by part, what each variant changes, and attention by itself."""
    found = this_process().device.type
    if device not in ("", found):
        raise ValueError(f"--device {device}: this machine computes on {found}")
    plain = recipe(size, images)
    network = open_clip.create_model(RN50.model, load_weights=False, pretrained_text=False)
    clip = FrozenClip(RN50, network).to(found)
    teacher = Teacher(clip, torch.randn(plain.detector.num_classes, clip.dim, device=found))
    for kind, shape in cost.image_sizes(plain).items():
        shares, variants = {}, {}
        for name, settings in VARIANTS.items():
            config = with_settings(plain, settings)
            try:
                training = burst.begun(config)
                batch = burst.noise(training, config, kind, images, shape)
                variants[name] = whole_step(training, batch, repeats, found)
                shares[name] = parts(training, batch, teacher, repeats, found)
            except torch.OutOfMemoryError as error:
                print(f"{kind}, {name}: left out, {str(error).splitlines()[0]}", flush=True)
        title = f"{kind}, {images} images of {shape[0]} x {shape[1]} on {found}"
        table = pd.DataFrame(variants).T
        table[f"times faster than {BASELINE}"] = table.at[BASELINE, "s"] / table["s"]
        table["loss / its loss"] = table.pop("loss") / variants[BASELINE]["loss"]
        show(f"{title}: a step", table.rename_axis("").reset_index())
        table = 100 * pd.DataFrame(shares) / pd.DataFrame(shares).sum()
        show(f"{title}: share of each part in percent", table.rename_axis("").reset_index())
    if size == 1:
        attention.main(repeats)


def recipe(size: float, images: int) -> RunConfig:
    """RichSem on R50 for LVIS' classes; sides are `size` times the published ones."""
    config = with_settings(dino_recipes.richsem("paper"), [f"train.batch_size={images}"])
    data, extra = config.data, config.data.extra
    sides = tuple(round(size * side) for side in data.transform.short_sides)
    transform = replace(data.transform, short_sides=sides, max_side=round(size * 1333))
    extra = replace(extra, mosaic=replace(extra.mosaic, side=round(size * extra.mosaic.side)))
    data = replace(data, transform=transform, extra=extra)
    return replace(config, data=data, detector=replace(config.detector, num_classes=1203))


def whole_step(training: Training, batch: Batch, repeats: int, device: str) -> dict[str, Any]:
    """Seconds and images per second of the loop's step, the loss of the first one, and memory."""
    boxes, spent = sum(len(target.labels) for target in batch.targets), []
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    torch.manual_seed(0)
    with training.accelerator.autocast():
        kept = cost.saved_by_module(training.detector, batch).total() / 2**20
    for _ in range(1 + repeats):
        training.step, start = 0, now(device)
        training.advance([batch], boxes)
        spent.append(now(device) - start)
    ((total, _),) = [sums["total"] for sums in training.meter.sums().values() if "total" in sums]
    best = min(spent[1:])
    found = {"s": best, "images/s": len(batch) / best, "MB kept for backward": kept}
    return found | {"MB at most": peak_megabytes(device), "loss": total / (1 + repeats)}


def parts(
    training: Training, batch: Batch, teacher: Teacher, repeats: int, device: str
) -> dict[str, float]:
    """Seconds of each part of a step with a teacher in it."""
    detector = training.detector
    bare = replace(
        batch, targets=tuple(replace(target, soft_labels=None) for target in batch.targets)
    )
    spent, last = Counter(), now(device)

    def lap(part: str) -> None:
        nonlocal last
        spent[part] += (time := now(device)) - last
        last = time

    def watch(part: str, before: str) -> Any:
        """Its forward pass, and the backward pass of what comes behind it."""

        def note(module: nn.Module, inputs: Any, output: Any) -> None:
            lap(part)
            for tensor in [output] if isinstance(output, Tensor) else output:
                tensor.register_hook(lambda gradient: lap(f"{before}, backward"))

        return note

    hooks = [
        detector.backbone.body.register_forward_hook(watch("backbone", "neck, encoder")),
        detector.encoder.register_forward_hook(watch("neck, encoder", "proposals, decoder")),
    ]
    for _ in range(1 + repeats):
        spent.clear()  # in the end, the last one is left; the first ones warm up
        last = now(device)
        with training.accelerator.autocast():
            output = detector(batch)
        lap("proposals, decoder")
        teacher(bare)
        lap("teacher")
        total = training.criterion(output.in_float32(), batch).total
        lap("criterion")
        training.accelerator.backward(total)
        lap("backbone, backward")
        training.optimiser.step()
        training.optimiser.zero_grad(set_to_none=True)
        lap("optimiser")
    for hook in hooks:
        hook.remove()
    return dict(spent)
