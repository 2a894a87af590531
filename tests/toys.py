"""A detector, a criterion and data of a few numbers, for tests of what surrounds them."""

import torch
from torch import nn

from richsem.data.training_sets import Sample
from richsem.structures import DetectorOutput, Losses, Supervision, Target

CLASSES = 3


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
        return DetectorOutput(
            logits=logits, boxes=boxes, semantic_logits=self.extra_head(x)[:, None]
        )


class ToyCriterion(nn.Module):
    """Sums over boxes, divided by the number it is given, as the real one does."""

    def forward(self, output, batch, num_boxes):
        far, wrong = output.boxes.new_zeros(()), output.boxes.new_zeros(())
        for row, target in enumerate(batch.targets):
            number = len(target.labels)
            far = far + (output.boxes[0, row, :number] - target.boxes).abs().sum()
            wrong = wrong + nn.functional.cross_entropy(
                output.logits[0, row, :number], target.labels, reduction="sum"
            )
        terms = {"box": far / num_boxes, "class": wrong / num_boxes}
        weights = {"box": 5.0, "class": 1.0}
        if batch.supervision is not Supervision.DETECTION:
            terms["extra"] = output.semantic_logits.square().mean()
            weights["extra"] = 1.0
        return Losses(terms=terms, weights=weights)
