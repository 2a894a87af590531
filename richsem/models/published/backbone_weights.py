"""Backbones of published detectors under timm's names: ResNet, Swin, FocalNet and ConvNeXt.

Which architecture it is follows from the names, which size from the shapes. Published transformers
downsample at the end of a stage, timm at the start of the next one, and FocalNet's linear layers
are 1x1 convolutions in timm.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from richsem.models.backbones import BackboneConfig

State = dict[str, Tensor]
Rules = tuple[tuple[str, str], ...]

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
_SWIN_NAMES: Rules = (
    *((rf"^layers\.{i}\.downsample\.", f"layers_{i + 1}.downsample.") for i in range(3)),
    (r"^layers\.(\d)\.", r"layers_\1."),
)
_FOCAL_NAMES: Rules = (
    *_SWIN_NAMES,
    (r"^patch_embed\.", "stem."),
    (r"gamma_(\d)", r"ls\1.gamma"),
    (r"blocks\.(\d+)\.norm(\d)\.", r"blocks.\1.norm\2_post."),
    (r"modulation\.ln\.", "modulation.norm."),
)
_CONVNEXT_NAMES: Rules = (
    (r"^downsample_layers\.0\.(\d)\.", r"stem_\1."),
    (r"^downsample_layers\.(\d)\.(\d)\.", r"stages_\1.downsample.\2."),
    (r"^stages\.(\d)\.(\d+)\.", r"stages_\1.blocks.\2."),
    (r"\.dwconv\.", ".conv_dw."),
    (r"\.pwconv(\d)\.", r".mlp.fc\1."),
)
_NORM = re.compile(r"norm(\d)\.(weight|bias)$")
_COMPUTED = "computed from the window size"
_UNUSED = "norm of a map that the detector does not read"
_CLASSIFIER = "the backbone's ImageNet classifier"
_COUNTER = "a counter that frozen batch norms do not have"


def translate_backbone(
    official: Mapping[str, Tensor], num_maps: int
) -> tuple[BackboneConfig, State, dict[str, str]]:
    """A published backbone as a configuration and the state of `Backbone`.

    Args:
        official: Tensors by their names inside the published backbone.
        num_maps: How many maps the detector reads; they are the coarsest ones.

    Returns:
        Configuration without weights, state by our names, and left-out names with the reason.

    Raises:
        ValueError: It is none of the published architectures.
    """
    strides = _STRIDES[-num_maps:]
    if "conv1.weight" in official:
        name, state, ignored = _translate_resnet(official)
        return BackboneConfig(name=name, strides=strides), state, ignored
    if any("relative_position_bias_table" in key for key in official):
        translate = _translate_swin
    elif any(".modulation." in key for key in official):
        translate = _translate_focalnet
    elif "downsample_layers.0.0.weight" in official:
        translate = _translate_convnext
    else:
        raise ValueError(f"unknown backbone with tensors {sorted(official)[:3]}")
    norms, ignored = _output_norms(official, strides)
    inner = {key: tensor for key, tensor in official.items() if not _NORM.match(key)}
    name, body, unused = translate(inner)
    state = {f"body.{key}": tensor for key, tensor in body.items()} | norms
    config = BackboneConfig(name=name, strides=strides, frozen_stride=0, output_norm=True)
    return config, state, ignored | unused


def _output_norms(official: Mapping[str, Tensor], strides: tuple[int, ...]) -> tuple[State, dict]:
    """The layer norms of the maps that are read; `norm0` belongs to the stage of stride 4."""
    norms, ignored = {}, {}
    for key, tensor in official.items():
        found = _NORM.match(key)
        if found is None:
            continue
        stride = _STRIDES[int(found[1])]
        if stride in strides:
            norms[f"norms.{strides.index(stride)}.{found[2]}"] = tensor
        else:
            ignored[key] = _UNUSED
    return norms, ignored


def _translate_resnet(official: Mapping[str, Tensor]) -> tuple[str, State, dict[str, str]]:
    name = _size(_RESNETS, _depth(official, "layer3"), "ResNet")
    ignored = {key: _CLASSIFIER for key in official if key.startswith("fc.")}
    ignored |= {key: _COUNTER for key in official if key.endswith("num_batches_tracked")}
    state = {f"body.{key}": t for key, t in official.items() if key not in ignored}
    return name, state, ignored


def _translate_swin(official: Mapping[str, Tensor]) -> tuple[str, State, dict[str, str]]:
    width = official["patch_embed.proj.weight"].shape[0]
    size = _size(_SWINS, (width, _depth(official, "layers.2.blocks")), "Swin")
    table = official["layers.0.blocks.0.attn.relative_position_bias_table"]
    window = (round(table.shape[0] ** 0.5) + 1) // 2
    name = f"swin_{size}_patch4_window{_size(_WINDOWS, window, 'Swin window')}"
    computed = ("relative_position_index", "attn_mask")
    ignored = {key: _COMPUTED for key in official if key.endswith(computed)}
    state = {key: tensor for key, tensor in official.items() if key not in ignored}
    return name, _renamed(state, _SWIN_NAMES), ignored


def _translate_focalnet(official: Mapping[str, Tensor]) -> tuple[str, State, dict[str, str]]:
    width = official["patch_embed.proj.weight"].shape[0]
    gates = official["layers.0.blocks.0.modulation.f.weight"].shape[0] - 2 * width
    name = f"focalnet_{_size(_FOCALS, width, 'FocalNet')}_fl{gates - 1}"
    state = {}
    for key, tensor in _renamed(official, _FOCAL_NAMES).items():
        linear = tensor.ndim == 2  # timm uses 1x1 convolutions
        state[key] = tensor[:, :, None, None] if linear else tensor
        if name == "focalnet_large_fl4" and key.endswith("modulation.h.weight"):
            # This one divides the sum over focal levels before `h`; timm's has no such switch.
            state[key] = tensor / gates
    return name, state, {}


def _translate_convnext(official: Mapping[str, Tensor]) -> tuple[str, State, dict[str, str]]:
    width = official["downsample_layers.0.0.weight"].shape[0]
    size = _size(_CONVNEXTS, (width, _depth(official, "stages.2")), "ConvNeXt")
    return f"convnext_{size}", _renamed(official, _CONVNEXT_NAMES), {}


def _renamed(official: Mapping[str, Tensor], rules: Rules) -> State:
    state = {}
    for name, tensor in official.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        state[name] = tensor
    return state


def _depth(official: Mapping[str, Tensor], stage: str) -> int:
    """Number of blocks of a stage."""
    numbers = re.compile(rf"{re.escape(stage)}\.(\d+)\.")
    found = (numbers.match(key) for key in official)
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def _size(sizes: Mapping, key: object, family: str) -> str:
    if key not in sizes:
        raise ValueError(f"unknown {family} of size {key}; known: {list(sizes)}")
    return sizes[key]
