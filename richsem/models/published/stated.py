"""AP on LVIS v1 val as authors state it for checkpoints, to hold a measured one against.

Nothing here was measured by us. Detic's files have names; of RichSem's and DINO's the kind alone is
known, which weights of one's own may share.
"""

import tomllib
from pathlib import Path

from richsem.models.centernet2.centernet2 import CenterNet2Config
from richsem.models.dino.dino import DinoConfig

LVIS_CLASSES = 1203  # DINO gives an output to each category id, of which 0 is none
_ROWS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def stated(file: str, config: DinoConfig | CenterNet2Config) -> list[str]:
    """What authors state for a checkpoint of this file name and kind, in lines; often nothing."""
    rows, kind, whose = [], "box", "a checkpoint of this kind"
    if isinstance(config, CenterNet2Config):
        rows = _ROWS["files"].get(Path(file).stem, [])
        kind, whose = "mask", "this file"
    elif config.backbone.name.startswith("resnet50") and config.num_classes == LVIS_CLASSES + 1:
        rows = _ROWS["r50_dino"][config.classifier]
    words = f"published for {whose}, on all of LVIS v1 val:"
    return [f"{words} {what}: {kind} AP {ap}, APr {rare}" for what, ap, rare in rows]
