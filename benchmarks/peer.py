"""Our DINO on R50 against transformers' Deformable DETR with two stages and refined boxes.

Both have the same backbone, four levels, 300 queries, six layers of the same widths and a loss on
every layer. Denoising queries and the teacher's branch, which the peer has not, are left out.
"""

import importlib.util
from copy import deepcopy
from functools import partial

import torch
from torch import nn

from benchmarks.timing import Runs, against, show
from benchmarks.two_stage import find, learn, noise
from richsem.losses.dino_criterion import DinoCriterion, DinoCriterionConfig
from richsem.models.backbones import BackboneConfig
from richsem.models.dino.denoising import DenoisingConfig
from richsem.models.dino.dino import Dino, DinoConfig
from richsem.training.parallel import this_process

BASELINE, OURS = "Deformable DETR", "DINO"
SIZE, CLASSES = (384, 512), 80


def main(repeats: int = 3) -> None:
    """Prints a training step and inference of both."""
    if importlib.util.find_spec("transformers") is None:
        print("left out: the peer is not installed; `pip install transformers` brings it")
        return
    device = this_process().device.type
    table = against(BASELINE, work(SIZE, CLASSES, "resnet50.tv_in1k", device), repeats, device)
    show(f"an image of {SIZE[0]} x {SIZE[1]} on {device}, shortest of {repeats}", table)


def work(size: tuple[int, int], classes: int, backbone: str, device: str) -> dict[str, Runs]:
    """A training step and inference of both detectors, on noise with boxes on it."""
    torch.manual_seed(0)
    heads = {"classifier": "linear", "proposal_classifier": "linear"}
    config = DinoConfig(
        **heads,
        label_embedding="classifier",
        semantic=False,
        backbone=BackboneConfig(name=backbone),
        num_classes=classes,
        queries=300,
        denoising=DenoisingConfig(number=0),
    )
    ours = Dino(config).to(device)
    theirs = deformable_detr(ours).to(device)
    loss = DinoCriterionConfig(federated_classes=0, soft_weight=0.0)
    criterion = DinoCriterion(loss, classes, [1] * classes).to(device)
    batch = noise(size, 1, classes).to(device)
    labels = [{"class_labels": t.labels, "boxes": t.boxes} for t in batch.targets]
    training = {
        BASELINE: partial(learn, theirs, lambda: theirs(batch.images, labels=labels).loss),
        OURS: partial(learn, ours, lambda: criterion(ours(batch), batch).total),
    }
    inference = {
        BASELINE: partial(find, theirs, lambda: theirs(batch.images)),
        OURS: partial(find, ours, lambda: ours.detections(ours(batch), [size])),
    }
    return {"training step": training, "inference": inference}


def deformable_detr(ours: Dino) -> nn.Module:
    """The peer, of our sizes and with a copy of our backbone."""
    from transformers import DeformableDetrConfig, DeformableDetrForObjectDetection, ResNetConfig

    own, outputs = ours.config, ["stage2", "stage3", "stage4"]
    config = DeformableDetrConfig(
        backbone_config=ResNetConfig(
            out_features=outputs, hidden_sizes=[8, *ours.backbone.channels]
        ),
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        num_labels=own.num_classes,
        num_queries=own.queries,
        two_stage=True,
        two_stage_num_proposals=own.queries,
        with_box_refine=True,
        auxiliary_loss=True,
        encoder_ffn_dim=own.ffn,
        decoder_ffn_dim=own.ffn,
        encoder_layers=own.encoder_layers,
        decoder_layers=own.decoder_layers,
        dropout=0.0,
    )
    peer = DeformableDetrForObjectDetection(config)
    peer.model.backbone.model = deepcopy(ours.backbone)  # gives maps as theirs does
    return peer
