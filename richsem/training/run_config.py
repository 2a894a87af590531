"""What a training run is, as data, and the detectors there are."""

from dataclasses import dataclass, field, replace

from richsem.config import Amount, ConfigError, Natural, Share, differences
from richsem.data.altered import Rest
from richsem.data.drawn import MiniLvisConfig, PretrainConfig, StagedConfig
from richsem.data.features import FeatureConfig
from richsem.data.own import OwnConfig
from richsem.data.transforms import MosaicConfig, ScaleJitterConfig, TransformConfig
from richsem.losses.centernet2_criterion import CenterNet2Criterion, CenterNet2CriterionConfig
from richsem.losses.classification import Counts
from richsem.losses.dino_criterion import DinoCriterion, DinoCriterionConfig
from richsem.models.centernet2.centernet2 import CenterNet2, CenterNet2Config
from richsem.models.clip import RN50, ClipConfig, RegionMode
from richsem.models.dino.dino import Dino, DinoConfig
from richsem.models.networks import shapes_only
from richsem.structures import Supervision
from richsem.training.loop import BOOKKEEPING, TrainConfig
from richsem.training.optim import OptimConfig, ValueClippedOptimConfig

DetectorConfig = DinoConfig | CenterNet2Config
CriterionConfig = DinoCriterionConfig | CenterNet2CriterionConfig
Detector = Dino | CenterNet2
Criterion = DinoCriterion | CenterNet2Criterion

RUN = "run:"  # before the name of a run that another one starts from


@dataclass(frozen=True, kw_only=True)
class ExtraConfig:
    """Images beyond the detection set."""

    key: str  # the set, as the catalogue names it; without effect if there is a `folder`
    supervision: Supervision  # what of its annotations is used
    transform: TransformConfig | ScaleJitterConfig  # augmentation of a tile (or of a whole image)
    mosaic: MosaicConfig | None = None  # four tiles on a canvas; None for one image at a time
    # Cached mosaics, if the backbone is frozen; None computes them at every step.
    features: FeatureConfig | None = None
    as_frequent: bool = False  # shown so that classes are as frequent as in the detection set
    own_counts: bool = False  # federated classes are drawn by the counts of its own labels
    wrong_labels: Share = 0.0  # share of its labels that are replaced by others, as a control
    pseudo_boxes: bool = False  # boxes that the detector finds before the run, not whole tiles
    pseudo_score: Share = 0.0  # what is found in unlabelled images above it is learnt; 0 for none
    folder: str = ""  # pictures of one's own instead of a set of the catalogue
    labels: str = ""  # csv file of `file,label[;label]`; empty to take sub-folders as labels
    draw: int = 0  # of an embedded set of images without boxes, see `drawn.extra_images`
    staged: StagedConfig | None = None  # drawn images instead of all of these, as an experiment


@dataclass(frozen=True, kw_only=True)
class TrainingDataConfig:
    """What a detector is trained on."""

    # Sizes of the embedded benchmark, and which draw of its training images is learnt from; without
    # effect where `root` holds real data.
    benchmark: MiniLvisConfig | None = None
    root: str = ""  # folder of the real sets (layout: data/README.md)
    key: str = "lvis"  # the detection set, as the catalogue names it; without effect beside `own`
    own: OwnConfig | None = None  # files of one's own instead of a set of the catalogue
    judge_split: str = "val"  # learning curves are measured on it
    # Images of a split of the catalogue that a run is judged by, with most classes; 0 for all.
    judged: Natural = 0
    drop: Share = 0.0  # part of its annotations that is removed (METHOD 5)
    drop_seed: Natural = 0  # of what is removed, and of how boxes are shifted
    box_noise: Amount = 0.0  # by how much its boxes are shifted, see `corrupt.jitter_boxes`
    repeat_threshold: Amount = 0.001  # t of repeat-factor sampling; 0 shows every image once
    transform: TransformConfig | ScaleJitterConfig = field(default_factory=TransformConfig)
    # Cached views, if the backbone is frozen; None computes them at every step.
    features: FeatureConfig | None = None
    extra: ExtraConfig | None = None  # images that take turns with the detection set
    teacher: ClipConfig = RN50  # its text features name the classes, its soft labels are learnt
    teacher_mode: RegionMode = "roi"  # how the teacher reads a region
    teacher_shuffled: bool = False  # soft labels of another image's boxes, as a control
    teacher_rest: Rest = "seen"  # how a soft label divides what its own class does not get
    teacher_sharpness: Amount = 1.0  # exponent on soft labels
    teacher_corrected: Share = 0.0  # how far soft labels are moved to the annotated class
    teacher_unseen: Share = 0.0  # share of the rare classes that soft labels never name
    # The embedded teacher of another recipe, which the cache keeps; None for the shipped one.
    teacher_training: PretrainConfig | None = None


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A training run from data to weights."""

    name: str  # what it is called in tables
    data: TrainingDataConfig
    detector: DetectorConfig  # 0 classes stand for all of the detection set
    loss: CriterionConfig = field(default_factory=DinoCriterionConfig)
    optim: OptimConfig | ValueClippedOptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig  # how long, in which batches
    # Folder of a trained detector to start from, or `RUN` and the name of a run of the store;
    # parameters that fit are taken over, except those named in `fresh`. Empty for none.
    init: str = ""
    fresh: tuple[str, ...] = ()  # beginnings of parameter names that start anew


def other_run(first: RunConfig, second: RunConfig) -> list[str]:
    """Fields that make two configurations different runs; none if it is one run.

    Its name, places of files and how often something is written down do not count.
    """
    data = ("own", "root", "teacher", "extra.folder", "extra.labels")
    train = (f"train.{name}" for name in BOOKKEEPING)
    free = ("name", *(f"data.{name}" for name in data), *train)
    names = [*differences({0: first, 1: second})]
    if (first.data.extra is None) != (second.data.extra is None):  # as one field, not as twenty
        names = [*(name for name in names if not name.startswith("data.extra.")), "data.extra"]
    # With dots: `data.teacher.weights` is a place, `data.teacher_mode` is not.
    return [name for name in names if not f"{name}.".startswith(tuple(f"{f}." for f in free))]


def make_detector(config: DetectorConfig) -> Detector:
    """A detector with new weights and, where it compares with text, no vocabulary yet."""
    return Dino(config) if isinstance(config, DinoConfig) else CenterNet2(config)


def on_meta(config: DetectorConfig) -> Detector:
    """A detector that has names and shapes but no weights."""
    backbone = replace(config.backbone, weights="")
    with shapes_only():
        return make_detector(replace(config, backbone=backbone))


def make_criterion(
    config: CriterionConfig,
    num_classes: int,
    image_counts: Counts,
    extra_counts: Counts | None = None,
) -> Criterion:
    """The loss for so many classes, with the number of training images of each [C].

    `extra_counts` [C] are by which federated classes are drawn for extra images, if not by these.
    """
    is_dino = isinstance(config, DinoCriterionConfig)
    kind = DinoCriterion if is_dino else CenterNet2Criterion
    return kind(config, num_classes, image_counts, extra_counts)


def check_pair(detector: DetectorConfig, criterion: CriterionConfig) -> None:
    """Refuses a detector with the loss of another one."""
    is_dino = isinstance(detector, DinoConfig)
    expected = DinoCriterionConfig if is_dino else CenterNet2CriterionConfig
    if not isinstance(criterion, expected):
        raise ConfigError(
            f"detector is a {type(detector).__name__}, so loss must be a {expected.__name__}, "
            f"not a {type(criterion).__name__}"
        )
