"""What larger backbones cost, for notebook 12: counted from shapes, nothing is trained.

Supplement Table 1 compares four systems that no laptop can train. Their average precision is
quoted; their size, and what our own detector would need on each of a ladder of backbones, is
counted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from richsem.config import Profile
from richsem.models.backbones import BackboneConfig, network_parameters
from richsem.models.dino.dino import DinoConfig
from richsem.operations.cost import (
    GIGA,
    Memory,
    count_parameters,
    image_bytes,
    image_flops,
    largest_layer,
    on_meta,
)
from richsem.recipes import dino_recipes
from richsem.workbook import reference

MEGA = 1e6
LADDER = {
    "R50": "resnet50.tv_in1k",
    "Swin-T": "swin_tiny_patch4_window7_224",
    "ConvNeXt-T": "convnext_tiny",
    "Swin-B": "swin_base_patch4_window12_384",
    "Swin-L": "swin_large_patch4_window12_384",
    "ConvNeXt-L": "convnext_large",
    "FocalNet-L": "focalnet_large_fl4",
    "FocalNet-H": "focalnet_huge_fl4",
}
# Backbones of the published systems as timm has them; it has no InternImage.
BACKBONES = {
    "ViTDet, ViT-H": "vit_huge_patch14_224",
    "EVA, Cascade Mask R-CNN": "eva_giant_patch14_560",
    "RichSem, FocalNet-H DINO": "focalnet_huge_fl4",
}
RICHSEM = "RichSem, FocalNet-H DINO"
IMAGENET_22K = 21_842  # classes of the published FocalNet-H classifier


@dataclass(frozen=True, kw_only=True)
class ScalingConfig:
    """Which detectors are counted, at which image sizes.

    Attributes:
        detector: RichSem's detector, on any backbone.
        ladder: Rungs of `LADDER` that are counted.
        curves: Those whose cost is followed over image sizes.
        short_side: Shorter side of an image that is neither small nor large.
        short_sides: Sides of the curves.
        aspect: Longer by shorter side.
    """

    detector: DinoConfig = field(default_factory=lambda: dino_recipes.richsem("paper").detector)
    ladder: tuple[str, ...] = tuple(LADDER)
    curves: tuple[str, ...] = ("R50", "Swin-L", "FocalNet-H")
    short_side: int = 800
    short_sides: tuple[int, ...] = (480, 640, 800, 1120)
    aspect: float = 5 / 3


def scaling(profile: Profile, *, short_side: int = 800) -> ScalingConfig:
    """The configuration of notebook 12; demo and paper count the same, smoke fewer detectors."""
    config = ScalingConfig(short_side=short_side)
    if profile == "smoke":
        few = ("R50", "FocalNet-H")
        return replace(config, ladder=few, curves=few, short_sides=(480, 800))
    return config


def rung(config: ScalingConfig, name: str, *, checkpointing: bool = False) -> DinoConfig:
    """The detector for the classes of LVIS v1 on a backbone of the ladder, nothing frozen."""
    backbone = BackboneConfig(
        name=LADDER[name],
        frozen_stride=0,
        output_norm=not name.startswith("R50"),
        checkpointing=checkpointing,
    )
    classes = reference.LVIS_V1_GROUPS.values()
    return replace(
        config.detector,
        backbone=backbone,
        num_classes=sum(classes),
        checkpointing=checkpointing,
    )


def image_size(config: ScalingConfig, short_side: int) -> tuple[int, int]:
    """Height and width of a padded image."""
    multiple = config.detector.pad_multiple
    height, width = (
        -(-round(side) // multiple) * multiple for side in (short_side, config.aspect * short_side)
    )
    return height, width


def parts_frame(config: ScalingConfig) -> pd.DataFrame:
    """Millions of parameters of each part (columns) of each detector of the ladder (rows)."""
    counts = {name: count_parameters(on_meta(rung(config, name))) for name in config.ladder}
    return pd.DataFrame(counts).T.fillna(0) / MEGA


def flops_frame(config: ScalingConfig) -> pd.DataFrame:
    """GFLOP of each part (columns) of each detector of the ladder (rows), for one image."""
    size = image_size(config, config.short_side)
    counts = {name: image_flops(rung(config, name), size) for name in config.ladder}
    return pd.DataFrame({n: dict(parts) for n, parts in counts.items()}).T.fillna(0) / GIGA


def size_frame(config: ScalingConfig) -> pd.DataFrame:
    """What one image costs at each size.

    Returns:
        Columns system, short_side, pixels (millions), gflop (of a forward pass) and activations
        (GB, kept for the backward pass).
    """
    rows = []
    for name in config.curves:
        detector = rung(config, name)
        for short_side in config.short_sides:
            size = image_size(config, short_side)
            rows.append(
                {
                    "system": name,
                    "short_side": short_side,
                    "pixels": size[0] * size[1] / MEGA,
                    "gflop": sum(image_flops(detector, size).values()) / GIGA,
                    "activations": image_bytes(detector, size) / GIGA,
                }
            )
    return pd.DataFrame(rows)


def growth_frame(sizes: pd.DataFrame) -> pd.DataFrame:
    """How many times pixels, gflop and activations grow from a system's first size to its last."""
    groups = sizes.groupby("system", sort=False)[["pixels", "gflop", "activations"]]
    return groups.last() / groups.first()


def checkpoint_frame(config: ScalingConfig) -> pd.DataFrame:
    """GB that one image needs for the backward pass: all kept, or checkpoints and one block."""
    size = image_size(config, config.short_side)
    rows = {}
    for name in config.curves:
        saving = rung(config, name, checkpointing=True)
        rows[name] = {
            "all kept": image_bytes(rung(config, name), size) / GIGA,
            "checkpoints": image_bytes(saving, size) / GIGA,
            "largest block": largest_layer(saving, size) / GIGA,
        }
    return pd.DataFrame(rows).T


def focal_huge_candidates(config: ScalingConfig) -> pd.DataFrame:
    """Millions of parameters of what may have been counted as RichSem on FocalNet-H (rows)."""
    network = LADDER["FocalNet-H"]
    detector = rung(config, "FocalNet-H")
    finer = replace(detector.backbone, strides=(4, 8, 16, 32))
    linear = {"classifier": "linear", "proposal_classifier": "linear", "semantic": False}
    counts = {
        "backbone alone": network_parameters(network),
        "RichSem, 4 scales (ours)": _total(detector),
        "RichSem, 5 scales": _total(replace(detector, backbone=finer, levels=5)),
        "DINO without text, 4 scales": _total(replace(detector, label_embedding="table", **linear)),
        "3 focal levels with ImageNet-22k's classifier": network_parameters(
            "focalnet_huge_fl3", IMAGENET_22K
        ),
        "4 focal levels with ImageNet-22k's classifier": network_parameters(network, IMAGENET_22K),
    }
    published = reference.TABLE1[RICHSEM]["parameters"]
    counts = pd.Series(counts, name="parameters (M)") / MEGA
    return pd.DataFrame({"parameters (M)": counts, "less than published": published - counts})


def backbone_frame() -> pd.DataFrame:
    """Published parameters of each system beside those of its backbone, in millions."""
    rows = {
        system: {
            "published": row["parameters"],
            "backbone": network_parameters(BACKBONES[system]) / MEGA
            if system in BACKBONES
            else None,
        }
        for system, row in reference.TABLE1.items()
    }
    return pd.DataFrame(rows).T


def memory_frame(memories: Mapping[str, Memory], images: Sequence[int]) -> pd.DataFrame:
    """GB of each kind for runs (rows), and per device with so many images at a time."""
    rows = {}
    for name, memory in memories.items():
        kinds = ("weights", "gradients", "optimiser", "activations", "recomputed")
        rows[name] = {kind: getattr(memory, kind) / GIGA for kind in kinds}
        rows[name] |= {f"{n} at a time": memory.per_device(n) / GIGA for n in images}
    return pd.DataFrame(rows).T


def table_rows(
    parts: pd.DataFrame, flops: pd.DataFrame, backbones: pd.DataFrame
) -> dict[str, dict[str, float]]:
    """What was counted, as `tables.table1` takes it."""
    rows: dict[str, dict[str, float]] = {
        system: {"backbone (M)": value}
        for system, value in backbones["backbone"].items()
        if value == value  # not NaN
    }
    for name, row in parts.iterrows():
        cost = {"parameters (M)": row.sum(), "backbone (M)": row["backbone"]}
        cost["GFLOP"] = flops.loc[name].sum()
        rows[RICHSEM if name == "FocalNet-H" else f"RichSem, {name} DINO"] = cost
    return rows


def table_details(config: ScalingConfig) -> dict[str, dict[str, str]]:
    """Words beside the rows of Table 1."""
    words: dict[str, dict[str, Any]] = {
        system: {
            "pre-trained on": row["data"],
            "backbone": f"timm `{BACKBONES[system]}`" if system in BACKBONES else "quoted",
        }
        for system, row in reference.TABLE1.items()
    }
    for name in config.ladder:
        row = f"RichSem, {name} DINO"
        if row not in words:
            backbone = f"timm `{LADDER[name]}`"
            words[row] = {"pre-trained on": "nothing: shapes alone", "backbone": backbone}
    return words


def figure_frame(parts: pd.DataFrame, sizes: pd.DataFrame) -> pd.DataFrame:
    """The numbers of the figure: columns panel, system, x, y, kind ("published", "counted")."""
    rows = [
        {"panel": metric, "system": system, "x": row["parameters"], "y": row[metric]}
        for system, row in reference.TABLE1.items()
        for metric in ("AP", "AP_r")
        if metric in row
    ]
    published = pd.DataFrame(rows).assign(kind="published")
    counted = [
        {"panel": part, "system": name, "x": position, "y": value}
        for position, (name, row) in enumerate(parts.iterrows())
        for part, value in {"backbone": row["backbone"], "rest": row.drop("backbone").sum()}.items()
    ]
    for panel in ("gflop", "activations"):
        counted += [
            {"panel": panel, "system": row.system, "x": row.pixels, "y": getattr(row, panel)}
            for row in sizes.itertuples()
        ]
    return pd.concat([published, pd.DataFrame(counted).assign(kind="counted")], ignore_index=True)


def _total(config: DinoConfig) -> int:
    return sum(count_parameters(on_meta(config)).values())
