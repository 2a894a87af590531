"""The supplement's experiments as runs: each function returns one complete configuration.

Costs: a demo run takes two to four minutes on one core; each seed draws the training images of the
detection set and extra images without boxes anew (start weights stay). At the paper profile, where
a seed is the order and the initialisation alone, a run is 12 epochs of LVIS v1 on 8 GPUs (about a
day), with extra data twice that.
"""

from dataclasses import replace
from typing import Literal, get_args

from richsem.config import REAL, Profile
from richsem.models.dino.dino import DinoConfig
from richsem.recipes import dino_recipes
from richsem.recipes.centernet2_recipes import centernet2, centernet2_detic, centernet2_richsem
from richsem.recipes.dino_recipes import baseline, detic, richsem, with_extra
from richsem.structures import Supervision
from richsem.training.run_config import RunConfig
from richsem.workbook.study import of_all_seeds

Family = Literal["dino", "centernet2"]
Method = Literal["baseline", "detic", "richsem"]
ExtraKind = Literal["inet_lvis", "inet_unl", "cc_unl", "o365_box"]
Control = Literal[
    "long baseline", "linear classifier", "text classifier", "soft labels alone", "hard labels",
    "shuffled teacher", "crop teacher",
]  # fmt: skip

DETECTORS: tuple[Family, ...] = get_args(Family)
METHODS: tuple[Method, ...] = get_args(Method)
KINDS: tuple[ExtraKind, ...] = get_args(ExtraKind)
CONTROLS: tuple[Control, ...] = get_args(Control)
DROPS = (0.0, 0.3, 0.5, 0.7, 0.9)
# What a RichSem run costs in baseline runs of as many detection steps: the control of equal compute
# trains the baseline as much longer. At demo processor time, which notebook 09 measures. At paper
# estimated from counted operations (`cost.training_flops`): a mosaic of 1280 x 1280 takes
# 1.8 times those of the largest detection image, 800 x 1333, and detection images have two thirds
# of its pixels on average; the teacher comes on top. CenterNet2's RichSem has two phases there, of
# 90,000 steps each, on images and mosaics of one size; the teacher, not counted, comes on top.
EQUAL_COMPUTE: dict[Family, dict[Profile, float]] = {
    "dino": {"smoke": 1.6, "demo": 1.6, "rehearsal": 3.6, "paper": 3.6},
    "centernet2": {"smoke": 1.8, "demo": 1.4, "rehearsal": 2.0, "paper": 2.0},
}


def table4_run(
    detector: Family, method: Method, profile: Profile = "demo", *, seed: int = 0, root: str = ""
) -> RunConfig:
    """A row of supplement Table 4: the baseline, Detic's image-level loss, or RichSem.

    All three take the same detection steps; Detic and RichSem a step on INet-LVIS after each.
    CenterNet2 has a mask head; its second and third row go on from the first at paper, as
    published. There a run takes one to two days on 8 GPUs, at demo two to four CPU-minutes.
    Paper, DINO (R50, 12 epochs, box AP / AP_r): 32.2 / 24.1, 33.8 / 26.9 and 35.0 / 30.4;
    CenterNet2 (R50, 90,000 steps, mask AP / AP_r): 31.5 / 25.6, 33.2 / 29.7 and 33.5 / 31.0.
    """
    if detector == "centernet2":
        methods = {"baseline": centernet2, "detic": centernet2_detic, "richsem": centernet2_richsem}
        return methods[method](profile, seed=seed, root=root, masks=True)
    methods = {"baseline": baseline, "detic": detic, "richsem": richsem}
    return methods[method](profile, seed=seed, root=root)


def dropped(config: RunConfig, drop: float) -> RunConfig:
    """A run of supplement Figure 2: its seed removes a part of the annotations (METHOD 5).

    Paper (LVIS v1, R50, 8 GPUs, one to two days): drawn, not tabulated. Demo: two to four
    CPU-minutes.
    """
    if not drop:
        return config  # the run of Table 4
    data = replace(config.data, drop=drop, drop_seed=config.train.seed)
    return _unjudged(replace(config, data=data))


def table3_run(
    key: Literal["visual_genome", "openimages"],
    *,
    extra: bool,
    profile: Profile = "demo",
    seed: int = 0,
    root: str = "",
) -> RunConfig:
    """A row of supplement Table 3: another long-tailed set, with unlabelled images or without.

    The unlabelled images (INet-Unl) teach boxes of tiles and soft labels, no classes (METHOD 8.1).
    Sets in COCO's format state no image counts in their files: no repeat factors, no federated
    classes (METHOD 4). Paper (R50, COCO protocol; epochs are not stated, we take the steps of 24
    epochs of LVIS, two to four days on 8 GPUs), without and with: AP 7.3 and 7.8 on Visual Genome,
    38.9 and 41.0 on OpenImages. Demo: two to four CPU-minutes.
    """
    config = _unjudged(baseline(profile, seed=seed, root=root))
    data = replace(config.data, key=key, judge_split="val", repeat_threshold=0.0)
    config = replace(config, data=data, loss=replace(config.loss, federated_classes=0))
    if profile in REAL:
        train = replace(config.train, steps=2 * config.train.steps)
        config = replace(config, train=train, optim=replace(config.optim, decay_start=20 / 24))
    if not extra:
        return replace(config, name=f"{key}-baseline")
    config = with_extra(config, profile, "inet_unl", Supervision.UNLABELLED)
    return replace(config, name=f"{key}-richsem")


def extra_kind(
    kind: ExtraKind, profile: Profile = "demo", *, seed: int = 0, root: str = ""
) -> RunConfig:
    """RichSem with one kind of extra data: labelled, unlabelled, or boxes without labels.

    The detection set is LVIS; kinds are those of the catalogue (`data/README.md`). Paper: 12 epochs
    and as many extra batches on 8 GPUs, about two days; the sources give no numbers for this table.
    Demo: three to four CPU-minutes.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of extra data {kind!r}; there are {', '.join(KINDS)}")
    if kind == "inet_lvis":
        return richsem(profile, seed=seed, root=root)
    base = baseline(profile, seed=seed, root=root)
    if kind == "o365_box":
        config = with_extra(base, profile, kind, Supervision.BOXES_ONLY, mosaics=False)
        if profile not in REAL:  # whole scenes, not tiles
            extra = replace(config.data.extra, transform=dino_recipes.SCENE)
            config = replace(config, data=replace(config.data, extra=extra))
    else:
        config = with_extra(base, profile, kind, Supervision.UNLABELLED)
    return _unjudged(replace(config, name=f"richsem-{kind}"))


def control(
    name: Control, profile: Profile = "demo", *, seed: int = 0, root: str = ""
) -> RunConfig:
    """What a sceptic asks for: is it the data, the compute, the classifier, the teacher?

    The classifier that the baseline has anyway (text at demo, linear at paper) is no run of its
    own. Data and hardware are those of Table 4, whose paper has no such rows. Demo: two to four
    CPU-minutes; the crop teacher's soft labels take as long again.
    """
    base = baseline(profile, seed=seed, root=root)
    full = richsem(profile, seed=seed, root=root)
    match name:
        case "long baseline":
            return longer(base, profile)
        case "linear classifier":
            table = {"classifier": "linear", "label_embedding": "classifier"}
            fresh = (*base.fresh, "classifier.", "label_embedding.")
            config = replace(base, detector=replace(base.detector, **table), fresh=fresh)
        case "text classifier":
            config = dino_recipes.with_text(base)
        case "soft labels alone":
            return _unjudged(replace(dino_recipes.with_semantics(base), name="soft"))
        case "hard labels":  # coarse boxes with their labels, nothing from CLIP
            detector = replace(full.detector, semantic=False)
            return _unjudged(replace(full, name="hard", detector=detector))
        case "shuffled teacher" if profile in REAL:
            raise ValueError(
                "soft labels can be shuffled only where they are cached, which they are not at the "
                "paper profile: leave 'shuffled teacher' out"
            )
        case "shuffled teacher":
            config = replace(full, data=replace(full.data, teacher_shuffled=True))
        case "crop teacher":
            config = replace(full, data=replace(full.data, teacher_mode="crop"))
        case _:
            raise ValueError(f"unknown control {name!r}; there are {', '.join(CONTROLS)}")
    if (config.detector, config.data) == (base.detector, base.data):
        return base  # has this classifier anyway
    return _unjudged(replace(config, name=name.replace(" ", "-")))


def longer(base: RunConfig, profile: Profile) -> RunConfig:
    """A baseline that trains about as long as RichSem's run costs: the control of equal compute."""
    detector: Family = "dino" if isinstance(base.detector, DinoConfig) else "centernet2"
    times = {
        name: round(EQUAL_COMPUTE[detector][profile] * getattr(base.train, name))
        for name in ("steps", "judge_every")  # so that the last step is judged
    }
    return replace(base, name=f"long-{base.name}", train=replace(base.train, **times))


@of_all_seeds
def same_extra(config: RunConfig) -> RunConfig:
    """The run with the extra images of all seeds, where it has any."""
    extra = config.data.extra and replace(config.data.extra, draw=0)
    return replace(config, data=replace(config.data, extra=extra))


def _unjudged(config: RunConfig) -> RunConfig:
    """Without a learning curve, which takes a tenth of the time and which no figure shows."""
    return replace(config, train=replace(config.train, judge_every=0))
