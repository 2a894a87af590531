"""Translating published checkpoints: files, copies, text features and FocalNet's layers."""

import argparse
import warnings
from types import SimpleNamespace

import pytest
import timm
import torch
from timm.models.focalnet import FocalModulation
from tiny_dino import categories_file, published_dino, without_text
from toys import exactly

from richsem.data.categories import read_categories
from richsem.models.backbones import Backbone, BackboneConfig
from richsem.models.clip import MINI
from richsem.models.published import dino_weights
from richsem.models.published.dino_weights import load_official, official_text, translate
from richsem.models.published.translation import translate_backbone
from richsem.training import runs

CLASSES, DIM, TEXT_DIM = 7, 64, 32
TEXT = torch.randn(CLASSES, TEXT_DIM, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def published():
    """RichSem on a ResNet-50, the smallest published backbone."""
    return published_dino(Backbone(BackboneConfig()))


@pytest.fixture(scope="module")
def plain(published):
    return without_text(published, CLASSES)


def test_a_published_file_becomes_a_detector(published, tmp_path):
    path = tmp_path / "checkpoint.pth"
    saved = {f"module.{name}": tensor for name, tensor in published.items()}
    torch.save({"model": saved, "args": argparse.Namespace(lr=1e-4), "epoch": 11}, path)
    loaded = load_official(path, TEXT)
    assert loaded.config.backbone.name == "resnet50.tv_in1k"
    assert loaded.config.propose_padding and loaded.proposals.padding_too
    state = loaded.state_dict()
    exactly(state, translate(published, TEXT)[1])
    for name, tensor in published.items():
        if name.startswith("backbone"):
            assert torch.equal(state[name.replace(".0.", ".", 1)], tensor), name


def test_plain_dino_becomes_a_folder_that_can_be_evaluated(plain, tmp_path, own_cache, cli):
    loaded = load_official(plain)
    assert loaded.config.num_classes == CLASSES
    assert loaded.config.pad_multiple == 1
    names = {
        "classifier": "class_embed.0",
        "proposals.classifier": "transformer.enc_out_class_embed",
        "label_embedding": "label_enc",
    }
    for ours, official in names.items():
        assert torch.equal(loaded.get_submodule(ours).weight, plain[f"{official}.weight"]), ours
    torch.save({"model": plain}, tmp_path / "dino.pth")
    file = categories_file(tmp_path / "val.json", (1, 2, 5))
    for _ in range(2):
        runs.convert(tmp_path / "dino.pth", file, tmp_path / "dino")
    mine = tmp_path / "weights.safetensors"
    mine.write_bytes(b"trained for a week")
    command = ["convert", tmp_path / "dino.pth", "--annotations", file, "--out"]
    for place, words in (
        (tmp_path, f"{mine} exists and was not written by this program"),
        (file, f"{file}: File exists; name another file or folder"),
    ):
        assert f"error: {words}" in cli(*command, place, code=2).err
    assert mine.read_bytes() == b"trained for a week"
    trained = runs.open_trained(tmp_path / "dino", device="cpu")
    assert torch.equal(trained.detector.classifier.weight, plain["class_embed.0.weight"])
    categories = read_categories(file)
    assert runs.ids_of_classes(trained.classes, categories) == [-1, 1, 2, -1, -1, 5, -1]
    torch.save({"model": plain, "ema_model": plain}, tmp_path / "dino.pth")
    with warnings.catch_warnings(action="default"):
        assert "taken are the weights under 'model', not" in cli(*command, tmp_path / "dino").err


@pytest.mark.parametrize(
    ("changes", "width", "message"),
    [
        ({"bbox_embed.1.layers.0.bias": torch.ones(DIM)}, 32, "separate heads per decoder layer"),
        ({"query_scale.weight": torch.zeros(1)}, 32, "query_scale.weight: not a tensor of a publ"),
        ({}, None, r"pass text=official_text\(FrozenClip"),
        ({}, 31, r"shape \(7, 31\), expected \(7, 32\)"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(published, changes, width, message):
    with pytest.raises(ValueError, match=message):
        translate(published | changes, width and TEXT[:, :width])


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
    exactly(state, backbone.state_dict())


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
    plain.load_state_dict({k.rpartition("modulation.")[2]: state[k] for k in state if "modul" in k})
    x = torch.randn(1, width, 9, 9)
    with torch.no_grad():
        torch.testing.assert_close(plain(x), dividing(x))


def test_tensors_of_something_else_are_refused():
    with pytest.raises(ValueError, match="not a published DINO or RichSem checkpoint"):
        translate({"input_proj.0.0.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="unknown backbone with tensors"):
        translate_backbone({"trunk.weight": torch.zeros(1)}, num_maps=3)
    with pytest.raises(ValueError, match=r"unknown ResNet of size 0; known: \[6, 23\]"):
        translate_backbone({"conv1.weight": torch.zeros(1)}, num_maps=3)


def test_more_categories_than_outputs_are_refused(tmp_path, published, monkeypatch):
    monkeypatch.setattr(dino_weights, "RN50", MINI)
    torch.save({"model": published}, tmp_path / "small.pth")
    file = categories_file(tmp_path / "val.json", [1203])
    with pytest.raises(ValueError, match="text features"):
        runs.convert(tmp_path / "small.pth", file, tmp_path / "out")
