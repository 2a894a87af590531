"""Boxes, overlaps and the focal loss against recorded numbers of the authors' code."""

import re

import pytest
import torch

from richsem.boxes import generalized_iou, overlap, to_cxcywh, to_xyxy
from richsem.losses.classification import focal_losses
from richsem.losses.matching import Matches

pytestmark = pytest.mark.golden("U_utils")


def test_box_formats(utils):
    corners = to_xyxy(utils["box/a_cxcywh"])
    torch.testing.assert_close(corners, utils["box/a_xyxy"], atol=1e-6, rtol=0)
    torch.testing.assert_close(to_cxcywh(corners), utils["box/a_back_to_cxcywh"], atol=1e-6, rtol=0)


def test_overlaps_of_all_pairs(utils):
    """Empty and disjoint boxes are among them: here the small area in the denominators shows."""
    first, second = to_xyxy(utils["box/a_cxcywh"])[:, None], to_xyxy(utils["box/b_cxcywh"])
    iou, union = overlap(first, second)
    torch.testing.assert_close(iou, utils["box/iou"], atol=1e-6, rtol=0)
    torch.testing.assert_close(union, utils["box/union"], atol=1e-6, rtol=0)
    giou = generalized_iou(first, second)
    torch.testing.assert_close(giou, utils["box/giou"], atol=1e-6, rtol=0)


def test_focal_loss(utils):
    [(key, num_boxes)] = re.findall(r"(focal/loss_nb(\d+)_times_nq)", " ".join(utils))
    images, queries, labels = utils["focal/targets"].nonzero(as_tuple=True)
    pairs = Matches(images, queries[None], torch.arange(len(labels))[None])
    loss = focal_losses(utils["focal/logits"][None], labels, pairs)[0] / int(num_boxes)
    torch.testing.assert_close(loss, utils[key], atol=1e-5, rtol=0)
