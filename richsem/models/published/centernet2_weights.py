"""Published Detic and CenterNet2 checkpoints under this project's names (METHOD 3.3).

The files are laid out by detectron2: `backbone` (with `bottom_up` and the pyramid),
`proposal_generator.centernet_head` and `roi_heads`. Class k is the k-th category by id.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from richsem.models import weight_files
from richsem.models.centernet2.cascade import MaskConfig
from richsem.models.centernet2.centernet2 import CascadeConfig, CenterNet2, CenterNet2Config
from richsem.models.published import translation
from richsem.models.weight_files import State

_HEAD = "proposal_generator.centernet_head."
_KNOWN = (
    "a published CenterNet2 or Detic model with proposals of one class and boxes shared by all "
    "classes"
)
_LEFT_OUT = (
    r"roi_heads\.box_predictor\.\d\.freq_weight$",  # the federated loss counts classes itself
    r"roi_heads\.box_predictor\.\d\.prop_score\.",  # the head of another image-level loss
    r"pixel_(mean|std)$",  # the backbone knows its statistics
)
_BACKBONE = r"backbone\.bottom_up\.(?:base\.)?"
_RGB_MEAN = (123.675, 116.28, 103.53)


def is_two_stage(names: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's names are those of such a detector."""
    return any(name.startswith(_HEAD) for name in names)


def load_two_stage(source: Path | str | State) -> CenterNet2:
    """A detector with published weights; see `translate_two_stage`."""
    config, state = translate_two_stage(source)
    unused = {"log_scale"} if "text" in state else {"log_scale", "text"}
    return weight_files.fill(CenterNet2(config), state, unused)


def translate_two_stage(source: Path | str | State) -> tuple[CenterNet2Config, State]:
    """Reads a published checkpoint in this project's terms.

    What no shape tells is taken to be as published: the overlaps and codings of the stages, the
    factor of 50 on cosines.
    """
    official = source if isinstance(source, Mapping) else weight_files.read(Path(source))
    mean = official.get("pixel_mean")
    if mean is not None and not torch.allclose(mean.flatten(), torch.tensor(_RGB_MEAN), atol=0.1):
        raise ValueError(
            f"this network expects pixels of mean {mean.flatten().tolist()}; known are those in "
            f"RGB with mean {list(_RGB_MEAN)}"
        )
    _, rest = translation.split(official, "|".join(_LEFT_OUT))
    inner, rest = translation.split(rest, _BACKBONE)
    named = translation.renamed(rest, translation.NAMES["centernet2"], known=_KNOWN)
    named = _from_finest(named)
    scales, state = translation.split(named, "scale of level ")
    if not scales or not inner or "stages.0.body.layers.0.weight" not in state:
        raise ValueError("not a published CenterNet2 or Detic checkpoint: parts are missing")
    state["centers.level_scales"] = torch.stack([scales[k].reshape(()) for k in sorted(scales)])
    compares = "text" in state
    for name, tensor in state.items():  # the last class is background: sigmoids do not need it
        if name == "text":
            state[name] = tensor[:, :-1].T.contiguous()  # [D, C + 1] -> [C, D]
        elif ".classifier." in name and not compares:
            state[name] = tensor[:-1]
        elif name.endswith("classifier.bias"):
            state[name] = tensor.reshape(())  # a bias of one number, kept as [1]
    maps = sum(name.startswith("pyramid.inner_blocks.") for name in state) // 2
    backbone, body = translation.translate_backbone(inner, maps)
    fields = _fields(state, compares)
    config = CenterNet2Config(backbone=replace(backbone, frozen_stride=0), **fields)
    return config, state | {f"backbone.{name}": tensor for name, tensor in body.items()}


def _fields(state: State, compares: bool) -> dict[str, Any]:
    """The arguments of `CenterNet2Config` that follow from names and shapes."""
    dim = len(state["pyramid.inner_blocks.0.0.weight"])
    hidden, inputs = state["stages.0.body.layers.0.weight"].shape
    depth = translation.count(state, "stages")
    box_layers = 2 if "stages.0.boxes.layers.1.weight" in state else 1
    outputs = len(state[f"stages.0.boxes.layers.{box_layers - 1}.weight"])
    pooled = round((inputs / dim) ** 0.5)
    overlaps = CascadeConfig().overlaps
    if outputs != 4 or depth != len(overlaps) or dim * pooled**2 != inputs:
        raise ValueError(
            f"{depth} stages with {inputs} inputs and {outputs} box outputs; known are "
            f"{len(overlaps)} stages with square inputs and boxes shared by all classes"
        )
    fields: dict[str, Any] = {
        "dim": dim,
        "tower": sum(n.startswith("centers.tower.") and t.dim() == 4 for n, t in state.items()),
        "cascade": CascadeConfig(pooled=pooled, hidden=hidden, box_layers=box_layers),
        "classifier": "text" if compares else "linear",
        "class_bias": "stages.0.classifier.bias" in state and compares,
        "semantic": False,
        "masks": None,
    }
    if depth := sum(n.startswith("mask_head.0.") and t.dim() == 4 for n, t in state.items()):
        fields["masks"] = MaskConfig(dim=len(state["mask_head.0.0.0.weight"]), depth=depth)
    if compares:
        fields["num_classes"], fields["text_dim"] = state["text"].shape
    else:
        fields["num_classes"] = len(state["stages.0.classifier.weight"])
    return fields


def _from_finest(state: State) -> State:
    """Published pyramids count levels from stride 1 and masks' layers from 1, ours from the first.

    The first of a pyramid is that of the finest map.
    """
    for level in (r"(pyramid\.(?:inner|layer)_blocks)\.(\d)\.", r"(mask_head\.0)\.(\d)\."):
        numbers = [int(found[2]) for name in state if (found := re.match(level, name))]
        first = min(numbers, default=0)
        rename = partial(re.sub, level, lambda m, first=first: f"{m[1]}.{int(m[2]) - first}.")
        state = {rename(name): tensor for name, tensor in state.items()}
    return state
