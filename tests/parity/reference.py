"""Sets of reference tensors: where they lie and what is in them."""

import json
import os
from pathlib import Path

import torch
from safetensors import safe_open

from richsem import paths
from richsem.structures import Target

SETS = {
    "small": paths.ROOT / "tests" / "golden",
    "full": paths.ROOT / os.environ.get("RICHSEM_GOLDEN", "../shared/golden"),
}


def describe(folder: Path, name: str) -> dict:
    """What is written beside the tensors: configuration, cases, tolerances."""
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def tensor_names(folder: Path, name: str) -> list[str]:
    with safe_open(folder / f"{name}.safetensors", "pt") as content:
        return list(content.keys())


def has(folder: Path, need: str) -> bool:
    """Whether a set has what a test needs, a file or one tensor of it (`file:tensor`)."""
    name, _, tensor = need.partition(":")
    if not (folder / f"{name}.json").is_file():
        return False
    return not tensor or tensor in tensor_names(folder, name)


def recorded_targets(tensors) -> tuple[Target, ...]:
    """The targets of a batch, with the teacher's soft labels where its logits are recorded."""
    targets = []
    while f"in/target{len(targets)}/boxes" in tensors:
        own = f"target{len(targets)}"
        logits = tensors.get(f"in/{own}/clip_logits", tensors.get(f"distill/{own}/clip_logits"))
        targets.append(
            Target(
                labels=tensors[f"in/{own}/labels"],
                boxes=tensors[f"in/{own}/boxes"],
                size=tuple(tensors.get(f"in/{own}/size", torch.ones(2)).tolist()),
                original_size=(1, 1),
                image_id=len(targets),
                soft_labels=None if logits is None else logits.softmax(-1),
            )
        )
    return tuple(targets)


def in_slots(items, counts, empty=0):
    """Numbers recorded as [copies * targets, ...] -> [B, copies, M, ...]."""
    items = items.reshape(-1, sum(counts), *items.shape[1:])
    slots = items.new_full((len(counts), len(items), max(counts), *items.shape[2:]), empty)
    for image, part in enumerate(items.split(counts, 1)):
        slots[image, :, : counts[image]] = part
    return slots


# Our loss terms are sums over the layers; the recorded ones carry the layer in their name.
_TERMS = {"class": "ce", "box": "bbox", "giou": "giou", "soft": "distill"}


def recorded_term(tensors, start, name, layers):
    """One of our loss terms as the sum of the recorded ones."""
    prefix, _, kind = name.rpartition("_")
    stem = f"{start}/loss_{_TERMS[kind]}"
    if prefix == "proposal":
        return tensors[f"{stem}_interm"]
    stem += "_dn" if prefix else ""
    earlier = [f"{stem}_{i}" for i in range(layers - 1)] if kind != "soft" else []
    return sum(tensors[key] for key in [stem, *earlier])


def loss_weights(recorded):
    return {
        "class_weight": recorded["loss_ce"],
        "box_weight": recorded["loss_bbox"],
        "giou_weight": recorded["loss_giou"],
        "soft_weight": recorded.get("loss_distill", 0.0),
    }
