"""The mask head: its numbers, what it learns from, and the masks of detections."""

from dataclasses import replace

import pytest
import torch
from tiny_centernet2 import tiny_centernet2
from tiny_dino import SIDE as PIXELS
from tiny_dino import image_batch, target
from tiny_losses import region_output, train_step, two_stage_criterion
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import maskrcnn_inference
from torchvision.ops import roi_align

from richsem.losses.centernet2_criterion import region_mask_loss
from richsem.masks import SIDE
from richsem.models.centernet2.cascade import MaskConfig, make_mask_head
from richsem.structures import Supervision

MASKS = MaskConfig(dim=8, depth=2, pooled=4)


def masked(own, seed=0):
    draws = torch.Generator().manual_seed(seed)
    return replace(own, masks=torch.rand(len(own.labels), SIDE, SIDE, generator=draws) > 0.5)


def masked_batch():
    return image_batch(*(masked(target(*own, soft=True)) for own in ((0, 1), (), (2,))))


def test_it_is_the_published_one():
    """Of detectron2's `MaskRCNNConvUpsampleHead`, written down with plain functions."""
    shapes = {n: tuple(t.shape) for n, t in make_mask_head(256, MaskConfig()).named_parameters()}
    layers = [(256, 256, 3, 3)] * 4 + [(256, 256, 2, 2), (1, 256, 1, 1)]
    assert [shape for shape in shapes.values() if len(shape) == 4] == layers
    head = make_mask_head(6, MaskConfig(dim=8, depth=2))
    *body, enlarge, predictor = [m for m in head.modules() if hasattr(m, "weight")]
    pooled = seen = torch.randn(5, 6, 14, 14)
    for layer in body:
        assert not layer.bias.any()
        seen = F.relu(F.conv2d(seen, layer.weight, layer.bias, padding=1))
    seen = F.relu(F.conv_transpose2d(seen, enlarge.weight, enlarge.bias, stride=2))
    expected = F.conv2d(seen, predictor.weight, predictor.bias)
    assert expected.shape == (5, 1, 28, 28) and not predictor.bias.any()
    torch.testing.assert_close(head(pooled), expected)
    (found,) = maskrcnn_inference(expected, [torch.zeros(5, dtype=torch.long)])
    torch.testing.assert_close(head(pooled).sigmoid(), found)


def test_all_else_starts_as_it_does_without():
    with_masks, without = tiny_centernet2(masks=MASKS), tiny_centernet2()
    for name, tensor in without.state_dict().items():
        assert torch.equal(with_masks.state_dict()[name], tensor) or name == "text", name
    new = with_masks.state_dict().keys() - without.state_dict().keys()
    assert new and all(name.startswith("mask_head.") for name in new)


def test_regions_that_answer_for_an_annotation_learn_its_mask():
    model, batch = tiny_centernet2(masks=MASKS).train(), masked_batch()
    output = model(batch)
    first = output.stages[0]
    own = first.rows >= 0
    levels = model.pyramid(model.backbone(batch.images))
    pooled = model.mask_logits(levels, first.images[own], first.boxes[own])
    assert own.any() and output.levels == () and output.mask_logits.shape == (own.sum(), 8, 8)
    torch.testing.assert_close(output.mask_logits, pooled)
    losses = train_step(model, batch)
    assert losses.terms["mask"].item() == pytest.approx(0.69, abs=0.01)
    for name, parameter in model.mask_head.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("kind", sorted(set(Supervision) - {Supervision.DETECTION}))
def test_other_images_teach_no_masks(kind):
    model, batch = tiny_centernet2(masks=MASKS), masked_batch()
    losses = train_step(model, replace(batch, supervision=kind))
    assert "mask" not in losses.terms
    assert all(parameter.grad is None for parameter in model.mask_head.parameters())


def test_images_without_objects_keep_the_head_in_the_graph_and_annotations_need_masks():
    model = tiny_centernet2(masks=MASKS)
    losses = train_step(model, image_batch(masked(target()), masked(target())))
    assert losses.terms["mask"].item() == 0
    assert all(p.grad is not None and not p.grad.any() for p in model.mask_head.parameters())
    model, batch = tiny_centernet2(masks=MASKS).train(), image_batch(target(0, soft=True))
    with pytest.raises(ValueError, match="no masks to learn from"):
        two_stage_criterion()(model(batch), batch)


def test_the_loss_is_the_mean_over_the_cells_of_all_regions():
    targets = [masked(target(0, 1)), masked(target(2), seed=1)]
    every = torch.cat([own.masks for own in targets]).float()
    boxes, rows = torch.tensor([[0, 0, 20, 30], [8, 8, 24, 50], [3, 4, 9, 11]]), [2, 0, 2]
    logits = torch.randn(3, SIDE // 2, SIDE // 2)
    # Regions that are the annotated boxes, and of their masks blocks of four cells.
    blocks = F.avg_pool2d(every, 2) > 0.5
    draws = torch.Generator().manual_seed(0)
    stage = replace(region_output(draws, 0, False), boxes=boxes[[2, 0, 0, 2]].float())
    stage = replace(stage, rows=torch.tensor([2, -1, 0, 2]))
    targets = [
        replace(own, masks=part.repeat_interleave(2, 1).repeat_interleave(2, 2))
        for own, part in zip(targets, blocks.split([2, 1]), strict=True)
    ]
    wanted = blocks.float()[rows]
    expected = F.binary_cross_entropy_with_logits(logits, wanted)
    torch.testing.assert_close(region_mask_loss(logits, stage, targets, boxes.float()), expected)


def test_masks_of_detections_are_read_at_their_boxes():
    changes = {"min_score": 0.0, "classifier": "linear", "masks": MASKS}
    model, batch = tiny_centernet2(**changes).eval(), masked_batch()
    torch.nn.init.normal_(model.mask_head[1].mask_fcn_logits.weight)
    with torch.no_grad():
        output = model(batch)
        assert output.mask_logits is None
        sizes = [(2 * PIXELS, PIXELS)] * 3
        detected = model.detections(output, sizes, max_dets=7)
        masks = model.masks(output, detected, sizes)
        for image, ((_, _, boxes), found) in enumerate(zip(detected, masks, strict=True)):
            number = len(boxes)
            assert found.shape == (number, 8, 8) and number > 2
            places = boxes / torch.tensor([1.0, 2.0, 1.0, 2.0])
            places = torch.cat([torch.full((number, 1), float(image)), places], dim=1)
            # Boxes of less than 112 pixels belong to the finest map.
            pooled = roi_align(output.levels[0], places, 4, 1 / 8, 2, aligned=True)
            torch.testing.assert_close(found, model.mask_head(pooled)[:, 0].sigmoid())
