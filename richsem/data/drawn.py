"""The drawn benchmark as data sees it: how large it is and which folder it lies in."""

from dataclasses import dataclass
from pathlib import Path

from richsem import kept, paths
from richsem.config import config_hash


@dataclass(frozen=True, kw_only=True)
class MiniLvisConfig:
    """Sizes of the embedded benchmark; the defaults are the demo, `SMOKE` is the smallest.

    Attributes:
        seed: Seed of every set and split (each draws from a stream of its own).
        draw: Other than 0, the training images of the three long-tailed sets alone, drawn anew:
            other scenes, and rare classes seen in other glyphs and styles. All else is draw 0's.
        size: Side of a scene in pixels.
        portrait_size: Side of an object-centric image in pixels.
        classes_per_group: Detection classes kept of each frequency group; 0 keeps all.
        rare_images, common_images, frequent_images: Smallest and largest number of training
            images of a class in each group.
        rare_val, other_val: Validation boxes aimed at per rare and per other class.
        dev_fraction: Size of the dev split relative to val.
        portraits: Object-centric images per class (INet-LVIS).
        unlabelled, captioned, objects365, other: Images of INet-Unl, CC3M, Objects365 and of
            Visual Genome and OpenImages (train; their val splits are a quarter of it).
    """

    seed: int = 0
    draw: int = 0
    size: int = 128
    portrait_size: int = 64
    classes_per_group: int = 0
    rare_images: tuple[int, int] = (3, 9)
    common_images: tuple[int, int] = (14, 92)
    frequent_images: tuple[int, int] = (118, 340)
    rare_val: int = 42
    other_val: int = 22
    dev_fraction: float = 0.5
    portraits: int = 54
    unlabelled: int = 2000
    captioned: int = 1400
    objects365: int = 3000
    other: int = 900


LONG_TAILED = ("lvis", "visual_genome", "openimages")  # what a draw draws anew

DEMO = MiniLvisConfig()
SMOKE = MiniLvisConfig(
    classes_per_group=4,
    frequent_images=(116, 130),
    rare_val=6,
    other_val=4,
    portraits=4,
    unlabelled=24,
    captioned=24,
    objects365=48,
    other=48,
)


def drawn_folder(config: MiniLvisConfig) -> Path:
    """Where the benchmark of these sizes lies once it is drawn (`richsem.minilvis.render`)."""
    drawn_by = kept.key(trace=("pictures",))[:8]
    return paths.CACHE / f"minilvis-{config_hash(config)}-{drawn_by}"
