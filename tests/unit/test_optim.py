"""Learning rates by step and by parameter."""

import pytest
import torch
from toys import ToyDetector

from richsem.config import ConfigError, from_params
from richsem.training import optim
from richsem.training.optim import OptimConfig, ValueClippedOptimConfig, build_optimiser


def factors(steps, **values):
    config = OptimConfig(**values)
    return [optim.rate_factor(config, step, steps) for step in range(steps)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, [1.0] * 11 + [0.1]),  # the paper's 12 epochs, and its 24
        ({"decay_start": 20 / 24}, [1.0] * 20 + [0.1] * 4),
        ({"schedule": "linear", "decay_start": 0.5}, [1.0] * 6 + [0.8, 0.6, 0.4, 0.2]),
        ({"schedule": "constant", "warmup": 3}, [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]),
    ],
)
def test_schedules(values, expected):
    assert factors(len(expected), **values) == pytest.approx(expected)


def test_cosine_decay_is_half_way_down_in_the_middle():
    curve = factors(100, schedule="cosine", decay_start=0.0)
    assert curve[0] == 1.0 and curve[50] == pytest.approx(0.5) and 0 < curve[-1] < 0.001
    assert curve == sorted(curve, reverse=True)


@pytest.mark.parametrize("decay_start", [0.0, 1.0])
@pytest.mark.parametrize("schedule", ["step", "linear", "cosine"])
def test_every_step_of_every_schedule_has_a_rate(schedule, decay_start):
    assert all(0 < f <= 1 for f in factors(7, schedule=schedule, decay_start=decay_start))


def rates(detector, optimiser):
    names = {id(p): name for name, p in detector.named_parameters()}
    return {names[id(p)]: group["lr"] for group in optimiser.param_groups for p in group["params"]}


def test_groups_by_name_without_frozen_parameters():
    detector = ToyDetector()
    optimiser = build_optimiser(detector, OptimConfig(lr=1.0, backbone_lr=0.1))
    found = rates(detector, optimiser)
    assert found["backbone.weight"] == 0.1
    assert found["classifier.bias"] == 1.0
    assert set(found) == {name for name, _ in detector.named_parameters()}
    assert {group["weight_decay"] for group in optimiser.param_groups} == {1e-4}
    optim.set_rate(optimiser, 0.5)
    optim.set_rate(optimiser, 0.5)  # of the base rate, not of the last one
    assert rates(detector, optimiser)["boxes.weight"] == 0.5
    detector = ToyDetector()
    detector.backbone.requires_grad_(False)
    optimiser = build_optimiser(detector, OptimConfig())
    assert not any(name.startswith("backbone") for name in rates(detector, optimiser))
    with pytest.raises(ConfigError, match="no trainable parameter"):
        build_optimiser(detector.requires_grad_(False), OptimConfig())


def test_gradients_are_clipped_one_by_one_if_asked():
    layer = torch.nn.Linear(3, 1, bias=False)
    unused = torch.nn.Parameter(torch.zeros(2))
    for config, expected in (
        (OptimConfig(), [-3.0, 0.5, 2.0]),
        (ValueClippedOptimConfig(clip_value=1.5), [-1.5, 0.5, 1.5]),
    ):
        layer.weight.grad = torch.tensor([[-3.0, 0.5, 2.0]])
        optim.clip_values([layer.weight, unused], config)
        assert layer.weight.grad[0].tolist() == expected
    with pytest.raises(ConfigError, match=r"clip_value must be float > 0\.0, got 0\.0"):
        from_params(ValueClippedOptimConfig, {"clip_value": 0.0})
