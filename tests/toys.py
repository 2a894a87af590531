"""A detector, a criterion and data of a few numbers, for tests of what surrounds them."""

import os
import signal
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import torch
from tiny_centernet2 import RANGES, SIZES
from tiny_dino import SIZES as DINO_SIZES
from tiny_files import CATEGORIES, annotation_file, write_json, write_picture
from torch import nn

from richsem.data.samples import Sample
from richsem.data.transforms import MosaicConfig, TransformConfig
from richsem.losses.centernet2_criterion import CenterNet2CriterionConfig
from richsem.models.backbones import BackboneConfig
from richsem.models.centernet2.centernet2 import CenterNet2Config
from richsem.models.clip import MINI
from richsem.models.dino.dino import DinoConfig
from richsem.models.heads import postprocess
from richsem.structures import DetectorOutput, Losses, Supervision, Target
from richsem.training.loop import TrainConfig
from richsem.training.run_config import ExtraConfig, RunConfig, TrainingDataConfig

CLASSES = 3
MINI_DIM = 256  # length of the embedded CLIP's embeddings


class ToySet:
    """Images of noise with one to three boxes; everything follows from index and seed."""

    fingerprint = "toy"

    def __init__(self, size=12, supervision=Supervision.DETECTION, side=8):
        self.size, self.supervision, self.side = size, supervision, side

    def __len__(self):
        return self.size

    def __getitem__(self, key):
        index, seed = key
        draws = torch.Generator().manual_seed(seed + index)
        number = 1 + index % 3
        target = Target(
            labels=torch.randint(CLASSES, (number,), generator=draws),
            boxes=0.1 + 0.2 * torch.rand(number, 4, generator=draws),
            size=(self.side, self.side),
            original_size=(2 * self.side, 3 * self.side),
            image_id=100 + index,
        )
        image = torch.rand(3, self.side, self.side, generator=draws)
        return Sample(target=target, image=image)


class ToyDetector(nn.Module):
    """Two layers of predictions from the mean colour; `noise` draws as denoising does."""

    config = SimpleNamespace(pad_multiple=16)

    def __init__(self, noise=0.0, queries=4):
        super().__init__()
        torch.manual_seed(0)
        self.noise = noise
        self.backbone = nn.Linear(3, 8)
        self.classifier = nn.Linear(8, queries * CLASSES)
        self.boxes = nn.Linear(8, queries * 4)
        self.extra_head = nn.Linear(8, 1)  # plays a part on extra batches only
        self.register_buffer("counter", torch.zeros(()))

    def forward(self, batch):
        seen = torch.stack(
            [
                image[:, : t.size[0], : t.size[1]].mean((1, 2))
                for image, t in zip(batch.images, batch.targets, strict=True)
            ]
        )
        x = self.backbone(seen).tanh()
        if self.training and self.noise:
            x = x + self.noise * torch.randn_like(x)
        size = len(batch)
        logits = self.classifier(x).view(1, size, -1, CLASSES)
        boxes = self.boxes(x).view(1, size, -1, 4).sigmoid()
        semantic = self.extra_head(x)[:, None]
        return DetectorOutput(logits=logits, boxes=boxes, semantic_logits=semantic)

    def detections(self, output, sizes_hw, max_dets=300):
        return postprocess(output.logits[-1], output.boxes[-1], sizes_hw, max_dets)


class ToyCriterion(nn.Module):
    """Sums over boxes, divided by the number it is given, as the real one does."""

    def forward(self, output, batch, num_boxes):
        far, wrong = output.boxes.new_zeros(()), output.boxes.new_zeros(())
        for row, target in enumerate(batch.targets):
            number = len(target.labels)
            logits = output.logits[0, row, :number]
            far = far + (output.boxes[0, row, :number] - target.boxes).abs().sum()
            wrong = wrong + nn.functional.cross_entropy(logits, target.labels, reduction="sum")
        terms = {"box": far / num_boxes, "class": wrong / num_boxes}
        weights = {"box": 5.0, "class": 1.0}
        if batch.supervision is not Supervision.DETECTION:
            terms["extra"] = output.semantic_logits.square().mean()
            weights["extra"] = 1.0
        return Losses(terms=terms, weights=weights)


def interrupt(*_):
    """Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


exactly = partial(torch.testing.assert_close, rtol=0, atol=0)  # tensors, and what holds tensors


def assert_same(a, b):
    """Two modules with the same tensors."""
    exactly(a.state_dict(), b.state_dict())


# --- data on disk ------------------------------------------------------------------------------


def write_root(root):
    """A data root laid out as the real sets are: LVIS, INet-LVIS, INet-Unl and Objects365."""
    rng, side = np.random.default_rng(0), 64
    sets = {f"lvis_v1_{split}": (root, f"train2017/{split}") for split in ("train", "val")}
    sets["object365/objects365_train"] = (root / "object365" / "train", "")
    for name, (folder, prefix) in sets.items():
        sides = {"width": side, "height": side}
        images = {i: {"file_name": f"{prefix}{i}.jpg", **sides} for i in range(1, 7)}
        boxes = [
            (i, CATEGORIES[(i + k) % 3]["id"], (4 * k, 8, side // 2, side // 2))
            for i in images
            for k in range(1 + i % 2)
        ]
        annotation_file(root / f"{name}.json", images, boxes)
        for image in images.values():
            write_picture(folder / image["file_name"], side, rng)
    names = [f"n1/{i}.jpg" for i in range(4)]
    records = [
        {"id": i, "file_name": name, "width": side, "height": side, "pos_category_ids": [1 + i % 2]}
        for i, name in enumerate(names)
    ]
    for name in names:
        write_picture(root / "imagenet-lvis" / "images" / name, side, rng)
        write_picture(root / "imagenet-21k" / "unzip" / name, side, rng)
    others = [{"id": 1, "name": "cat"}, {"id": 2, "name": "zebra"}]
    labelled = {"images": records, "annotations": [], "categories": others}
    write_json(root / "imagenet-lvis" / "imagenet_lvis_image_info.json", labelled)
    write_json(root / "imagenet-21k" / "images.json", [[name, 0] for name in names])
    return root


def small_run(
    root, *, seed=0, steps=4, key="inet_lvis", supervision=Supervision.IMAGE_LABELS, mosaic=True
):
    """RichSem on the data of `write_root`, as small as it gets."""
    transform = TransformConfig(short_sides=(64,), max_side=64, crop=0.0)
    laid = MosaicConfig(side=32) if mosaic else None
    extra = ExtraConfig(key=key, supervision=supervision, transform=transform, mosaic=laid)
    backbone = BackboneConfig(name="test_resnet", strides=(8, 16), frozen_stride=0)
    sizes = {"backbone": backbone, "num_classes": 0, "levels": 2, "text_dim": MINI_DIM}
    return RunConfig(
        name="small",
        data=TrainingDataConfig(root=str(root), transform=transform, extra=extra, teacher=MINI),
        detector=DinoConfig(**DINO_SIZES | sizes),
        train=TrainConfig(steps=steps, batch_size=2, seed=seed, log_every=2),
    )


def two_stage_run(root, **options):
    """The same with the other detector and its loss; nothing else changes."""
    sizes = SIZES | {"num_classes": 0, "text_dim": MINI_DIM, "min_score": 0.0}
    loss = CenterNet2CriterionConfig(ranges=RANGES, federated_classes=2)
    return replace(small_run(root, **options), detector=CenterNet2Config(**sizes), loss=loss)
