"""Runs of the second detector: those of `dino_recipes` with another detector and its loss.

Data, teacher and loop are the same, so that what differs between two tables is the detector.
"""

from dataclasses import replace

from richsem.config import REAL, Profile, config_hash
from richsem.data.transforms import MosaicConfig, ScaleJitterConfig
from richsem.losses.centernet2_criterion import CenterNet2CriterionConfig
from richsem.models.centernet2.cascade import MaskConfig
from richsem.models.centernet2.centernet2 import CascadeConfig, CenterNet2Config
from richsem.models.centernet2.first_stage import ProposalConfig
from richsem.recipes import dino_recipes
from richsem.structures import Supervision
from richsem.training.optim import ValueClippedOptimConfig
from richsem.training.run_config import RUN, ExtraConfig, RunConfig

# The published modules with smaller numbers, on the cached maps that the small DINO learns from:
# strides 16 and 32 of 256 pixels, and 64 and 128 made from them. Objects have half diagonals of 20
# to 90 pixels, so the ranges begin at half the published ones.
MINI_CENTERNET2 = CenterNet2Config(
    backbone=dino_recipes.MINI_DINO.backbone,
    num_classes=0,
    dim=64,
    tower=1,
    proposals=ProposalConfig(candidates=(200, 100), kept=(100, 50)),
    cascade=CascadeConfig(regions=32, image_regions=16, pooled=4, pool_samples=1, hidden=256),
    classifier="text",
    class_bias=True,
    semantic=False,
    pad_multiple=1,
)
MINI_MASKS = MaskConfig(dim=64, pooled=7)
MINI_LOSS = CenterNet2CriterionConfig(
    ranges=((0.0, 40.0), (32.0, 72.0), (64.0, 144.0), (128.0, 1e8)), federated_classes=0
)
MINI_OPTIM = ValueClippedOptimConfig(
    lr=2e-3, clip_norm=1.0, schedule="linear", decay_start=0.0, warmup=20
)
# Weights of `centernet2_pretraining` at the demo size; their provenance is beside them.
MINI_START = "richsem/models/minicenternet2.safetensors"

# Nothing of the backbone is frozen but its norms. The published weights are those of ImageNet-21k:
# set detector.backbone.weights to their file.
R50 = replace(dino_recipes.R50, frozen_stride=0)
OPTIM = ValueClippedOptimConfig(
    lr=2e-4, backbone_lr=2e-4, schedule="cosine", decay_start=0.0, warmup=10_000
)


def centernet2_pretraining(profile: Profile = "demo", *, seed: int = 0) -> RunConfig:
    """Detection on Objects365, from where other runs start, as in `dino_recipes.pretraining`.

    Paper: the schedule of `centernet2`. Demo: the stand-in; about an hour on one core.
    """
    base = dino_recipes.pretraining(profile, seed=seed)
    if profile in REAL:
        run = centernet2(profile, seed=seed)
        loss = replace(run.loss, federated_classes=0)
        data = replace(base.data, transform=run.data.transform)
        return replace(run, name="centernet2_pretraining", data=data, loss=loss)
    optim = replace(MINI_OPTIM, schedule="cosine", decay_start=0.25, warmup=200)
    run = replace(base, name="centernet2_pretraining", detector=MINI_CENTERNET2)
    run = replace(run, loss=MINI_LOSS, optim=optim)
    return run if profile == "smoke" else replace(run, train=replace(run.train, steps=9000))


def centernet2(
    profile: Profile = "demo", *, seed: int = 0, root: str = "", masks: bool = False
) -> RunConfig:
    """CenterNet2 on the detection set alone, with text classifiers (METHOD 3.3).

    With `masks` it has a mask head (METHOD 3.5), by which the paper compares: its numbers are not
    to be compared with box AP. A step at demo then takes 1.4 times as long.
    Paper: LVIS v1, R50, 90,000 steps of 64 images on 8 GPUs; 31.5 / 25.6 mask AP / AP_r
    (supplement, Table 4). Demo: about two CPU-minutes.
    """
    base = dino_recipes.baseline(profile, seed=seed, root=root)
    if profile not in REAL:
        return _small(base, "centernet2", semantic=False, masks=masks)
    outlines = MaskConfig() if masks else None
    train = {"steps": 90_000, "batch_size": 64, "precision": "fp16"}
    run = replace(
        base,
        name="centernet2",
        data=replace(base.data, transform=ScaleJitterConfig()),
        detector=CenterNet2Config(backbone=R50, num_classes=0, semantic=False, masks=outlines),
        loss=CenterNet2CriterionConfig(),
        optim=OPTIM,
        train=replace(base.train, **train, checkpoint_every=5000, judge_every=22_500),
    )
    return dino_recipes.rehearsed(run, profile)


def centernet2_detic(
    profile: Profile = "demo", *, seed: int = 0, root: str = "", masks: bool = False
) -> RunConfig:
    """The same taught by whole INet-LVIS images, too (METHOD 3.1).

    Paper: another 90,000 steps from the weights of the `centernet2` of the same seed, every second
    one on 256 ImageNet images of half the size, 8 GPUs; 33.2 / 29.7 mask AP / AP_r. Demo: about
    three CPU-minutes.
    """
    if profile in REAL:
        first = centernet2(profile, seed=seed, root=root, masks=masks)
        run = _second_phase(first, "centernet2_detic", Supervision.WHOLE_IMAGES, None)
        train = replace(run.train, extra_batch_size=run.train.batch_size)
        run = dino_recipes.without_mosaics(replace(run, train=train))
        return dino_recipes.rehearsed(run, profile)
    base = dino_recipes.detic(profile, seed=seed, root=root)
    return _small(base, "centernet2_detic", semantic=False, masks=masks)


def centernet2_richsem(
    profile: Profile = "demo", *, seed: int = 0, root: str = "", masks: bool = False
) -> RunConfig:
    """The baseline with the semantic branch and INet-LVIS mosaics (METHOD 3.4).

    Paper: 90,000 steps from the weights of the `centernet2` of the same seed, every second one on
    mosaics, 8 GPUs; 33.5 / 31.0, presumably mask AP / AP_r. Demo: about four CPU-minutes.
    """
    if profile not in REAL:
        base = dino_recipes.richsem(profile, seed=seed, root=root)
        return _small(base, "centernet2_richsem", semantic=True, masks=masks)
    first = centernet2(profile, seed=seed, root=root, masks=masks)
    mosaic = MosaicConfig(side=320)
    run = _second_phase(first, "centernet2_richsem", Supervision.IMAGE_LABELS, mosaic)
    run = replace(run, detector=replace(run.detector, semantic=True))
    return dino_recipes.rehearsed(run, profile)


def _small(base: RunConfig, name: str, *, semantic: bool, masks: bool) -> RunConfig:
    """A run on the embedded benchmark with the other detector."""
    # A step costs half as much again as one of the small DINO, and learning flattens earlier.
    train = replace(base.train, steps=base.train.steps * 3 // 4)
    outlines = MINI_MASKS if masks else None
    detector = replace(MINI_CENTERNET2, semantic=semantic, masks=outlines)
    run = replace(base, name=name, detector=detector, train=train, init=MINI_START)
    return replace(run, loss=MINI_LOSS, optim=MINI_OPTIM)


def _second_phase(
    base: RunConfig, name: str, supervision: Supervision, mosaic: MosaicConfig | None
) -> RunConfig:
    """The published schedule once more, with extra images and a short warm-up."""
    jitter = ScaleJitterConfig(side=320, scales=(0.5, 1.5))
    extra = ExtraConfig(key="inet_lvis", supervision=supervision, transform=jitter, mosaic=mosaic)
    data, optim = replace(base.data, extra=extra), replace(base.optim, warmup=1000)
    init = f"{RUN}{base.name}-{config_hash(base)}"
    return replace(base, name=name, data=data, optim=optim, init=init)
