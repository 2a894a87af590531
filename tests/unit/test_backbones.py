"""Backbones: which maps, what is frozen, where weights come from, and Swin's padding."""

import math
import re
from dataclasses import replace
from unittest.mock import Mock

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from torchvision.models.swin_transformer import shifted_window_attention
from toys import exactly

from richsem.models import backbones, networks
from richsem.models.backbones import LITE0, Backbone, BackboneConfig
from richsem.training.optim import OptimConfig, parameter_groups

TINY = "test_resnet"
SIZE = (70, 101)  # no multiple of anything


def images(batch=2, size=SIZE, seed=0):
    return torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(seed))


def tiny(seed=0, name=TINY, **arguments):
    torch.manual_seed(seed)
    backbone = Backbone(BackboneConfig(name=name, **arguments))
    for module in backbone.modules():  # as after training: the statistics are not 0 and 1
        if hasattr(module, "running_var"):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return backbone


@pytest.mark.parametrize("name", [TINY, LITE0, "swin_tiny_patch4_window7_224", "convnext_atto"])
def test_maps_have_the_promised_channels_and_strides(name):
    backbone = Backbone(BackboneConfig(name=name, strides=(4, 8, 16), output_norm=True))
    maps = backbone(images())
    assert backbone.strides == (4, 8, 16)
    assert tuple(x.shape[1] for x in maps) == backbone.channels
    for stride, x in zip(backbone.strides, maps, strict=True):
        down = math.floor if name.startswith("convnext") else math.ceil
        assert x.shape[-2:] == tuple(down(side / stride) for side in SIZE)
        torch.testing.assert_close(x.mean(1), torch.zeros_like(x[:, 0]), atol=1e-4, rtol=0)


def test_pixels_are_normalised_and_padding_hides_what_is_under_it():
    backbone = tiny().eval()
    config = timm.get_pretrained_cfg(TINY)
    mean, std = (torch.tensor(v)[:, None, None] for v in (config.mean, config.std))
    exactly(backbone(images()), backbone.body((images() - mean) / std))
    backbone = tiny().eval()
    padding = torch.zeros(2, *SIZE, dtype=torch.bool)
    padding[1, :, 60:] = True
    clean = images()
    mean = backbone.mean.expand(3, *SIZE)
    clean[1, :, :, 60:] = mean[..., 60:]
    dirty = clean.clone()
    dirty[1, :, :, 60:] = 0
    exactly(backbone(dirty, padding), backbone(clean))


@pytest.mark.parametrize(
    ("name", "stride", "stage"),
    [
        (TINY, 4, ("conv1", "bn1", "layer1")),
        (TINY, 16, ("conv1", "bn1", "layer1", "layer2", "layer3")),
        (LITE0, 4, ("conv_stem", "bn1", "blocks.0", "blocks.1")),
        ("convnext_atto", 4, ("stem_", "stages_0")),
    ],
)
def test_everything_up_to_the_frozen_stride_keeps_its_weights(name, stride, stage):
    config = BackboneConfig(name=name, frozen_stride=stride, frozen_norm=False)
    backbone = Backbone(config).train()
    for full, parameter in backbone.body.named_parameters():
        assert parameter.requires_grad != full.startswith(stage), full
    for full, module in backbone.body.named_modules():
        if not list(module.children()) and full.startswith(stage):
            assert not module.training, full
    all_trainable = Backbone(BackboneConfig(name=name, frozen_stride=0))
    assert all(p.requires_grad for p in all_trainable.parameters())


def test_frozen_norms_do_not_follow_the_data_and_a_wholly_frozen_network_is_folded():
    frozen, free = tiny().train(), tiny(frozen_norm=False).train()
    before = {n: b.clone() for n, b in frozen.named_buffers()}
    frozen(images())
    assert all(torch.equal(b, before[n]) for n, b in frozen.named_buffers())
    assert "body.layer2.0.bn1.weight" not in dict(frozen.named_parameters())
    counted = free.body.layer2[0].bn1.num_batches_tracked
    free(images())
    assert counted == 1
    assert free.body.layer1[0].bn1.num_batches_tracked == 0  # inside the frozen stage
    packaged = BackboneConfig(name=LITE0, weights="packaged")
    folded = Backbone(replace(packaged, trainable=False)).train()
    maps = folded(images().requires_grad_())
    expected = Backbone(packaged).eval()(images())
    torch.testing.assert_close(maps, [x.detach() for x in expected], atol=1e-3, rtol=1e-4)
    assert not any(tensor.requires_grad for tensor in (*maps, *folded.parameters()))
    assert not any(m.training or isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    loaded = Backbone(BackboneConfig(name=LITE0, trainable=False))
    loaded.load_state_dict(folded.state_dict())
    exactly(loaded(images()), maps)


@pytest.mark.parametrize("name", [TINY, "test_vit"])
def test_checkpointing_changes_memory_only(name):
    grads = []
    for checkpointing in (False, True):
        backbone = tiny(seed=1, name=name, checkpointing=checkpointing).train()
        sum(x.square().sum() for x in backbone(images())).backward()
        grads.append([p.grad for p in backbone.parameters() if p.grad is not None])
    torch.testing.assert_close(*grads)


# --- weights ---------------------------------------------------------------------------------


def assert_holds(backbone, weights):
    """The network has the weights of a classifier, under names of its own."""
    for full, tensor in backbone.body.state_dict().items():
        original = full if full in weights else full.replace("_", ".", 1)
        assert torch.equal(tensor, weights[original]), full


FILES = ["test_vit3.safetensors", "test_convnext.pth", f"{LITE0}.pth"]


@pytest.mark.parametrize("file", [f"{TINY}.safetensors", f"{TINY}.pth", *FILES])
def test_a_classifier_file_is_loaded_without_its_classifier(tmp_path, file):
    torch.manual_seed(3)
    path = tmp_path / file
    weights = timm.create_model(path.stem).state_dict()
    if path.suffix == ".pth":
        torch.save({"model": weights}, path)
    else:
        save_file(weights, path)
    config = BackboneConfig(name=path.stem, weights=str(path), frozen_norm=False)
    assert_holds(Backbone(config), weights)


CONVNEXT_NAMES = (
    (r"^stem\.", "downsample_layers.0."),
    (r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1."),
    (r"\.blocks\.", "."),
    ("conv_dw", "dwconv"),
    (r"mlp\.fc", "pwconv"),
    (r"^head\.norm", "norm"),
    (r"^head\.fc", "head"),
)


def test_original_names_are_understood_and_other_files_refused(tmp_path):
    torch.manual_seed(3)
    network = timm.create_model("convnext_atto").state_dict()
    original = {}
    for name, tensor in network.items():
        for pattern, published in CONVNEXT_NAMES:
            name = re.sub(pattern, published, name)
        original[name] = tensor[..., 0, 0] if "pwconv" in name and tensor.ndim == 4 else tensor
    torch.save(original, tmp_path / "facebook.pth")
    config = BackboneConfig(name="convnext_atto", weights=str(tmp_path / "facebook.pth"))
    assert_holds(Backbone(config), network)
    save_file(timm.create_model("test_convnext").state_dict(), tmp_path / "other.safetensors")
    (tmp_path / "notes.pth").write_text("hello", encoding="utf-8")
    missing = r"no weights of test_resnet \(.* is missing; \d+ more"
    for name, message in (("other.safetensors", missing), ("notes.pth", r"notes\.pth is a text")):
        with pytest.raises(ValueError, match=message):
            Backbone(BackboneConfig(name=TINY, weights=str(tmp_path / name)))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": "resnet51"}, ValueError, "unknown backbone 'resnet51'.*resnet50"),
        ({"name": TINY, "strides": (8, 64)}, ValueError, "no stage of stride 64; it has"),
        ({"name": TINY, "frozen_stride": 3}, ValueError, "no stage of stride 3"),
        ({"name": TINY, "weights": "packaged"}, ValueError, "only efficientnet_lite0 is packaged"),
        ({"name": LITE0, "weights": "hub"}, ValueError, 'set weights="packaged"'),
        ({"name": TINY, "weights": "no/such.pth"}, FileNotFoundError, "no weights for test_resnet"),
        ({"name": "test_vit", "strides": (12,)}, ValueError, "4, 8, 16, 32, 64 are made.*not 12"),
        ({"name": "test_vit_relpos"}, ValueError, "takes pictures of one size"),
        ({"name": "test_maxvit"}, ValueError, r"takes pictures of one size.*window \(5\)"),
        ({"name": "mvitv2_tiny"}, ValueError, "takes pictures of one size"),
    ],
)
def test_wrong_configurations_say_what_to_do(arguments, error, message):
    with pytest.raises(error, match=message):
        Backbone(BackboneConfig(**arguments))


def test_a_network_without_maps_is_named(monkeypatch):
    without = RuntimeError("features_only not implemented")
    monkeypatch.setattr(networks, "on_meta", Mock(side_effect=without))
    with pytest.raises(ValueError, match=r"test_nfnet gives no maps .*not implemented"):
        Backbone(BackboneConfig(name="test_nfnet"))


@pytest.mark.parametrize("name", [TINY, "test_vit"])
def test_without_a_network_the_hub_error_names_the_way_out(monkeypatch, name):
    create = timm.create_model

    def offline(name, pretrained=False, **arguments):
        if pretrained:
            raise OSError("no route")
        return create(name, **arguments)

    monkeypatch.setattr(backbones.timm, "create_model", offline)
    with pytest.raises(FileNotFoundError, match=r"no route.*backbone\.weights=FILE"):
        Backbone(BackboneConfig(name=name, weights="hub"))


# --- plain ViTs ------------------------------------------------------------------------------

# Name -> channels: patches of 16 pixels, a register, patches of 14, rotary positions.
PLAIN = {
    "test_vit": 64,
    "test_vit3": 96,
    "vit_small_patch14_reg4_dinov2": 384,
    "vit_tiny_patch16_dinov3_qkvb": 192,
}


@pytest.mark.parametrize("name", PLAIN)
def test_a_pyramid_is_made_of_a_vits_one_map(name):
    config = BackboneConfig(name=name, strides=(4, 8, 16, 32), trainable=False)
    backbone = Backbone(config).train()
    width, (height, across) = PLAIN[name], (-(-side // 16) for side in SIZE)
    maps = backbone(images())
    assert backbone.channels == (width // 4, width // 2, width, width)
    factors = (4, 2, 1, 0.5)
    for factor, x, channels in zip(factors, maps, backbone.channels, strict=True):
        assert x.shape == (2, channels, *(math.ceil(factor * side) for side in (height, across)))
    # The network is frozen, what is made of its map is trained.
    trained = {n for n, p in backbone.named_parameters() if p.requires_grad}
    assert trained == {n for n, _ in backbone.named_parameters() if n.startswith("pyramid.")}
    rates = parameter_groups(nn.ModuleDict({"backbone": backbone}), OptimConfig())
    assert rates.keys() == {OptimConfig().lr}


@pytest.mark.parametrize("name", ["test_vit", "test_vit3"])
def test_a_vit_sees_what_timm_says(name):
    backbone, square = tiny(name=name).eval(), images(size=(160, 160))
    with torch.no_grad():
        (found,) = backbone.look(square)
        pixels = (square - backbone.mean) / backbone.std
        tokens = backbone.body.forward_features(pixels)[:, backbone.body.num_prefix_tokens :]
    torch.testing.assert_close(found.flatten(2).mT, tokens, atol=1e-5, rtol=1e-4)


def test_a_patch_of_fourteen_pixels_covers_sixteen():
    """A picture of flat squares of 16 pixels is one of flat patches."""
    backbone = Backbone(BackboneConfig(name="vit_small_patch14_reg4_dinov2", trainable=False))
    squares = torch.rand(1, 3, 5, 7)
    with torch.no_grad():
        (found,) = backbone.look(F.interpolate(squares, scale_factor=16))
        seen = (F.interpolate(squares, scale_factor=14) - backbone.mean) / backbone.std
        options = {"indices": 1, "norm": True, "intermediates_only": True}
        (expected,) = backbone.body.forward_intermediates(seen, **options)
    assert F.cosine_similarity(found, expected).min() > 0.9  # squares are smoothed where they meet


def test_what_a_vit_keeps_its_weights_of():
    assert all(p.requires_grad for p in tiny(name="test_vit").parameters())  # stride 4: no stage
    frozen = tiny(name="test_vit", frozen_stride=16)
    assert not any(p.requires_grad for p in frozen.body.parameters())  # tokens among them


# --- Swin ------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [0, 1])
def test_swin_pads_before_it_shifts(block):
    torch.manual_seed(0)
    backbone = Backbone(BackboneConfig(name="swin_tiny_patch4_window7_224", strides=(4,))).eval()
    layer = backbone.body.layers_0.blocks[block]
    nn.init.normal_(layer.attn.relative_position_bias_table)
    shift = layer.shift_size[0]
    assert (shift > 0) == (block == 1)
    x = torch.randn(1, 9, 11, 96)
    parts = (layer.attn.qkv, layer.attn.proj)
    weights, biases = ([getattr(part, kind) for part in parts] for kind in ("weight", "bias"))
    how = (layer.attn._get_rel_pos_bias(), [7, 7], layer.attn.num_heads, [shift, shift])
    with torch.no_grad():  # torchvision pads before it shifts, as published detectors do
        expected = shifted_window_attention(x, *weights, *how, 0.0, 0.0, *biases)
        torch.testing.assert_close(layer._attn(x), expected, atol=1e-5, rtol=1e-4)
