"""What larger backbones cost, for notebook 12: counted from shapes, nothing is trained.

Supplement Table 1 compares four systems that no laptop can train. Their average precision is
quoted; their size, and what our own detector would need on each of a ladder of backbones, is
counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd

from richsem.config import Profile
from richsem.models.backbones import BackboneConfig
from richsem.models.dino.dino import DinoConfig
from richsem.models.networks import network_parameters
from richsem.operations import cost
from richsem.recipes import dino_recipes
from richsem.training.run_config import RunConfig
from richsem.workbook import reference
from richsem.workbook.results import TABLE_COLUMNS

MEGA = 1e6
_NAMES = msgspec.toml.decode(Path(__file__).with_suffix(".toml").read_bytes())
LADDER, BACKBONES = _NAMES["ladder"], _NAMES["published"]
RICHSEM = "RichSem, FocalNet-H DINO"
IMAGENET_22K = 21_842  # classes of the published FocalNet-H classifier


@dataclass(frozen=True, kw_only=True)
class ScalingConfig:
    """Which detectors are counted, at which image sizes."""

    detector: DinoConfig = field(  # RichSem's, on any backbone
        default_factory=lambda: dino_recipes.richsem("paper").detector
    )
    ladder: tuple[str, ...] = tuple(LADDER)  # rungs of `LADDER` that are counted
    # Those whose cost is followed over image sizes.
    curves: tuple[str, ...] = ("R50", "Swin-L", "FocalNet-H")
    short_side: int = 800  # of an image that is neither small nor large
    short_sides: tuple[int, ...] = (480, 640, 800, 1120)  # of the curves
    aspect: float = 5 / 3  # longer by shorter side


def scaling(profile: Profile, *, short_side: int = 800) -> ScalingConfig:
    """The configuration of notebook 12; demo and paper count the same, smoke fewer detectors."""
    config = ScalingConfig(short_side=short_side)
    if profile == "smoke":
        few = ("R50", "FocalNet-H")
        return replace(config, ladder=few, curves=few, short_sides=(480, 800))
    return config


def rung(config: ScalingConfig, name: str, *, checkpointing: bool = False) -> DinoConfig:
    """The detector for the classes of LVIS v1 on a backbone of the ladder, nothing frozen."""
    saving, norm = {"checkpointing": checkpointing}, name != "R50"
    backbone = BackboneConfig(name=LADDER[name], frozen_stride=0, output_norm=norm, **saving)
    classes = sum(reference.LVIS_V1_GROUPS.values())
    return replace(config.detector, backbone=backbone, num_classes=classes, **saving)


def image_size(config: ScalingConfig, short_side: int) -> cost.Size:
    """Height and width of a padded image."""
    multiple = config.detector.pad_multiple
    sides = (short_side, config.aspect * short_side)
    height, width = (-(-round(side) // multiple) * multiple for side in sides)
    return height, width


def parts_frame(config: ScalingConfig) -> pd.DataFrame:
    """Millions of parameters of each part (columns) of each detector of the ladder (rows)."""
    detectors = {name: cost.on_meta(rung(config, name)) for name in config.ladder}
    counts = {name: cost.count_parameters(one) for name, one in detectors.items()}
    # A part that one of them lacks costs nothing.
    return pd.DataFrame.from_dict(counts, orient="index").fillna(0) / MEGA


def flops_frame(config: ScalingConfig) -> pd.DataFrame:
    """GFLOP of each part (columns) of each detector of the ladder (rows), for one image."""
    size = image_size(config, config.short_side)
    flops = {name: dict(cost.image_flops(rung(config, name), size)) for name in config.ladder}
    return pd.DataFrame.from_dict(flops, orient="index").fillna(0) / cost.GIGA


def size_frame(config: ScalingConfig) -> pd.DataFrame:
    """What an image costs: columns system, short_side, pixels (M), gflop, activations (GB)."""
    rows = []
    for name, short_side in product(config.curves, config.short_sides):
        detector, size = rung(config, name), image_size(config, short_side)
        flop = sum(cost.image_flops(detector, size).values()) / cost.GIGA
        kept = cost.image_bytes(detector, size) / cost.GIGA
        rows.append((name, short_side, size[0] * size[1] / MEGA, flop, kept))
    return pd.DataFrame(rows, columns=["system", "short_side", "pixels", "gflop", "activations"])


def checkpoint_frame(config: ScalingConfig) -> pd.DataFrame:
    """GB that one image needs for the backward pass: all kept, or checkpoints and one block."""
    size = image_size(config, config.short_side)
    rows = {}
    for name in config.curves:
        saving = rung(config, name, checkpointing=True)
        rows[name] = {
            "all kept": cost.image_bytes(rung(config, name), size),
            "checkpoints": cost.image_bytes(saving, size),
            "largest block": cost.largest_layer(saving, size),
        }
    return pd.DataFrame(rows).T / cost.GIGA


def machines_frame(runs: Mapping[str, RunConfig], tflops: float) -> pd.DataFrame:
    """What runs need on 1, 8 and 32 GPUs that sustain `tflops` each; computed, nothing is timed.

    Rows: run and GPUs. Columns: images (of the kind that needs most memory) at a time on each GPU,
    days, GB on each, and GB of gradients in float32 that each sends in a step, where they are
    summed up around a ring. NaN where so many GPUs cannot share the batches out evenly.
    """
    rows = {}
    for name, run in runs.items():
        memory, flop = cost.training_memory(run), cost.training_flops(run)
        batch = cost.batch_sizes(run)[cost.hungriest(run)] // run.train.accumulation
        for gpus in (1, 8, 32):
            days = flop / (gpus * tflops * 1e12) / 86_400
            need = memory.per_device(batch // gpus) / cost.GIGA
            # Each of `gpus` pieces goes around twice: to be summed up, and to be known to all.
            sent = 2 * (gpus - 1) / gpus * memory.gradients / cost.GIGA
            usable = gpus in cost.devices(run)
            rows[name, gpus] = (batch // gpus, days, need, sent) if usable else [np.nan] * 4
    columns = ["images at a time", "days", "GB on each", "GB sent per step"]
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    return frame.set_index(pd.MultiIndex.from_tuples(rows, names=["run", "GPUs"]))


def focal_huge_candidates(config: ScalingConfig) -> pd.DataFrame:
    """Millions of parameters of what may have been counted as RichSem on FocalNet-H (rows)."""
    detector = rung(config, "FocalNet-H")
    finer = replace(detector.backbone, strides=(4, 8, 16, 32))
    linear = {"classifier": "linear", "proposal_classifier": "linear", "semantic": False}
    detectors = {
        "RichSem, 4 scales (ours)": detector,
        "RichSem, 5 scales": replace(detector, backbone=finer, levels=5),
        "DINO without text, 4 scales": replace(detector, label_embedding="table", **linear),
    }
    counts = {"backbone alone": network_parameters(LADDER["FocalNet-H"])}
    for name, one in detectors.items():
        counts[name] = sum(cost.count_parameters(cost.on_meta(one)).values())
    for levels in (3, 4):
        classified = network_parameters(f"focalnet_huge_fl{levels}", IMAGENET_22K)
        counts[f"{levels} focal levels with ImageNet-22k's classifier"] = classified
    published = reference.TABLE1[RICHSEM]["parameters (M)"]
    counts = pd.Series(counts) / MEGA
    return pd.DataFrame({"parameters (M)": counts, "less than published": published - counts})


def backbone_frame() -> pd.DataFrame:
    """Published parameters of each system beside those of its backbone, in millions."""
    published = {system: row["parameters (M)"] for system, row in reference.TABLE1.items()}
    counted = {system: network_parameters(name) / MEGA for system, name in BACKBONES.items()}
    return pd.DataFrame({"published": published, "backbone": counted}).loc[list(published)]


def table1(
    parts: pd.DataFrame, flops: pd.DataFrame, backbones: pd.DataFrame
) -> tuple[pd.DataFrame, dict[str, dict[str, str]]]:
    """Rows of supplement Table 1, published systems and then our ladder, and words beside them."""
    published = pd.DataFrame(reference.TABLE1).T
    sums = {"parameters (M)": parts.sum(axis=1), "GFLOP": flops.sum(axis=1)}
    counted = pd.DataFrame({"backbone (M)": parts["backbone"], **sums})
    counted.index = [f"RichSem, {name} DINO" for name in parts.index]
    words, none = {}, dict.fromkeys(("backbone data", "detector data"), "none: shapes alone")
    for system, row in reference.TABLE1.items():
        backbone = f"timm `{BACKBONES[system]}`" if system in BACKBONES else "quoted"
        words[system] = {kind: row.get(kind, "-") for kind in none} | {"backbone": backbone}
    for name, system in zip(parts.index, counted.index, strict=True):
        words.setdefault(system, none | {"backbone": f"timm `{LADDER[name]}`"})
    metrics = ["AP", "AP_r", "parameters (M)", "backbone (M)", "GFLOP"]
    ours, paper = (one.reindex(index=list(words), columns=metrics) for one in (counted, published))
    ours["backbone (M)"] = ours["backbone (M)"].fillna(backbones["backbone"])
    # One line per metric and system, metric by metric.
    frame = pd.DataFrame({"paper": paper.unstack(), "ours": ours.unstack()})
    frame = frame.rename_axis(["metric", "row"]).reset_index()
    measured, known = frame["ours"].notna(), frame["paper"].notna()
    frame["status"] = np.select([measured, known], ["counted", "reference only"], "not run")
    frame["num_seeds"] = measured.astype(int)
    # What a published system does not state is left out; of our ladder, AP was not run.
    ladder = ~frame["row"].isin(published.index) & frame["metric"].isin(["AP", "AP_r"])
    return frame[measured | known | ladder].reindex(columns=list(TABLE_COLUMNS)), words


def figure_frame(parts: pd.DataFrame, sizes: pd.DataFrame) -> pd.DataFrame:
    """The numbers of the figure: columns panel, system, x, y, kind ("published", "counted")."""
    published = [
        (metric, system, row["parameters (M)"], row[metric], "published")
        for system, row in reference.TABLE1.items()
        for metric in ("AP", "AP_r")
        if metric in row
    ]
    rest = parts.drop(columns="backbone").sum(axis=1)
    ladder = [
        (part, name, position, values[name], "counted")
        for position, name in enumerate(parts.index)
        for part, values in {"backbone": parts["backbone"], "rest": rest}.items()
    ]
    points = pd.DataFrame([*published, *ladder], columns=["panel", "system", "x", "y", "kind"])
    curves = sizes.melt(["system", "pixels"], ["gflop", "activations"], "panel", "y")
    curves = curves.rename(columns={"pixels": "x"}).assign(kind="counted")
    return pd.concat([points, curves], ignore_index=True)
