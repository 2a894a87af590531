"""The drawn benchmark and its CLIP: how large they are, and where they lie."""

from dataclasses import dataclass, replace
from pathlib import Path

from richsem import kept, paths
from richsem.config import Share, config_hash

# What a draw draws anew: images to learn boxes from, or extra ones without boxes.
LONG_TAILED = ("lvis", "visual_genome", "openimages")
IMAGE_SETS = ("imagenet_lvis", "imagenet_unl", "cc3m")


@dataclass(frozen=True, kw_only=True)
class MiniLvisConfig:
    """Sizes of the embedded benchmark; the defaults are the demo, `SMOKE` is the smallest."""

    seed: int = 0  # of every set and split (each draws from a stream of its own)
    # Other than 0, the training images of the sets in `anew` alone, drawn anew: other scenes, and
    # in detection rare classes seen in other glyphs and styles. All else is draw 0's.
    draw: int = 0
    anew: tuple[str, ...] = LONG_TAILED
    size: int = 128  # side of a scene in pixels
    portrait_size: int = 64  # side of an object-centric image in pixels
    classes_per_group: int = 0  # detection classes kept of each frequency group; 0 keeps all
    # Smallest and largest number of training images of a class in each group.
    rare_images: tuple[int, int] = (3, 9)
    common_images: tuple[int, int] = (14, 92)
    frequent_images: tuple[int, int] = (118, 340)
    rare_val: int = 42  # validation boxes aimed at per rare class
    other_val: int = 22  # and per other class
    dev_fraction: float = 0.5  # size of the dev split relative to val
    portraits: int = 54  # object-centric images per class (INet-LVIS)
    unlabelled: int = 2000  # images of INet-Unl
    captioned: int = 1400  # images of CC3M
    objects365: int = 3000  # training images of Objects365; its val split is a quarter of it
    other: int = 900  # the same of Visual Genome and of OpenImages


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Recipe of a small CLIP; the defaults are the shipped one."""

    seed: int = 1_000_003  # of scenes and training; no other set of this project uses this stream
    scenes: int = 12_000  # painted for it, each with three to six random glyphs
    size: int = 128  # side of a scene in pixels
    steps: tuple[int, ...] = (1600, 800)  # of the optimiser, in each cycle
    batch: int = 256  # regions per step; as many crops as RoIAligned cuts
    # Peak of each cycle (AdamW, warm-up over 5 %, cosine decay to zero).
    lr: tuple[float, ...] = (1.5e-3, 6e-4)
    weight_decay: float = 0.05  # on matrices
    # Share of the rare classes of detection none of whose glyphs it ever sees or hears named.
    unseen: Share = 0.0


@dataclass(frozen=True, kw_only=True)
class StagedConfig:
    """Extra images of one named thing each, to ask what its surroundings change."""

    scale: float = 1.0  # of all things; at 1 they are as large as in portraits
    others: int = 0  # unnamed things beside, before and behind it
    images: int = 14  # per class
    classes_per_group: int = 0  # as in `MiniLvisConfig`
    size: int = 64  # side of an image in pixels
    seed: int = 0
    draw: int = 0


def drawn_folder(config: object) -> Path:
    """Where the pictures of this configuration lie, or will lie once they are drawn.

    Code that draws other pictures has another folder, so old ones are never taken for new ones.
    """
    pictures = kept.key(trace=("pictures",))[:8]
    return paths.CACHE / f"minilvis-{config_hash(config)}-{pictures}"


def pretrained_file(config: PretrainConfig) -> Path:
    """Where the cache keeps the small CLIP of a recipe, trained on pictures as they are drawn."""
    return drawn_folder(config).with_suffix(".safetensors")


def extra_images(benchmark: MiniLvisConfig, draw: int) -> MiniLvisConfig:
    """The render that has this draw of the sets of images."""
    return replace(benchmark, draw=draw, anew=IMAGE_SETS if draw else LONG_TAILED)


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
