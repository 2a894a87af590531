"""Deformable attention against recorded numbers of the authors' code: outputs and gradients."""

import re

import pytest
import torch
from parity.reference import tensor_names

from richsem.models import deformable
from richsem.models.deformable import DeformableAttention, sample_gathered, sample_textbook

WAYS = [sample_textbook, sample_gathered]
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


def samplings(folder):
    """Inside the maps; far outside; on cell centres, on borders of cells and maps."""
    return sorted(file.stem for file in folder.glob("A*.safetensors"))


@pytest.mark.golden(name=samplings)
def test_sampling(recorded, way, name):
    tensors, _ = recorded(name)
    inputs = {
        key: tensors[key].requires_grad_()
        for key in ("value", "sampling_locations", "attention_weights")
    }
    value, locations, weights = inputs.values()
    output = way(value, shapes_of(tensors), locations, weights)
    torch.testing.assert_close(output, tensors["output"], atol=1e-5, rtol=0)
    if "grad_output" not in tensors:  # at edges there is no gradient
        return
    output.backward(tensors["grad_output"])
    for key, leaf in inputs.items():
        torch.testing.assert_close(leaf.grad, tensors[f"grad_{key}"], atol=1e-4, rtol=1e-4)


def calls(folder):
    """Calls of the module: kind of references, with padding or without."""
    names = " ".join(tensor_names(folder, "B_msda_module"))
    return sorted(re.findall(r"\boutput_(\d+d_\w+)", names))


@pytest.mark.golden("B_msda_module", call=calls)
def test_the_module(recorded, way, call, monkeypatch):
    monkeypatch.setattr(deformable, "sample", way)
    tensors, meta = recorded("B_msda_module")
    sizes = [meta["config"][name] for name in ("d_model", "n_heads", "n_levels", "n_points")]
    attention = DeformableAttention(*sizes)
    state = {}
    for key, tensor in tensors.items():
        if key.startswith("weight/"):
            layer, kind = key.removeprefix("weight/").split(".")
            state[f"{LAYERS[layer]}.{kind}"] = tensor
    attention.load_state_dict(state)
    kind, masked = call.split("_")
    names = ("query", f"ref_points_{kind}", "input_flatten")
    leaves = {name: tensors[name].requires_grad_() for name in names}
    padding = tensors["padding_mask"] if masked == "masked" else None
    output = attention(*leaves.values(), shapes_of(tensors), padding)
    torch.testing.assert_close(output, tensors[f"output_{call}"], atol=2e-5, rtol=0)
    output.backward(tensors["grad_output"])
    for name, leaf in leaves.items():
        gradient = tensors.get(f"grad_{name.removesuffix(f'_{kind}')}_{call}")
        if gradient is not None:  # recorded with padding only
            torch.testing.assert_close(leaf.grad, gradient, atol=2e-4, rtol=1e-4)
    assert masked != "masked" or f"grad_query_{call}" in tensors
