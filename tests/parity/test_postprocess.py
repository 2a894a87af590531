"""Post-processing against recorded numbers of the authors' code."""

import json

import pytest
import torch
from safetensors.torch import load_file

from richsem.models.postprocess import postprocess


@pytest.mark.parametrize(("kind", "nms"), [("official", None), ("nms07", 0.7), ("nms03", 0.3)])
def test_detections(golden, kind, nms):
    tensors = load_file(golden / "E_postprocess.safetensors")
    config = json.loads((golden / "E_postprocess.json").read_text(encoding="utf-8"))["config"]
    found = postprocess(
        tensors["pred_logits"],
        tensors["pred_boxes"],
        tensors["orig_sizes"],
        max_dets=config["num_select"],
        nms=nms,
    )
    assert len(found) == config["bs"]
    for image, (scores, labels, boxes) in enumerate(found):
        expected = f"{kind}/image{image}"
        torch.testing.assert_close(scores, tensors[f"{expected}/scores"], atol=1e-6, rtol=0)
        assert torch.equal(labels, tensors[f"{expected}/labels"])
        torch.testing.assert_close(boxes, tensors[f"{expected}/boxes"], atol=1e-3, rtol=1e-5)
