"""Networks of any size as names and shapes, on torch's "meta" device."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_FILLING = {"normal_", "uniform_", "clamp_", "erfinv_", "mul_", "add_", "fill_", "zero_", "copy_"}


@contextmanager
def shapes_only() -> Iterator[None]:
    """Modules that are made inside have no weights, and no time is spent on filling them."""
    with torch.device("meta"), _Unfilled():
        yield


class _Unfilled(TorchFunctionMode):
    """Leaves out what fills new weights: without numbers there is nothing to fill."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _FILLING:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
