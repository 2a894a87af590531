"""Two detectors behind one configuration and one criterion call."""

import pytest
from tiny_centernet2 import SIZES
from tiny_dino import SIZES as DINO_SIZES

from richsem.config import ConfigError, convert, from_params, to_dict, with_settings
from richsem.losses.centernet2_criterion import CenterNet2Criterion, CenterNet2CriterionConfig
from richsem.losses.dino_criterion import DinoCriterion, DinoCriterionConfig
from richsem.models.centernet2.centernet2 import CenterNet2, CenterNet2Config
from richsem.models.dino.dino import Dino, DinoConfig
from richsem.training import run_config
from richsem.training.loop import TrainConfig
from richsem.training.run_config import DetectorConfig, RunConfig, TrainingDataConfig

PAIRS = [
    (DinoConfig(**DINO_SIZES), Dino, DinoCriterionConfig(), DinoCriterion),
    (CenterNet2Config(**SIZES), CenterNet2, CenterNet2CriterionConfig(), CenterNet2Criterion),
]


@pytest.mark.parametrize(("config", "detector", "loss", "criterion"), PAIRS)
def test_a_configuration_says_what_is_built(config, detector, loss, criterion):
    assert type(run_config.make_detector(config)) is detector
    assert type(run_config.make_criterion(loss, 2, [1, 1])) is criterion
    run_config.check_pair(config, loss)
    assert convert(to_dict(config), DetectorConfig, "detector") == config


@pytest.mark.parametrize(("config", "detector", "loss", "criterion"), PAIRS)
def test_runs_survive_json_and_settings(config, detector, loss, criterion):
    train, data = TrainConfig(steps=1), TrainingDataConfig()
    run = RunConfig(name="run", data=data, detector=config, loss=loss, train=train)
    assert from_params(RunConfig, to_dict(run)) == run
    changed = with_settings(run, ["detector.dim=24", "loss.soft_weight=2.0"])
    assert type(changed.detector) is type(config)
    assert (changed.detector.dim, changed.loss.soft_weight) == (24, 2.0)
    with pytest.raises(ConfigError, match="sets nothing"):
        with_settings(run, ["detector.depth=3"])


def test_a_wrong_field_and_the_loss_of_the_other_detector_are_refused():
    values = to_dict(PAIRS[1][0]) | {"towers": 3}
    with pytest.raises(ConfigError, match="CenterNet2Config has no field 'towers'"):
        convert(values, DetectorConfig, "detector")
    with pytest.raises(ConfigError, match="must be a CenterNet2CriterionConfig"):
        run_config.check_pair(PAIRS[1][0], PAIRS[0][2])
