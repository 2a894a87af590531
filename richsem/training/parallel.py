"""What several processes must agree on, and the running means that they sum up together."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast, gather_object
from torch import Tensor, nn

from richsem.processes import accelerator as accelerator_in_use

Sums = dict[str, dict[str, list[float]]]  # kind of batch -> name -> [sum, count]
Value = TypeVar("Value")

PATIENCE = timedelta(minutes=10)  # that processes wait for one of them
_TOGETHER = 32  # gradients that are sent at once


class LostProcessError(ValueError):
    """Another process of the job is gone, or no longer heard."""

    code = 1  # of a command that ends so: it was not used in a wrong way


def this_process() -> PartialState:
    """This process among those that were launched with it; its device is an accelerator's if any.

    Without accelerators they talk through gloo. Accelerate itself would take each of them for the
    only one, and `torchrun` would train the same run several times over.
    """
    launched = int(os.environ.get("WORLD_SIZE", 1)) > 1
    used = accelerator_in_use()
    is_mute = used is None or used.type == "mps"  # those of a Mac cannot talk
    is_left = used is None and torch.backends.mps.is_available()
    return PartialState(cpu=(launched and is_mute) or is_left, timeout=PATIENCE)


@contextlib.contextmanager
def _heard() -> Iterator[None]:
    """Words for what goes wrong between processes; libraries name sockets."""
    try:
        yield
    except RuntimeError as error:
        minutes = PATIENCE.total_seconds() / 60
        raise LostProcessError(
            "another process of this job has ended (if it could, it said why), or was not heard "
            f"for {minutes:g} minutes; the same command goes on from the last state on disk"
        ) from error


def make_accelerator(precision: str) -> Accelerator:
    """An accelerator for this process; an earlier one may have had another precision."""
    this_process()
    AcceleratorState._reset_state()  # the process group stays
    return Accelerator(mixed_precision=precision)


@_heard()
@torch.no_grad()
def same_start(module: nn.Module) -> None:
    """Gives every process the tensors of the first one."""
    for tensor in module.state_dict().values():
        broadcast(tensor)


@_heard()
def gathered(value: Value) -> list[Value]:
    """What each process has, by the processes' order."""
    return gather_object([value])


@_heard()
def summed(values: Sequence[float], accelerator: Accelerator) -> list[float]:
    """Each value summed over the processes."""
    if accelerator.num_processes == 1:
        return [float(value) for value in values]
    together = torch.tensor(values, dtype=torch.float32, device=accelerator.device)
    return accelerator.reduce(together, "sum").tolist()


@_heard()
def average_gradients(parameters: Sequence[nn.Parameter], accelerator: Accelerator) -> None:
    """Replaces every gradient by its mean over the processes.

    A process where a parameter played no part counts as zero; where it played no part anywhere it
    keeps no gradient, as with a single process. Which parameters play a part depends on the kind of
    a batch, so the usual wrapper, which expects the same ones at each step, would not do.
    """
    if accelerator.num_processes == 1:
        return
    anywhere = summed([parameter.grad is not None for parameter in parameters], accelerator)
    active = [p for p, count in zip(parameters, anywhere, strict=True) if count]
    for at in range(0, len(active), _TOGETHER):
        bucket = active[at : at + _TOGETHER]
        parts = [p.grad if p.grad is not None else torch.zeros_like(p) for p in bucket]
        mean = accelerator.reduce(torch.cat([part.flatten() for part in parts]), "mean")
        pieces = mean.split([part.numel() for part in parts])
        for parameter, piece in zip(bucket, pieces, strict=True):
            parameter.grad = piece.view_as(parameter).clone()


class Meter:
    """Sums of named scalars by kind of batch; nothing leaves the device until somebody looks."""

    def __init__(self, sums: Sums | None = None) -> None:
        """Begins with nothing, or with what `sums` returned."""
        self._values = {kind: dict(values) for kind, values in (sums or {}).items()}

    def add(self, kind: str, values: Mapping[str, Tensor]) -> None:
        """Adds one observation of each scalar."""
        sums = self._values.setdefault(kind, {})
        for name, value in values.items():
            total, count = sums.get(name, (0.0, 0.0))
            # On an accelerator without float64 the sum of a few hundred losses bears float32.
            wide = value.detach().double() if value.device.type == "cpu" else value.detach()
            sums[name] = total + wide, count + 1

    def sums(self) -> Sums:
        """[sum, count] of each scalar by kind, as plain numbers."""
        return {
            kind: {name: [float(total), count] for name, (total, count) in values.items()}
            for kind, values in self._values.items()
        }


def joined(parts: Sequence[Sums]) -> Sums:
    """Sums and counts of several meters together."""
    together: Sums = {}
    for part in parts:
        for kind, values in part.items():
            for name, (total, count) in values.items():
                entry = together.setdefault(kind, {}).setdefault(name, [0.0, 0.0])
                entry[0] += total
                entry[1] += count
    return together


def means(parts: Sequence[Sums]) -> dict[str, dict[str, float]]:
    """Means over several meters."""
    return {
        kind: {name: total / count for name, (total, count) in values.items()}
        for kind, values in joined(parts).items()
    }
