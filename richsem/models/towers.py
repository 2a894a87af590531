"""How regions are read from each kind of CLIP image tower (METHOD 1).

A tower is split where its pooling begins: the first part turns pixels into a map, the second turns
a region, cut out of the map, into an embedding. Where a tower pools by attention or by a mean, a
region that is the whole picture then gives the picture's own embedding. A class token has seen the
whole picture whatever the region is; there each patch is asked for itself instead, and a region is
the mean of its patches.
"""

from typing import Protocol

import timm
import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import VisionTransformer
from timm.layers import resample_abs_pos_embed
from timm.models import eva, vision_transformer
from torch import Tensor, nn

_ALONE = 2048  # patches that are asked for themselves at once, each a sequence of its own


class Tower(Protocol):
    """An image tower in two parts."""

    stride: int  # pixels per cell of the map
    multiple: int  # sides of pictures must be multiples of it
    grid: int  # cells along the side of a region, as the pooling takes it

    def map(self, pixels: Tensor) -> Tensor:
        """Normalised pixels [B, 3, H, W] -> the map [B, C, H / stride, W / stride]."""

    def pool(self, cuts: Tensor) -> Tensor:
        """Regions of the map [N, C, grid, grid] -> embeddings [N, D], not normalised."""


def tower_of(visual: nn.Module, values: bool = True) -> Tower:
    """The tower of an open_clip model, or `CropsOnly` with the reason; `values`: see `VitTower`."""
    if isinstance(visual, ModifiedResNet):
        return ResNetTower(visual)
    if isinstance(visual, VisionTransformer):
        if visual.pool_type == "none" and visual.attn_pool is None:
            return CropsOnly("it pools its patches in a way of its own")
        return OpenClipVit(visual, values)
    trunk = getattr(visual, "trunk", None)
    if trunk is None or not hasattr(trunk, "forward_head"):
        return CropsOnly("its image tower is of no known kind")
    plain = isinstance(trunk, (vision_transformer.VisionTransformer, eva.Eva))
    tower = TimmVit(visual, values) if plain else ConvTower(visual)
    side = tower.multiple
    try:  # on a small picture that no network was made for
        found = tower.map(torch.zeros(1, 3, 2 * side, 3 * side)).shape[2:]
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError):
        found = ()
    if found != (2 * side // tower.stride, 3 * side // tower.stride):
        return CropsOnly(f"{type(trunk).__name__} takes pictures of one size")
    return tower


class CropsOnly:
    """A tower that is not split: regions can only be cut out of the pixels."""

    stride = multiple = grid = 1

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def map(self, pixels: Tensor) -> Tensor:
        """There is no map."""
        raise ValueError(self.reason)

    def pool(self, cuts: Tensor) -> Tensor:
        """There is no map."""
        raise ValueError(self.reason)


class ResNetTower:
    """CLIP's own ResNet: the last map, and attention pooling that knows `grid` x `grid` places."""

    stride = multiple = 32

    def __init__(self, visual: ModifiedResNet) -> None:
        self.visual, self.grid = visual, _side(visual) // self.stride

    def map(self, pixels: Tensor) -> Tensor:
        """See `Tower`."""
        x, visual = self.visual.stem(pixels), self.visual
        return visual.layer4(visual.layer3(visual.layer2(visual.layer1(x))))

    def pool(self, cuts: Tensor) -> Tensor:
        """See `Tower`."""
        return self.visual.attnpool(cuts)


class ConvTower:
    """A convolutional network of timm, the embedded CLIP's among them."""

    multiple = 32

    def __init__(self, visual: nn.Module) -> None:
        self.visual, self.trunk = visual, visual.trunk
        self.stride = self.trunk.feature_info[-1]["reduction"]
        self.grid = _side(visual) // self.stride

    def map(self, pixels: Tensor) -> Tensor:
        """See `Tower`."""
        return self.trunk.forward_features(pixels)

    def pool(self, cuts: Tensor) -> Tensor:
        """See `Tower`."""
        return self.visual.head(self.trunk.forward_head(cuts))


class VitTower:
    """A plain ViT: what its two makers, open_clip and timm, have in common.

    Positions are interpolated to the size of the picture.
    """

    stride: int
    multiple: int
    grid: int
    by_class_token: bool  # whether a class token is what it pools
    prefix: int  # tokens before the patches that its pooling passes over
    # Where it pools a class token, the head sees each patch as a sequence of its own: as it leaves
    # the last block, or, with `values`, as the last block makes it from that patch alone. Attention
    # of a patch to itself leaves its value, which is closer to text (known from MaskCLIP).
    values: bool

    def map(self, pixels: Tensor) -> Tensor:
        """See `Tower`; C is D where a class token is what the tower pools."""
        if not self.by_class_token:
            return self.tokens(pixels, -1)
        maps = self.tokens(pixels, -2 if self.values else -1)  # [B, C, h, w]
        parts = maps.flatten(2).mT.reshape(-1, 1, maps.shape[1]).split(_ALONE)
        ends = [self.end(self.last_block(part) if self.values else part) for part in parts]
        return torch.cat(ends).unflatten(0, (len(maps), -1)).mT.unflatten(2, maps.shape[2:])

    def pool(self, cuts: Tensor) -> Tensor:
        """See `Tower`."""
        if self.by_class_token:
            return cuts.mean((2, 3))
        patches = cuts.flatten(2).mT  # [N, grid * grid, C]
        prefix = patches.new_zeros(len(patches), self.prefix, patches.shape[2])
        return self.end(torch.cat([prefix, patches], 1))

    def tokens(self, pixels: Tensor, block: int) -> Tensor:
        """Patches after a block, -1 for the last one, as a map [B, C, h, w]."""
        raise NotImplementedError

    def last_block(self, tokens: Tensor) -> Tensor:
        """The last block on sequences [N, T, C], with the norm behind it unless `end` has that."""
        raise NotImplementedError

    def end(self, tokens: Tensor) -> Tensor:
        """Pooling and projection of what the last block returned: [N, D]."""
        raise NotImplementedError


class OpenClipVit(VitTower):
    """open_clip's own ViT: OpenAI's, LAION's, CoCa's."""

    def __init__(self, visual: VisionTransformer, values: bool) -> None:
        self.visual, self.values = visual, values
        self.stride = self.multiple = visual.patch_size[0]
        self.grid = _side(visual) // self.stride
        attention = visual.attn_pool is not None
        self.by_class_token = visual.pool_type == "tok" and not attention
        self.prefix = 0 if attention else 1

    def tokens(self, pixels: Tensor, block: int) -> Tensor:
        """See `VitTower`; the norm belongs to the pooling."""
        visual = self.visual
        maps = visual.conv1(pixels)  # [B, C, h, w]
        first = visual.class_embedding.expand(len(maps), 1, -1)
        places = resample_abs_pos_embed(
            visual.positional_embedding[None], list(maps.shape[2:]), list(visual.grid_size)
        )
        x = visual.ln_pre(torch.cat([first, maps.flatten(2).mT], 1) + places)
        for layer in visual.transformer.resblocks[: len(visual.transformer.resblocks) + 1 + block]:
            x = layer(x)
        return x[:, 1:].mT.unflatten(2, maps.shape[2:])

    def last_block(self, tokens: Tensor) -> Tensor:
        """See `VitTower`."""
        return self.visual.transformer.resblocks[-1](tokens)

    def end(self, tokens: Tensor) -> Tensor:
        """See `VitTower`."""
        pooled, _ = self.visual._pool(tokens)
        return pooled if self.visual.proj is None else pooled @ self.visual.proj


class TimmVit(VitTower):
    """A ViT of timm: SigLIP's, EVA's, PE's, MobileCLIP-B's."""

    def __init__(self, visual: nn.Module, values: bool) -> None:
        self.visual, self.values = visual, values
        visual.trunk = self.trunk = trunk = _of_any_size(visual.trunk)
        self.stride = self.multiple = trunk.feature_info[-1]["reduction"]
        self.grid = _side(visual) // self.stride
        self.by_class_token = trunk.attn_pool is None and trunk.global_pool == "token"
        # Some pool all tokens, and some leave the prefix out themselves.
        whole = getattr(trunk, "pool_include_prefix", trunk.attn_pool is not None)
        self.prefix = 0 if whole else trunk.num_prefix_tokens

    def tokens(self, pixels: Tensor, block: int) -> Tensor:
        """See `VitTower`; the last block's are normalised."""
        index = len(self.trunk.blocks) + block
        (maps,) = self.trunk.forward_intermediates(
            pixels, indices=[index], norm=block == -1, stop_early=True, intermediates_only=True
        )
        return maps

    def last_block(self, tokens: Tensor) -> Tensor:
        """See `VitTower`."""
        return self.trunk.norm(self.trunk.blocks[-1](tokens))

    def end(self, tokens: Tensor) -> Tensor:
        """See `VitTower`."""
        return self.visual.head(self.trunk.forward_head(tokens))


def _side(visual: nn.Module) -> int:
    """Side in pixels of the pictures that a tower was trained on."""
    size = visual.image_size
    return size if isinstance(size, int) else size[0]


def _of_any_size(trunk: nn.Module) -> nn.Module:
    """The same network of timm, made so that it interpolates its positions."""
    if getattr(trunk, "dynamic_img_size", True):
        return trunk
    arguments = {"num_classes": trunk.num_classes, "global_pool": trunk.global_pool}
    name = trunk.pretrained_cfg["architecture"]
    other = timm.create_model(name, dynamic_img_size=True, **arguments)
    other.load_state_dict(trunk.state_dict())
    return other.train(trunk.training)
