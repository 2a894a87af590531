"""Published Detic and CenterNet2 checkpoints under this project's names (METHOD 3.3).

The files are laid out by detectron2: `backbone` (with `bottom_up` and the pyramid),
`proposal_generator.centernet_head` and `roi_heads`. Every tensor is either renamed or left out with
a reason; a name that nobody knows is an error. Class k is the k-th category by id.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from richsem.models.centernet2.centernet2 import CascadeConfig, CenterNet2, CenterNet2Config
from richsem.models.published.backbone_weights import translate_backbone
from richsem.models.published.dino_weights import read_checkpoint

State = dict[str, Tensor]

_HEAD = "proposal_generator.centernet_head."
_RENAMED = (  # the start of an official name -> ours; the first match counts
    (r"backbone\.top_block\.(p[67])\.", r"pyramid.extra_blocks.\1."),
    (r"proposal_generator\.centernet_head\.bbox_tower\.", "centers.tower."),
    (r"proposal_generator\.centernet_head\.agn_hm\.", "centers.heatmap."),
    (r"proposal_generator\.centernet_head\.bbox_pred\.", "centers.distances."),
    (r"roi_heads\.box_head\.(\d)\.fc1\.", r"stages.\1.body.layers.0."),
    (r"roi_heads\.box_head\.(\d)\.fc2\.", r"stages.\1.body.layers.1."),
    (r"roi_heads\.box_predictor\.(\d)\.bbox_pred\.0\.", r"stages.\1.boxes.layers.0."),
    (r"roi_heads\.box_predictor\.(\d)\.bbox_pred\.2\.", r"stages.\1.boxes.layers.1."),
    (r"roi_heads\.box_predictor\.(\d)\.bbox_pred\.(?=w|b)", r"stages.\1.boxes.layers.0."),
    (r"roi_heads\.box_predictor\.(\d)\.cls_score\.linear\.", r"stages.\1.classifier.projection."),
    (r"roi_heads\.box_predictor\.(\d)\.cls_score\.cls_bias$", r"stages.\1.classifier.bias"),
    (r"roi_heads\.box_predictor\.(\d)\.cls_score\.(?=w|b)", r"stages.\1.classifier."),
)
_IGNORED = (
    (r"roi_heads\.mask_head\.", "the mask head; this detector finds boxes"),
    (r"roi_heads\.box_predictor\.\d\.freq_weight$", "the federated loss counts classes itself"),
    (r"roi_heads\.box_predictor\.\d\.prop_score\.", "the head of another image-level loss"),
    (r"pixel_(mean|std)$", "the backbone knows its statistics"),
)
_FPN = re.compile(r"backbone\.fpn_(lateral|output)(\d)\.")
_SCALE = re.compile(re.escape(_HEAD) + r"scales\.(\d)\.scale$")
_TEXT = re.compile(r"roi_heads\.box_predictor\.\d\.cls_score\.zs_weight$")
_BACKBONE = re.compile(r"backbone\.bottom_up\.(?:base\.)?")
_RGB_MEAN = (123.675, 116.28, 103.53)


@dataclass(frozen=True)
class OfficialTwoStage:
    """A published checkpoint in this project's terms.

    Attributes:
        config: What it is a detector of, as far as names and shapes tell.
        state: Tensors by this project's names.
        ignored: The official names that are left out, with the reason.
    """

    config: CenterNet2Config
    state: State
    ignored: dict[str, str]


def is_two_stage(names: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's names are those of such a detector."""
    return any(name.startswith(_HEAD) for name in names)


def load_two_stage(source: Path | str | Mapping[str, Tensor]) -> CenterNet2:
    """A detector with published weights; the argument and the errors are those of `translate`."""
    found = translate_two_stage(source)
    model = CenterNet2(found.config)
    missing, unknown = model.load_state_dict(found.state, strict=False)
    unused = {"log_scale"} if "text" in found.state else {"log_scale", "text"}
    needed = [name for name in missing if name not in unused]
    if needed or unknown:
        raise ValueError(f"weights do not fit the model: missing {needed}, unknown {unknown}")
    return model


def translate_two_stage(source: Path | str | Mapping[str, Tensor]) -> OfficialTwoStage:
    """Reads a published checkpoint in this project's terms.

    What no shape tells is taken to be as published: the overlaps and codings of the stages, the
    factor of 50 on cosines.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a published CenterNet2 or Detic checkpoint of a kind known here.
    """
    official = source if isinstance(source, Mapping) else read_checkpoint(Path(source))
    _check_pixels(official)
    ignored = {name: reason for name in official if (reason := _reason(name))}
    inner = {name: tensor for name, tensor in official.items() if _BACKBONE.match(name)}
    state, scales, texts = {}, {}, {}
    for name, tensor in official.items():
        if name in ignored or name in inner:
            continue
        if found := _SCALE.match(name):
            scales[int(found[1])] = tensor.reshape(())
        elif _TEXT.match(name):
            texts[name] = tensor
        else:
            # A bias of one number is kept as [1].
            state[_our_name(name)] = tensor.reshape(()) if "cls_bias" in name else tensor
    _renumber_pyramid(state)
    if not scales or not inner or "stages.0.body.layers.0.weight" not in state:
        raise ValueError("not a published CenterNet2 or Detic checkpoint: parts are missing")
    state["centers.level_scales"] = torch.stack([scales[level] for level in sorted(scales)])
    if texts:
        state["text"], copies = _text_features(texts)
        ignored |= copies
    else:
        _drop_background(state)
    maps = sum(name.startswith("pyramid.inner_blocks.") for name in state) // 2
    short = {_BACKBONE.sub("", name): name for name in inner}
    backbone, body, unused = translate_backbone({k: inner[v] for k, v in short.items()}, maps)
    ignored |= {short[name]: reason for name, reason in unused.items()}
    config = CenterNet2Config(
        backbone=replace(backbone, frozen_stride=0), **_fields(state, "text" in state)
    )
    state |= {f"backbone.{name}": tensor for name, tensor in body.items()}
    return OfficialTwoStage(config, state, ignored)


def _fields(state: State, compares: bool) -> dict[str, Any]:
    """The arguments of `CenterNet2Config` that follow from names and shapes."""
    dim = len(state["pyramid.inner_blocks.0.0.weight"])
    hidden, inputs = state["stages.0.body.layers.0.weight"].shape
    depth = len({name.split(".")[1] for name in state if name.startswith("stages.")})
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
    }
    if compares:
        fields["num_classes"], fields["text_dim"] = state["text"].shape
    else:
        fields["num_classes"] = len(state["stages.0.classifier.weight"])
    return fields


def _our_name(name: str) -> str:
    if found := _FPN.match(name):
        part = "inner_blocks" if found[1] == "lateral" else "layer_blocks"
        return _FPN.sub(f"pyramid.{part}.{found[2]}.0.", name)
    for pattern, replacement in _RENAMED:
        if re.match(pattern, name):
            return re.sub(pattern, replacement, name, count=1)
    raise ValueError(
        f"{name}: not a tensor of a published CenterNet2 or Detic model with proposals of one "
        "class and boxes shared by all classes"
    )


def _renumber_pyramid(state: State) -> None:
    """Published pyramids count levels from stride 1, ours from the finest map."""
    pattern = re.compile(r"(pyramid\.(?:inner|layer)_blocks)\.(\d)\.")
    names = [name for name in state if pattern.match(name)]
    levels = sorted({int(pattern.match(name)[2]) for name in names})
    moved = {name: state.pop(name) for name in names}
    for name, tensor in moved.items():
        place = levels.index(int(pattern.match(name)[2]))
        state[pattern.sub(rf"\1.{place}.", name)] = tensor


def _text_features(texts: State) -> tuple[Tensor, dict[str, str]]:
    """Text features [C, D] of the stages' tables [D, C + 1], whose last column is background."""
    first, *others = texts
    for name in others:
        if not torch.equal(texts[name], texts[first]):
            raise ValueError(f"{name} differs from {first}: stages with classes of their own")
    copies = {name: f"the same as {first}" for name in others}
    return texts[first][:, :-1].T.contiguous(), copies


def _drop_background(state: State) -> None:
    """Takes the last output, background, off linear classifiers: sigmoids do not need it."""
    for name in [name for name in state if ".classifier." in name]:
        state[name] = state[name][:-1]


def _reason(name: str) -> str | None:
    return next((reason for pattern, reason in _IGNORED if re.match(pattern, name)), None)


def _check_pixels(official: Mapping[str, Tensor]) -> None:
    """Refuses networks trained on other pixels than RGB of ImageNet's statistics."""
    mean = official.get("pixel_mean")
    if mean is not None and not torch.allclose(mean.flatten(), torch.tensor(_RGB_MEAN), atol=0.1):
        raise ValueError(
            f"this network expects pixels of mean {mean.flatten().tolist()}; known are those in "
            f"RGB with mean {list(_RGB_MEAN)}"
        )
