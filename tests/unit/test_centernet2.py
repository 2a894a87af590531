"""The whole two-stage detector: odd batches, variants, what it saves, and what it finds."""

from dataclasses import replace

import pytest
import torch
from tiny_centernet2 import SIZES, criterion, tiny_centernet2
from tiny_dino import CLASSES, SIDE, image_batch, target
from torchvision.ops import batched_nms

from richsem.models.centernet2.centernet2 import CenterNet2, CenterNet2Config
from richsem.structures import Batch, Supervision

CLOSE = {"atol": 1e-4, "rtol": 1e-4}
LINEAR = {"classifier": "linear", "semantic": False}
VARIANTS = {"text": {}, "linear": LINEAR, "bias": {"class_bias": True}}
VISIBLE = {"min_score": 0.0, "classifier": "linear"}


def some_batch():
    return image_batch(target(0, 1, soft=True), target(), target(2, soft=True))


def train_step(model, batch, seed=0, **values):
    """Losses of one step, after the backward pass."""
    torch.manual_seed(seed)
    losses = criterion(model.config.num_classes, **values)(model.train()(batch), batch)
    losses.total.backward()
    return losses


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_learns(variant):
    model = tiny_centernet2(**VARIANTS[variant])
    losses = train_step(model, some_batch())
    assert losses.total.isfinite()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


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


def test_in_evaluation_annotations_are_not_looked_at():
    model, batch = tiny_centernet2().eval(), some_batch()
    output = model(batch)
    assert all(stage.rows is None for stage in output.stages)
    assert all(stage.semantic_logits is None for stage in output.stages)
    blank = Batch(targets=(target(),) * 3, images=batch.images)
    assert torch.equal(model(blank).stages[-1].logits, output.stages[-1].logits)


def test_whole_images_are_shown_with_their_best_proposals():
    model = tiny_centernet2().train()
    batch = replace(some_batch(), supervision=Supervision.WHOLE_IMAGES)
    output = model(batch)
    for stage in output.stages:
        assert torch.bincount(stage.images).tolist() == [7, 7, 7]
        assert stage.rows is None
    last = output.stages[0].boxes[6::7]
    assert last.tolist() == [[0, 0, SIDE, SIDE]] * 3
    losses = criterion()(output, batch)
    losses.total.backward()
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


def test_what_is_saved_detects_the_same():
    model, batch = tiny_centernet2(min_score=0.0).eval(), some_batch()
    plain = tiny_centernet2(with_text=False, seed=1, semantic=False, min_score=0.0).eval()
    missing, unknown = plain.load_state_dict(model.inference_state(), strict=False)
    assert not missing and not unknown
    sizes = [t.original_size for t in batch.targets]
    for one, other in zip(
        plain.detections(plain(batch), sizes), model.detections(model(batch), sizes), strict=True
    ):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
        assert len(one[0])


def test_batch_mates_do_not_matter():
    model, batch = tiny_centernet2(**VISIBLE).eval(), some_batch()
    sizes = [(100, 80), (64, 64), (30, 40)]
    together = model.detections(model(batch), sizes, max_dets=20)
    for i in range(3):
        alone = Batch(targets=batch.targets[i : i + 1], images=batch.images[i : i + 1])
        (found,) = model.detections(model(alone), sizes[i : i + 1], max_dets=20)
        for one, other in zip(found, together[i], strict=True):
            torch.testing.assert_close(one, other, **CLOSE)


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


def test_stages_share_the_way_back_to_the_pyramid():
    """Pooled features get a third of each stage's gradient, the heads all of it."""
    model, batch = tiny_centernet2(**LINEAR), image_batch(target(0, 1))
    kept = {"heatmap_weight": 0.0, "distance_weight": 0.0, "box_weight": 0.0}
    train_step(model, batch, **kept)
    heads = model.stages[0].body.layers[0].weight.grad.clone()
    pyramid = model.pyramid.layer_blocks[0][0].weight.grad.clone()
    model.zero_grad()
    hooked = torch.Tensor.register_hook
    torch.Tensor.register_hook = lambda tensor, hook: None
    try:
        train_step(model, batch, **kept)
    finally:
        torch.Tensor.register_hook = hooked
    torch.testing.assert_close(model.stages[0].body.layers[0].weight.grad, heads)
    torch.testing.assert_close(model.pyramid.layer_blocks[0][0].weight.grad, 3 * pyramid)


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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator")
def test_the_accelerator_agrees_and_trains():
    model, batch = tiny_centernet2(**(VISIBLE | {"semantic": False})).eval(), some_batch()
    with torch.no_grad():
        expected = model(batch)
        found = model.cuda()(batch.to("cuda"))
    torch.testing.assert_close(found.heatmap.cpu(), expected.heatmap, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found.distances.cpu(), expected.distances, atol=1e-3, rtol=1e-3)
    assert all(len(scores) for scores, *_ in model.detections(found, [(64, 64)] * 3))
    loss = criterion().cuda()(model.train()(batch.to("cuda")), batch.to("cuda"))
    loss.total.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


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
