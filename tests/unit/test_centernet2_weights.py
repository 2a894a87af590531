"""Translating published two-stage checkpoints, from synthetic files of their names and shapes."""

import re
from dataclasses import replace

import pytest
import torch
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
HEAD, PREDICTOR = "proposal_generator.centernet_head", "roi_heads.box_predictor"
MASKS = "roi_heads.mask_head"
OUR_TO_OFFICIAL = (  # written once more, so that the table in the library is not its own witness
    (r"^backbone\.body\.", "backbone.bottom_up.base."),
    (r"^pyramid\.inner_blocks\.(\d)\.0", lambda m: f"backbone.fpn_lateral{int(m[1]) + 3}"),
    (r"^pyramid\.layer_blocks\.(\d)\.0", lambda m: f"backbone.fpn_output{int(m[1]) + 3}"),
    (r"^pyramid\.extra_blocks", "backbone.top_block"),
    (r"^centers\.tower", f"{HEAD}.bbox_tower"),
    (r"^centers\.heatmap", f"{HEAD}.agn_hm"),
    (r"^centers\.distances", f"{HEAD}.bbox_pred"),
    (r"^stages\.(\d)\.body\.layers\.0", r"roi_heads.box_head.\1.fc1"),
    (r"^stages\.(\d)\.body\.layers\.1", r"roi_heads.box_head.\1.fc2"),
    (r"^stages\.(\d)\.classifier\.projection", rf"{PREDICTOR}.\1.cls_score.linear"),
    (r"^stages\.(\d)\.classifier\.(?=weight|bias)", rf"{PREDICTOR}.\1.cls_score."),
    (r"^stages\.(\d)\.boxes\.layers\.0", rf"{PREDICTOR}.\1.bbox_pred.0"),
    (r"^stages\.(\d)\.boxes\.layers\.1", rf"{PREDICTOR}.\1.bbox_pred.2"),
    (r"^mask_head\.0\.(\d)\.0", lambda m: f"{MASKS}.mask_fcn{int(m[1]) + 1}"),
    (r"^mask_head\.1\.conv5_mask", f"{MASKS}.deconv"),
    (r"^mask_head\.1\.mask_fcn_logits", f"{MASKS}.predictor"),
)


def two_stages(**fields):
    """A small detector on a ResNet-50, the smallest published backbone."""
    torch.manual_seed(0)
    backbone = BackboneConfig(frozen_stride=0)
    values = {"cascade": CASCADE, "text_dim": TEXT_DIM} | SIZES | fields
    text = torch.nn.functional.normalize(torch.randn(CLASSES, values["text_dim"]))
    return CenterNet2(CenterNet2Config(backbone=backbone, **values), text)


def official_state(model):
    """The model's weights as the published code would save them."""
    state = {"pixel_mean": torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)}
    compares = model.config.classifier == "text"
    for name, tensor in model.state_dict().items():
        if name == "centers.level_scales":
            state |= {f"{HEAD}.scales.{i}.scale": one[None] for i, one in enumerate(tensor)}
        for pattern, theirs in OUR_TO_OFFICIAL:
            name = re.sub(pattern, theirs, name)
        if model.config.cascade.box_layers == 1:
            name = name.replace("bbox_pred.0", "bbox_pred")
        if ".cls_score.bias" in name and compares:
            name, tensor = name.replace("bias", "cls_bias"), tensor[None]
        elif re.search(r"cls_score\.(weight|bias)", name):  # and one more output, background
            tensor = torch.cat([tensor, torch.ones_like(tensor[:1])])
        if name not in ("text", "log_scale", "centers.level_scales"):
            state[name] = tensor
    if compares:
        table = torch.cat([model.text.T, torch.zeros(len(model.text.T), 1)], dim=1)
        state |= {f"{PREDICTOR}.{k}.cls_score.zs_weight": table.clone() for k in range(3)}
    for k in range(3):
        state[f"{PREDICTOR}.{k}.freq_weight"] = torch.rand(CLASSES)
    return state


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
    return official_state(detic)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_published_file_becomes_the_same_detector(variant, tmp_path):
    model = two_stages(**VARIANTS[variant])
    torch.save({"model": official_state(model), "iteration": 9}, tmp_path / "detic.pth")
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
