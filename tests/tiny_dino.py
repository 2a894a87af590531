"""A detector of a few numbers and batches for it, for tests of the model itself."""

from dataclasses import replace

import torch
from safetensors.torch import load_file
from tiny_files import annotation_file

from richsem import paths
from richsem.models.backbones import BackboneConfig
from richsem.models.dino.denoising import DenoisingConfig
from richsem.models.dino.dino import Dino, DinoConfig
from richsem.structures import Batch, Target

CLASSES, TEXT_DIM, SIDE = 5, 8, 64
LINEAR = {
    "classifier": "linear",
    "proposal_classifier": "linear",
    "label_embedding": "classifier",
    "semantic": False,
}
VARIANTS = {
    "text": {},
    "linear": LINEAR,
    "table": LINEAR | {"label_embedding": "table"},
    "agnostic": {"proposal_classifier": "agnostic", "class_bias": True},
}
SIZES = {
    "backbone": BackboneConfig(name="test_resnet", strides=(8, 16)),
    "num_classes": CLASSES,
    "dim": 16,
    "heads": 2,
    "levels": 3,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_points": 2,
    "decoder_points": 2,
    "ffn": 16,
    "queries": 6,
    "text_dim": TEXT_DIM,
    "scale": 10.0,
    "denoising": DenoisingConfig(number=2),
}


def tiny_dino(*, with_text=True, seed=0, **changes):
    """A detector with random weights, also where a fresh one has zeros."""
    torch.manual_seed(seed)
    config = DinoConfig(**(SIZES | changes))
    model = Dino(config, torch.randn(config.num_classes, TEXT_DIM) if with_text else None)
    for name, parameter in model.named_parameters():
        if name.endswith(("boxes.layers.2.weight", ".offsets.weight", ".weights.weight")):
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def target(*labels, seed=0, soft=False, num_classes=CLASSES):
    """Boxes somewhere with these labels."""
    draws = torch.Generator().manual_seed(seed + len(labels))
    centres = 0.3 + 0.4 * torch.rand(len(labels), 2, generator=draws)
    sizes = 0.1 + 0.3 * torch.rand(len(labels), 2, generator=draws)
    probabilities = torch.rand(len(labels), num_classes, generator=draws)
    return Target(
        labels=torch.tensor(labels, dtype=torch.int64),
        boxes=torch.cat([centres, sizes], -1),
        size=(SIDE, SIDE),
        original_size=(SIDE, SIDE),
        image_id=seed,
        soft_labels=probabilities / probabilities.sum(-1, keepdim=True) if soft else None,
    )


def target_at(*boxes, size=(SIDE, SIDE)):
    """These boxes cxcywh, all of class 0."""
    places = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return replace(target(*[0] * len(boxes)), boxes=places, size=size, original_size=size)


def annotated(*labels, soft=False, num_classes=CLASSES):
    """A target for each list of labels."""
    return tuple(
        target(*own, seed=i, soft=soft, num_classes=num_classes) for i, own in enumerate(labels)
    )


def published_dino(backbone):
    """RichSem's recorded weights on a backbone of three maps, under the published names.

    That they get the right names is what `parity/test_dino.py` shows.
    """
    state = load_file(paths.ROOT / "tests" / "golden" / "C2_richsem_weights.safetensors")
    for level, channels in enumerate((*backbone.channels, backbone.channels[-1])):
        name = f"input_proj.{level}.0.weight"
        state[name] = torch.randn(len(state[name]), channels, *state[name].shape[2:])
    for name in [name for name in state if name.startswith("bbox_embed.0.")]:
        copy = name.replace(".0.", ".1.", 1)  # shared heads are stored several times
        for alias in (copy, f"transformer.decoder.{copy}"):
            state[alias] = state[name].clone()  # safetensors keeps no memory twice
    body = backbone.body.state_dict().items()
    return state | {f"backbone.0.body.{name}": tensor.clone() for name, tensor in body}


def without_text(published, classes):
    """The same as a detector that compares with no text."""
    state = {name: tensor for name, tensor in published.items() if "class_embed" not in name}
    dim = state["transformer.level_embed"].shape[1]
    for head in ("class_embed.0", "class_embed.1", "transformer.enc_out_class_embed"):
        torch.manual_seed(len(head))
        state |= {f"{head}.weight": torch.randn(classes, dim), f"{head}.bias": torch.randn(classes)}
    return state | {"label_enc.weight": torch.randn(classes + 1, dim)}


def categories_file(path, ids):
    """A file of annotations that has nothing but categories."""
    rows = [{"id": i, "name": f"name {i}", "frequency": "f"} for i in ids]
    return annotation_file(path, {}, categories=rows)


def image_batch(*targets, seed=0, padding=None):
    """Pixels of noise."""
    draws = torch.Generator().manual_seed(seed)
    images = torch.rand(len(targets), 3, SIDE, SIDE, generator=draws)
    return Batch(targets=targets, images=images, padding=padding)
