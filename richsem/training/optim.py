"""Parameter groups, rates that are a function of the step alone (METHOD 2.7), mean weights."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import torch
from torch import Tensor, nn

from richsem.config import Amount, ConfigError, Natural, Share

Schedule = Literal["step", "linear", "cosine", "constant"]


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with its learning rates."""

    lr: Amount = 1e-4  # learning rate
    backbone_lr: Amount = 1e-5  # of the backbone's trainable parameters
    weight_decay: Amount = 1e-4  # of every parameter
    clip_norm: Amount = 0.1  # largest norm of all gradients together; 0 leaves them as they are
    # After the warm-up: `step` multiplies by 0.1 at `decay_start`; `linear` and `cosine` fall to
    # zero from there to the last step.
    schedule: Schedule = "step"
    decay_start: Share = 11 / 12  # part of all steps after which the rate falls
    warmup: Natural = 0  # steps of linear rise from zero


@dataclass(frozen=True, kw_only=True)
class ValueClippedOptimConfig(OptimConfig):
    """The same with each gradient clipped by itself, as detectors of two stages are trained."""

    clip_norm: Amount = 0.0
    # Largest size of any entry of a gradient.
    clip_value: Annotated[float, msgspec.Meta(gt=0)] = 1.0


def rate_factor(config: OptimConfig, step: int, steps: int) -> float:
    """Factor on all learning rates at `step` (from 0) of `steps`."""
    if step < config.warmup:  # never zero, so that the first step learns something
        return (step + 1) / (config.warmup + 1)
    start = round(config.decay_start * steps)
    if step < start or config.schedule == "constant":
        return 1.0
    if config.schedule == "step":
        return 0.1
    left = (steps - step) / (steps - start)
    return left if config.schedule == "linear" else 0.5 - 0.5 * math.cos(math.pi * left)


def build_optimiser(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; `initial_lr` of a group is its rate at factor 1."""
    by_rate = parameter_groups(model, config)
    groups = [{"params": group, "lr": lr, "initial_lr": lr} for lr, group in by_rate.items()]
    # One kernel instead of a Python loop over hundreds of tensors.
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True)


def parameter_groups(model: nn.Module, config: OptimConfig) -> dict[float, list[nn.Parameter]]:
    """The trainable parameters by their learning rate at factor 1."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            # A pyramid behind a plain ViT is new, as the rest of the detector is.
            pretrained = name.startswith("backbone.") and not name.startswith("backbone.pyramid.")
            rate = config.backbone_lr if pretrained else config.lr
            groups.setdefault(rate, []).append(parameter)
    if not groups:
        raise ConfigError("the model has no trainable parameter")
    return groups


def clip_values(parameters: Sequence[nn.Parameter], config: OptimConfig) -> None:
    """Limits each entry of the gradients by itself, if that is configured."""
    if isinstance(config, ValueClippedOptimConfig):
        nn.utils.clip_grad_value_(parameters, config.clip_value)


def set_rate(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Sets every group's learning rate to its base rate times `factor`."""
    for group in optimiser.param_groups:
        group["lr"] = group["initial_lr"] * factor


class WeightAverage:
    """An exponential average of parameters, of which a step keeps the part `kept`; 0 has none.

    A remedy that others use against forgetting.
    """

    def __init__(self, parameters: Sequence[Tensor], kept: float) -> None:
        self.parameters, self.kept = parameters if kept else [], kept
        self.means = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Takes a step's weights in."""
        for mean, weights in zip(self.means, self.parameters, strict=True):
            mean.lerp_(weights, 1 - self.kept)

    @torch.no_grad()
    def take(self) -> None:
        """Puts the average in the place of the weights."""
        for weights, mean in zip(self.parameters, self.means, strict=True):
            weights.copy_(mean)

    def restore(self, means: Sequence[Tensor]) -> None:
        """Goes on from the averages of a state."""
        for mean, earlier in zip(self.means, means, strict=True):
            mean.copy_(earlier)
