"""Weights damaged in every way we could think of load as written, or one error says why not.

Bytes are damaged as `damage.py` does; tensors are removed, renamed, reshaped and filled with what
is no number in files that are written well. `RICHSEM_DAMAGED=125` tries so many cases of each kind,
and `pytest -s` shows what became of them.
"""

import argparse
import math
import os
import random
import warnings
from collections import Counter
from unittest import mock

import numpy as np
import pytest
import torch
from damage import other_bytes
from safetensors.torch import load_file, save_file
from tiny_centernet2 import tiny_centernet2
from tiny_dino import categories_file, published_dino, tiny_dino, without_text
from toys import ToyCriterion, ToyDetector, ToySet

from richsem.models.backbones import Backbone, BackboneConfig
from richsem.models.published import dino_weights
from richsem.training import checkpoint, loop, runs
from richsem.training.loading import Source
from richsem.training.optim import OptimConfig

CASES = int(os.environ.get("RICHSEM_DAMAGED", 12))
FILES = dict.fromkeys(("archive", "legacy", "script"), "published.pth") | {
    "safetensors": "published.safetensors", "start": "start.safetensors",
    "folder": checkpoint.WEIGHTS, "description": checkpoint.DESCRIPTION, "state": loop.STATE,
}  # fmt: skip
# Other files cannot tell one number from another.
WITH_SUMS = ("archive", "script", "start", "folder", "state")
UNUSED = ("text", "log_scale")  # of heads that compare with no text
FINE, NUMBERS, REFUSED = "loads as written", "loads, a number differs", "is refused"


# --- what is damaged, and how it is read ------------------------------------------------------


class Trial:
    """A file of a kind in a folder of its own."""

    def __init__(self, kind, place):
        self.kind, self.place, self.file = kind, place, place / FILES[kind]
        self.annotations = categories_file(place / "val.json", (1, 2, 4))
        if kind == "state":
            self.read()
        elif kind in ("folder", "description"):
            classes = [{"id": i, "name": str(i)} for i in range(5)]
            checkpoint.save_detector(place, tiny_centernet2(), {"classes": classes})
            self.state = load_file(place / checkpoint.WEIGHTS)
        elif kind == "start":
            checkpoint.save_start(self.file, tiny_dino().requires_grad_(True))
            self.state = load_file(self.file)
        else:
            backbone = Backbone(BackboneConfig(name="test_resnet", strides=(8, 16, 32)))
            self.state = without_text(published_dino(backbone), 5)
            self.write(self.state)
        self.bytes, self.right = self.file.read_bytes(), self.read()

    def write(self, state):
        """The file with these tensors, or whatever stands in their place."""
        if self.kind == "archive":
            content = {"model": state, "args": argparse.Namespace(lr=1e-4), "epoch": 3}
            torch.save(content, self.file)
        elif self.kind == "legacy":
            torch.save({"model": state}, self.file, _use_new_zipfile_serialization=False)
        elif self.kind == "script":
            with warnings.catch_warnings(action="ignore"):
                torch.jit.script(module_of(state)).save(str(self.file))
        else:
            save_file({name: tensor.contiguous() for name, tensor in state.items()}, self.file)

    def read(self):
        """What comes out by the way that users take: tensors, and what else matters."""
        if self.kind == "state":
            config = loop.TrainConfig(steps=2, batch_size=2, checkpoint_every=1)
            detector, data = ToyDetector(), Source(dataset=ToySet())
            loop.train(detector, ToyCriterion(), data, None, config, OptimConfig(), self.place)
            return dict(detector.state_dict())
        if self.kind in ("folder", "description"):
            opened = runs.open_trained(self.place, device="cpu")
            names = [category.name for category in opened.classes]
            return opened.detector.inference_state() | {"names": names}
        if self.kind == "start":
            detector = tiny_dino(seed=1)
            _, left = checkpoint.initialise(detector, self.file)
            return dict(detector.state_dict()) | {"not taken": left}
        with mock.patch.object(dino_weights.translation, "translate_backbone", tiny_backbone):
            runs.convert(self.file, self.annotations, self.place / "out")
        detector = runs.open_trained(self.place / "out", device="cpu").detector
        return {n: t for n, t in detector.inference_state().items() if n not in UNUSED}


def tiny_backbone(official, num_maps):
    """In place of the real translation: the smallest published backbone has 94 MB."""
    config = BackboneConfig(name="test_resnet", strides=(8, 16, 32)[-num_maps:])
    return config, {f"body.{name}": tensor for name, tensor in official.items()}


def module_of(state):
    """A module with this state."""
    root = torch.nn.Module()
    for name, tensor in state.items():
        place, (*parents, last) = root, name.split(".")
        for parent in parents:
            if not hasattr(place, parent):
                place.add_module(parent, torch.nn.Module())
            place = getattr(place, parent)
        place.register_buffer(last, tensor)
    return root


def replaced(draw):
    """Something else under the name: texts, and what other programs write."""
    texts = (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n",
        b"<!DOCTYPE html><html><title>Google Drive - Virus scan warning</title></html>",
        b'{"error": "not found"}', b"Not Found", bytes(5000),
    )  # fmt: skip
    begins = (b"\x1f\x8b\x08", b"\x93NUMPY\x01\x00", b"\x08\x07\x12\x07pytorch", b"")
    return draw.choice((*texts, *(begin + draw.randbytes(100) for begin in begins)))


# --- damage to tensors ------------------------------------------------------------------------


def changed(state, draw):
    """How tensors are changed, those, and whether they are still the same detector."""
    name = draw.choice(sorted(name for name, tensor in state.items() if is_float(tensor)))
    tensor, rest = state[name], {n: t for n, t in state.items() if n != name}
    kind = draw.choice((torch.int64, torch.bool, torch.complex64, torch.uint8))
    others = {
        "one axis more": tensor[None],
        "longer": torch.cat([tensor.reshape(-1), torch.ones(1)]),
        "empty": tensor.reshape(-1)[:0],
        "not finite": torch.full_like(tensor, draw.choice((math.nan, math.inf))),
        "whole numbers": tensor.to(kind),
    }
    ways = [
        ("removed", rest, False),
        ("renamed", rest | {f"{name}x": tensor}, False),
        ("added", state | {"another.weight": torch.ones(2)}, False),
        ("half precision", {n: t.half() for n, t in state.items()}, True),
        ("double precision", state | {name: tensor.double()}, True),
    ]
    return draw.choice([*ways, *((way, state | {name: own}, False) for way, own in others.items())])


def wrapped(state, draw):
    """The same in other containers."""
    first = sorted(state)[0]
    ways = {
        "module. and not": state | {f"module.{first}": state[first] + 1},
        "deeper": {"model": {"model": state}},
        "a list": list(state.values()),
        "with a number": state | {"epoch": 3},
        "with a text": state | {first: "weights"},
        "nothing": {},
        "sparse": state | {first: state[first].to_sparse()},
        "shapes alone": state | {first: state[first].to("meta")},
    }
    whole = ("module.", {f"module.{n}": t for n, t in state.items()}, True)
    return draw.choice([whole, *((way, own, False) for way, own in ways.items())])


# --- what comes of it -------------------------------------------------------------------------


def attempt(trial, number):
    """A damaged file: what was done to it, and how it is met; what is wrong begins so."""
    draw = random.Random(f"{trial.kind} {number}")
    trial.file.write_bytes(trial.bytes)
    right, same = dict(trial.right), None  # of damaged bytes it is not known
    if trial.kind in ("state", "description", "script") or draw.random() < 0.6:
        way, rng = draw.choice(["replaced", *["bytes"] * 9]), np.random.default_rng(number)
        content = replaced(draw) if way == "replaced" else other_bytes(trial.bytes, rng)
        trial.file.write_bytes(content)
    else:
        ways = (changed, wrapped) if trial.kind in ("archive", "legacy") else (changed,)
        way, state, same = draw.choice(ways)(trial.state, draw)
        trial.write(state)
        if way == "half precision":
            kept = state if trial.kind == "start" else right  # some of its names are not there
            right |= {n: t.half().float() for n, t in right.items() if is_float(t) and n in kept}
    return way, met(trial, right, same)


def met(trial, right, same):
    """What the public way makes of the file."""
    try:
        with warnings.catch_warnings(action="ignore"):
            found = trial.read()
    except (ValueError, FileNotFoundError) as error:
        text = str(error)
        fine = trial.file.name in text and "\n" not in text and len(text) < 1000
        fine = fine and "weights_only=False" not in text and same is not True
        return REFUSED if fine else f"wrong: {text}"
    except Exception as error:
        return f"wrong: {type(error).__name__}: {error}"
    told = trial.kind == "start" and found["not taken"] != right["not taken"]
    if found.keys() != right.keys():
        return f"wrong: {sorted(found.keys() ^ right.keys())}"
    differs = [n for n in right if not same_values(found[n], right[n])]
    numbers = trial.kind not in WITH_SUMS and all(shape(found[n]) == shape(right[n]) for n in right)
    if same is False and not told:  # of heads that all layers share there are copies
        return "wrong: nothing is said" if differs else FINE
    if differs and not told:
        return NUMBERS if numbers else f"wrong: {differs[:3]}"
    return REFUSED if differs else FINE


def is_float(value):
    """Whether it is a tensor of fractions."""
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def same_values(one, other):
    """Whether two tensors, or lists, are equal."""
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def shape(value):
    """Of a tensor, or the length of a list."""
    return tuple(value.shape) if isinstance(value, torch.Tensor) else len(value)


@pytest.mark.parametrize("kind", FILES)
def test_damaged_weights_load_as_written_or_are_refused(kind, tmp_path):
    trial = Trial(kind, tmp_path)
    found = {number: attempt(trial, number) for number in range(CASES)}
    assert not {n: case for n, case in found.items() if case[1].startswith("wrong")}
    outcomes = Counter(outcome for _, outcome in found.values())
    print(kind, *(f"{number} {outcome}" for outcome, number in outcomes.items()), sep=", ")
    assert outcomes[REFUSED]  # some are noticed
