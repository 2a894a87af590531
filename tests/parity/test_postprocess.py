"""Post-processing against recorded numbers of the authors' code."""

import pytest
import torch

from richsem.models.heads import postprocess


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
