"""Multi-scale deformable attention (METHOD 2.1) without compiled extensions.

Every query looks at a few points per head and level; a point's value is bilinear and zero outside
the map. `sample_textbook` says this with `grid_sample` and runs on every device. On a CPU most of
its time goes to moving memory, so `sample_gathered` does the same as a sparse matrix product: the
four corners of all points are gathered and summed by `embedding_bag`, and the gradient of the
values, its transpose, is scattered by scipy. `benchmarks.attention` compares.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import scipy.sparse
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

Shapes = Sequence[tuple[int, int]]  # height and width of every level, finest first


def sample(values: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of the values at sampling points: [B, Q, H * D].

    Values are the tokens of all levels, row by row, finest level first [B, S, H, D]; locations are
    (x, y), of which 0..1 spans a map [B, Q, H, L, P, 2], with attention weights [B, Q, H, L, P].
    """
    # Mixed precision may round values, but never the points: 8 bits do not tell cells apart.
    values = values.to(torch.promote_types(values.dtype, locations.dtype))
    on_cpu = values.device.type == "cpu" and values.dtype in (torch.float32, torch.float64)
    on_cpu = on_cpu and not torch.onnx.is_in_onnx_export()  # which knows `grid_sample` only
    return (sample_gathered if on_cpu else sample_textbook)(values, shapes, locations, weights)


def sample_textbook(values: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """`sample` as the definition reads: one `grid_sample` per level."""
    batch, _, heads, dim = values.shape
    queries, levels, points = locations.shape[1], locations.shape[3], locations.shape[4]
    grids = 2 * locations - 1
    sampled = []
    sizes = [height * width for height, width in shapes]
    for level, (tokens, shape) in enumerate(zip(values.split(sizes, 1), shapes, strict=True)):
        maps = tokens.permute(0, 2, 3, 1).reshape(batch * heads, dim, *shape)
        grid = grids[:, :, :, level].transpose(1, 2).flatten(0, 1)  # [B * H, Q, P, 2]
        sampled.append(F.grid_sample(maps, grid, align_corners=False))
    weights = weights.transpose(1, 2).reshape(batch * heads, 1, queries, levels * points)
    summed = (torch.cat(sampled, -1) * weights).sum(-1)  # [B * H, D, Q]
    return summed.view(batch, heads * dim, queries).transpose(1, 2)


def sample_gathered(values: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """`sample` as one sparse matrix product, for the CPU."""
    batch, queries, heads, levels, points = weights.shape
    geometry = _Geometry(shapes, heads, points, values)
    flat = (batch, queries, heads * levels * points)
    summed = _Gathered.apply(
        geometry.table(values), locations.reshape(*flat, 2), weights.reshape(flat), geometry
    )
    return summed.view(batch, queries, heads * values.shape[-1])


class DeformableAttention(nn.Module):
    """Attention to `points` learnt points per head and level around a reference."""

    def __init__(self, dim: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim {dim} is not a multiple of heads {heads}")
        self.heads, self.levels, self.points = heads, levels, points
        self.offsets = nn.Linear(dim, heads * levels * points * 2)
        self.weights = nn.Linear(dim, heads * levels * points)  # soft-maxed over levels and points
        self.values = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """METHOD 2.6: points start on rays, one direction per head, at distances 1..P cells."""
        angles = torch.arange(self.heads) * (2 * torch.pi / self.heads)
        rays = torch.stack([angles.cos(), angles.sin()], -1)
        rays = rays / rays.abs().max(-1, keepdim=True).values
        steps = torch.arange(1, self.points + 1).view(-1, 1)
        bias = (rays[:, None, None] * steps).expand(-1, self.levels, -1, -1)
        with torch.no_grad():
            self.offsets.bias.copy_(bias.reshape(-1))
        for parameter in (self.offsets.weight, self.weights.weight, self.weights.bias):
            nn.init.zeros_(parameter)
        for layer in (self.values, self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        queries: Tensor,
        references: Tensor,
        tokens: Tensor,
        shapes: Shapes,
        padding: Tensor | None = None,
    ) -> Tensor:
        """Queries [B, Q, dim] look at tokens [B, S, dim] around their references: [B, Q, dim].

        References are (x, y) or (cx, cy, w, h) per level in 0..1 of the padded map
        [B, Q, L or 1, 2 or 4]; where `padding` [B, S] is True, values are zero.
        """
        values = self.values(tokens)
        if padding is not None:
            values = values.masked_fill(padding[..., None], 0.0)
        locations, weights = self.points_of(queries, references, shapes)
        values = values.view(*values.shape[:2], self.heads, -1)
        return self.output(sample(values, shapes, locations, weights))

    def points_of(
        self, queries: Tensor, references: Tensor, shapes: Shapes
    ) -> tuple[Tensor, Tensor]:
        """Where each query looks and how much it weighs that: the arguments of `sample`."""
        batch, num_queries, _ = queries.shape
        spread = (batch, num_queries, self.heads, self.levels, self.points)
        weights = self.weights(queries).view(batch, num_queries, self.heads, -1).softmax(-1)
        # Levels and points stay flat here: broadcasting over tiny inner dimensions is slow.
        offsets = self.offsets(queries).view(batch, num_queries, self.heads, -1)
        references = references.expand(-1, -1, self.levels, -1)
        centres = references[..., :2].repeat_interleave(self.points, 2).flatten(2)
        if references.shape[-1] == 2:
            sizes = offsets.new_tensor([[width, height] for height, width in shapes])
            scale = (1 / sizes).repeat_interleave(self.points, 0).flatten()
        else:
            scale = references[..., 2:].repeat_interleave(self.points, 2).flatten(2)[:, :, None]
            scale = scale * (0.5 / self.points)
        locations = centres[:, :, None] + offsets * scale
        return locations.view(*spread, 2), weights.view(spread)


class _Geometry:
    """Levels laid out as one table of rows, each level within a border of zero cells.

    A point outside a map is moved onto the border, so no corner needs a range check. Vectors have
    an entry per head, level and point [H * L * P]: broadcasting over tiny dimensions is slow.
    """

    def __init__(self, shapes: Shapes, heads: int, points: int, like: Tensor) -> None:
        def spread(numbers: Sequence[int], dtype: torch.dtype = torch.int32) -> Tensor:
            vector = torch.tensor(numbers, dtype=dtype, device=like.device)
            return vector.repeat_interleave(points).repeat(heads)

        heights, widths = zip(*shapes, strict=True)
        starts = [0]
        for height, width in shapes:
            starts.append(starts[-1] + (height + 2) * (width + 2))
        # The last cell's far neighbours lie one row further; they are only met with weight zero.
        self.num_rows = starts[-1] + widths[-1] + 3
        self.shapes, self.heads = shapes, heads
        self.sizes = [spread(widths, like.dtype), spread(heights, like.dtype)]
        self.below = spread([(width + 2) * heads for width in widths])
        head = torch.arange(heads, dtype=torch.int32, device=like.device)
        head = head.repeat_interleave(len(shapes) * points)
        self.start = spread([start * heads for start in starts[:-1]]) + head

    def table(self, values: Tensor) -> Tensor:
        """Values [B, S, H, D] with their borders: [B * num_rows * H, D]."""
        batch, _, heads, dim = values.shape
        sizes = [height * width for height, width in self.shapes]
        maps = []
        for tokens, shape in zip(values.split(sizes, 1), self.shapes, strict=True):
            flat = tokens.reshape(batch, *shape, heads * dim)
            maps.append(F.pad(flat, (0, 0, 1, 1, 1, 1)).flatten(1, 2))
        maps.append(values.new_zeros(batch, self.shapes[-1][1] + 3, heads * dim))
        return torch.cat(maps, 1).view(-1, dim)

    def cells(self, locations: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The four cells of the bordered map around each point [B, Q, H * L * P, 2].

        Returns their table rows [B * Q * H, 4 * L * P], and how far in x and y the point lies from
        the centre of the upper left one (0..1), each [B, Q, H * L * P].
        """
        corner, within = [], []
        for place, size in zip(locations.unbind(-1), self.sizes, strict=True):
            cell = torch.addcmul(place.new_tensor(0.5), place, size)
            cell = torch.minimum(cell.clamp_(min=0), size + 1)
            corner.append(cell.floor())
            within.append(cell.sub_(corner[-1]))
        # A point that is not a number has no cell; its weights say so, its row must exist.
        left, top = (one.int().clamp_(min=0) for one in corner)
        batch = torch.arange(len(left), dtype=torch.int32, device=left.device)
        start = self.start + (batch * (self.num_rows * self.heads)).view(-1, 1, 1)
        first = torch.addcmul(start, top, self.below).add_(left, alpha=self.heads)
        below = first + self.below
        return self.per_head([first, first + self.heads, below, below + self.heads]), *within

    def per_head(self, corners: Sequence[Tensor]) -> Tensor:
        """Four tensors [B, Q, H * L * P] as one [B * Q * H, 4 * L * P]."""
        per_bag = corners[0].shape[-1] // self.heads
        return torch.stack([c.reshape(-1, per_bag) for c in corners], 1).flatten(1)


class _Gathered(torch.autograd.Function):
    """out[n] = sum of the four rows around each point: a sparse matrix times a dense one.

    The derivative is written out: autograd's own, of a dozen small products per point, took a
    third of the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any, table: Tensor, locations: Tensor, weights: Tensor, geometry: _Geometry
    ) -> Tensor:
        """Table [R, D], locations [B, Q, H * L * P, 2], weights alike; returns [B * Q * H, D]."""
        rows, x, y = geometry.cells(locations)
        lower = weights * y
        upper = weights - lower
        upper_right, lower_right = upper * x, lower * x
        parts = geometry.per_head(
            [upper - upper_right, upper_right, lower - lower_right, lower_right]
        )
        ctx.save_for_backward(table, rows, parts, locations, weights, x, y)
        ctx.geometry = geometry
        return F.embedding_bag(rows, table, per_sample_weights=parts, mode="sum")

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """The product's gradients; then the chain rule from the four cells to point and weight.

        `embedding_bag` has the first, too, but sorts all rows for those of the table and calls BLAS
        for every single dot product of a row met and its gradient: several times as long.
        """
        table, rows, parts, locations, weights, x, y = ctx.saved_tensors
        gradient = gradient.contiguous()
        for_table = transposed_product(rows, parts, gradient, len(table))
        ends = torch.arange(0, rows.numel() + 1, rows.shape[1], dtype=torch.int32)
        zeros, shape = torch.zeros_like(parts).flatten(), (len(rows), len(table))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
            met = torch.sparse_csr_tensor(
                ends, rows.flatten(), zeros, shape, check_invariants=False
            )
        for_parts = torch.sparse.sampled_addmm(met, gradient, table.T, beta=0.0).values()
        # What the four cells (upper left, upper right, lower left, lower right) contribute.
        corners = for_parts.view(-1, 4, rows.shape[1] // 4).unbind(1)
        upper, upper_right, lower, lower_right = (c.reshape(x.shape) for c in corners)
        upper_step, lower_step = upper_right - upper, lower_right - lower
        upper = torch.addcmul(upper, upper_step, x)
        lower = torch.addcmul(lower, lower_step, x)
        down = lower.sub_(upper)
        for_weights = upper.addcmul_(down, y)
        right = upper_step.lerp_(lower_step, y)
        for_locations = torch.empty_like(locations)
        moves = zip((right, down), locations.unbind(-1), ctx.geometry.sizes, strict=True)
        for axis, (move, place, size) in enumerate(moves):
            scaled = move.mul_(weights).mul_(size)
            inside = (place > -0.5 / size) & (place < 1 + 0.5 / size)  # on the border nothing moves
            torch.mul(scaled, inside, out=for_locations[..., axis])
        return for_table, for_locations, for_weights, None


def transposed_product(rows: Tensor, weights: Tensor, gradient: Tensor, number: int) -> Tensor:
    """Gradient [number, D] of a table whose rows [N, K] were summed with weights, on the CPU."""
    ends = torch.arange(0, rows.numel() + 1, rows.shape[1], dtype=torch.int32)
    entries = (weights.flatten().numpy(), rows.flatten().numpy(), ends.numpy())
    matrix = scipy.sparse.csr_array(entries, shape=(len(rows), number))
    return torch.from_numpy(matrix.T @ gradient.numpy())
