"""A detector taken apart: what each of its parts made of one batch, and where it looked.

Everything is recorded by hooks while the detector runs as it always does, so what a picture shows
is what the prediction was made from.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from richsem.boxes import in_parts, in_pixels
from richsem.losses.matching import match, matching_cost
from richsem.models.deformable import DeformableAttention, Shapes
from richsem.models.dino.dino import Dino
from richsem.models.dino.layers import Pyramid
from richsem.models.dino.query_selection import Selected, anchor_logits
from richsem.structures import Batch, DetectorOutput, Target


@dataclass(frozen=True, kw_only=True)
class Look:
    """Where the queries of one deformable attention look.

    Attributes:
        references: (x, y) or (cx, cy, w, h) they look around, 0..1 of the padded map
            [B, Q, L, 2 or 4].
        locations: The points (x, y) they look at, 0..1 of the padded map [B, Q, H, L, P, 2].
        weights: What each point counts, sum 1 over levels and points [B, Q, H, L, P].
    """

    references: Tensor
    locations: Tensor
    weights: Tensor

    def level_shares(self) -> Tensor:
        """The share of the attention that goes to each level, mean over all queries [L]."""
        return self.weights.sum(-1).mean((0, 1, 2))

    def reach(self, size: tuple[int, int]) -> float:
        """Mean distance of the points from the reference in pixels of a (height, width)."""
        sides = self.locations.new_tensor([size[1], size[0]])
        away = self.locations - self.references[:, :, None, :, None, :2]
        return float((self.weights * (away * sides).norm(dim=-1)).sum((-1, -2)).mean())

    def inside(self) -> float:
        """The share of the attention within the references, which must be boxes."""
        centre, side = self.references[:, :, None, :, None].split(2, -1)
        within = ((self.locations - centre).abs() <= side / 2).all(-1)
        return float((self.weights * within).sum((-1, -2)).mean())


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """What the parts of a detector made of a batch.

    Attributes:
        features: Backbone maps [B, C_l, h, w], finest first.
        pyramid: Tokens of all levels with their geometry, before the encoder.
        memory: The same tokens after it [B, S, dim].
        token_scores: Each token's best class probability [B, S]; NaN where no anchor is usable.
        selected: The tokens that became queries.
        encoder: Where the tokens look, by layer.
        decoder: Where the queries look, by layer.
        boxes: cxcywh in 0..1 of the proposals and then of every decoder layer [1 + L, B, Q, 4].
        output: The detector's output.
    """

    features: tuple[Tensor, ...]
    pyramid: Pyramid
    memory: Tensor
    token_scores: Tensor
    selected: Selected
    encoder: tuple[Look, ...]
    decoder: tuple[Look, ...]
    boxes: Tensor
    output: DetectorOutput


def dissect(detector: Dino, batch: Batch) -> Anatomy:
    """Runs a detector on a batch, as at inference, and keeps what its parts compute."""
    encoder = [layer.attention for layer in detector.encoder.layers]
    decoder = [layer.cross_attention for layer in detector.decoder.layers]
    parts = [detector.neck, detector.encoder, detector.proposals, detector.proposals.classifier]
    with _recording([*parts, *encoder, *decoder]) as calls, _inference(detector):
        output = detector(batch)
        looks = [_look(attention, *calls[attention][0]) for attention in (*encoder, *decoder)]
    (features,), _ = calls[detector.neck]
    (pyramid,), memory = calls[detector.encoder]
    scores = calls[detector.proposals.classifier][1].sigmoid().amax(-1)
    return Anatomy(
        features=tuple(features),
        pyramid=pyramid,
        memory=memory,
        token_scores=scores.masked_fill(anchor_logits(pyramid)[1], torch.nan),
        selected=calls[detector.proposals][1],
        encoder=tuple(looks[: len(encoder)]),
        decoder=tuple(looks[len(encoder) :]),
        boxes=torch.cat([output.proposal_boxes[None], output.boxes]),
        output=output,
    )


@torch.no_grad()
def first_look(attention: DeformableAttention, look: Look, shapes: Shapes) -> Look:
    """Where an attention looked before its training, around the same references (METHOD 2.6)."""
    untrained = deepcopy(attention)
    untrained.reset_parameters()
    dim = untrained.offsets.in_features
    queries = look.references.new_zeros(*look.references.shape[:2], dim)
    return _look(untrained, queries, look.references, None, shapes)


def pixel_boxes(boxes: Tensor, target: Target) -> Tensor:
    """cxcywh in 0..1 of the un-padded image -> xyxy in its pixels [..., 4]."""
    return in_pixels(boxes, target.size)


def beside_part(batch: Batch, part: float) -> Batch:
    """The first image of a batch and, padded to its size, the left part of it."""
    image, target = batch.images[0], batch.targets[0]
    height, width = target.size
    narrow = max(1, round(part * width))
    mask = torch.zeros(2, *image.shape[1:], dtype=torch.bool, device=image.device)
    mask[:, height:], mask[0, :, width:], mask[1, :, narrow:] = True, True, True
    boxes = pixel_boxes(target.boxes, target)
    boxes[:, ::2] = boxes[:, ::2].clamp(max=narrow)
    kept = boxes[:, 2] > boxes[:, 0]
    clipped = replace(
        target,
        boxes=in_parts(boxes[kept], (height, narrow)),
        labels=target.labels[kept],
        size=(height, narrow),
    )
    images = torch.stack([image, image]).masked_fill(mask[:, None], 0.0)
    return replace(batch, images=images, padding=mask, targets=(target, clipped))


def cell_places(pyramid: Pyramid, targets: Sequence[Target]) -> list[list[np.ndarray]]:
    """Centres (x, y) in pixels of the cells that are image, per image and level [n, 2]."""
    places = []
    for row, target in enumerate(targets):
        height, width = target.size
        centres = pyramid.centres[row % len(pyramid.centres)]
        centres = centres * centres.new_tensor([width, height])
        used = torch.ones(len(centres), dtype=torch.bool, device=centres.device)
        if pyramid.padding is not None:
            used = ~pyramid.padding[row]
        levels = zip(centres.split(pyramid.sizes), used.split(pyramid.sizes), strict=True)
        places.append([own[mask].cpu().numpy() for own, mask in levels])
    return places


def cell_at(pyramid: Pyramid, point: Tensor, level: int, row: int = 0) -> int:
    """The token of a level whose centre is nearest to a point (x, y) in 0..1 of the image."""
    first = sum(pyramid.sizes[:level])
    centres = pyramid.centres[row % len(pyramid.centres)].split(pyramid.sizes)[level]
    return first + int((centres - point).norm(dim=-1).argmin())


def per_level(values: Tensor, shapes: Shapes) -> list[Tensor]:
    """Tokens [S, ...] of an image as maps [h, w, ...], finest level first."""
    sizes = [height * width for height, width in shapes]
    parts = values.split(sizes)
    return [
        part.reshape(*shape, *part.shape[1:]) for part, shape in zip(parts, shapes, strict=True)
    ]


def principal_colours(features: Tensor) -> np.ndarray:
    """A map [C, h, w] as a picture [h, w, 3]: its three main directions as red, green and blue.

    Cells with similar features get similar colours; the colours themselves mean nothing.
    """
    cells = features.detach().float().flatten(1).T.cpu()
    cells = cells - cells.mean(0)
    _, _, directions = torch.linalg.svd(cells, full_matrices=False)
    directions = directions[:3]
    # The sign of a direction is arbitrary; this one makes pictures repeatable.
    strongest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    values = (cells @ (directions * strongest.sign()).T).numpy()
    low, high = np.quantile(values, (0.02, 0.98), axis=0)
    values = np.clip((values - low) / np.maximum(high - low, 1e-9), 0, 1)
    missing = 3 - values.shape[1]  # of a map with fewer cells or channels than colours
    return np.pad(values, ((0, 0), (0, missing))).reshape(*features.shape[1:], 3)


def cosine_to(codes: Tensor, cell: int) -> Tensor:
    """Cosine of one code with all of them: [S, dim] -> [S]."""
    return nn.functional.cosine_similarity(codes[cell], codes, dim=-1)


def answers(boxes: Tensor, targets: Sequence[Target]) -> list[Tensor]:
    """The query that answers for each object, matched one to one by the boxes alone.

    Args:
        boxes: Predictions of one layer, cxcywh [B, Q, 4].
        targets: One per image.

    Returns:
        Per image a query for each target [N]; -1 if there are more targets than queries.
    """
    logits = boxes.new_full((1, *boxes.shape[:2], max(len(t.labels) for t in targets)), torch.nan)
    counts = [len(target.labels) for target in targets]
    pairs = match(matching_cost(logits, boxes[None], targets), counts)
    found = torch.full((sum(counts),), -1, device=boxes.device)
    found[pairs.targets[0]] = pairs.queries[0]
    return list(found.split(counts))


def box_paths(anatomy: Anatomy, targets: Sequence[Target]) -> pd.DataFrame:
    """How well the box of each object fits it, from the proposal to the last layer.

    The query is the one whose last box answers for the object.

    Returns:
        Columns image, object, query, stage ("proposal", "layer 1", ...), iou.
    """
    rows = []
    stages = ["proposal", *(f"layer {k}" for k in range(1, len(anatomy.boxes)))]
    queries = answers(anatomy.boxes[-1], targets)
    for image, (target, own) in enumerate(zip(targets, queries, strict=True)):
        true = pixel_boxes(target.boxes, target)
        for number, query in enumerate(own.tolist()):
            if query < 0:
                continue
            path = pixel_boxes(anatomy.boxes[:, image, query], target)
            ious = box_iou(path, true[number : number + 1])[:, 0].tolist()
            record = {"image": image, "object": number, "query": query}
            rows += [record | {"stage": s, "iou": i} for s, i in zip(stages, ious, strict=True)]
    return pd.DataFrame(rows, columns=["image", "object", "query", "stage", "iou"])


def best_ious(boxes: Tensor, targets: Sequence[Target]) -> Tensor:
    """IoU of every object with the best of its image's boxes [B, Q, 4]: [number of objects]."""
    found = [
        box_iou(pixel_boxes(target.boxes, target), pixel_boxes(own, target)).amax(1)
        for own, target in zip(boxes, targets, strict=True)
        if len(target.labels)
    ]
    return torch.cat(found) if found else boxes.new_zeros(0)


def count_parameters(model: nn.Module) -> pd.DataFrame:
    """Numbers of a model's part (index): columns parameters and trained."""
    rows: dict[str, list[int]] = {}
    for name, parameter in model.named_parameters():
        row = rows.setdefault(name.split(".")[0], [0, 0])
        row[0] += parameter.numel()
        row[1] += parameter.numel() * parameter.requires_grad
    return pd.DataFrame.from_dict(rows, orient="index", columns=["parameters", "trained"])


def fastest(function: Callable[[], Any], repeats: int = 7) -> float:
    """Seconds of the fastest of several calls; other work on the machine only slows calls down."""
    seconds = []
    for _ in range(repeats):
        started = perf_counter()
        function()
        seconds.append(perf_counter() - started)
    return min(seconds)


@contextmanager
def _recording(modules: Sequence[nn.Module]) -> Iterator[dict[nn.Module, tuple[Any, Any]]]:
    """Arguments and result of the last call of each module."""
    calls: dict[nn.Module, tuple[Any, Any]] = {}

    def keep(module: nn.Module, arguments: Any, result: Any) -> None:
        calls[module] = (arguments, result)

    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_hook(keep).remove)
        yield calls


@contextmanager
def _inference(module: nn.Module) -> Iterator[None]:
    """Evaluation mode; unlike inference mode, tensors may be used in training afterwards."""
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(was_training)


def _look(
    attention: DeformableAttention,
    queries: Tensor,
    references: Tensor,
    tokens: Tensor | None,
    shapes: Shapes,
    padding: Tensor | None = None,
) -> Look:
    """The look of a call with the arguments of `DeformableAttention.forward`."""
    locations, weights = attention.points_of(queries, references, shapes)
    wide = references.expand(len(queries), -1, attention.levels, -1)
    return Look(references=wide, locations=locations, weights=weights)
