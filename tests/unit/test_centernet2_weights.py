"""Translating published two-stage checkpoints, from synthetic files of their names and shapes."""

import re
from dataclasses import replace

import pytest
import torch
from tiny_centernet2 import PREDICTOR, published_centernet2
from tiny_dino import categories_file

from richsem.models.backbones import BackboneConfig
from richsem.models.centernet2.cascade import MaskConfig
from richsem.models.centernet2.centernet2 import CascadeConfig, CenterNet2, CenterNet2Config
from richsem.models.published.centernet2_weights import (
    is_two_stage,
    load_two_stage,
    translate_two_stage,
)
from richsem.training import runs

CLASSES, TEXT_DIM = 7, 12
SIZES = {"dim": 8, "tower": 2, "semantic": False, "num_classes": CLASSES}
CASCADE = CascadeConfig(pooled=3, hidden=16)


def two_stages(**fields):
    """A small detector on a ResNet-50, the smallest published backbone."""
    torch.manual_seed(0)
    backbone = BackboneConfig(frozen_stride=0)
    values = {"cascade": CASCADE, "text_dim": TEXT_DIM} | SIZES | fields
    text = torch.nn.functional.normalize(torch.randn(CLASSES, values["text_dim"]))
    return CenterNet2(CenterNet2Config(backbone=backbone, **values), text)


VARIANTS = {
    "text": {},
    "bias": {"class_bias": True},
    "masks": {"masks": MaskConfig(dim=6, depth=3)},
    "linear": {"classifier": "linear", "cascade": replace(CASCADE, box_layers=1), "text_dim": 1024},
}  # fmt: skip


@pytest.fixture(scope="module")
def detic():
    return two_stages()


@pytest.fixture(scope="module")
def published(detic):
    return published_centernet2(detic)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_published_file_becomes_the_same_detector(variant, tmp_path):
    model = two_stages(**VARIANTS[variant])
    torch.save({"model": published_centernet2(model), "iteration": 9}, tmp_path / "detic.pth")
    loaded = load_two_stage(tmp_path / "detic.pth")
    assert loaded.config == model.config
    for name, tensor in loaded.state_dict().items():
        if variant != "linear" or name != "text":
            assert torch.equal(tensor, model.state_dict()[name]), name


def test_every_tensor_is_taken_but_those_of_other_heads(published):
    _, state = translate_two_stage(published)
    left_out = [name for name in published if re.search("freq_weight|pixel_mean", name)]
    copies = [name for name in published if "zs_weight" in name][1:]
    scales = [name for name in published if ".scales." in name][1:]  # become one tensor
    assert len(left_out) == 4 and len(copies) == 2
    assert len(state) == len(published) - len(left_out + copies + scales)
    assert is_two_stage(published) and not is_two_stage({"class_embed.0.weight": 1})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"roi_heads.keypoint_head.weight": torch.zeros(1)}, "keypoint_head.weight: not a tensor"),
        ({"pixel_mean": torch.tensor([103.53, 116.28, 123.675])}, "RGB with mean"),
        ({f"{PREDICTOR}.1.cls_score.zs_weight": torch.zeros(12, 8)}, "classes of their own"),
        ({f"{PREDICTOR}.0.bbox_pred.2.weight": torch.zeros(28, 16)}, "28 box outputs"),
    ],
)
def test_other_models_are_refused(published, changes, message):
    with pytest.raises(ValueError, match=message):
        translate_two_stage(published | changes)
    without = {name: t for name, t in published.items() if "bottom_up" not in name}
    with pytest.raises(ValueError, match="parts are missing"):
        translate_two_stage(without)


def test_classes_are_places_in_the_order_of_ids(tmp_path, detic, published):
    torch.save({"model": published}, tmp_path / "detic.pth")
    ids = (9, 1, 4, 2, 30, 12, 7)
    file = categories_file(tmp_path / "val.json", ids)
    runs.convert(tmp_path / "detic.pth", file, tmp_path / "detic")
    trained = runs.open_trained(tmp_path / "detic", device="cpu")
    assert [category.id for category in trained.classes] == sorted(ids)
    assert torch.equal(trained.detector.text, detic.text)
    categories_file(file, ids[1:])
    with pytest.raises(ValueError, match="6 categories for 7 classes"):
        runs.convert(tmp_path / "detic.pth", file, tmp_path / "other")
