"""Deformable attention against recorded numbers of the authors' code: outputs and gradients."""

import json

import pytest
import torch
from safetensors.torch import load_file

from richsem.models import deformable
from richsem.models.deformable import DeformableAttention, sample_gathered, sample_textbook

WAYS = [sample_textbook, sample_gathered]
CLOSE = {"atol": 1e-5, "rtol": 0}
GRADIENTS_CLOSE = {"atol": 1e-4, "rtol": 1e-4}
LAYERS = {
    "sampling_offsets": "offsets",
    "attention_weights": "weights",
    "value_proj": "values",
    "output_proj": "output",
}


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def way(request):
    return request.param


def shapes_of(tensors):
    return [tuple(shape) for shape in tensors["spatial_shapes"].tolist()]


@pytest.mark.parametrize("name", ["A1_msda_inside", "A2_msda_out_of_range"])
def test_sampling(golden, way, name):
    tensors = load_file(golden / f"{name}.safetensors")
    inputs = {
        key: tensors[key].requires_grad_()
        for key in ("value", "sampling_locations", "attention_weights")
    }
    value, locations, weights = inputs.values()
    output = way(value, shapes_of(tensors), locations, weights)
    torch.testing.assert_close(output, tensors["output"], **CLOSE)
    output.backward(tensors["grad_output"])
    for key, leaf in inputs.items():
        torch.testing.assert_close(leaf.grad, tensors[f"grad_{key}"], **GRADIENTS_CLOSE)


def test_points_on_edges(golden, way):
    """Cell centres, cell borders, the map's border, just and far outside."""
    tensors = load_file(golden / "A3_msda_edge_forward.safetensors")
    output = way(
        tensors["value"],
        shapes_of(tensors),
        tensors["sampling_locations"],
        tensors["attention_weights"],
    )
    torch.testing.assert_close(output, tensors["output"], **CLOSE)


@pytest.fixture
def module(golden, way, monkeypatch):
    """(the attention with recorded weights, all recorded tensors)."""
    monkeypatch.setattr(deformable, "sample", way)
    tensors = load_file(golden / "B_msda_module.safetensors")
    text = (golden / "B_msda_module.json").read_text(encoding="utf-8")
    sizes = json.loads(text)["config"]
    attention = DeformableAttention(
        sizes["d_model"], sizes["n_heads"], sizes["n_levels"], sizes["n_points"]
    )
    state = {}
    for key, tensor in tensors.items():
        if key.startswith("weight/"):
            layer, kind = key.removeprefix("weight/").split(".")
            state[f"{LAYERS[layer]}.{kind}"] = tensor
    attention.load_state_dict(state)
    return attention, tensors


@pytest.mark.parametrize("kind", ["2d", "4d"])
@pytest.mark.parametrize("masked", [True, False], ids=["padding", "no padding"])
def test_the_module(module, kind, masked):
    attention, tensors = module
    names = ("query", f"ref_points_{kind}", "input_flatten")
    leaves = {name: tensors[name].requires_grad_() for name in names}
    padding = tensors["padding_mask"] if masked else None
    output = attention(*leaves.values(), shapes_of(tensors), padding)
    ending = f"{kind}_{'masked' if masked else 'unmasked'}"
    torch.testing.assert_close(output, tensors[f"output_{ending}"], atol=2e-5, rtol=0)
    output.backward(tensors["grad_output"])
    if not masked:  # gradients are recorded with padding only
        return
    for name, leaf in leaves.items():
        recorded = tensors[f"grad_{name.removesuffix(f'_{kind}')}_{ending}"]
        torch.testing.assert_close(leaf.grad, recorded, atol=2e-4, rtol=1e-4)
