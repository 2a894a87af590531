"""Made-up predictions of both detectors for a batch of three images, and what judges them."""

import torch
from tiny_dino import annotated

from richsem.losses.centernet2_criterion import CenterNet2Criterion, CenterNet2CriterionConfig
from richsem.losses.dino_criterion import DinoCriterion, DinoCriterionConfig
from richsem.models.centernet2.first_stage import make_cells
from richsem.structures import (
    Batch,
    DenoisingOutput,
    DetectorOutput,
    RegionOutput,
    Supervision,
    TwoStageOutput,
)

C, LAYERS, QUERIES, SIDE, REGIONS = 7, 2, 8, 32, 5  # regions of an image
LABELS, UNKNOWN = ([1, 4], [], [0, 3, 5]), ([-1, -1], [], [-1, -1, -1])
COUNTS = [len(own) for own in LABELS]
GROUPS, SLOTS = 2, max(COUNTS)


def batch_of(supervision=Supervision.DETECTION, labels=LABELS, soft=True):
    targets = annotated(*labels, soft=soft, num_classes=C)
    return Batch(targets=targets, supervision=supervision)


def normal(draws, *shape):
    return torch.randn(*shape, generator=draws).requires_grad_()


def boxes_of(draws, *shape):
    return (torch.rand(*shape, 4, generator=draws) * 0.3 + 0.2).requires_grad_()


def dino_output(semantic=True, proposal_classes=C):
    draws = torch.Generator().manual_seed(0)
    batch, noisy = len(COUNTS), 2 * SLOTS * GROUPS
    denoising = DenoisingOutput(
        logits=normal(draws, LAYERS, batch, noisy, C),
        boxes=boxes_of(draws, LAYERS, batch, noisy),
        semantic_logits=normal(draws, batch, noisy, C) if semantic else None,
        num_groups=GROUPS,
        num_slots=SLOTS,
    )
    return DetectorOutput(
        logits=normal(draws, LAYERS, batch, QUERIES, C),
        boxes=boxes_of(draws, LAYERS, batch, QUERIES),
        proposal_logits=normal(draws, batch, QUERIES, proposal_classes),
        proposal_boxes=boxes_of(draws, batch, QUERIES),
        semantic_logits=normal(draws, batch, QUERIES, C) if semantic else None,
        denoising=denoising,
    )


def dino_criterion(**values):
    config = DinoCriterionConfig(**{"federated_classes": 0, **values})
    return DinoCriterion(config, C, [1] * C)


def region_output(draws, stage, semantic):
    """The first regions of each image answer for its annotations."""
    rows, first = [], 0
    for count in COUNTS:
        rows += [*range(first, first + count), *[-1] * (REGIONS - count)]
        first += count
    number = REGIONS * len(COUNTS)
    low = 20 * torch.rand(number, 2, generator=draws)
    boxes = torch.cat([low, low + 2 + 8 * torch.rand(number, 2, generator=draws)], dim=1)
    return RegionOutput(
        images=torch.arange(len(COUNTS)).repeat_interleave(REGIONS),
        boxes=boxes,
        scores=torch.ones(number),
        rows=torch.tensor(rows),
        logits=normal(draws, number, C),
        deltas=normal(draws, number, 4),
        coding=tuple(factor * (stage + 1) for factor in (10.0, 10.0, 5.0, 5.0)),
        refined=boxes,
        semantic_logits=normal(draws, number, C) if semantic else None,
    )


def two_stage_output(semantic=True):
    """Two levels, two stages; the last one has the semantic branch."""
    draws = torch.Generator().manual_seed(0)
    cells, images = make_cells([(4, 4), (2, 2)], (8, 16)), len(COUNTS)
    return TwoStageOutput(
        sizes=torch.full((images, 2), float(SIDE)),
        cells=cells,
        heatmap=normal(draws, images, len(cells.points)),
        distances=torch.rand(images, len(cells.points), 4, generator=draws).requires_grad_(),
        stages=tuple(region_output(draws, k, semantic and k == LAYERS - 1) for k in range(LAYERS)),
    )


def two_stage_criterion(**values):
    values = {"ranges": ((0.0, 12.0), (8.0, 1e8)), "federated_classes": 0} | values
    return CenterNet2Criterion(CenterNet2CriterionConfig(**values), C, [1] * C)
