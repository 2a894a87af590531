"""Translating published checkpoints: files, copies, text features and FocalNet's layers."""

import argparse
from functools import partial
from types import SimpleNamespace

import pytest
import timm
import torch
from timm.models.focalnet import FocalModulation
from tiny_dino import categories_file

from richsem.data.categories import read_categories
from richsem.models.backbones import Backbone, BackboneConfig
from richsem.models.clip import MINI
from richsem.models.dino.dino import Dino, DinoConfig
from richsem.models.published.backbone_weights import translate_backbone
from richsem.models.published.dino_weights import (
    load_official,
    official_text,
    translate,
)
from richsem.models.weight_files import read
from richsem.training import runs

SIZES = {"dim": 16, "ffn": 24, "queries": 5, "levels": 4, "encoder_layers": 1, "decoder_layers": 2}
OUR_TO_OFFICIAL = (  # written once more, so that the table in the library is not its own witness
    ("backbone.body", "backbone.0.body"),
    ("neck.projections", "input_proj"),
    ("level_embed", "transformer.level_embed"),
    ("log_scale", "class_embed.logit_scale"),
    ("proposals.memory", "transformer.enc_output"),
    ("proposals.norm", "transformer.enc_output_norm"),
    ("proposals.boxes", "transformer.enc_out_bbox_embed"),
    ("proposals.classifier.projection", "transformer.enc_out_class_embed.dino_visual_proj"),
    ("proposals.classifier", "transformer.enc_out_class_embed"),
    ("decoder.content", "transformer.tgt_embed"),
    ("decoder.position", "transformer.decoder.ref_point_head"),
    ("decoder.boxes", "bbox_embed.0"),
    ("decoder", "transformer.decoder"),
    ("encoder", "transformer.encoder"),
    ("classifier.projection", "class_embed.dino_visual_proj"),
    ("classifier", "class_embed.0"),
    ("semantic.projection", "class_embed.clip_visual_proj"),
)
PARTS = (
    ("encoder", ".attention.", ".self_attn."),
    ("decoder", ".self_attention.", ".self_attn."),
    ("decoder", ".cross_attention.", ".cross_attn."),
    ("decoder", ".cross_norm.", ".norm1."),
    ("decoder", ".self_norm.", ".norm2."),
    ("decoder", ".ffn_norm.", ".norm3."),
    ("coder", ".offsets.", ".sampling_offsets."),
    ("coder", ".weights.", ".attention_weights."),
    ("coder", ".values.", ".value_proj."),
    ("coder", ".output.", ".output_proj."),
)


def official_name(name, config):
    if name == "label_embedding.weight":
        text = config.label_embedding == "text"
        return "class_embed.label_proj.weight" if text else "label_enc.weight"
    ours, theirs = next(pair for pair in OUR_TO_OFFICIAL if name.startswith(pair[0]))
    renamed = theirs + name.removeprefix(ours)
    for where, mine, published in PARTS:
        if where in name:
            renamed = renamed.replace(mine, published)
    return renamed


def resnet50_detector(seed=0, **fields):
    """A small detector on a ResNet-50, the smallest published backbone."""
    torch.manual_seed(seed)
    config = DinoConfig(backbone=BackboneConfig(), num_classes=7, text_dim=12, **(SIZES | fields))
    return Dino(config, torch.randn(7, 12))


def official_state(model):
    """The model's weights as the published code would save them, with all copies."""
    state = {
        official_name(name, model.config): tensor
        for name, tensor in model.state_dict().items()
        if name != "text"
    }
    for name, tensor in list(state.items()):
        for head in ("bbox_embed", "class_embed"):
            if name.startswith(f"{head}.0."):
                for layer in range(model.config.decoder_layers):
                    copy = name.replace(".0.", f".{layer}.", 1)
                    state |= {copy: tensor, f"transformer.decoder.{copy}": tensor}
    if model.config.classifier == "text":
        state["transformer.enc_out_class_embed.logit_scale"] = model.log_scale
        state["class_embed.clip.visual.conv1.weight"] = torch.zeros(2)
    return state


@pytest.fixture(scope="module")
def richsem():
    return resnet50_detector()


@pytest.fixture(scope="module")
def published(richsem):
    return official_state(richsem)


@pytest.fixture(scope="module")
def plain():
    """A detector that compares with no text, and its weights as published."""
    kinds = {"classifier": "linear", "proposal_classifier": "linear", "label_embedding": "table"}
    model = resnet50_detector(semantic=False, **kinds)
    state = official_state(model)
    del state["class_embed.logit_scale"]
    return model, state


def test_a_published_file_becomes_the_same_detector(richsem, published, tmp_path):
    path = tmp_path / "checkpoint.pth"
    saved = {f"module.{name}": tensor for name, tensor in published.items()}
    torch.save({"model": saved, "args": argparse.Namespace(lr=1e-4), "epoch": 11}, path)
    loaded = load_official(path, richsem.text)
    assert loaded.config.backbone.name == "resnet50.tv_in1k"
    assert loaded.config.propose_padding and loaded.proposals.padding_too
    expected = richsem.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_plain_dino_needs_no_text(plain):
    model, state = plain
    loaded = load_official(state)
    assert loaded.config.num_classes == 7
    assert loaded.config.pad_multiple == 1
    for name, tensor in loaded.state_dict().items():
        if name not in ("text", "log_scale"):
            assert torch.equal(tensor, model.state_dict()[name]), name


@pytest.mark.parametrize(
    ("changes", "width", "message"),
    [
        ({"bbox_embed.1.layers.0.bias": torch.ones(16)}, 12, "separate heads per decoder layer"),
        ({"query_scale.weight": torch.zeros(1)}, 12, "query_scale.weight: not a tensor of a publ"),
        ({}, None, r"pass text=official_text\(FrozenClip"),
        ({}, 11, r"shape \(7, 11\), expected \(7, 12\)"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(richsem, published, changes, width, message):
    with pytest.raises(ValueError, match=message):
        translate(published | changes, width and richsem.text[:, :width])


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        read(tmp_path / "absent.pth")
    with pytest.raises(ValueError, match="not a published DINO or RichSem checkpoint"):
        translate({"input_proj.0.0.weight": torch.zeros(1)})
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(ValueError, match="no weights"):
        read(tmp_path / "empty.pth")
    torch.save({"model": {}, "hook": partial(print)}, tmp_path / "code.pth")
    with pytest.raises(ValueError, match=r"cannot be read safely.*weights_only=False"):
        read(tmp_path / "code.pth")


def test_text_features_of_missing_ids_are_the_bare_word_none():
    class Clip:
        mean = torch.zeros(1)
        model = SimpleNamespace(encode_text=lambda tokens: tokens[:, None] * torch.ones(3))

        def tokenizer(self, texts):
            return torch.tensor([len(text) for text in texts])

        def text_features(self, names):
            return torch.tensor([[float(len(name))] * 3 for name in names]) + 100

    table = official_text(Clip(), {3: "cat", 1: "zebra"})
    assert table[:, 0].tolist() == [4, 105, 4, 103]


# --- backbones -------------------------------------------------------------------------------


def swin_as_published(body):
    """timm's Swin under the published names, with the buffers that published files carry."""
    state = {}
    for name, tensor in body.items():
        parts = name.replace("layers_", "layers.").split(".")
        if "downsample" in parts:
            parts[1] = str(int(parts[1]) - 1)
        state[".".join(parts)] = tensor
    state["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49)
    return state


def test_swin_downsamples_at_the_end_of_a_stage():
    config = BackboneConfig(name="swin_tiny_patch4_window7_224", frozen_stride=0, output_norm=True)
    backbone = Backbone(config)
    official = swin_as_published(backbone.body.state_dict())
    for i in range(3):
        official |= {f"norm{i + 1}.{k}": t for k, t in backbone.norms[i].state_dict().items()}
    found, state = translate_backbone(official, num_maps=3)
    assert found == config
    expected = backbone.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_focalnets_own_normaliser_becomes_part_of_its_weights():
    """The published detector with 4 focal levels divides the modulator by 5; timm's does not."""
    torch.manual_seed(0)
    width = 192
    dividing = FocalModulation(width, 3, 4, normalize_modulator=True).eval()
    official = {f"layers.0.blocks.0.modulation.{k}": t for k, t in dividing.state_dict().items()}
    official = {
        k: t[:, :, 0, 0] if ".f.w" in k or ".proj.w" in k else t for k, t in official.items()
    }
    official["patch_embed.proj.weight"] = torch.zeros(width, 3, 7, 7)
    config, state = translate_backbone(official, num_maps=3)
    assert config.name == "focalnet_large_fl4"
    with torch.device("meta"):
        block = timm.create_model(config.name).layers[0].blocks[0]
    assert not block.modulation.normalize_modulator
    plain = FocalModulation(width, 3, 4).eval()
    prefix = "body.layers_0.blocks.0.modulation."
    plain.load_state_dict(
        {k.removeprefix(prefix): t for k, t in state.items() if k.startswith(prefix)}
    )
    x = torch.randn(1, width, 9, 9)
    with torch.no_grad():
        torch.testing.assert_close(plain(x), dividing(x))


def test_an_unknown_backbone_is_refused():
    with pytest.raises(ValueError, match="unknown backbone with tensors"):
        translate_backbone({"trunk.weight": torch.zeros(1)}, num_maps=3)
    with pytest.raises(ValueError, match=r"unknown ResNet of size 0; known: \[6, 23\]"):
        translate_backbone({"conv1.weight": torch.zeros(1)}, num_maps=3)


def test_a_published_file_becomes_a_folder_that_can_be_evaluated(plain, tmp_path):
    model, state = plain
    torch.save({"model": state}, tmp_path / "dino.pth")
    file = categories_file(tmp_path / "val.json", (1, 2, 5))
    runs.convert(tmp_path / "dino.pth", file, tmp_path / "dino")
    trained = runs.open_trained(tmp_path / "dino", device="cpu")
    assert torch.equal(trained.detector.classifier.weight, model.classifier.weight)
    categories = read_categories(file)
    assert runs.ids_of_classes(trained.classes, categories) == [-1, 1, 2, -1, -1, 5, -1]


def test_annotations_with_more_categories_than_outputs_are_refused(
    tmp_path, published, monkeypatch
):
    monkeypatch.setattr(runs, "RN50", MINI)
    torch.save({"model": published}, tmp_path / "small.pth")
    file = categories_file(tmp_path / "val.json", [1203])
    with pytest.raises(ValueError, match="text features"):
        runs.convert(tmp_path / "small.pth", file, tmp_path / "out")
