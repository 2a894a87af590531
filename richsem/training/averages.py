"""Averages of a run's weights, a remedy that others use against forgetting."""

from collections.abc import Sequence

import torch
from torch import Tensor


class WeightAverage:
    """An exponential average of parameters, of which a step keeps the part `kept`; 0 has none."""

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
