"""The whole detector: odd batches, what belongs to training, and where it runs."""

from dataclasses import replace

import pytest
import torch
from tiny_dino import CLASSES, LINEAR, SIDE, SIZES, VARIANTS, image_batch, target, tiny_dino
from tiny_losses import train_step
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from richsem.models.backbones import BackboneConfig
from richsem.models.dino.denoising import DenoisingConfig
from richsem.models.dino.dino import Dino, DinoConfig
from richsem.structures import Batch, Supervision

CLOSE = {"atol": 1e-5, "rtol": 1e-4}


def assert_same(one, other, **close):
    for name in ("logits", "boxes", "proposal_logits", "proposal_boxes"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), **close)


ODD = {
    "no objects": ({"denoising": DenoisingConfig()}, [[], []]),
    "no objects, linear": (LINEAR, [[], []]),
    "an image without objects": ({}, [[], [1, 3]]),
    "one class": ({"num_classes": 1}, [[0, 0]]),
    "one class, linear": (LINEAR | {"num_classes": 1}, [[0, 0]]),
    "more objects than queries": ({"queries": 2}, [[0, 1, 2, 3, 4]]),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_batches_train(case):
    variant, labels = ODD[case]
    model = tiny_dino(**variant)
    config, soft = model.config, model.config.semantic
    targets = [target(*own, soft=soft, num_classes=config.num_classes) for own in labels]
    terms = train_step(model, image_batch(*targets)).terms
    assert terms["class"] > 0 and model.level_embed.grad.any()
    assert (terms["box"] > 0) == (terms["denoising_box"] > 0 if any(labels) else False)


def test_evaluation_has_no_training_parts():
    model, batch = tiny_dino(), image_batch(target(1))
    trained, evaluated = model.train()(batch), model.eval()(batch)
    assert trained.denoising is not None and not trained.last_references.requires_grad
    assert trained.semantic_logits.shape == (1, 6, CLASSES)
    assert evaluated.denoising is None
    assert evaluated.semantic_logits is None
    assert_same(trained, evaluated, **CLOSE)
    assert_same(evaluated, model(replace(batch, targets=())))  # which needs no targets either
    without = tiny_dino(denoising=DenoisingConfig(number=0)).train()
    assert without(batch).denoising is None


@pytest.mark.parametrize("queries", [6, 60, 200])
def test_padding_does_not_matter_behind_the_neck(queries):
    """Even if tokens are few. Convolutions and group norms before see whole maps."""
    model = tiny_dino(levels=2, queries=queries).eval()
    model.neck = nn.Identity()
    for parameter in model.decoder.position.layers[-1].parameters():
        nn.init.zeros_(parameter)  # METHOD 2.1 codes positions in the padded map
    torch.manual_seed(1)
    large = [torch.randn(2, 16, 8, 10), torch.randn(2, 16, 4, 5)]
    small = [large[0][:1, :, :6, :6], large[1][:1, :, :3, :3]]
    padding = torch.zeros(2, 64, 80, dtype=torch.bool)
    padding[0] = True
    padding[0, :48, :48] = False
    alone = model(Batch(targets=(), features=tuple(small)))
    together = model(Batch(targets=(), features=tuple(large), padding=padding))
    number = alone.logits.shape[2]
    assert number == min(queries, 45)
    for name in ("proposal_logits", "proposal_boxes"):
        one, other = getattr(together, name)[0, :number], getattr(alone, name)[0]
        torch.testing.assert_close(one, other, **CLOSE)
    found = [model.detections(output, [(9, 9)] * 2, 1000)[0] for output in (together, alone)]
    assert len(found[0][0]) == number * CLASSES
    torch.testing.assert_close(*found, **CLOSE)


@pytest.mark.parametrize("supervision", [Supervision.DETECTION, Supervision.WHOLE_IMAGES])
def test_fewer_tokens_than_queries_train(supervision):
    padding = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    padding[0, 9:] = True
    batch = image_batch(target(0, 1, soft=True), target(2, soft=True), padding=padding)
    model = tiny_dino(queries=50)
    train_step(model, replace(batch, supervision=supervision))
    assert model.level_embed.grad.any()


@pytest.mark.parametrize("strides", [(8, 16), (4, 8, 16, 32)])
def test_five_levels(strides):
    backbone = BackboneConfig(name="test_resnet", strides=strides)
    model = tiny_dino(backbone=backbone, levels=5)
    train_step(model, image_batch(target(0, soft=True)))
    assert model.level_embed.grad.any()
    assert all(p.grad is not None for p in model.neck.parameters())


def test_gradients_look_forward_twice():
    """A box teaches its own decoder layer and the one before, not what lies further back."""
    model = tiny_dino(decoder_layers=3).eval()
    layers = model.decoder.layers
    for layer in layers:  # the only other way back is the content
        layer.register_forward_pre_hook(lambda _, given: (given[0].detach(), *given[1:]))
    output, taught = model(image_batch(target())), []
    for boxes in output.boxes:
        model.zero_grad()
        boxes.sum().backward(retain_graph=True)
        taught.append([bool(layer.linear1.weight.grad.any()) for layer in layers])
    assert taught == [[True, False, False], [True, True, False], [False, True, True]]


def test_another_vocabulary_changes_the_classes_only_and_has_no_rows_for_denoising():
    model, batch = tiny_dino(**VARIANTS["agnostic"]).eval(), image_batch(target())
    before = model(batch)
    model.set_vocabulary(model.text.flip(0))
    after = model(batch)
    torch.testing.assert_close(after.logits, before.logits.flip(-1))
    assert torch.equal(after.boxes, before.boxes)
    with pytest.raises(ValueError, match="use 'text' or 'table'"):
        tiny_dino(label_embedding="classifier")


def test_recomputing_layers_changes_nothing():
    gradients = []
    for checkpointing in (False, True):
        model = tiny_dino(checkpointing=checkpointing)
        torch.manual_seed(1)
        train_step(model, image_batch(target(0, 2, soft=True)))
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    torch.testing.assert_close(*gradients)


def test_the_start_follows_the_paper():
    """METHOD 2.6: boxes start where the anchors are, and every query sees the same points."""
    model = Dino(DinoConfig(**SIZES), torch.randn(CLASSES, SIZES["text_dim"])).eval()
    output = model(image_batch(target()))
    for boxes in output.boxes:
        torch.testing.assert_close(boxes, output.proposal_boxes)
    for name, parameter in model.named_parameters():
        if name.endswith(("offsets.weight", ".weights.weight", ".weights.bias")):
            assert not parameter.any(), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_everything_follows_the_device(variant):
    """On a pretended accelerator: mixed devices, or waiting for a number from it, are errors."""
    with FakeTensorMode():
        with torch.device("cuda"):
            model = tiny_dino(**VARIANTS[variant])
        padding = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
        batch = image_batch(target(0, 1), target(), padding=padding).to("cuda")
        trained, evaluated = model.train()(batch), model.eval()(batch)
        for tensor in (trained.boxes, trained.denoising.logits, evaluated.logits):
            assert tensor.device.type == "cuda"
