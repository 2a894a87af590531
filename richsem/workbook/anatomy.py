"""Detectors taken apart: what their parts made of a batch, and where they looked.

What DINO computes is recorded by hooks while it runs as it always does, so what a picture shows is
what the prediction was made from. The output of CenterNet2 holds its stages.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torchvision.ops import box_iou

from richsem.boxes import in_parts, in_pixels
from richsem.losses.centers import CenterTargets, center_targets
from richsem.losses.matching import BOX_COST, logits_of_targets, match, matching_cost
from richsem.models.centernet2.assignment import annotated_regions, join, matched
from richsem.models.centernet2.centernet2 import CenterNet2
from richsem.models.centernet2.first_stage import make_cells
from richsem.models.deformable import DeformableAttention, Shapes
from richsem.models.dino.dino import Dino
from richsem.models.dino.positions import Pyramid
from richsem.models.dino.query_selection import Selected, anchor_logits
from richsem.structures import Batch, Cells, DetectorOutput, Target, TwoStageOutput
from richsem.training.caching import recorded
from richsem.training.predict import evaluating

# --- DINO ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Gaze:
    """Where the queries of one deformable attention look."""

    # (x, y) or (cx, cy, w, h) they look around, 0..1 of the padded map [B, Q, L, 2 or 4]
    references: Tensor
    locations: Tensor  # points (x, y) they look at, 0..1 of the padded map [B, Q, H, L, P, 2]
    weights: Tensor  # what each point counts, sum 1 over levels and points [B, Q, H, L, P]

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
    """What the parts of a detector made of a batch."""

    features: tuple[Tensor, ...]  # backbone maps [B, C_l, h, w], finest first
    pyramid: Pyramid  # tokens of all levels with their geometry, before the encoder
    memory: Tensor  # the same tokens after it [B, S, dim]
    token_scores: Tensor  # each token's best class probability [B, S]; NaN without a usable anchor
    selected: Selected  # the tokens that became queries
    encoder: tuple[Gaze, ...]  # where the tokens look, by layer
    decoder: tuple[Gaze, ...]  # where the queries look, by layer
    boxes: Tensor  # cxcywh in 0..1 of proposals, then of every decoder layer [1 + L, B, Q, 4]
    output: DetectorOutput


def dissect(detector: Dino, batch: Batch) -> Anatomy:
    """Runs a detector on a batch, as at inference, and keeps what its parts compute."""
    encoder = [layer.attention for layer in detector.encoder.layers]
    decoder = [layer.cross_attention for layer in detector.decoder.layers]
    parts = [detector.neck, detector.encoder, detector.proposals, detector.proposals.classifier]
    with recorded([*parts, *encoder, *decoder]) as calls, evaluating(detector):
        output = detector(batch)
        looks = [_look(own, calls[own][0]) for own in (*encoder, *decoder)]
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
def first_look(attention: DeformableAttention, look: Gaze, shapes: Shapes) -> Gaze:
    """Where an attention looked before its training, around the same references (METHOD 2.6)."""
    untrained = deepcopy(attention)
    untrained.reset_parameters()
    dim = untrained.offsets.in_features
    queries = look.references.new_zeros(*look.references.shape[:2], dim)
    return _look(untrained, (queries, look.references, None, shapes))


def _look(attention: DeformableAttention, arguments: tuple) -> Gaze:
    """The look of a call with these arguments of `DeformableAttention.forward`."""
    queries, references, _, shapes, *_ = arguments
    locations, weights = attention.points_of(queries, references, shapes)
    wide = references.expand(len(queries), -1, attention.levels, -1)
    return Gaze(references=wide, locations=locations, weights=weights)


def beside_part(batch: Batch, part: float) -> Batch:
    """The first image of a batch and, padded to its size, the left part of it."""
    image, target = batch.images[0], batch.targets[0]
    height, width = target.size
    narrow = max(1, round(part * width))
    mask = torch.zeros(2, *image.shape[1:], dtype=torch.bool, device=image.device)
    mask[:, height:], mask[0, :, width:], mask[1, :, narrow:] = True, True, True
    boxes = in_pixels(target.boxes, target.size)
    boxes[:, ::2] = boxes[:, ::2].clamp(max=narrow)
    kept = boxes[:, 2] > boxes[:, 0]
    size = (height, narrow)
    boxes, labels = in_parts(boxes[kept], size), target.labels[kept]
    clipped = replace(target, boxes=boxes, labels=labels, size=size)
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


def cell_at(pyramid: Pyramid, point: Tensor, level: int) -> int:
    """The token of a level whose centre is nearest to a point (x, y) in 0..1 of the first image."""
    first = sum(pyramid.sizes[:level])
    centres = pyramid.centres[0].split(pyramid.sizes)[level]
    return first + int((centres - point).norm(dim=-1).argmin())


def per_level(values: Tensor, shapes: Shapes) -> list[Tensor]:
    """Tokens [S, ...] of an image as maps [h, w, ...], finest level first."""
    parts = values.split([height * width for height, width in shapes])
    return [p.reshape(*shape, *p.shape[1:]) for p, shape in zip(parts, shapes, strict=True)]


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


def cost_terms(output: DetectorOutput, target: Target) -> dict[str, Tensor]:
    """What the last layer's matching adds up for the first image: "class", "L1", "GIoU" [Q, N]."""
    logits, boxes = output.logits[-1:, :1], output.boxes[-1:, :1]
    wanted = logits_of_targets(logits, [target])
    every = matching_cost(wanted, boxes, [target])[0, 0]
    of_boxes = matching_cost(torch.full_like(wanted, torch.nan), boxes, [target])[0, 0]
    distance = BOX_COST * torch.cdist(boxes[0, 0], target.boxes, p=1)
    return {"class": every - of_boxes, "L1": distance, "GIoU": of_boxes - distance}


def answers(boxes: Tensor, targets: Sequence[Target]) -> list[Tensor]:
    """The query that answers for each target of each image [N], one to one by the boxes alone.

    From the boxes of one layer, cxcywh [B, Q, 4]; -1 if there are more targets than queries.
    """
    logits = boxes.new_full((1, *boxes.shape[:2], max(len(t.labels) for t in targets)), torch.nan)
    counts = [len(target.labels) for target in targets]
    pairs = match(matching_cost(logits, boxes[None], targets), counts)
    found = torch.full((sum(counts),), -1, device=boxes.device)
    found[pairs.targets[0]] = pairs.queries[0]
    return list(found.split(counts))


def box_paths(anatomy: Anatomy, targets: Sequence[Target]) -> pd.DataFrame:
    """How well the boxes of the query that answers for an object in the end fit it, by layer.

    Columns image, object, query, stage ("proposal", "layer 1", ...), iou.
    """
    stages, answering = anatomy.boxes.transpose(0, 1), answers(anatomy.boxes[-1], targets)
    paths = [in_pixels(own, t.size) for own, t in zip(stages, targets, strict=True)]
    return _path_frame(paths, answering, targets, "query", "layer")


def _path_frame(
    paths: Sequence[Tensor],  # of each image: boxes xyxy in pixels by stage [S, Q, 4]
    chosen: Sequence[Tensor],  # of each image: the number of each object's box [N]; -1 for none
    targets: Sequence[Target],
    what: str,
    stage: str,
) -> pd.DataFrame:
    """IoU of each object with its box at each stage, the first of which is the proposal."""
    rows = []
    for image, (own, numbers) in enumerate(zip(paths, chosen, strict=True)):
        true = in_pixels(targets[image].boxes, targets[image].size)
        for thing, number in enumerate(numbers.tolist()):
            if number >= 0:
                ious = box_iou(own[:, number], true[thing, None])[:, 0].tolist()
                names = ["proposal", *(f"{stage} {k}" for k in range(1, len(ious)))]
                rows += [(image, thing, number, *pair) for pair in zip(names, ious, strict=True)]
    frame = pd.DataFrame(rows, columns=["image", "object", what, "stage", "iou"])
    return frame.astype({"iou": float})  # also where no object is


def best_ious(boxes: Tensor, targets: Sequence[Target]) -> Tensor:
    """IoU of every object with the best of its image's boxes [B, Q, 4]: [number of objects]."""
    pairs = zip(boxes, targets, strict=True)
    return torch.cat([_best_ious(in_pixels(own, target.size), target) for own, target in pairs])


def _best_ious(boxes_xyxy: Tensor, target: Target) -> Tensor:
    """IoU of each object of an image with the best of some boxes in pixels [Q, 4]: [T]."""
    true = in_pixels(target.boxes, target.size)
    if not len(true) or not len(boxes_xyxy):
        return true.new_zeros(len(true))
    return box_iou(true, boxes_xyxy).amax(dim=1)


# --- CenterNet2 ----------------------------------------------------------------------------------


def wanted_centers(
    detector: CenterNet2, ranges: Sequence[tuple[float, float]], batch: Batch
) -> tuple[Cells, list[CenterTargets]]:
    """A detector's cells, and what they should say if levels tell objects of these pixels."""
    height, width = batch.images.shape[-2:]
    strides = detector.centers.strides
    shapes = [(-(-height // stride), -(-width // stride)) for stride in strides]
    cells = make_cells(shapes, strides, next(detector.parameters()).device)
    boxes = (in_pixels(target.boxes, target.size) for target in batch.targets)
    return cells, [center_targets(cells, own, ranges) for own in boxes]


def _levels(cells: Cells) -> list[tuple[int, Tensor]]:
    """Stride of each level and which cells belong to it [M], finest first."""
    own = [cells.levels == level for level in cells.levels.unique()]
    return [(int(cells.strides[mask][0]), mask) for mask in own]


def maps_of_levels(values: Tensor, cells: Cells) -> dict[str, np.ndarray]:
    """Values of all cells [M] as one map [h, w] per level, by its stride."""
    maps = {}
    for stride, own in _levels(cells):
        height = len(cells.points[own, 1].unique())
        maps[f"stride {stride}"] = values[own].view(height, -1).cpu().numpy()
    return maps


def levels_in_charge(cells: Cells, wanted: Sequence[CenterTargets]) -> pd.DataFrame:
    """By stride: objects whose centre and whose sides a level has to tell, and cells that do."""
    rows = {}
    for stride, own in _levels(cells):
        centres = sum(int(own[one.peaks].sum()) for one in wanted)
        telling = sum(int((one.rows[own] >= 0).sum()) for one in wanted)
        rows[stride] = {"centres": centres, "cells that tell sides": telling}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("stride")


def proposal_recall(
    output: TwoStageOutput, batch: Batch, numbers: Sequence[int], overlaps: Sequence[float]
) -> pd.DataFrame:
    """Part of the objects that one of an image's best proposals overlaps so much, by number."""
    first, best = output.stages[0], {}
    for number in numbers:
        kept = [first.boxes[first.images == image][:number] for image in range(len(batch))]
        found = torch.cat([_best_ious(*pair) for pair in zip(kept, batch.targets, strict=True)])
        best[number] = {f"IoU {o:g}": float((found >= o).float().mean()) for o in overlaps}
    return pd.DataFrame.from_dict(best, orient="index").rename_axis("proposals")


def region_paths(output: TwoStageOutput, batch: Batch) -> pd.DataFrame:
    """How well the boxes of the region that overlaps an object most in the end fit it, by stage.

    Columns image, object, region, stage ("proposal", "stage 1", ...), iou.
    """
    last, chosen, ways = output.stages[-1], [], paths_of(output)
    for image, target in enumerate(batch.targets):
        own, true = (last.images == image).nonzero()[:, 0], in_pixels(target.boxes, target.size)
        found = len(own) and len(true)
        chosen.append(own[box_iou(true, last.refined[own]).argmax(1)] if found else own[:0])
    return _path_frame([ways] * len(batch), chosen, batch.targets, "region", "stage")


def paths_of(output: TwoStageOutput) -> Tensor:
    """Boxes of all regions in pixels, from proposal to last stage, xyxy [stages + 1, N, 4]."""
    return torch.stack([output.stages[0].boxes, *(stage.refined for stage in output.stages)])


def positives_by_overlap(
    output: TwoStageOutput, batch: Batch, overlaps: Sequence[float]
) -> pd.DataFrame:
    """Part of the boxes that enter each stage that would answer for an object, by threshold."""
    annotated = annotated_regions(batch.targets, output.sizes)
    table = {}
    for number, stage in enumerate(output.stages, 1):
        images = [stage.images == image for image in range(len(batch))]
        regions = join([(stage.boxes[own], stage.scores[own]) for own in images])
        rows = {overlap: matched(regions, annotated, overlap).rows for overlap in overlaps}
        table[f"stage {number}"] = {
            f"IoU {overlap:g}": float((own >= 0).float().mean()) for overlap, own in rows.items()
        }
    return pd.DataFrame(table).T
