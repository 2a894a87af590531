"""Parameter groups, and a learning rate that is a function of the step alone (METHOD 2.7)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from richsem.config import ConfigError

Schedule = Literal["step", "linear", "cosine", "constant"]


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with its learning rates.

    Attributes:
        lr: Learning rate.
        backbone_lr: Learning rate of the backbone's trainable parameters.
        multipliers: Pairs (beginning of parameter names, factor on the learning rate), such as
            `("classifier.", 4.0)` for layers that start from nothing; the first match counts.
        weight_decay: Of every parameter.
        clip_norm: Largest norm of all gradients together; 0 leaves them as they are.
        schedule: After the warm-up: `step` multiplies by 0.1 at `decay_start`; `linear` and
            `cosine` fall to zero from there to the last step.
        decay_start: Part of all steps after which the rate falls.
        warmup: Steps of linear rise from zero.
    """

    lr: float = 1e-4
    backbone_lr: float = 1e-5
    multipliers: tuple[tuple[str, float], ...] = ()
    weight_decay: float = 1e-4
    clip_norm: float = 0.1
    schedule: Schedule = "step"
    decay_start: float = 11 / 12
    warmup: int = 0

    def __post_init__(self) -> None:
        """Refuses values that make no schedule."""
        if not 0 <= self.decay_start <= 1:
            raise ConfigError(f"decay_start is a part of all steps, 0 to 1, got {self.decay_start}")
        if min(self.warmup, self.clip_norm, self.lr, self.backbone_lr, self.weight_decay) < 0:
            raise ConfigError(
                f"learning rates, decay, norm and warm-up must not be negative: {self}"
            )


@dataclass(frozen=True, kw_only=True)
class ValueClippedOptimConfig(OptimConfig):
    """The same with each gradient clipped by itself, as detectors of two stages are trained.

    Attributes:
        clip_value: Largest size of any entry of a gradient.
    """

    clip_norm: float = 0.0
    clip_value: float = 1.0

    def __post_init__(self) -> None:
        """Refuses values that make no schedule, and a limit that leaves nothing."""
        super().__post_init__()
        if self.clip_value <= 0:
            raise ConfigError(f"clip_value must be positive, got {self.clip_value}")


def rate_factor(config: OptimConfig, step: int, steps: int) -> float:
    """Factor on all learning rates at `step` (from 0) of `steps`."""
    if step < config.warmup:
        return (step + 1) / (config.warmup + 1)
    start = round(config.decay_start * steps)
    if step < start or config.schedule == "constant":
        return 1.0
    if config.schedule == "step":
        return 0.1
    left = (steps - step) / (steps - start)
    return left if config.schedule == "linear" else 0.5 - 0.5 * math.cos(math.pi * left)


def build_optimiser(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; `initial_lr` of a group is its rate at factor 1.

    Raises:
        ConfigError: See `parameter_groups`.
    """
    return torch.optim.AdamW(
        [
            {"params": group, "lr": lr, "initial_lr": lr}
            for lr, group in parameter_groups(model, config).items()
        ],
        weight_decay=config.weight_decay,
        fused=True,  # one kernel instead of a Python loop over hundreds of tensors
    )


def parameter_groups(model: nn.Module, config: OptimConfig) -> dict[float, list[nn.Parameter]]:
    """The trainable parameters by their learning rate at factor 1.

    Raises:
        ConfigError: Nothing is trainable, or a beginning in `multipliers` fits no parameter.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not named:
        raise ConfigError("the model has no trainable parameter")
    for beginning, _ in config.multipliers:
        if not any(name.startswith(beginning) for name in named):
            heads = sorted({name.split(".")[0] for name in named})
            raise ConfigError(
                f"multipliers: no trainable parameter begins with {beginning!r}; there are {heads}"
            )
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in named.items():
        groups.setdefault(_base_rate(name, config), []).append(parameter)
    return groups


def clip_values(parameters: Sequence[nn.Parameter], config: OptimConfig) -> None:
    """Limits each entry of the gradients by itself, if that is configured."""
    if isinstance(config, ValueClippedOptimConfig):
        nn.utils.clip_grad_value_(parameters, config.clip_value)


def set_rate(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Sets every group's learning rate to its base rate times `factor`."""
    for group in optimiser.param_groups:
        group["lr"] = group["initial_lr"] * factor


def _base_rate(name: str, config: OptimConfig) -> float:
    rate = config.backbone_lr if name.startswith("backbone.") else config.lr
    return rate * next((f for start, f in config.multipliers if name.startswith(start)), 1.0)


class Averages:
    """Exponential moving averages of a model's trainable parameters (EMA)."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Starts from the model's present values."""
        self.decay = decay
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.values = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Moves towards the parameters; the first steps count more, so that the start fades."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.values, self.parameters, 1 - decay)

    @torch.no_grad()
    def restore(self, values: Sequence[Tensor]) -> None:
        """Goes on from averages that were stored."""
        torch._foreach_copy_(self.values, list(values))

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges averages and the model's parameters."""
        present = [p.detach().clone() for p in self.parameters]
        self.copy_to_model()
        self.values = present

    @torch.no_grad()
    def copy_to_model(self) -> None:
        """Makes the averages the model's parameters."""
        torch._foreach_copy_(self.parameters, self.values)
