"""Made-up predictions of both detectors for a batch of three images, and what judges them."""

import torch
from tiny_centernet2 import RANGES, random_boxes
from tiny_dino import CLASSES, annotated

from richsem import structures
from richsem.losses.centernet2_criterion import CenterNet2Criterion, CenterNet2CriterionConfig
from richsem.losses.dino_criterion import DinoCriterion, DinoCriterionConfig
from richsem.models.centernet2.first_stage import make_cells
from richsem.models.dino.dino import Dino

LAYERS, QUERIES, SIDE, REGIONS = 2, 8, 32, 5  # regions of an image
LABELS, UNKNOWN = ([1, 4], [], [0, 3, 2]), ([-1, -1], [], [-1, -1, -1])
COUNTS = [len(own) for own in LABELS]
GROUPS, SLOTS = 2, max(COUNTS)


def batch_of(supervision=structures.Supervision.DETECTION, labels=LABELS, soft=True):
    targets = annotated(*labels, soft=soft)
    return structures.Batch(targets=targets, supervision=supervision)


def normal(draws, *shape):
    return torch.randn(*shape, generator=draws).requires_grad_()


def boxes_of(draws, *shape):
    return (torch.rand(*shape, 4, generator=draws) * 0.3 + 0.2).requires_grad_()


def dino_output(semantic=True, proposal_classes=CLASSES):
    draws = torch.Generator().manual_seed(0)
    batch, noisy = len(COUNTS), 2 * SLOTS * GROUPS
    denoising = structures.DenoisingOutput(
        logits=normal(draws, LAYERS, batch, noisy, CLASSES),
        boxes=boxes_of(draws, LAYERS, batch, noisy),
        semantic_logits=normal(draws, batch, noisy, CLASSES) if semantic else None,
        num_groups=GROUPS,
        num_slots=SLOTS,
    )
    return structures.DetectorOutput(
        logits=normal(draws, LAYERS, batch, QUERIES, CLASSES),
        boxes=boxes_of(draws, LAYERS, batch, QUERIES),
        proposal_logits=normal(draws, batch, QUERIES, proposal_classes),
        proposal_boxes=boxes_of(draws, batch, QUERIES),
        semantic_logits=normal(draws, batch, QUERIES, CLASSES) if semantic else None,
        denoising=denoising,
    )


def region_output(draws, stage, semantic):
    """The first regions of each image answer for its annotations."""
    rows, first = [], 0
    for count in COUNTS:
        rows += [*range(first, first + count), *[-1] * (REGIONS - count)]
        first += count
    number = REGIONS * len(COUNTS)
    boxes = random_boxes(number, 15.0, seed=stage)
    return structures.RegionOutput(
        images=torch.arange(len(COUNTS)).repeat_interleave(REGIONS),
        boxes=boxes,
        scores=torch.ones(number),
        rows=torch.tensor(rows),
        logits=normal(draws, number, CLASSES),
        deltas=normal(draws, number, 4),
        coding=tuple(factor * (stage + 1) for factor in (10.0, 10.0, 5.0, 5.0)),
        refined=boxes,
        semantic_logits=normal(draws, number, CLASSES) if semantic else None,
    )


def two_stage_output(semantic=True):
    """Two levels, two stages; the last one has the semantic branch."""
    draws = torch.Generator().manual_seed(0)
    cells, images = make_cells([(4, 4), (2, 2)], (8, 16)), len(COUNTS)
    return structures.TwoStageOutput(
        sizes=torch.full((images, 2), float(SIDE)),
        cells=cells,
        heatmap=normal(draws, images, len(cells.points)),
        distances=torch.rand(images, len(cells.points), 4, generator=draws).requires_grad_(),
        stages=tuple(region_output(draws, k, semantic and k == LAYERS - 1) for k in range(LAYERS)),
    )


def dino_criterion(num_classes=CLASSES, **values):
    config = DinoCriterionConfig(**{"federated_classes": 0, **values})
    return DinoCriterion(config, num_classes, [3] * num_classes)


def two_stage_criterion(num_classes=CLASSES, **values):
    values = {"ranges": RANGES, "federated_classes": 0} | values
    config = CenterNet2CriterionConfig(**values)
    return CenterNet2Criterion(config, num_classes, [3] * num_classes)


def train_step(model, batch, **values):
    """Losses of one step of a detector after the backward pass; all gradients are finite."""
    make = dino_criterion if isinstance(model, Dino) else two_stage_criterion
    losses = make(model.config.num_classes, **values)(model.train()(batch), batch)
    losses.total.backward()
    assert losses.total.isfinite()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    return losses
