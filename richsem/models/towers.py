"""How regions are read from each kind of CLIP image tower (METHOD 1).

A tower is split where its pooling begins: the first part turns pixels into a map, the second turns
a region, cut out of the map, into an embedding. Where a tower pools by attention or by a mean, a
region that is the whole picture then gives the picture's own embedding. A class token has seen the
whole picture whatever the region is; there each patch is asked for itself instead, and a region is
the mean of its patches.
"""

from collections.abc import Callable
from dataclasses import dataclass

import timm
import torch
from open_clip.modified_resnet import AttentionPool2d, ModifiedResNet
from open_clip.transformer import VisionTransformer
from timm.layers import resample_abs_pos_embed
from timm.models import eva, vision_transformer
from torch import Tensor, nn

_ALONE = 2048  # patches that are asked for themselves at once, each a sequence of its own

Part = Callable[[Tensor], Tensor]


@dataclass
class Tower:
    """An image tower in two parts, or the reason why there are none."""

    stride: int = 1  # pixels per cell of the map
    multiple: int = 1  # sides of pictures must be multiples of it
    side: int = 1  # of the pictures it was trained on, in pixels
    # Normalised pixels [B, 3, H, W] -> map [B, C, H / stride, W / stride].
    map: Part | None = None
    # Regions of it [N, C, grid, grid] -> embeddings [N, D], not normalised.
    pool: Part | None = None
    reason: str = ""  # why there are none, and regions can only be cut out of the pixels

    @property
    def grid(self) -> int:
        """Cells along the side of a region, as the pooling knows them."""
        return self.side // self.stride


def tower_of(visual: nn.Module, values: bool = True) -> Tower:
    """The two parts of an open_clip model's image tower; `values`: see `_Vit`."""
    size = visual.image_size
    side = size if isinstance(size, int) else size[0]
    trunk = getattr(visual, "trunk", None)
    if isinstance(visual, ModifiedResNet):
        stride = multiple = 32
        layers = nn.Sequential(visual.layer1, visual.layer2, visual.layer3, visual.layer4)
        parts = (lambda pixels: layers(visual.stem(pixels)), _asked_once(visual.attnpool))
    elif isinstance(visual, VisionTransformer):
        stride = multiple = visual.patch_size[0]
        parts = _open_clip_vit(visual, values)
    elif isinstance(trunk, (vision_transformer.VisionTransformer, eva.Eva)):
        stride = multiple = trunk.feature_info[-1]["reduction"]
        parts = _timm_vit(visual, values)
    elif hasattr(trunk, "forward_head"):  # a convolutional network, the embedded CLIP's among them
        stride, multiple = trunk.feature_info[-1]["reduction"], 32
        parts = trunk.forward_features, lambda cuts: visual.head(trunk.forward_head(cuts))
    else:
        return Tower(side=side, reason="its image tower is of no known kind")
    tower = Tower(stride, multiple, side, *parts)
    try:  # on a small picture that no network was made for
        cells = tower.map(torch.zeros(1, 3, 2 * multiple, 3 * multiple)).shape[2:]
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError):
        cells = ()
    if cells != (2 * multiple // stride, 3 * multiple // stride):
        return Tower(side=side, reason=f"{type(trunk).__name__} takes pictures of one size")
    return tower


def _asked_once(pooling: AttentionPool2d) -> Part:
    """What OpenAI's attention pooling answers to its mean token, the one whose answer is used.

    Its own code asks all 50 tokens. The mean's question is put through the key weights instead of
    every token through them, and the answer through the value weights: the same but for rounding,
    with a twentieth of the multiplications. A key's bias moves all of a softmax alike.
    """
    heads = pooling.num_heads

    def pool(cuts: Tensor) -> Tensor:
        tokens = cuts.flatten(2).mT  # [N, T - 1, C]
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1)
        tokens = tokens + pooling.positional_embedding
        keys, values = (
            one.weight.unflatten(0, (heads, -1)) for one in (pooling.k_proj, pooling.v_proj)
        )
        asked = pooling.q_proj(tokens[:, 0]).unflatten(1, (heads, -1))  # [N, heads, C / heads]
        asked = torch.einsum("nhd,hdc->nhc", asked, keys) / keys.shape[1] ** 0.5
        seen = (asked @ tokens.mT).softmax(-1) @ tokens  # [N, heads, C]
        answer = torch.einsum("nhc,hdc->nhd", seen, values).flatten(1) + pooling.v_proj.bias
        return pooling.c_proj(answer)

    return pool


@dataclass
class _Vit:
    """A plain ViT, open_clip's or timm's; positions are interpolated to the picture's size."""

    tokens: Callable[[Tensor, int], Tensor]  # pixels, block (-1 the last) -> patches [B, C, h, w]
    last_block: Part  # sequences [N, T, C]
    end: Part  # pooling and projection of what the last block returned: [N, D]
    by_class_token: bool  # whether a class token is what it pools
    prefix: int  # tokens before the patches that its pooling passes over
    # Where it pools a class token, the head sees each patch as a sequence of its own: as it leaves
    # the last block, or, with `values`, as the last block makes it from that patch alone. Attention
    # of a patch to itself leaves its value, which is closer to text (known from MaskCLIP).
    values: bool

    def map(self, pixels: Tensor) -> Tensor:
        if not self.by_class_token:
            return self.tokens(pixels, -1)
        maps = self.tokens(pixels, -2 if self.values else -1)  # [B, C, h, w]
        parts = maps.flatten(2).mT.reshape(-1, 1, maps.shape[1]).split(_ALONE)
        ends = [self.end(self.last_block(part) if self.values else part) for part in parts]
        return torch.cat(ends).unflatten(0, (len(maps), -1)).mT.unflatten(2, maps.shape[2:])

    def pool(self, cuts: Tensor) -> Tensor:
        if self.by_class_token:  # these are embeddings already
            return cuts.mean((2, 3))
        patches = cuts.flatten(2).mT  # [N, grid * grid, C]
        prefix = patches.new_zeros(len(patches), self.prefix, patches.shape[2])
        return self.end(torch.cat([prefix, patches], 1))


def _open_clip_vit(visual: VisionTransformer, values: bool) -> tuple[Part, Part]:
    """Both parts of OpenAI's, LAION's, CoCa's; their last norm belongs to the pooling."""
    blocks, attention = visual.transformer.resblocks, visual.attn_pool is not None

    def tokens(pixels: Tensor, block: int) -> Tensor:
        maps = visual.conv1(pixels)  # [B, C, h, w]
        first = visual.class_embedding.expand(len(maps), 1, -1)
        places = resample_abs_pos_embed(
            visual.positional_embedding[None], list(maps.shape[2:]), list(visual.grid_size)
        )
        x = visual.ln_pre(torch.cat([first, maps.flatten(2).mT], 1) + places)
        for layer in blocks[: len(blocks) + 1 + block]:
            x = layer(x)
        return x[:, 1:].mT.unflatten(2, maps.shape[2:])

    def end(tokens: Tensor) -> Tensor:
        pooled, _ = visual._pool(tokens)
        return pooled if visual.proj is None else pooled @ visual.proj

    by_class_token = visual.pool_type == "tok" and not attention
    vit = _Vit(tokens, blocks[-1], end, by_class_token, 0 if attention else 1, values)
    return vit.map, vit.pool


def _timm_vit(visual: nn.Module, values: bool) -> tuple[Part, Part]:
    """Both parts of SigLIP's, EVA's, PE's, MobileCLIP-B's; the last block's tokens are normed."""
    trunk = visual.trunk
    if not getattr(trunk, "dynamic_img_size", True):  # the same, made to interpolate its positions
        arguments = {"num_classes": trunk.num_classes, "global_pool": trunk.global_pool}
        name = trunk.pretrained_cfg["architecture"]
        other = timm.create_model(name, dynamic_img_size=True, **arguments)
        other.load_state_dict(trunk.state_dict())
        visual.trunk = trunk = other.train(trunk.training)

    def tokens(pixels: Tensor, block: int) -> Tensor:
        options = {"norm": block == -1, "stop_early": True, "intermediates_only": True}
        index = len(trunk.blocks) + block
        return trunk.forward_intermediates(pixels, indices=[index], **options)[0]

    def last_block(tokens: Tensor) -> Tensor:
        return trunk.norm(trunk.blocks[-1](tokens))

    def end(tokens: Tensor) -> Tensor:
        return visual.head(trunk.forward_head(tokens))

    attention = trunk.attn_pool is not None
    # Some pool all tokens, and some leave the prefix out themselves.
    prefix = 0 if getattr(trunk, "pool_include_prefix", attention) else trunk.num_prefix_tokens
    by_class_token = trunk.global_pool == "token" and not attention
    vit = _Vit(tokens, last_block, end, by_class_token, prefix, values)
    return vit.map, vit.pool
