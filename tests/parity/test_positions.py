"""Codes, padding and anchors against recorded numbers of the authors' code."""

import pytest
import torch
from parity.reference import tensor_names

from richsem.models.dino.positions import box_code, build_pyramid, inverse_sigmoid, map_code
from richsem.models.dino.query_selection import anchor_logits

CLOSE = {"atol": 1e-5, "rtol": 0}
CODES = pytest.mark.golden("C0_position_encoding")
UTILS = pytest.mark.golden("U_utils")


@pytest.fixture(scope="module")
def codes(recorded):
    return recorded("C0_position_encoding")[0]


@pytest.fixture
def pyramid(utils):
    """Maps of the recorded sizes, padded as recorded."""
    shapes = utils["geom/spatial_shapes"].tolist()
    maps = [torch.zeros(len(utils["geom/image_mask"]), 8, *shape) for shape in shapes]
    return build_pyramid(maps, utils["geom/image_mask"], torch.zeros(len(maps), 8))


def temperatures(folder):
    """Recorded temperatures of the y and the x axis."""
    names = tensor_names(folder, "C0_position_encoding")
    return sorted(name.removeprefix("pos_T") for name in names if name.startswith("pos_T"))


@pytest.mark.golden("C0_position_encoding", temperature=temperatures)
def test_code_of_maps(codes, temperature):
    recorded = codes[f"pos_T{temperature}"]
    code = map_code(codes["mask"], recorded.shape[1], [float(t) for t in temperature.split("_")])
    torch.testing.assert_close(code, recorded.flatten(2).transpose(1, 2), **CLOSE)


@CODES
def test_code_of_boxes_and_points(codes):
    boxes = codes["query_ref"]
    for size in (4, 2):
        recorded = codes[f"query_sine_{size}d"]
        code = box_code(boxes[..., :size], recorded.shape[-1] // size)
        torch.testing.assert_close(code, recorded, **CLOSE)


@UTILS
def test_inverse_sigmoid(utils):
    """Numbers outside 0..1 and very near to 0 and 1 are among them."""
    logits = inverse_sigmoid(utils["inv_sigmoid/x"])
    torch.testing.assert_close(logits, utils["inv_sigmoid/y"], **CLOSE)


@UTILS
def test_padding_ratios_and_anchors(utils, pyramid):
    assert torch.equal(pyramid.padding, utils["geom/mask_flatten"])
    torch.testing.assert_close(pyramid.ratios, utils["geom/valid_ratios"], **CLOSE)
    logits, unusable = anchor_logits(pyramid)
    assert torch.equal(~unusable, utils["geom/proposal_valid"])
    torch.testing.assert_close(logits, utils["geom/proposal_logits_maybe_inf"], **CLOSE)
    memory = utils["geom/memory"].masked_fill(unusable[..., None], 0.0)
    assert torch.equal(memory, utils["geom/proposal_memory"])
