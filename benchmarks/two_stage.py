"""CenterNet2 with its cascade against torchvision's Faster R-CNN v2 on one backbone and pyramid.

Both have the published sizes: 512 regions per image in training, 256 in inference. The baseline
names and moves each once, with four convolutions and one fully connected layer; CenterNet2 does so
three times, with two fully connected layers each. With random weights nothing is detected.
"""

from collections.abc import Callable
from copy import deepcopy
from functools import partial

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, fasterrcnn_resnet50_fpn_v2
from torchvision.ops import box_convert

from benchmarks.timing import Runs, against, show
from richsem.losses.centernet2_criterion import CenterNet2Criterion, CenterNet2CriterionConfig
from richsem.models.backbones import BackboneConfig
from richsem.models.centernet2.centernet2 import CascadeConfig, CenterNet2, CenterNet2Config
from richsem.structures import Batch, Target
from richsem.training.predict import evaluating

BASELINE, OURS = "Faster R-CNN v2", "CenterNet2"
_NOTHING = 1.1  # a score that no detection has


def main(repeats: int = 3) -> None:
    """Prints a training step and inference of both."""
    device, side, batch = ("cuda", 640, 8) if torch.cuda.is_available() else ("cpu", 320, 1)
    table = against(BASELINE, work(side, batch, 1203, "resnet50.tv_in1k", device), repeats, device)
    show(f"{batch} images of {side} pixels on {device}, shortest of {repeats}", table)


def work(side: int, number: int, classes: int, backbone: str, device: str) -> dict[str, Runs]:
    """A training step and inference of both detectors, on noise with boxes on it."""
    torch.manual_seed(0)
    ours = centernet2(classes, backbone).to(device)
    theirs = faster_rcnn(classes, side, ours).to(device)
    criterion = CenterNet2Criterion(CenterNet2CriterionConfig(), classes, [1] * classes).to(device)
    size, batch = (side, side), noise((side, side), number, classes).to(device)
    target, images = batch.targets[0], batch.images
    # torchvision takes boxes in pixels and counts classes from 1: 0 is the background.
    corners = side * box_convert(target.boxes, "cxcywh", "xyxy")
    objects = [{"boxes": corners, "labels": target.labels + 1}] * number
    training = {
        BASELINE: partial(learn, theirs, lambda: sum(theirs(list(images), objects).values())),
        OURS: partial(learn, ours, lambda: criterion(ours(batch), batch).total),
    }
    inference = {
        BASELINE: partial(find, theirs, lambda: theirs(list(images))),
        OURS: partial(find, ours, lambda: ours.detections(ours(batch), [size] * number)),
    }
    return {"training step": training, "inference": inference}


def noise(size: tuple[int, int], number: int, classes: int) -> Batch:
    """Images of noise with eight boxes on each."""
    labels, boxes = torch.randint(classes, (8,)), 0.3 + 0.3 * torch.rand(8, 4)
    target = Target(labels=labels, boxes=boxes, size=size, original_size=size, image_id=0)
    return Batch(targets=(target,) * number, images=torch.rand(number, 3, *size))


def learn(model: nn.Module, loss: Callable[[], Tensor]) -> None:
    """A forward and a backward pass in training."""
    model.train().zero_grad(set_to_none=True)
    loss().backward()


def find(model: nn.Module, run: Callable[[], object]) -> None:
    """What `run` does with the model in evaluation."""
    with evaluating(model):
        run()


def centernet2(classes: int, backbone: str) -> CenterNet2:
    """Our detector with random text features."""
    body, cascade = BackboneConfig(name=backbone, frozen_stride=0), CascadeConfig(pool_samples=2)
    config = CenterNet2Config(  # pools as torchvision does
        num_classes=classes, backbone=body, cascade=cascade, semantic=False, min_score=_NOTHING
    )
    return CenterNet2(config, torch.randn(classes, config.text_dim))


class _Features(nn.Sequential):
    """Backbone and pyramid as torchvision wants them."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {str(i): level for i, level in enumerate(super().forward(images))}


def faster_rcnn(classes: int, side: int, ours: CenterNet2) -> FasterRCNN:
    """torchvision's detector; its anchors and heads fit our pyramid of five levels."""
    sizes = {"num_classes": classes + 1, "min_size": side, "max_size": side}
    limits = {"rpn_post_nms_top_n_test": 256, "box_detections_per_img": 300}
    untrained = {"weights": None, "weights_backbone": None, "box_score_thresh": _NOTHING}
    detector = fasterrcnn_resnet50_fpn_v2(**untrained, **sizes, **limits)
    detector.backbone = deepcopy(_Features(ours.backbone, ours.pyramid))
    return detector
