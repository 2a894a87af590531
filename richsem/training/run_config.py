"""What a training run is, as data: one frozen configuration per run."""

from dataclasses import dataclass, field

from richsem.data.drawn import MiniLvisConfig
from richsem.data.features import FeatureConfig
from richsem.data.mosaic import MosaicConfig
from richsem.data.transforms import ScaleJitterConfig, TransformConfig
from richsem.losses.dino_criterion import DinoCriterionConfig
from richsem.models.clip import RN50, ClipConfig, RegionMode
from richsem.structures import Supervision
from richsem.training.detectors import CriterionConfig, DetectorConfig
from richsem.training.loop import TrainConfig
from richsem.training.optim import OptimConfig, ValueClippedOptimConfig

RUN = "run:"  # before the name of a run that another one starts from


@dataclass(frozen=True, kw_only=True)
class ExtraConfig:
    """Images beyond the detection set.

    Attributes:
        key: The set, as the catalogue names it.
        supervision: What of its annotations is used.
        transform: Augmentation of a tile (or of a whole image).
        mosaic: Four tiles on a canvas; None for one image at a time.
        features: Cached mosaics, if the backbone is frozen; None computes them at every step.
    """

    key: str
    supervision: Supervision
    transform: TransformConfig | ScaleJitterConfig
    mosaic: MosaicConfig | None = None
    features: FeatureConfig | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingDataConfig:
    """What a detector is trained on.

    Attributes:
        benchmark: Sizes of the embedded benchmark, and which draw of its training images is learnt
            from; None where `root` holds real data.
        root: Folder of the real sets (layout: data/README.md).
        key: The detection set, as the catalogue names it.
        judge_split: Split that learning curves are measured on.
        drop: Part of its annotations that is removed (METHOD 5).
        drop_seed: Seed of what is removed.
        repeat_threshold: t of repeat-factor sampling; 0 shows every image once.
        transform: Augmentation.
        features: Cached views, if the backbone is frozen; None computes them at every step.
        extra: Images that take turns with the detection set.
        teacher: CLIP, whose text features name the classes and whose soft labels are learnt.
        teacher_mode: How the teacher reads a region.
        teacher_shuffled: Each image gets soft labels of another one's boxes, as a control.
    """

    benchmark: MiniLvisConfig | None = None
    root: str = ""
    key: str = "lvis"
    judge_split: str = "val"
    drop: float = 0.0
    drop_seed: int = 0
    repeat_threshold: float = 0.001
    transform: TransformConfig | ScaleJitterConfig = field(default_factory=TransformConfig)
    features: FeatureConfig | None = None
    extra: ExtraConfig | None = None
    teacher: ClipConfig = RN50
    teacher_mode: RegionMode = "roi"
    teacher_shuffled: bool = False


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A training run from data to weights.

    Attributes:
        name: What it is called in tables.
        data: What is learnt from.
        detector: What learns. The number of classes is that of the detection set if it is 0.
        loss: What is minimised.
        optim: How.
        train: How long, in which batches.
        init: Folder of a trained detector to start from, or `RUN` and the name of a run of the
            store; parameters that fit are taken over, except those named in `fresh`. Empty for
            none.
        fresh: Beginnings of parameter names that start anew.
    """

    name: str
    data: TrainingDataConfig
    detector: DetectorConfig
    loss: CriterionConfig = field(default_factory=DinoCriterionConfig)
    optim: OptimConfig | ValueClippedOptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig
    init: str = ""
    fresh: tuple[str, ...] = ()
