"""The whole two-stage detector: which regions it looks at, and what it finds."""

from dataclasses import replace

import pytest
import torch
from tiny_centernet2 import SIZES, tiny_centernet2
from tiny_dino import CLASSES, SIDE, image_batch, target
from tiny_losses import train_step
from torchvision.ops import batched_nms

from richsem.models.centernet2.centernet2 import CenterNet2, CenterNet2Config
from richsem.structures import Batch, Supervision

VISIBLE = {"min_score": 0.0, "classifier": "linear"}


def some_batch():
    return image_batch(target(0, 1, soft=True), target(), target(2, soft=True))


def test_regions_in_training_answer_for_annotations():
    model, batch = tiny_centernet2().train(), some_batch()
    output = model(batch)
    first = output.stages[0]
    for row, image in enumerate((0, 0, 2)):  # annotations are among the candidates
        assert (first.images[first.rows == row] == image).all()
        assert (first.rows == row).any()
    assert not (first.rows[first.images == 1] >= 0).any()
    assert torch.bincount(first.images).max() <= model.config.cascade.regions
    for stage, following in zip(output.stages, output.stages[1:], strict=False):
        assert torch.equal(following.boxes, stage.refined)
        assert not following.boxes.requires_grad


def test_whole_images_are_shown_with_their_best_proposals():
    model = tiny_centernet2().train()
    batch = replace(some_batch(), supervision=Supervision.WHOLE_IMAGES)
    output = model(batch)
    for stage in output.stages:
        assert torch.bincount(stage.images).tolist() == [7, 7, 7]
        assert stage.rows is None
    last = output.stages[0].boxes[6::7]
    assert last.tolist() == [[0, 0, SIDE, SIDE]] * 3
    train_step(model, batch)
    assert model.stages[0].classifier.projection.weight.grad.any()
    assert model.centers.heatmap.weight.grad is None


@pytest.mark.parametrize("stages", ["last", "all"])
def test_semantic_branches(stages):
    model = tiny_centernet2(semantic_stages=stages).train()
    found = [stage.semantic_logits is not None for stage in model(some_batch()).stages]
    assert found == ([True] * 3 if stages == "all" else [False, False, True])
    named = [name for name in model.state_dict() if "semantic" in name]
    assert len(named) == sum(found)
    assert model.state_dict().keys() - model.inference_state().keys() == set(named)


def test_boxes_end_where_the_padding_begins():
    model, batch = tiny_centernet2(**VISIBLE).eval(), some_batch()
    narrow = replace(batch.targets[0], size=(SIDE, 40))
    padding = torch.zeros(3, SIDE, SIDE, dtype=torch.bool)
    padding[0, :, 40:] = True
    padded = Batch(targets=(narrow, *batch.targets[1:]), images=batch.images, padding=padding)
    output = model(padded)
    own = output.stages[-1].images == 0
    assert own.any() and output.stages[-1].refined[own][:, 2].max() <= 40
    scores, _, boxes = model.detections(output, [(SIDE, 80), (SIDE, SIDE), (SIDE, SIDE)])[0]
    assert len(scores) and boxes[:, 2].max() <= 80  # the image on disk is twice as wide


def test_detections_are_those_of_a_plain_loop():
    model, batch = tiny_centernet2(**(VISIBLE | {"min_score": 0.15})).eval(), some_batch()
    with torch.no_grad():
        for stage in model.stages:
            stage.classifier.bias.fill_(-1.0)
            stage.classifier.weight.mul_(4)
        output = model(batch)
    for image, found in enumerate(model.detections(output, [(2 * SIDE, SIDE)] * 3, max_dets=9)):
        rows = []
        for region in (output.stages[0].images == image).nonzero()[:, 0].tolist():
            for label in range(CLASSES):
                mean = sum(s.logits[region, label].sigmoid() for s in output.stages) / 3
                score = (mean * output.stages[0].scores[region]).sqrt().item()
                if score > 0.15:
                    box = output.stages[-1].refined[region] * torch.tensor([1, 2, 1, 2])
                    rows.append((score, label, box))
        scores, labels = (torch.tensor([row[i] for row in rows]) for i in (0, 1))
        boxes = torch.stack([box for *_, box in rows])
        kept = batched_nms(boxes, scores, labels, model.config.nms)[:9]
        assert 0 < len(kept) <= 9 < len(rows)
        for one, other in zip(found, (scores, labels, boxes), strict=True):
            torch.testing.assert_close(one, other[kept])


def test_stages_share_the_way_back_to_the_pyramid(monkeypatch):
    """Pooled features get a third of each stage's gradient, the heads all of it."""
    kept = {"heatmap_weight": 0.0, "distance_weight": 0.0, "box_weight": 0.0}

    def gradients():
        model = tiny_centernet2(classifier="linear", semantic=False)
        train_step(model, image_batch(target(0, 1)), **kept)
        parts = model.stages[0].body.layers[0], model.pyramid.layer_blocks[0][0]
        return [part.weight.grad for part in parts]

    heads, pyramid = gradients()
    monkeypatch.setattr(torch.Tensor, "register_hook", lambda tensor, hook: None)
    without, tripled = gradients()
    torch.testing.assert_close(without, heads)
    torch.testing.assert_close(tripled, 3 * pyramid)


def test_class_scores_and_soft_labels_have_their_own_factor():
    model, batch = tiny_centernet2().train(), some_batch()
    outputs = []
    for scale in (8.0, 16.0):
        model.config = replace(model.config, class_scale=scale)
        torch.manual_seed(0)
        outputs.append(model(batch))
    one, two = (output.stages[0].logits for output in outputs)
    torch.testing.assert_close(two, 2 * one)
    one, two = (output.stages[-1].semantic_logits for output in outputs)
    torch.testing.assert_close(two, one)


def test_the_defaults_are_the_published_sizes():
    """Parameters of the published box-supervised model without its backbone (METHOD 3.3)."""
    config = CenterNet2Config(backbone=SIZES["backbone"], num_classes=1203, text_dim=512)
    with torch.device("meta"):
        model = CenterNet2(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
    assert shapes["stages.2.body.layers.0.weight"] == (1024, 256 * 49)
    assert shapes["stages.0.classifier.projection.weight"] == (512, 1024)
    assert shapes["stages.1.boxes.layers.1.weight"] == (4, 1024)
    assert [stage.coding for stage in model.stages] == [
        (10, 10, 5, 5), (20, 20, 10, 10), (30, 30, 15, 15)
    ]  # fmt: skip
    assert len(model.centers.tower) == 12
