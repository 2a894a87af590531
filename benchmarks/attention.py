"""Deformable attention: the sparse product against the textbook's `grid_sample`.

`sample_textbook` is the baseline. `embedding_bag` is the sparse product with the gradient that
torch brings for it, which shows what the hand-written transpose in `sample_gathered` saves.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.timing import Row, against, shortest, show
from richsem.models.deformable import Shapes, _Geometry, sample_gathered, sample_textbook

BASELINE = "textbook"


@dataclass(frozen=True, kw_only=True)
class SizesConfig:
    """Sizes of one call."""

    batch: int  # images
    heads: int
    dim: int  # width of a head
    shapes: Shapes  # (height, width) of each level
    points: int  # per head and level
    queries: int = 0  # 0 for the encoder's, one per cell of the levels


_DEMO = ((16, 16), (8, 8), (4, 4))
_LARGE = ((100, 134), (50, 67), (25, 34), (13, 17))  # 800 x 1066 pixels at strides 8 to 64
_ENCODER = SizesConfig(batch=16, heads=4, dim=24, shapes=_DEMO, points=2)
_LARGE_ENCODER = SizesConfig(batch=1, heads=8, dim=32, shapes=_LARGE, points=4)
SIZES = {
    "demo encoder": _ENCODER,
    "demo decoder": replace(_ENCODER, points=4, queries=50),
    "800 px encoder": _LARGE_ENCODER,
    "800 px decoder": replace(_LARGE_ENCODER, queries=1100),
}


def main(repeats: int = 5) -> None:
    """Prints forward, and forward with backward, at every size on each kind of device."""
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        rows = [row for name in SIZES for row in measure(name, SIZES[name], repeats, device)]
        show(f"deformable attention on {device}, shortest of {repeats}", rows)


def measure(name: str, sizes: SizesConfig, repeats: int, device: str = "cpu") -> list[Row]:
    """Times of all ways at one size: forward alone, then with backward."""
    given = arguments(sizes, device)
    ways = {BASELINE: sample_textbook, "embedding_bag": sample_with_embedding_bag}
    if device == "cpu":
        ways["gathered"] = sample_gathered
    rows = []
    for train in (False, True):
        runs = {way: partial(call, function, sizes, given, train) for way, function in ways.items()}
        what = f"{name}, {'forward + backward' if train else 'forward'}"
        rows.append({"": what} | against(shortest(runs, repeats, device), BASELINE))
    return rows


def arguments(sizes: SizesConfig, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Values, locations and weights: points lie a few cells around their query's centre."""
    generator = torch.Generator().manual_seed(0)
    centres = [
        torch.cartesian_prod((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w).flip(-1)
        for h, w in sizes.shapes
    ]
    cells = torch.cat(centres)
    centres = torch.rand(sizes.queries, 2, generator=generator) if sizes.queries else cells
    spread = (sizes.batch, len(centres), sizes.heads, len(sizes.shapes), sizes.points)
    cell_sizes = 1 / torch.tensor([[w, h] for h, w in sizes.shapes])
    steps = 2 * torch.randn(*spread, 2, generator=generator) * cell_sizes[:, None]
    weights = torch.rand(spread, generator=generator)
    values = torch.randn(sizes.batch, len(cells), sizes.heads, sizes.dim, generator=generator)
    locations = centres[:, None, None, None] + steps
    return tuple(t.to(device).requires_grad_() for t in (values, locations, weights))


def call(
    function: Callable[..., Tensor],
    sizes: SizesConfig,
    given: tuple[Tensor, Tensor, Tensor],
    train: bool,
) -> None:
    """One call, with the gradients of all three inputs if it is for training."""
    values, locations, weights = given
    with torch.set_grad_enabled(train):
        output = function(values, sizes.shapes, locations, weights)
    if train:
        torch.autograd.grad(output.sum(), given)


def sample_with_embedding_bag(
    values: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor
) -> Tensor:
    """`sample_gathered` with the gradients that torch brings."""
    batch, queries, heads, levels, points = weights.shape
    geometry = _Geometry(shapes, heads, points, values)
    flat = (batch, queries, heads * levels * points)
    corner, (x, y) = geometry.cells(locations.reshape(*flat, 2))
    weights = weights.reshape(flat)
    parts = [weights * v * h for v in (1 - y, y) for h in (1 - x, x)]
    rows, table = geometry.rows(corner), geometry.table(values)
    weighted = geometry.per_head(parts)
    summed = F.embedding_bag(rows, table, per_sample_weights=weighted, mode="sum")
    return summed.view(batch, queries, -1)
