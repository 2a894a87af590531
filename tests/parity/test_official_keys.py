"""Published checkpoints: every tensor of 14 models has a place."""

import re

import pytest
import torch
from parity.reference import describe

from richsem.models.backbones import BackboneConfig
from richsem.models.dino.dino import Dino, DinoConfig
from richsem.models.published.dino_weights import translate

TEXT = {"text", "log_scale"}
PROJECTION = "transformer.enc_out_class_embed.dino_visual_proj.weight"


def models(folder):
    return describe(folder, "keys")["models"]


pytestmark = pytest.mark.golden("keys", name=models)


def zeros(*shape):
    """A tensor of any size without memory for it."""
    return torch.zeros(()).expand(shape)


@pytest.fixture
def official(golden, name):
    keys = models(golden)[name]["keys"]
    return {key: zeros(*entry["shape"]) for key, entry in keys.items()}


@pytest.fixture
def text(official):
    """Text features of the right shape, if a head compares with them."""
    if PROJECTION not in official:
        return None
    # Where all heads compare with text, the weights do not depend on the number of classes.
    classes = official.get("class_embed.0.weight", zeros(1204, 1))
    return zeros(len(classes), len(official[PROJECTION]))


def shapes(state):
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def test_every_tensor_has_a_place(official, text):
    fields, state = translate(official, text)
    with torch.device("meta"):
        model = Dino(DinoConfig(**fields))
    expected = shapes(model.state_dict())
    if text is None:  # no head compares with text
        expected = {key: shape for key, shape in expected.items() if key not in TEXT}
    assert shapes(state) == expected


def test_the_configuration_is_read_off_the_file(official, text, name):
    fields, _ = translate(official, text)
    levels, dim = official["transformer.level_embed"].shape
    projections = [t for key, t in official.items() if re.match(r"input_proj\.\d\.0\.weight", key)]
    maps = sum(t.shape[-1] == 1 for t in projections)  # the others are further levels
    assert (fields["levels"], fields["dim"]) == (levels, dim)
    assert fields["backbone"].strides == (4, 8, 16, 32)[-maps:]
    kinds = {"label_enc.weight": "table", "class_embed.label_proj.weight": "text"}
    found = [kind for key, kind in kinds.items() if key in official]
    assert [fields["label_embedding"]] == (found or ["classifier"])
    if "class_embed.0.weight" in official:
        assert fields["num_classes"] == len(official["class_embed.0.weight"])
    if name == "richsem_r50_4scale_lvis":  # the defaults are this model
        backbone = BackboneConfig(name="resnet50.tv_in1k")
        sizes = {"num_classes": len(text), "scale": 1.0, "propose_padding": True}
        published = DinoConfig(backbone=backbone, **sizes)
        assert DinoConfig(**fields) == published
