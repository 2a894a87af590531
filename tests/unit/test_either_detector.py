"""What both detectors do alike."""

from dataclasses import replace

import pytest
import torch
from tiny_centernet2 import tiny_centernet2
from tiny_dino import CLASSES, LINEAR, SIDE, TEXT_DIM, VARIANTS, image_batch, target, tiny_dino
from tiny_losses import train_step
from toys import exactly

from richsem.structures import Batch

MODELS = pytest.mark.parametrize("make", [tiny_dino, tiny_centernet2])
CASES = {
    **{f"dino, {name}": (tiny_dino, changes) for name, changes in VARIANTS.items()},
    "two stages, text": (tiny_centernet2, {}),
    "two stages, linear": (tiny_centernet2, {"classifier": "linear", "semantic": False}),
    "two stages, bias": (tiny_centernet2, {"class_bias": True}),
}
# Other variants of the second detector start with scores that are too low to be shown.
VISIBLE = {tiny_dino: {}, tiny_centernet2: {"min_score": 0.0, "classifier": "linear"}}


def some_batch():
    return image_batch(target(0, 4, soft=True), target(), target(2, 2, 1, soft=True))


def predicted(output):
    """Logits and boxes of the last layer or stage."""
    if hasattr(output, "stages"):
        return output.stages[-1].logits, output.stages[-1].refined
    return output.logits, output.boxes


@pytest.mark.parametrize(("make", "variant"), CASES.values(), ids=CASES)
def test_every_parameter_learns(make, variant):
    model = make(**variant)
    losses = train_step(model, some_batch())
    assert ("soft" in losses.terms) == model.config.semantic
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name


@MODELS
def test_in_evaluation_annotations_are_not_looked_at_and_features_stand_for_images(make):
    model, batch = make().eval(), some_batch()
    blank = replace(batch, targets=(target(),) * 3)
    exactly(predicted(model(blank)), predicted(model(batch)))
    model, batch = make().eval(), image_batch(target(), target())
    features = Batch(targets=batch.targets, features=model.backbone(batch.images))
    exactly(predicted(model(features)), predicted(model(batch)))


@MODELS
def test_a_vocabulary_that_was_never_set_shows(make):
    assert predicted(make(with_text=False).eval()(image_batch(target())))[0].isnan().all()
    for shape in ((CLASSES + 1, TEXT_DIM), (CLASSES, TEXT_DIM + 1)):
        with pytest.raises(ValueError, match="do not fit num_classes and text_dim"):
            make().set_vocabulary(torch.zeros(shape))


def test_a_linear_head_needs_no_vocabulary():
    linear = tiny_dino(with_text=False, **LINEAR).eval()(image_batch(target()))
    assert linear.logits.isfinite().all()


@MODELS
def test_mixed_precision_trains(make):
    model, seen = make(), []
    model.register_forward_hook(lambda _, inputs, output: seen.append(output))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        train_step(model, some_batch())
    assert predicted(seen[0])[1].dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator")
@MODELS
def test_the_accelerator_agrees_and_trains(make):
    model, batch = make(**VISIBLE[make], semantic=False).eval(), some_batch()
    parts = ("heatmap", "distances") if make is tiny_centernet2 else ("logits", "boxes")
    with torch.no_grad():
        expected, found = model(batch), model.cuda()(batch.to("cuda"))
    for name in parts:
        one, other = getattr(found, name).cpu(), getattr(expected, name)
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)
    assert all(len(scores) for scores, *_ in model.detections(found, [(SIDE, SIDE)] * 3))
    train_step(model, batch.to("cuda"))
