"""Post-processing against recorded numbers of the authors' code."""

import re

import pytest
import torch
from parity.reference import tensor_names

from richsem.models.postprocess import postprocess


def thresholds(folder):
    """Recorded thresholds of the suppression, as they are spelt; "" for none."""
    names = " ".join(tensor_names(folder, "E_postprocess"))
    return ["", *sorted(set(re.findall(r"\bnms(\d+)/", names)))]


@pytest.mark.golden("E_postprocess", nms=thresholds)
def test_detections(recorded, nms):
    tensors, meta = recorded("E_postprocess")
    found = postprocess(
        tensors["pred_logits"],
        tensors["pred_boxes"],
        tensors["orig_sizes"],
        max_dets=meta["config"]["num_select"],
        nms=float(f"{nms[0]}.{nms[1:]}") if nms else None,
    )
    assert len(found) == len(tensors["pred_logits"])
    for image, (scores, labels, boxes) in enumerate(found):
        expected = f"nms{nms}/image{image}" if nms else f"official/image{image}"
        torch.testing.assert_close(scores, tensors[f"{expected}/scores"], atol=1e-6, rtol=0)
        assert torch.equal(labels, tensors[f"{expected}/labels"])
        torch.testing.assert_close(boxes, tensors[f"{expected}/boxes"], atol=1e-3, rtol=1e-5)
