"""The detectors there are: which classes the two parts of a configuration stand for."""

from collections.abc import Sequence

from torch import Tensor

from richsem.config import ConfigError
from richsem.losses.centernet2_criterion import CenterNet2Criterion, CenterNet2CriterionConfig
from richsem.losses.dino_criterion import DinoCriterion, DinoCriterionConfig
from richsem.models.centernet2.centernet2 import CenterNet2, CenterNet2Config
from richsem.models.dino.dino import Dino, DinoConfig

DetectorConfig = DinoConfig | CenterNet2Config
CriterionConfig = DinoCriterionConfig | CenterNet2CriterionConfig
Detector = Dino | CenterNet2
Criterion = DinoCriterion | CenterNet2Criterion

_DETECTORS = {DinoConfig: Dino, CenterNet2Config: CenterNet2}
_CRITERIA = {DinoCriterionConfig: DinoCriterion, CenterNet2CriterionConfig: CenterNet2Criterion}
_LEARNS_FROM = {DinoConfig: DinoCriterionConfig, CenterNet2Config: CenterNet2CriterionConfig}


def make_detector(config: DetectorConfig, text: Tensor | None = None) -> Detector:
    """A detector with new weights, and text features [C, D] if they are given."""
    return _DETECTORS[type(config)](config, text)


def make_criterion(
    config: CriterionConfig, num_classes: int, image_counts: Sequence[int] | Tensor
) -> Criterion:
    """The loss for so many classes, with the number of training images of each [C]."""
    return _CRITERIA[type(config)](config, num_classes, image_counts)


def check_pair(detector: DetectorConfig, criterion: CriterionConfig) -> None:
    """Refuses a detector with the loss of another one."""
    expected = _LEARNS_FROM[type(detector)]
    if type(criterion) is not expected:
        raise ConfigError(
            f"detector is a {type(detector).__name__}, so loss must be a {expected.__name__}, "
            f"not a {type(criterion).__name__}"
        )
