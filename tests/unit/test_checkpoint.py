"""Detectors on disk: complete for inference, and refused when something is wrong."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from richsem.models.backbones import BackboneConfig
from richsem.models.dino.dino import Dino, DinoConfig
from richsem.structures import Batch, Target
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
    torch.manual_seed(num_classes)
    config = DinoConfig(
        backbone=BackboneConfig(name="test_resnet", strides=(8, 16)),
        num_classes=num_classes,
        dim=16,
        heads=2,
        levels=2,
        encoder_layers=1,
        decoder_layers=2,
        ffn=16,
        queries=5,
        text_dim=8,
        **changes,
    )
    return Dino(config, torch.randn(num_classes, 8))


@pytest.fixture
def folder(tmp_path):
    save_detector(tmp_path, dino(), {"classes": CLASSES, "data": {"lvis": "abc"}})
    return tmp_path


def batch():
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    target = Target(
        labels=torch.zeros(0).long(),
        boxes=torch.zeros(0, 4),
        size=(64, 64),
        original_size=(64, 64),
        image_id=1,
    )
    return Batch(targets=(target, target), images=images)


@pytest.mark.parametrize("changes", [{}, {"classifier": "linear", "label_embedding": "table"}])
def test_a_loaded_detector_predicts_the_same(tmp_path, changes):
    detector = dino(**changes).eval()
    save_detector(tmp_path, detector, {"classes": CLASSES, "data": {"lvis": "abc"}})
    loaded, meta = load_detector(tmp_path)
    assert not loaded.training
    assert meta["classes"] == CLASSES
    assert meta["data"] == {"lvis": "abc"}
    assert set(meta["code"]) == {"version", "commit", "dirty"}
    with torch.no_grad():
        expected, found = detector(batch()), loaded(batch())
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.boxes, expected.boxes)
    assert torch.equal(loaded.text, detector.text)


def test_what_only_serves_training_stays_behind(folder):
    names = set(load_file(folder / WEIGHTS))
    assert not [name for name in names if name.startswith(("semantic", "label_embedding"))]
    loaded, _ = load_detector(folder)
    assert loaded.semantic is None


def test_the_weights_of_the_backbone_are_not_fetched(folder):
    record = json.loads((folder / DESCRIPTION).read_text())
    record["detector"]["backbone"]["weights"] = "hub"
    (folder / DESCRIPTION).write_text(json.dumps(record))
    load_detector(folder)


def test_every_class_has_a_name(tmp_path):
    with pytest.raises(CheckpointError, match="2 classes, the detector has 3"):
        save_detector(tmp_path, dino(), {"classes": CLASSES[:2]})
    assert not list(tmp_path.iterdir())


def test_a_half_written_folder_is_not_loaded(tmp_path, monkeypatch):
    save_detector(tmp_path, dino(), {"classes": CLASSES})

    def crash(*args):
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint, "write_atomic", crash)
    with pytest.raises(OSError, match="disk full"):
        save_detector(tmp_path, dino(), {"classes": CLASSES})
    with pytest.raises(CheckpointError, match="does not exist"):
        load_detector(tmp_path)


def test_missing_and_damaged_files_are_named(folder):
    weights = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(weights[:200])
    with pytest.raises(CheckpointError, match="is damaged"):
        load_detector(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=r"weights\.safetensors does not exist"):
        load_detector(folder)
    for text, what in (("{", "not JSON"), ("[]", "needs the entries")):
        (folder / DESCRIPTION).write_text(text)
        with pytest.raises(CheckpointError, match=what):
            load_detector(folder)
    with pytest.raises(CheckpointError, match="name a folder that training wrote"):
        load_detector(folder / "elsewhere")


def test_weights_of_another_detector_are_refused(folder, tmp_path):
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
    skipped = initialise(detector, folder)
    stored = load_file(folder / WEIGHTS)
    assert torch.equal(detector.decoder.content.weight, stored["decoder.content.weight"])
    assert torch.equal(detector.text, before)
    assert "text is [3, 8], expected [5, 8]" in skipped
    assert any(line.startswith("semantic.projection.weight is missing") for line in skipped)
    assert not any("decoder" in line for line in skipped)


def test_nothing_that_fits_is_an_error(folder):
    with pytest.raises(CheckpointError, match="no tensor fits"):
        initialise(torch.nn.Linear(1, 1), folder / WEIGHTS)
