"""A two-stage detector of a few numbers, for tests of the model itself."""

import re

import torch
from tiny_dino import CLASSES, TEXT_DIM

from richsem.models.backbones import BackboneConfig
from richsem.models.centernet2.centernet2 import CascadeConfig, CenterNet2, CenterNet2Config
from richsem.models.centernet2.first_stage import ProposalConfig

STRIDES = (8, 16, 32, 64)
RANGES = ((0.0, 24.0), (16.0, 48.0), (32.0, 96.0), (64.0, 1e8))  # half diagonals, by level
SIZES = {
    "backbone": BackboneConfig(
        name="test_resnet", strides=(8, 16), frozen_stride=0, frozen_norm=False
    ),
    "num_classes": CLASSES,
    "dim": 16,
    "tower": 1,
    "proposals": ProposalConfig(candidates=(40, 20), kept=(30, 12)),
    "cascade": CascadeConfig(regions=16, image_regions=6, pooled=3, hidden=24, pool_samples=2),
    "text_dim": TEXT_DIM,
    "scale": 10.0,
    "class_scale": 8.0,
}
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


def tiny_centernet2(*, with_text=True, seed=0, **changes):
    """A detector with random weights; most of its detections are too weak to be shown."""
    torch.manual_seed(seed)
    config = CenterNet2Config(**(SIZES | changes))
    return CenterNet2(config, torch.randn(config.num_classes, TEXT_DIM) if with_text else None)


def random_boxes(number, side, smallest=2.0, seed=0):
    """Boxes xyxy [N, 4] that begin within a square and are about as large at most."""
    draws = torch.Generator().manual_seed(seed)
    low = side * torch.rand(number, 2, generator=draws)
    return torch.cat([low, low + smallest + side * torch.rand(number, 2, generator=draws)], 1)


def published_centernet2(model):
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
        state[f"{PREDICTOR}.{k}.freq_weight"] = torch.rand(model.config.num_classes)
    return state
