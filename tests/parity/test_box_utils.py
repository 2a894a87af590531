"""Boxes, focal loss and post-processing against recorded numbers of the authors' code."""

import re

import pytest
import torch

from richsem.boxes import generalized_iou, overlap, to_cxcywh, to_xyxy
from richsem.losses.classification import focal_losses
from richsem.losses.matching import Matches
from richsem.models.heads import postprocess

UTILS = pytest.mark.golden("U_utils")


@UTILS
def test_box_formats(utils):
    corners = to_xyxy(utils["box/a_cxcywh"])
    torch.testing.assert_close(corners, utils["box/a_xyxy"], atol=1e-6, rtol=0)
    torch.testing.assert_close(to_cxcywh(corners), utils["box/a_back_to_cxcywh"], atol=1e-6, rtol=0)


@UTILS
def test_overlaps_of_all_pairs(utils):
    """Empty and disjoint boxes are among them: here the small area in the denominators shows."""
    first, second = to_xyxy(utils["box/a_cxcywh"])[:, None], to_xyxy(utils["box/b_cxcywh"])
    iou, union = overlap(first, second)
    torch.testing.assert_close(iou, utils["box/iou"], atol=1e-6, rtol=0)
    torch.testing.assert_close(union, utils["box/union"], atol=1e-6, rtol=0)
    giou = generalized_iou(first, second)
    torch.testing.assert_close(giou, utils["box/giou"], atol=1e-6, rtol=0)


@UTILS
def test_focal_loss(utils):
    [(key, num_boxes)] = re.findall(r"(focal/loss_nb(\d+)_times_nq)", " ".join(utils))
    images, queries, labels = utils["focal/targets"].nonzero(as_tuple=True)
    pairs = Matches(images, queries[None], torch.arange(len(labels))[None])
    loss = focal_losses(utils["focal/logits"][None], labels, pairs)[0] / int(num_boxes)
    torch.testing.assert_close(loss, utils[key], atol=1e-5, rtol=0)


@pytest.mark.golden("E_postprocess")
def test_detections(recorded):
    tensors, meta = recorded("E_postprocess")
    sizes, number = tensors["orig_sizes"], meta["config"]["num_select"]
    found = postprocess(tensors["pred_logits"], tensors["pred_boxes"], sizes, number)
    assert len(found) == len(tensors["pred_logits"])
    for image, (scores, labels, boxes) in enumerate(found):
        expected = f"official/image{image}"
        torch.testing.assert_close(scores, tensors[f"{expected}/scores"], atol=1e-6, rtol=0)
        assert torch.equal(labels, tensors[f"{expected}/labels"])
        torch.testing.assert_close(boxes, tensors[f"{expected}/boxes"], atol=1e-3, rtol=1e-5)
