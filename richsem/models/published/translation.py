"""What translating any published checkpoint takes: renaming tensors, and backbones (METHOD 2.9).

Nothing gets lost silently: a name that no rule knows is an error, and so is a tensor that the model
lacks or has too many of. What is left out on purpose is named where it is left out.

Backbones are ResNet, Swin, FocalNet and ConvNeXt, under timm's names: which one follows from the
published names, which size from the shapes. Published transformers downsample at the end of a
stage, timm at the start of the next one, and FocalNet's linear layers are 1x1 convolutions in timm.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

import torch

from richsem.models.backbones import BackboneConfig
from richsem.models.weight_files import State

Rules = dict[str, str]  # pattern in a published name -> what stands there in ours
_FILE = Path(__file__).with_name("names.toml")
NAMES: dict[str, Rules] = tomllib.loads(_FILE.read_text(encoding="utf-8"))

_STRIDES = (4, 8, 16, 32)  # of the four stages
_RESNETS = {6: "resnet50.tv_in1k", 23: "resnet101.tv_in1k"}  # by the depth of the third stage
_SWINS = {(96, 6): "tiny", (96, 18): "small", (128, 18): "base", (192, 18): "large"}
_WINDOWS = {7: "7_224", 12: "12_384"}
_FOCALS = {192: "large", 256: "xlarge", 352: "huge"}
_CONVNEXTS = {
    (96, 9): "tiny",
    (96, 27): "small",
    (128, 27): "base",
    (192, 27): "large",
    (256, 27): "xlarge",
}
_NORM = re.compile(r"norm(\d)\.(weight|bias)$")
_COMPUTED = ("relative_position_index", "attn_mask")  # of Swin, from the window size


def renamed(state: State, rules: Rules, known: str = "") -> State:
    """Tensors under the names that all rules together make, one after the other.

    Shared modules are stored under several names: what becomes one name must hold the same values.
    `known` says what the rules are for: a name that none of them changes is then an error.
    """
    ours, first = {}, {}
    for name, tensor in state.items():
        new = name
        for pattern, replacement in rules.items():
            new = re.sub(pattern, replacement, new)
        if known and new == name:
            raise ValueError(f"{name}: not a tensor of {known}")
        if not torch.equal(tensor, ours.setdefault(new, tensor)):
            raise ValueError(
                f"{name} differs from {first[new]}: a model with separate heads per decoder layer, "
                "or with stages with classes of their own, which this detector does not have"
            )
        first.setdefault(new, name)
    return ours


def split(state: State, prefix: str) -> tuple[State, State]:
    """The tensors whose names start with a pattern, without that start, and the others."""
    inner = {re.sub(prefix, "", n, count=1): t for n, t in state.items() if re.match(prefix, n)}
    return inner, {name: t for name, t in state.items() if not re.match(prefix, name)}


def count(state: State, modules: str) -> int:
    """How many modules a list has, by the largest number behind its name."""
    found = (re.match(rf"{re.escape(modules)}\.(\d+)\.", name) for name in state)
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def translate_backbone(official: State, num_maps: int) -> tuple[BackboneConfig, State]:
    """A published backbone as a configuration, without weights, and the state of `Backbone`.

    Of its maps the detector reads the `num_maps` coarsest ones.
    """
    strides = _STRIDES[-num_maps:]
    if "conv1.weight" in official:
        name = _size(_RESNETS, count(official, "layer3"), "ResNet")
        # Left out are ImageNet's classifier and the counters of batch norms.
        _, body = split(official, r"fc\.|.*num_batches_tracked$")
        return BackboneConfig(name=name, strides=strides), {f"body.{k}": t for k, t in body.items()}
    if any("relative_position_bias_table" in key for key in official):
        translate = _translate_swin
    elif any(".modulation." in key for key in official):
        translate = _translate_focalnet
    elif "downsample_layers.0.0.weight" in official:
        translate = _translate_convnext
    else:
        raise ValueError(f"unknown backbone with tensors {sorted(official)[:3]}")
    name, body = translate({key: t for key, t in official.items() if not _NORM.match(key)})
    state = {f"body.{key}": tensor for key, tensor in body.items()}
    for key, tensor in official.items():
        found = _NORM.match(key)
        stride = _STRIDES[int(found[1])] if found else 0  # `norm0` is that of stride 4
        if stride in strides:  # norms of maps that the detector does not read are left out
            state[f"norms.{strides.index(stride)}.{found[2]}"] = tensor
    return BackboneConfig(name=name, strides=strides, frozen_stride=0, output_norm=True), state


def _translate_swin(official: State) -> tuple[str, State]:
    width = official["patch_embed.proj.weight"].shape[0]
    size = _size(_SWINS, (width, count(official, "layers.2.blocks")), "Swin")
    table = official["layers.0.blocks.0.attn.relative_position_bias_table"]
    window = (round(table.shape[0] ** 0.5) + 1) // 2  # a table has (2 window - 1)^2 rows
    name = f"swin_{size}_patch4_window{_size(_WINDOWS, window, 'Swin window')}"
    learnt = {key: tensor for key, tensor in official.items() if not key.endswith(_COMPUTED)}
    return name, renamed(learnt, NAMES["swin"])


def _translate_focalnet(official: State) -> tuple[str, State]:
    width = official["patch_embed.proj.weight"].shape[0]
    # `f` gives queries, context and one gate for each focal level and for the global one.
    gates = official["layers.0.blocks.0.modulation.f.weight"].shape[0] - 2 * width
    name = f"focalnet_{_size(_FOCALS, width, 'FocalNet')}_fl{gates - 1}"
    state = {}
    for key, tensor in renamed(official, NAMES["swin"] | NAMES["focalnet"]).items():
        # timm has 1x1 convolutions for linear layers: [out, in] -> [out, in, 1, 1].
        state[key] = tensor[:, :, None, None] if tensor.ndim == 2 else tensor
        if name == "focalnet_large_fl4" and key.endswith("modulation.h.weight"):
            # This one divides the sum over focal levels before `h`; timm's has no such switch.
            state[key] = tensor / gates
    return name, state


def _translate_convnext(official: State) -> tuple[str, State]:
    width = len(official["downsample_layers.0.0.weight"])
    size = _size(_CONVNEXTS, (width, count(official, "stages.2")), "ConvNeXt")
    return f"convnext_{size}", renamed(official, NAMES["convnext"])


def _size(sizes: Mapping, key: object, family: str) -> str:
    if key not in sizes:
        raise ValueError(f"unknown {family} of size {key}; known: {list(sizes)}")
    return sizes[key]
