"""What several processes must agree on; with one process everything here does nothing."""

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast, gather_object
from torch import Tensor, nn

_BUCKET = 2**24  # elements sent together


def make_accelerator(precision: str) -> Accelerator:
    """An accelerator for this process; an earlier one may have had another precision."""
    AcceleratorState._reset_state()  # the process group stays
    return Accelerator(mixed_precision=precision)


@torch.no_grad()
def same_start(module: nn.Module, accelerator: Accelerator) -> None:
    """Gives every process the tensors of the first one."""
    if accelerator.num_processes > 1:
        for tensor in module.state_dict().values():
            broadcast(tensor)


def summed(values: Sequence[float], accelerator: Accelerator) -> list[float]:
    """Each value summed over the processes."""
    if accelerator.num_processes == 1:
        return [float(value) for value in values]
    together = torch.tensor(values, dtype=torch.float32, device=accelerator.device)
    return accelerator.reduce(together, "sum").tolist()


def gathered(value: object, accelerator: Accelerator) -> list:
    """The values of all processes, by rank."""
    return gather_object([value]) if accelerator.num_processes > 1 else [value]


def average_gradients(parameters: Sequence[nn.Parameter], accelerator: Accelerator) -> None:
    """Replaces every gradient by its mean over the processes.

    A process where a parameter played no part counts as zero; where it played no part anywhere it
    keeps no gradient, as with a single process. Which parameters play a part depends on the kind of
    a batch, so the usual wrapper, which expects the same ones at each step, would not do.
    """
    if accelerator.num_processes == 1:
        return
    used = [float(parameter.grad is not None) for parameter in parameters]
    anywhere = summed(used, accelerator)
    active = [p for p, count in zip(parameters, anywhere, strict=True) if count]
    for bucket in _buckets(active):
        parts = [p.grad if p.grad is not None else torch.zeros_like(p) for p in bucket]
        mean = accelerator.reduce(torch.cat([part.flatten() for part in parts]), "mean")
        pieces = mean.split([part.numel() for part in parts])
        for parameter, piece in zip(bucket, pieces, strict=True):
            parameter.grad = piece.view_as(parameter).clone()


def _buckets(parameters: Sequence[Tensor]) -> list[list[Tensor]]:
    buckets: list[list[Tensor]] = []
    size = _BUCKET
    for parameter in parameters:
        if size + parameter.numel() > _BUCKET or parameter.dtype != buckets[-1][0].dtype:
            buckets.append([])
            size = 0
        buckets[-1].append(parameter)
        size += parameter.numel()
    return buckets
