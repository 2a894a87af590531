"""Regions of every kind of CLIP tower, by what must hold whatever the weights are."""

from functools import cache

import open_clip
import pytest
import timm
import torch
from open_clip.model import _build_vision_tower
from torch.nn import functional as F

from richsem.models.clip import ClipConfig, FrozenClip, reading_modes
from richsem.models.networks import shapes_only
from richsem.models.towers import tower_of

TEXT = {"context_length": 16, "width": 32, "heads": 2, "layers": 1}
RESNET = {"layers": [1, 1, 1, 1], "width": 16, "image_size": 64}
VIT = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 64}
TIMM = {"image_size": 160, "timm_proj": "linear"}
BY_POOLING = {  # a region that is the whole picture is the picture
    "resnet": RESNET,
    "mean": VIT | {"pool_type": "avg", "final_ln_after_pool": True},
    "timm mean": TIMM | {"timm_model_name": "test_vit", "timm_pool": "avg"},
    "timm attention": TIMM | {"timm_model_name": "test_vit", "timm_pool": "map"},  # as SigLIP's
    "convnext": TIMM | {"timm_model_name": "test_convnext", "timm_pool": ""},
}
ALMOST = {  # attention pooling that has a class token or a register among the patches
    "coca": VIT | {"attentional_pool": True, "attn_pooler_queries": 2, "attn_pooler_heads": 2},
    "register": TIMM | {"timm_model_name": "test_vit3", "timm_pool": "map"},
}
BY_CLASS_TOKEN = {
    "class token": VIT,
    "timm class token": TIMM | {"timm_model_name": "test_vit", "timm_pool": "token"},
    "rotary": {"timm_model_name": "vit_tiny_patch16_dinov3_qkvb", "timm_pool": "token"}
    | {"image_size": 256, "timm_proj": "linear"},
}
CROPS_ONLY = {
    "relative": TIMM | {"timm_model_name": "test_vit_relpos", "timm_pool": ""},
    "windows": TIMM | {"timm_model_name": "test_maxvit", "timm_pool": ""},
}
KINDS = BY_POOLING | ALMOST | BY_CLASS_TOKEN | CROPS_ONLY


def clip_of(vision, **options):
    """A small CLIP with this image tower and random weights."""
    torch.manual_seed(0)
    attention = vision.get("timm_pool") == "map" and vision["timm_model_name"] == "test_vit"
    pooled = vision | {"timm_pool": "avg"} if attention else vision
    model = open_clip.CLIP(embed_dim=24, vision_cfg=pooled, text_cfg=TEXT)
    if attention:
        arguments = {"class_token": False, "global_pool": "map", "num_classes": 0}
        trunk = timm.create_model("test_vit", dynamic_img_size=True, **arguments)
        model.visual.trunk = trunk
    for name, parameter in model.visual.named_parameters():
        if name.endswith("bn3.weight"):
            torch.nn.init.ones_(parameter)  # zero at the start: the block would add nothing
        if name.endswith(("gamma", "ls1.weight")) or "pos_embed" in name:
            torch.nn.init.normal_(parameter)
    return FrozenClip(ClipConfig(model="tiny", weights="random", **options), model)


@cache
def clips(kind):
    """The CLIP of a kind, made once."""
    return clip_of(KINDS[kind])


def picture(height, width, seed=0):
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def whole(image):
    height, width = image.shape[1:]
    return torch.tensor([[0.0, 0.0, width, height]])


@torch.no_grad()
def embedding(clip, image):
    return F.normalize(clip.model.encode_image(clip.normalise(image)[None]), dim=-1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_crop_of_the_whole_picture_is_the_picture(kind):
    clip = clips(kind)
    image = picture(clip.crop_size, clip.crop_size)
    found = clip.regions(image, whole(image), "crop")
    torch.testing.assert_close(found, embedding(clip, image), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", BY_POOLING | ALMOST)
def test_a_region_that_is_the_whole_picture_is_the_picture(kind, monkeypatch):
    clip = clips(kind)
    side = clip.crop_size
    monkeypatch.setattr(clip, "config", ClipConfig(model="tiny", short_side=side))
    image = picture(side, side)
    found = clip.regions(image, whole(image), "roi")
    if kind in BY_POOLING:
        torch.testing.assert_close(found, embedding(clip, image), atol=2e-5, rtol=1e-3)
    assert (found @ embedding(clip, image).T).item() > 0.97
    part = clip.regions(image, whole(image) / 3, "roi")
    assert (part @ embedding(clip, image).T).item() < (found @ embedding(clip, image).T).item()


@pytest.mark.parametrize("kind", BY_POOLING | ALMOST | BY_CLASS_TOKEN)
def test_maps_of_any_size(kind):
    clip = clips(kind)
    stride, multiple = clip.tower.stride, clip.tower.multiple
    maps, scale = clip.batch_map(torch.rand(2, 3, 2 * multiple + 1, 6 * multiple - 3))
    assert scale == 1 / stride
    assert maps.shape[2:] == (3 * multiple // stride, 6 * multiple // stride)
    rows = torch.tensor([[1, 0, 0, 20.0, 20.0], [0, 3, 3, 40.0, 30.0]])
    features = clip.pool_regions(maps, rows, scale)
    assert features.shape == (2, clip.dim) and not features.requires_grad
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2))
    assert clip.pool_regions(maps, rows[:0], scale).shape == (0, clip.dim)


def value_path(clip, image):
    """MaskCLIP's map of an open_clip ViT: the last block's values in place of its attention."""
    visual = clip.model.visual
    options = {"indices": [0], "intermediates_only": True, "output_fmt": "NLC"}
    inside = visual.forward_intermediates(clip.normalise(image)[None], **options)
    x, block = inside["image_intermediates"][0], visual.transformer.resblocks[-1]
    weight, bias = (p.chunk(3)[-1] for p in (block.attn.in_proj_weight, block.attn.in_proj_bias))
    x = x + block.attn.out_proj(F.linear(block.ln_1(x), weight, bias))
    x = visual.ln_post(x + block.mlp(block.ln_2(x))) @ visual.proj
    return x.mT.unflatten(2, visual.grid_size)


def test_patches_give_their_value_where_a_class_token_is_pooled_or_as_published():
    clip, image = clips("class token"), picture(64, 64)
    with torch.no_grad():
        expected = value_path(clip, image)
    maps, scale = clip.batch_map(image[None])
    torch.testing.assert_close(maps, expected, atol=1e-5, rtol=1e-4)
    found = clip.pool_regions(maps, whole(image), scale)
    torch.testing.assert_close(found, F.normalize(expected.mean((2, 3))), atol=1e-5, rtol=1e-3)
    clip, image = clip_of(VIT, values=False), picture(64, 64)
    visual = clip.model.visual
    options = {"normalize_intermediates": True, "output_fmt": "NLC"}
    inside = visual.forward_intermediates(clip.normalise(image)[None], **options)
    expected = (inside["image_intermediates"][-1] @ visual.proj).mT.unflatten(2, (4, 4))
    torch.testing.assert_close(clip.batch_map(image[None])[0], expected, atol=1e-5, rtol=1e-4)


def test_a_box_that_moves_with_the_picture_keeps_its_feature():
    """With one block and no positions a value depends on its own patch alone."""
    clip = clip_of(VIT | {"layers": 1})
    clip.model.visual.positional_embedding.zero_()
    image = picture(128, 160)
    moved = torch.roll(image, (32, 48), dims=(1, 2))
    box = torch.tensor([[20.0, 24.0, 64.0, 70.0]])
    shift = torch.tensor([48.0, 32.0, 48.0, 32.0])
    features = [
        clip.pool_regions(clip.batch_map(one[None])[0], boxes, 1 / 16)
        for one, boxes in ((image, box), (moved, box + shift))
    ]
    torch.testing.assert_close(*features, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_positions_are_interpolated():
    """Where patches show nothing, a map says what the head makes of each place."""
    clip = clip_of(VIT | {"layers": 1, "no_ln_pre": True})
    visual = clip.model.visual
    visual.conv1.weight.zero_()
    native = visual.positional_embedding[1:].mT.unflatten(1, (4, 4))[None]
    places = F.interpolate(native, (8, 12), mode="bicubic", antialias=True)
    alone = visual.transformer.resblocks[0](places.flatten(2)[0].T[:, None])
    expected = (visual.ln_post(alone[:, 0]) @ visual.proj).T.unflatten(1, (8, 12))
    found = clip.tower.map(torch.zeros(1, 3, 128, 192))[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", CROPS_ONLY)
def test_a_tower_without_a_map_says_so_in_one_line(kind):
    clip = clips(kind)
    clip.check("crop")
    for attempt in (lambda: clip.check("roi"), lambda: clip.trunk_map(picture(64, 64))):
        with pytest.raises(ValueError, match=r"'tiny' has no map .* one size; take its crops") as e:
            attempt()
        assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (ClipConfig(), "crop, roi; knows drawings only"),
        (ClipConfig(model="ViT-B-32", weights="openai"), "crop, roi"),
        (ClipConfig(model="swin_base_patch4_window7_224", weights="x"),
         "crop; not roi: SwinTransformer takes pictures of one size"),
        (ClipConfig(model="hf-hub:a/b"), "known once it is downloaded"),
    ],
)  # fmt: skip
def test_modes_are_known_before_anything_is_opened(config, words):
    assert reading_modes(config) == words


NAMES = {
    "RN50": (7, 2048), "ViT-B-32": (7, 512), "ViT-B-16": (14, 512), "ViT-L-14-336": (24, 768),
    "ViT-L-14-CLIPA": (16, 1024), "coca_ViT-B-32": (7, 768), "convnext_base_w": (8, 1024),
    "EVA02-B-16": (14, 512), "ViT-B-16-SigLIP": (14, 768), "MobileCLIP-S2": (8, 1280),
    "ViT-SO400M-14-SigLIP-384": (27, 1152), "PE-Core-B-16": (14, 768),
    "swin_base_patch4_window7_224": None, "vit_relpos_medium_patch16_cls_224": None,
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_open_clips_own_names(name):
    """On shapes: which cells of how many channels, and embeddings of the length that texts have."""
    config = open_clip.get_model_config(name)
    with shapes_only(), torch.no_grad():
        visual = _build_vision_tower(config["embed_dim"], config["vision_cfg"]).eval()
        tower = tower_of(visual)
        if NAMES[name] is None:
            assert "one size" in tower.reason
            return
        grid, channels = NAMES[name]
        assert tower.grid == grid
        maps = tower.map(torch.zeros(1, 3, 3 * tower.multiple, 5 * tower.multiple))
        assert maps.shape[1] == channels
        pooled = tower.pool(torch.zeros(2, channels, grid, grid))
        assert pooled.shape == (2, config["embed_dim"])
