"""What both detectors do alike."""

import pytest
import torch
from tiny_centernet2 import criterion, tiny_centernet2
from tiny_dino import CLASSES, LINEAR, TEXT_DIM, image_batch, target, tiny_dino

from richsem.losses.dino_criterion import DinoCriterion, DinoCriterionConfig
from richsem.structures import Batch

MODELS = pytest.mark.parametrize("make", [tiny_dino, tiny_centernet2])


def predicted(output):
    """Logits and boxes of the last layer or stage."""
    if hasattr(output, "stages"):
        return output.stages[-1].logits, output.stages[-1].refined
    return output.logits, output.boxes


@MODELS
def test_features_instead_of_images(make):
    model, batch = make().eval(), image_batch(target(), target())
    features = Batch(targets=batch.targets, features=model.backbone(batch.images))
    for given, expected in zip(predicted(model(features)), predicted(model(batch)), strict=True):
        assert torch.equal(given, expected)


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
    model, batch = make(), image_batch(target(0, 4, soft=True), target(2, soft=True))
    dino_loss = DinoCriterion(DinoCriterionConfig(), CLASSES, [3] * CLASSES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model.train()(batch)
        total = (dino_loss if make is tiny_dino else criterion())(output, batch).total
    total.backward()
    assert predicted(output)[1].dtype == torch.float32 and total.isfinite()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)
