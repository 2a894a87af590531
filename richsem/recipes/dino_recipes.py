"""Runs of DINO: functions that make complete configurations.

A recipe returns a complete configuration and shows only what differs from the one it starts from.
Every recipe exists at four sizes: `paper` is the published setting, `demo` the same detector with
smaller numbers on the embedded benchmark; `rehearsal` and `smoke` are these two with a few steps on
a few images.
"""

from dataclasses import replace

from richsem.config import PROFILES, REAL, ConfigError, Profile
from richsem.data.drawn import DEMO, SMOKE
from richsem.data.features import FeatureConfig
from richsem.data.transforms import NUM_TILES, MosaicConfig, ScaleJitterConfig, TransformConfig
from richsem.losses.dino_criterion import DinoCriterionConfig
from richsem.models.backbones import LITE0, BackboneConfig
from richsem.models.clip import MINI
from richsem.models.dino.denoising import DenoisingConfig
from richsem.models.dino.dino import DinoConfig
from richsem.structures import Supervision
from richsem.training.loop import TrainConfig
from richsem.training.optim import OptimConfig
from richsem.training.run_config import ExtraConfig, RunConfig, TrainingDataConfig

# Scenes of the Objects365 stand-in for pre-training: the benchmark's recipe with another seed, and
# the other sets as small as they get.
PRETRAINING_SCENES = replace(SMOKE, seed=365, objects365=12_000)

# Scenes are drawn at 128 pixels and looked at enlarged: the frozen backbone was trained on larger
# objects, and at twice the size its stride 16 tells small ones apart much better (LOG.md).
SCENE = TransformConfig(
    short_sides=(256,),
    crop_short_sides=(256, 288, 320, 352),
    crop_range=(192, 256),
    keep_aspect=False,
)
TILE = TransformConfig(
    short_sides=(128,), crop_short_sides=(128,), crop_range=(96, 128), keep_aspect=False
)
# Images of ImageNet as Detic sees them (METHOD 3.2), DINO's sizes halved.
HALF_SIZE = TransformConfig(
    short_sides=tuple(range(240, 401, 16)),
    max_side=667,
    crop_short_sides=(200, 250, 300),
    crop_range=(192, 300),
)
# Images of a rehearsal: a fifth of the published sides, a batch for eight GPUs.
REHEARSED = TransformConfig(
    short_sides=(96, 128, 160), max_side=267, crop_short_sides=(80, 120), crop_range=(77, 120)
)
REHEARSED_BATCH = 8

# The paper's modules with smaller numbers; the backbone is frozen, so its maps are cached.
MINI_DINO = DinoConfig(
    backbone=BackboneConfig(name=LITE0, weights="packaged", strides=(16, 32), trainable=False),
    num_classes=0,
    dim=96,
    heads=4,
    levels=3,
    encoder_layers=1,
    decoder_layers=2,
    encoder_points=2,
    decoder_points=4,
    ffn=256,
    queries=30,
    classifier="text",
    proposal_classifier="agnostic",
    label_embedding="text",
    class_bias=True,
    semantic=False,
    denoising=DenoisingConfig(number=1),
    pad_multiple=1,
)
MINI_START = "richsem/models/minidino.safetensors"


def pretraining(profile: Profile = "demo", *, seed: int = 0) -> RunConfig:
    """Detection on Objects365, from where other runs start (METHOD 1.2, last row).

    Paper: 12 epochs of R50 on 0.6 M images. Demo: the stand-in, which shares no class with
    MiniLVIS; about 45 minutes on one core, done once: its result is shipped as `MINI_START`.
    """
    base = baseline(profile if profile in REAL else "demo", seed=seed)
    data = replace(base.data, key="o365", repeat_threshold=0.0)
    loss = DinoCriterionConfig(federated_classes=0)
    if profile in REAL:
        train = replace(base.train, steps=_epochs(12, images=600_000), judge_every=0)
        config = replace(base, name="pretraining", data=data, loss=loss, train=train)
        return _sized(config, profile)
    features = FeatureConfig(views=1, soft_labels=False)
    config = replace(
        base,
        name="pretraining",
        data=replace(data, benchmark=PRETRAINING_SCENES, judge_split="val", features=features),
        loss=replace(loss, class_weight=6.0),
        optim=OptimConfig(lr=1e-3, clip_norm=1.0, schedule="cosine", decay_start=0.25, warmup=200),
        train=TrainConfig(steps=11_000, batch_size=16, seed=seed, checkpoint_every=500),
        init="",
    )
    return _sized(config, profile)


def _sized(config: RunConfig, profile: Profile) -> RunConfig:
    """The run, or the same with a few steps on a few images: does it work at all?"""
    if profile not in PROFILES:
        raise ConfigError(f"no profile {profile!r}; there are {', '.join(PROFILES)}")
    if profile != "smoke":
        return rehearsed(config, profile)
    sizes = {"steps": 4, "batch_size": 4, "extra_batch_size": 2, "log_every": 2, "judge_every": 2}
    features = replace(config.data.features, views=1, images=48)
    benchmark = replace(SMOKE, draw=config.data.benchmark.draw)
    data = replace(config.data, benchmark=benchmark, features=features)
    return replace(config, data=data, train=replace(config.train, **sizes))


def rehearsed(config: RunConfig, profile: Profile) -> RunConfig:
    """The run, or its rehearsal: its modules, weights, sets and losses in short.

    Numbers then mean nothing; what is missing or broken shows within minutes instead of days.
    """
    if profile != "rehearsal":
        return config
    data, train, extra = config.data, config.train, config.data.extra
    batches = {"batch_size": REHEARSED_BATCH}
    if extra:
        batches["extra_batch_size"] = REHEARSED_BATCH
        mosaic = extra.mosaic and MosaicConfig(side=80)
        extra = replace(extra, transform=_small(extra.transform), mosaic=mosaic)
    rows = {"log_every": 2, "checkpoint_every": 2, "judge_every": min(train.judge_every, 2)}
    train = replace(train, steps=4, **batches, **rows)
    teacher = replace(data.teacher, short_side=max(REHEARSED.short_sides))
    small = {"transform": _small(data.transform), "extra": extra, "teacher": teacher}
    return replace(config, data=replace(data, **small, judged=16), train=train)


def _small(transform: TransformConfig | ScaleJitterConfig) -> TransformConfig | ScaleJitterConfig:
    if isinstance(transform, TransformConfig):
        return REHEARSED
    sides = {"short_sides": REHEARSED.short_sides, "max_side": REHEARSED.max_side}
    return replace(transform, side=max(REHEARSED.short_sides), **sides)


def with_extra(
    base: RunConfig,  # on detection data alone
    profile: Profile,  # decides the sizes of tiles and mosaics
    key: str,  # the extra set, as the catalogue names it
    supervision: Supervision,  # what of its annotations is used
    *,
    mosaics: bool = True,  # four images on a canvas; else one at a time
) -> RunConfig:
    """A run with the semantic branch and, after each of its steps, one on extra images."""
    transform, mosaic, features = TransformConfig(), MosaicConfig(), None
    if profile not in REAL:
        transform, mosaic = TILE, MosaicConfig(side=128)
        features = FeatureConfig(views=1, images=24 if profile == "smoke" else 0)
    extra = ExtraConfig(
        key=key,
        draw=base.data.benchmark.draw if base.data.benchmark else 0,
        supervision=supervision,
        transform=transform,
        mosaic=mosaic if mosaics else None,
        features=features,
    )
    train = base.train
    turns = replace(train, steps=2 * train.steps, judge_every=2 * train.judge_every)
    run = replace(with_semantics(base), data=replace(base.data, extra=extra), train=turns)
    return rehearsed(run, profile)


def with_semantics(base: RunConfig) -> RunConfig:
    """The run with the semantic branch; its classes are then compared with texts (METHOD 1.6)."""
    return replace(base, detector=replace(with_text(base).detector, semantic=True))


def with_text(base: RunConfig) -> RunConfig:
    """The run with text classifiers where a DINO has linear ones; others have them anyway."""
    if not isinstance(base.detector, DinoConfig):
        return base
    names = ("classifier", "proposal_classifier")
    linear = [name for name in names if getattr(base.detector, name) == "linear"]
    changes = dict.fromkeys(["label_embedding", *linear], "text")
    return replace(base, detector=replace(base.detector, **changes))


def without_mosaics(config: RunConfig) -> RunConfig:
    """Whole images instead of mosaics: as many as the mosaics of a step have tiles, if stated."""
    size = config.train.extra_batch_size
    return replace(config, train=replace(config.train, extra_batch_size=NUM_TILES * size))


# The published setting.
R50 = BackboneConfig(name="resnet50.tv_in1k", weights="hub", frozen_stride=4, frozen_norm=True)
LINEAR = {"classifier": "linear", "proposal_classifier": "linear", "label_embedding": "classifier"}


def baseline(profile: Profile = "demo", *, seed: int = 0, root: str = "") -> RunConfig:
    """DINO on the detection set alone, with linear classifiers (METHOD 1.6).

    Paper: LVIS v1, R50, 12 epochs, 8 GPUs, AP 32.2 / AP_r 24.1 (supplement, Table 4). Demo: two
    to three CPU-minutes on MiniLVIS.
    """
    if profile in REAL:
        config = RunConfig(
            name="baseline",
            data=TrainingDataConfig(root=root),
            detector=DinoConfig(backbone=R50, num_classes=0, semantic=False, **LINEAR),
            train=TrainConfig(
                steps=_epochs(12),
                seed=seed,
                checkpoint_every=2000,
                judge_every=_epochs(3),
                workers=4,
            ),
        )
        return _sized(config, profile)
    config = RunConfig(
        name="baseline",
        data=TrainingDataConfig(
            benchmark=replace(DEMO, draw=seed),
            root=root,
            judge_split="val" if root else "dev",  # released sets have no third split
            repeat_threshold=0.02,
            transform=SCENE,
            features=FeatureConfig(views=1),
            teacher=MINI,
        ),
        detector=MINI_DINO,
        # The small detector locates well and names badly: both kinds of labels count four times.
        loss=DinoCriterionConfig(federated_classes=0, class_weight=4.0, soft_weight=2.0),
        optim=OptimConfig(lr=2e-3, clip_norm=1.0, schedule="linear", decay_start=0.0, warmup=20),
        train=TrainConfig(
            steps=600,
            batch_size=16,
            extra_batch_size=8,
            seed=seed,
            checkpoint_every=100,
            judge_every=150,
        ),
        init=MINI_START,
    )
    return _sized(config, profile)


def richsem(profile: Profile = "demo", *, seed: int = 0, root: str = "") -> RunConfig:
    """The baseline with text classifiers, the semantic branch and INet-LVIS mosaics (METHOD 1.6).

    Paper: LVIS v1, R50, 12 epochs and as many extra batches, AP 35.0 / AP_r 30.4 (supplement,
    Table 4; 24 epochs reach 37.3 / 30.7). Demo: three to four CPU-minutes on MiniLVIS.
    """
    base = replace(baseline(profile, seed=seed, root=root), name="richsem")
    return with_extra(base, profile, "inet_lvis", Supervision.IMAGE_LABELS)


def detic(profile: Profile = "demo", *, seed: int = 0, root: str = "") -> RunConfig:
    """The baseline taught by whole INet-LVIS images, too: Detic's loss on DINO (METHOD 3.2).

    Paper: 12 epochs and as many extra batches at half the size, AP 33.8 / AP_r 26.9 (supplement,
    Table 4). Demo: three to four CPU-minutes on MiniLVIS.
    """
    base = baseline(profile, seed=seed, root=root)
    run = with_extra(base, profile, "inet_lvis", Supervision.WHOLE_IMAGES, mosaics=False)
    extra = run.data.extra if profile != "paper" else replace(run.data.extra, transform=HALF_SIZE)
    # Detic's loss adds nothing to the detector: its heads are the baseline's.
    run = replace(run, data=replace(run.data, extra=extra), detector=base.detector)
    run = without_mosaics(replace(run, name="detic"))
    return rehearsed(run, profile)


def _epochs(number: int, images: int = 126_000) -> int:
    """Steps of 16 images: passes over LVIS v1 train as repeat-factor sampling shows it."""
    return number * images // 16


# The largest model: supplement, Table 1.
FOCAL_HUGE = BackboneConfig(
    name="focalnet_huge_fl4.ms_in22k",
    weights="hub",
    frozen_stride=0,
    output_norm=True,
    checkpointing=True,
)
FOCAL_HUGE_START = "data/cache/focal-huge-pretraining"  # folder of the first of the two runs


def focal_huge_pretraining(profile: Profile = "demo", *, seed: int = 0) -> RunConfig:
    """DINO on FocalNet-H, pre-trained on Objects365: the first of two runs behind Table 1.

    Paper: 12 epochs of 0.6 M images, 1.6e20 operations (4.6 days on 8 GPUs that sustain 50 TFLOP/s
    each). The sources state neither epochs nor rates nor image sizes (METHOD 8.14); these are the
    R50 run's. Demo: the pre-training of the small detector, whose result is shipped.
    """
    base = pretraining(profile, seed=seed)
    huge = profile in REAL
    return _on_focal_huge(base, "focal_huge_pretraining", FOCAL_HUGE) if huge else base


def focal_huge(profile: Profile = "demo", *, seed: int = 0, root: str = "") -> RunConfig:
    """RichSem on FocalNet-H, fine-tuned on LVIS after Objects365: the second run behind Table 1.

    Paper: LVIS v1 and INet-LVIS, 12 epochs and as many extra batches, 8.5e19 operations (2.5 days
    on the same 8 GPUs); AP 61.2 / AP_r 61.2 (supplement, Table 1). Demo: RichSem on the small
    detector, which comes from the small pre-training in the same way.
    """
    base = richsem(profile, seed=seed, root=root)
    if profile not in REAL:
        return base
    backbone = replace(FOCAL_HUGE, weights="")  # its weights come with those of the detector
    return replace(_on_focal_huge(base, "focal_huge", backbone), init=FOCAL_HUGE_START)


def _on_focal_huge(base: RunConfig, name: str, backbone: BackboneConfig) -> RunConfig:
    """The same run on the large backbone, with what makes it fit: checkpoints and half floats."""
    detector = replace(base.detector, backbone=backbone, checkpointing=True)
    return replace(base, name=name, detector=detector, train=replace(base.train, precision="bf16"))
