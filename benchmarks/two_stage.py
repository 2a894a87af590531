"""CenterNet2 with its cascade against torchvision's Faster R-CNN v2 on one backbone and pyramid.

Both have the published sizes, 1,203 classes, 512 regions per image in training and 256 in
inference. The baseline names and moves each region once, with four convolutions and one fully
connected layer; CenterNet2 does so three times, with two fully connected layers each. Weights are
random, so nothing is detected: scores mean nothing, and none passes the threshold of either.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import box_convert

from benchmarks.timing import Row, against, shortest, show
from richsem.losses.centernet2_criterion import CenterNet2Criterion, CenterNet2CriterionConfig
from richsem.models.backbones import Backbone, BackboneConfig
from richsem.models.centernet2.centernet2 import CascadeConfig, CenterNet2, CenterNet2Config
from richsem.models.centernet2.first_stage import Pyramid
from richsem.structures import Batch, Target
from richsem.training.predict import evaluating

BASELINE, OURS = "Faster R-CNN v2", "CenterNet2"
_NOTHING = 1.1  # a score that no detection has
_R50 = BackboneConfig(name="resnet50.tv_in1k", frozen_stride=0)


@dataclass(frozen=True, kw_only=True)
class SizesConfig:
    """What both detectors are given."""

    side: int = 320  # of the square images, in pixels
    batch: int = 1
    objects: int = 8  # per image
    num_classes: int = 1203
    backbone: BackboneConfig = _R50
    dim: int = 256  # width of both pyramids


def main(repeats: int = 3) -> None:
    """Prints a training step and inference of both."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sizes = SizesConfig(side=640, batch=8) if device == "cuda" else SizesConfig()
    title = f"{sizes.batch} images of {sizes.side} pixels on {device}, shortest of {repeats}"
    show(title, measure(sizes, repeats, device))


def measure(sizes: SizesConfig, repeats: int, device: str = "cpu") -> list[Row]:
    """One line for a training step, one for inference."""
    torch.manual_seed(0)
    batch = make_batch(sizes).to(device)
    config = CenterNet2Config(
        backbone=sizes.backbone,
        num_classes=sizes.num_classes,
        dim=sizes.dim,
        cascade=CascadeConfig(pool_samples=2),  # as torchvision pools
        semantic=False,
        min_score=_NOTHING,
    )
    text = torch.randn(sizes.num_classes, config.text_dim)
    ours = CenterNet2(config, text).to(device)
    loss = CenterNet2Criterion(
        CenterNet2CriterionConfig(), sizes.num_classes, [1] * sizes.num_classes
    ).to(device)
    theirs = faster_rcnn(sizes).to(device)
    shown = [target.size for target in batch.targets]

    def learn(model: nn.Module, loss: Callable[[], Tensor]) -> None:
        model.train().zero_grad(set_to_none=True)
        loss().backward()

    def find(model: nn.Module, run: Callable[[], object]) -> None:
        with evaluating(model):
            run()

    learning = {
        BASELINE: partial(learn, theirs, lambda: sum(theirs(*as_torchvision(batch)).values())),
        OURS: partial(learn, ours, lambda: loss(ours(batch), batch).total),
    }
    finding = {
        BASELINE: partial(find, theirs, lambda: theirs(as_torchvision(batch)[0])),
        OURS: partial(find, ours, lambda: ours.detections(ours(batch), shown)),
    }
    times = {"training step": learning, "inference": finding}
    return [{"": n, **against(shortest(w, repeats, device), BASELINE)} for n, w in times.items()]


def make_batch(sizes: SizesConfig) -> Batch:
    """Noise with boxes on it."""
    shape = (sizes.side, sizes.side)
    targets = tuple(
        Target(
            labels=torch.randint(sizes.num_classes, (sizes.objects,)),
            boxes=0.3 + 0.3 * torch.rand(sizes.objects, 4),
            size=shape,
            original_size=shape,
            image_id=image,
        )
        for image in range(sizes.batch)
    )
    return Batch(targets=targets, images=torch.rand(sizes.batch, 3, *shape))


def as_torchvision(batch: Batch) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """The batch as torchvision's detectors take it; its class 0 is background."""
    side = batch.images.shape[-1]
    boxes = (box_convert(target.boxes, "cxcywh", "xyxy") * side for target in batch.targets)
    pairs = zip(boxes, batch.targets, strict=True)
    return list(batch.images), [{"boxes": own, "labels": t.labels + 1} for own, t in pairs]


class _Features(nn.Module):
    """Our backbone and pyramid as torchvision wants them."""

    def __init__(self, sizes: SizesConfig) -> None:
        super().__init__()
        self.backbone = Backbone(sizes.backbone)
        self.pyramid = Pyramid(self.backbone.channels, sizes.dim)
        self.out_channels = sizes.dim

    def forward(self, images: Tensor) -> "OrderedDict[str, Tensor]":
        levels = self.pyramid(self.backbone(images))
        return OrderedDict((str(number), level) for number, level in enumerate(levels))


def faster_rcnn(sizes: SizesConfig) -> FasterRCNN:
    """torchvision's detector with the heads of its second version."""
    features = _Features(sizes)
    levels = len(features.backbone.strides) + 2
    first = 4 * features.backbone.strides[0]
    anchors = tuple((first * 2**level,) for level in range(levels))
    return FasterRCNN(
        features,
        num_classes=sizes.num_classes + 1,
        min_size=sizes.side,
        max_size=sizes.side,
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        rpn_anchor_generator=AnchorGenerator(anchors, ((0.5, 1.0, 2.0),) * levels),
        rpn_head=RPNHead(sizes.dim, 3, conv_depth=2),
        rpn_post_nms_top_n_test=256,
        box_head=FastRCNNConvFCHead((sizes.dim, 7, 7), [256] * 4, [1024], nn.BatchNorm2d),
        box_score_thresh=_NOTHING,
        box_detections_per_img=300,
    )
