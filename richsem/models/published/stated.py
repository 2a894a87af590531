"""AP on LVIS v1 val as authors state it for checkpoints, to hold a measured one against.

Nothing here was measured by us. Detic's files have names; of RichSem's and DINO's the kind alone is
known, which weights of one's own may share.
"""

from pathlib import Path

from richsem.models.centernet2.centernet2 import CenterNet2Config
from richsem.models.dino.dino import DinoConfig

LVIS_CLASSES = 1203
# Name of the file -> what it is, mask AP, mask AP of rare classes.
_DETIC = {
    "BoxSup-C2_L_CLIP_R5021k_640b64_4x": ("CenterNet2, R50", 31.5, 25.6),
    "Detic_LI_CLIP_R5021k_640b64_4x_ft4x_max-size": ("Detic, R50", 33.2, 29.7),
    "BoxSup-C2_L_CLIP_SwinB_896b32_4x": ("CenterNet2, Swin-B", 40.7, 35.9),
    "Detic_LI_CLIP_SwinB_896b32_4x_ft4x_max-size": ("Detic, Swin-B", 41.7, 41.7),
}
# By whether it compares with text: what it is, box AP, box AP of rare classes. DINO gives an output
# to each category id, of which 0 is none.
_R50_DINO = {
    True: [
        ("RichSem's release, R50, 24 epochs", 37.3, 30.7),
        ("RichSem's release, R50 from ImageNet-21k, 24 epochs", 40.1, 36.1),
        ("RichSem in Table 4, R50, epochs not stated", 35.0, 30.4),
    ],
    False: [("the baseline in Table 4, DINO R50, epochs not stated", 32.2, 24.1)],
}


def stated(file: str, config: DinoConfig | CenterNet2Config) -> list[str]:
    """What authors state for a checkpoint of this file name and kind, in lines; often nothing."""
    rows, kind, whose = [], "box", "a checkpoint of this kind"
    if isinstance(config, CenterNet2Config):
        rows = [row for name, row in _DETIC.items() if name == Path(file).stem]
        kind, whose = "mask", "this file"
    elif config.backbone.name.startswith("resnet50") and config.num_classes == LVIS_CLASSES + 1:
        rows = _R50_DINO[config.classifier == "text"]
    words = f"published for {whose}, on all of LVIS v1 val:"
    return [f"{words} {what}: {kind} AP {ap}, APr {rare}" for what, ap, rare in rows]
