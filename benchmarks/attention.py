"""Deformable attention: the sparse product against the textbook's `grid_sample`.

`embedding_bag` is the sparse product with the gradient that torch brings for it, which shows what
the hand-written transpose in `sample_gathered` saves.
"""

from collections.abc import Callable
from functools import partial
from itertools import chain
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor

from benchmarks.timing import Runs, against, show
from richsem.models.deformable import Shapes, _Gathered, sample_gathered, sample_textbook

BASELINE = "textbook"


class Sizes(NamedTuple):
    """Sizes of one call."""

    batch: int  # images
    heads: int
    dim: int  # width of a head
    shapes: Shapes  # (height, width) of each level
    points: int  # per head and level
    queries: int = 0  # 0 for the encoder's, one per cell of the levels


_DEMO = ((16, 16), (8, 8), (4, 4))
_LARGE = ((100, 134), (50, 67), (25, 34), (13, 17))  # 800 x 1066 pixels at strides 8 to 64
SIZES = {
    "demo encoder": Sizes(16, 4, 24, _DEMO, points=2),
    "demo decoder": Sizes(16, 4, 24, _DEMO, points=4, queries=50),
    "800 px encoder": Sizes(1, 8, 32, _LARGE, points=4),
    "800 px decoder": Sizes(1, 8, 32, _LARGE, points=4, queries=1100),
}


def main(repeats: int = 5) -> None:
    """Prints forward, and forward with backward, at every size on each kind of device."""
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        cases = dict(chain.from_iterable(ways(*one, device).items() for one in SIZES.items()))
        title = f"deformable attention on {device}, shortest of {repeats}"
        show(title, against(BASELINE, cases, repeats, device))


def ways(name: str, sizes: Sizes, device: str = "cpu") -> dict[str, Runs]:
    """All ways at one size: forward alone, then with backward."""
    given = arguments(sizes, device)
    samplers = {BASELINE: sample_textbook, "embedding_bag": sample_with_embedding_bag}
    samplers |= {"gathered": sample_gathered} if device == "cpu" else {}

    def call(sample: Callable[..., Tensor], train: bool) -> None:
        with torch.set_grad_enabled(train):
            output = sample(given[0], sizes.shapes, *given[1:])
        if train:
            torch.autograd.grad(output.sum(), given)

    return {
        f"{name}, {what}": {way: partial(call, sample, train) for way, sample in samplers.items()}
        for train, what in ((False, "forward"), (True, "forward + backward"))
    }


def arguments(sizes: Sizes, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Values, locations and weights: points lie a few cells around their query's centre."""
    generator = torch.Generator().manual_seed(0)
    levels = [[(torch.arange(n) + 0.5) / n for n in shape] for shape in sizes.shapes]
    cells = torch.cat([torch.cartesian_prod(*level).flip(-1) for level in levels])  # (x, y)
    centres = torch.rand(sizes.queries, 2, generator=generator) if sizes.queries else cells
    spread = (sizes.batch, len(centres), sizes.heads, len(sizes.shapes), sizes.points)
    cell_sizes = 1 / torch.tensor([[w, h] for h, w in sizes.shapes])
    steps = 2 * torch.randn(*spread, 2, generator=generator) * cell_sizes[:, None]
    weights = torch.rand(spread, generator=generator)
    values = torch.randn(sizes.batch, len(cells), sizes.heads, sizes.dim, generator=generator)
    locations = centres[:, None, None, None] + steps
    return tuple(t.to(device).requires_grad_() for t in (values, locations, weights))


def sample_with_embedding_bag(*given: Any) -> Tensor:
    """`sample_gathered` with the gradients that torch brings: only its forward pass is used."""
    context = SimpleNamespace(save_for_backward=lambda *tensors: None)
    with mock.patch.object(_Gathered, "apply", partial(_Gathered.forward, context)):
        return sample_gathered(*given)
