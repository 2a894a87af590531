"""Detectors on disk: complete for inference, and refused when something is wrong."""

import json
import re
from functools import partial
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_centernet2 import tiny_centernet2
from tiny_dino import SIDE, image_batch, target, tiny_dino
from tiny_files import rewritten

from richsem.training import checkpoint
from richsem.training.checkpoint import (
    DESCRIPTION,
    WEIGHTS,
    CheckpointError,
    initialise,
    load_detector,
    save_detector,
)

CLASSES = [{"id": 3, "name": "dog"}, {"id": 8, "name": "cat"}, {"id": 9, "name": "red boat"}]


def dino(num_classes=3, **changes):
    return tiny_dino(seed=num_classes, num_classes=num_classes, **changes)


@pytest.fixture
def folder(tmp_path):
    save_detector(tmp_path, dino(), {"classes": CLASSES, "data": {"lvis": "abc"}})
    return tmp_path


LINEAR = partial(tiny_dino, classifier="linear", label_embedding="table")


@pytest.mark.parametrize("model", [tiny_dino, LINEAR, tiny_centernet2])
def test_a_loaded_detector_predicts_the_same(tmp_path, model):
    detector = model(num_classes=3).eval()
    save_detector(tmp_path, detector, {"classes": CLASSES, "data": {"lvis": "abc"}})
    loaded, meta = load_detector(tmp_path)
    assert type(loaded) is type(detector) and not loaded.training
    assert (meta["classes"], meta["data"]) == (CLASSES, {"lvis": "abc"})
    assert set(meta["code"]) == {"version", "commit", "dirty"}
    batch, state = image_batch(target(), target()), loaded.inference_state()
    with torch.no_grad():
        expected, found = (
            m.detections(m(batch), torch.tensor([[SIDE, SIDE]] * 2)) for m in (detector, loaded)
        )
    assert len(found[0][0])
    torch.testing.assert_close(found, expected, atol=0, rtol=0)
    assert all(torch.equal(tensor, detector.state_dict()[n]) for n, tensor in state.items())
    # What only serves training stays behind.
    training = [n for n in load_file(tmp_path / WEIGHTS) if "semantic" in n or "label_emb" in n]
    assert not training and not any("semantic" in name for name in loaded.state_dict())


def test_every_class_has_a_name_and_a_half_written_folder_is_not_loaded(tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match="2 classes, the detector has 3"):
        save_detector(tmp_path, dino(), {"classes": CLASSES[:2]})
    assert not list(tmp_path.iterdir())
    save_detector(tmp_path, dino(), {"classes": CLASSES})
    monkeypatch.setattr(checkpoint, "write_atomic", Mock(side_effect=OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_detector(tmp_path, dino(), {"classes": CLASSES})
    load_detector(tmp_path)  # the same detector, written again, stays
    other = dino()
    next(p for p in other.parameters() if p.requires_grad).data.add_(1)
    with pytest.raises(OSError, match="disk full"):
        save_detector(tmp_path, other, {"classes": CLASSES})
    with pytest.raises(CheckpointError, match="does not exist"):
        load_detector(tmp_path)


def test_missing_and_damaged_files_are_named(folder):
    weights = (folder / WEIGHTS).read_bytes()
    turned = bytearray(weights)
    turned[-5] ^= 1  # a bit of a number
    for content, what in (
        (weights[:200], r"is damaged .*; else delete .*json and train"),
        (turned, "is damaged .its numbers are not as written"),
    ):
        (folder / WEIGHTS).write_bytes(content)
        with pytest.raises(CheckpointError, match=what):
            load_detector(folder)
    save_file(load_file(folder / WEIGHTS), folder / WEIGHTS)  # by another tool: without a sum
    load_detector(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=r"weights\.safetensors does not exist"):
        load_detector(folder)
    fewer = json.loads((folder / DESCRIPTION).read_text()) | {"classes": CLASSES[:2]}
    wrong = {"{": "not JSON", "[]": "needs the entries", json.dumps(fewer): "names 2 classes of 3"}
    wrong |= {"version https://git-lfs": "a pointer of Git LFS"}
    for text, what in wrong.items():
        (folder / DESCRIPTION).write_text(text)
        with pytest.raises(CheckpointError, match=what):
            load_detector(folder)
    with pytest.raises(CheckpointError, match="name a folder that training wrote"):
        load_detector(folder / "elsewhere")


def test_weights_of_another_detector_are_refused(folder, tmp_path):
    rewritten(folder / DESCRIPTION, lambda c: c["detector"]["backbone"].update(weights="hub"))
    load_detector(folder)  # nothing is fetched
    right = (folder / DESCRIPTION).read_text()
    for field, what in (("ffn", r"expected \[10000"), ("decoder_layers", "_layers is more than")):
        rewritten(folder / DESCRIPTION, lambda c, field=field: c["detector"].update({field: 10**9}))
        with pytest.raises(CheckpointError, match=what):  # before it asks for memory and time
            load_detector(folder)
        (folder / DESCRIPTION).write_text(right)
    state = load_file(folder / WEIGHTS)
    state["more"] = torch.zeros(1)
    state["text"] = torch.zeros(7, 8)
    del state["level_embed"]
    save_file(state, folder / WEIGHTS)
    with pytest.raises(CheckpointError) as error:
        load_detector(folder)
    for part in ("level_embed is missing", "more is not known", "text is [7, 8], expected [3, 8]"):
        assert part in str(error.value)


def test_fine_tuning_on_other_classes_takes_what_fits(folder):
    detector = dino(num_classes=5)
    before = detector.text.clone()
    words, skipped = initialise(detector, folder)
    assert re.search(r"^159 of 160 tensors of .* fit; text is \[3, 8\], expected \[5, 8\]$", words)
    stored = load_file(folder / WEIGHTS)
    assert torch.equal(detector.decoder.content.weight, stored["decoder.content.weight"])
    assert torch.equal(detector.text, before)
    assert "text is [3, 8], expected [5, 8]" in skipped
    assert any(line.startswith("semantic.projection.weight is missing") for line in skipped)
    assert not any("decoder" in line for line in skipped)


def test_a_start_of_another_detector_is_refused(folder):
    file = folder / WEIGHTS
    state = load_file(file)
    detector, two_stages = dino(), tiny_centernet2(num_classes=3)
    words = r"of 160 tensors .* fit, 0 of \d+ behind the backbone \(.* is not known; .* is missing"
    with pytest.raises(CheckpointError, match=f"{words}.*of another detector.*`convert`"):
        initialise(two_stages, file)
    few = {name: state[name] for name in ("text", "decoder.norm.weight")}
    heads = {name: tensor for name, tensor in state.items() if not name.startswith("backbone.")}
    for stored, options, message in (
        (few, {}, "2 of 2 tensors .* fit, 1 of"),
        (heads, {"bare": True}, r"behind the backbone, none in it"),
        (heads | {"backbone.conv1.weight": torch.ones(1)}, {}, r"none in it \(backbone\.conv1"),
        ({f"x{name}": tensor for name, tensor in state.items()}, {}, "^0 of 160 "),
    ):
        save_file(stored, file)
        with pytest.raises(CheckpointError, match=message):
            initialise(detector, file, **options)
    save_file(heads, file)
    words, left = initialise(detector, file)
    assert words == f"{len(heads)} of {len(heads)} tensors of {file} fit"
    assert all(line.endswith(" is missing") for line in left)
