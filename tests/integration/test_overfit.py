"""Backbone, detector and criterion together learn one batch by heart."""

from dataclasses import replace

import pytest
import torch
from tiny_centernet2 import SIZES as TWO_STAGE_SIZES
from tiny_dino import LINEAR, SIZES, TEXT_DIM, target_at
from tiny_losses import dino_criterion, two_stage_criterion
from torchvision.ops import box_convert, box_iou

from richsem import masks as masks_of_boxes
from richsem.boxes import in_pixels
from richsem.models.centernet2.cascade import MaskConfig
from richsem.models.centernet2.centernet2 import CascadeConfig, CenterNet2Config
from richsem.models.dino.dino import DinoConfig
from richsem.structures import Batch
from richsem.training.run_config import make_detector

COLOURS = torch.tensor([[0.9, 0.2, 0.1], [0.1, 0.8, 0.3], [0.2, 0.3, 0.9]])  # of the classes
# (class, x, y, width, height) in pixels of an image of 64 x 64; the last image is padded.
SCENES = (
    ((0, 6, 8, 22, 30), (1, 36, 30, 20, 24)),
    ((2, 20, 14, 30, 34),),
    ((1, 4, 34, 34, 24), (0, 34, 6, 24, 20)),
    ((2, 4, 6, 16, 30), (2, 26, 8, 18, 22)),
)
SIDE, PADDED = 64, 48  # the last image's width without its padding
CHANGES = {
    "backbone": TWO_STAGE_SIZES["backbone"],  # nothing of it is frozen
    "num_classes": len(COLOURS),
    "dim": 32,
    "levels": 2,
    "ffn": 64,
    "queries": 10,
}
TWO_STAGES = {
    "num_classes": len(COLOURS),
    "dim": 32,
    "cascade": CascadeConfig(regions=24, pooled=4, pool_samples=2, hidden=48),
    "semantic": False,
    "class_bias": True,
}
MASKS = MaskConfig(dim=24, depth=2, pooled=8)
DINO, COMPARING = SIZES | CHANGES, {"class_bias": True, "semantic": False}
# Configuration, criterion and steps.
CASES = {
    "text": (DinoConfig(**DINO | COMPARING), dino_criterion, 150),
    "linear": (DinoConfig(**DINO | LINEAR), dino_criterion, 150),
    "two stages": (CenterNet2Config(**TWO_STAGE_SIZES | TWO_STAGES), two_stage_criterion, 120),
    "masks": (
        CenterNet2Config(**TWO_STAGE_SIZES | TWO_STAGES, masks=MASKS),
        two_stage_criterion,
        120,
    ),
}


def paint(scene, index):
    """(image, target) of coloured boxes on grey, each without its lower right quarter."""
    image = torch.full((3, SIDE, SIDE), 0.5)
    width = PADDED if index == len(SCENES) - 1 else SIDE
    boxes = []
    for label, x, y, w, h in scene:
        image[:, y : y + h, x : x + w] = COLOURS[label][:, None, None]
        image[:, y + h // 2 : y + h, x + w // 2 : x + w] = 0.5
        boxes.append([x, y, x + w, y + h])
    masks = torch.ones(len(scene), masks_of_boxes.SIDE, masks_of_boxes.SIDE, dtype=torch.bool)
    masks[:, masks_of_boxes.SIDE // 2 :, masks_of_boxes.SIDE // 2 :] = False
    image[:, :, width:] = 0.0
    scale = torch.tensor([width, SIDE, width, SIDE])
    parts = box_convert(torch.tensor(boxes) / scale, "xyxy", "cxcywh")
    target = target_at(*parts.tolist(), size=(SIDE, width))
    labels = torch.tensor([label for label, *_ in scene])
    return image, replace(target, labels=labels, masks=masks)


@pytest.fixture(scope="module")
def batch():
    images, targets = zip(*(paint(scene, i) for i, scene in enumerate(SCENES)), strict=True)
    padding = torch.zeros(len(SCENES), SIDE, SIDE, dtype=torch.bool)
    padding[-1, :, PADDED:] = True
    return Batch(targets=targets, images=torch.stack(images), padding=padding)


@pytest.mark.parametrize("case", CASES)
def test_a_batch_is_learnt_by_heart(batch, case):
    config, make_criterion, steps = CASES[case]
    torch.manual_seed(0)
    text = torch.randn(len(COLOURS), TEXT_DIM)
    model = make_detector(config).train()
    model.set_vocabulary(text)
    criterion = make_criterion(len(COLOURS))
    optimiser = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    for _ in range(steps):
        loss = criterion(model(batch), batch).total
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        output = model.eval()(batch)
        sizes = torch.tensor([target.size for target in batch.targets])
        found = model.detections(output, sizes)
        outlined = model.masks(output, found, sizes) if case == "masks" else []
    for own, target in zip(outlined, batch.targets, strict=bool(outlined)):
        own, half = own[: len(target.labels)] >= 0.5, own.shape[-1] // 2
        wanted = torch.ones_like(own)
        wanted[:, half:, half:] = False
        overlap = (own & wanted).sum((1, 2)) / (own | wanted).sum((1, 2))
        assert (overlap > 0.8).all(), overlap
    for (_, labels, boxes), target in zip(found, batch.targets, strict=True):
        number = len(target.labels)
        overlap, best = box_iou(in_pixels(target.boxes, target.size), boxes[:number]).max(1)
        assert (overlap > 0.8).all()
        assert torch.equal(labels[:number][best], target.labels)
