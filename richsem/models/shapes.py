"""Networks of any size as names and shapes, on torch's "meta" device."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

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


class QuickSampling(TorchDispatchMode):
    """Samples a "meta" map by saying the result's shape.

    torch derives it from the definition, corner by corner, in most of the time of a forward pass
    with deformable attention.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten.grid_sampler_2d.default and args[0].is_meta:
            values, grid = args[:2]  # [B, C, H, W] and [B, h, w, 2]
            return values.new_empty(*values.shape[:2], *grid.shape[1:3])
        return func(*args, **(kwargs or {}))
