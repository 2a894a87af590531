"""Detectors as ONNX files: the same detections without torch."""

import json
import sys

import pytest
import torch
from tiny_centernet2 import tiny_centernet2
from tiny_dino import CLASSES, tiny_dino

from richsem.operations import export
from richsem.operations.export import OnePicture, agreeing
from richsem.training.checkpoint import save_detector
from richsem.training.runs import open_trained

HEIGHT, WIDTH = 64, 96
pytestmark = pytest.mark.filterwarnings("default")  # the packages' own


@pytest.fixture(params=[tiny_dino, tiny_centernet2])
def folder(request, tmp_path):
    changes = {"min_score": 0.0} if request.param is tiny_centernet2 else {}
    classes = [{"id": 2 * i, "name": f"name {i}"} for i in range(CLASSES)]
    save_detector(tmp_path / "run", request.param(**changes), {"classes": classes})
    return tmp_path / "run"


@pytest.fixture
def runtime():
    pytest.importorskip("onnx", reason="the optional packages of `export`")
    return pytest.importorskip("onnxruntime", reason="the optional packages of `export`")


def test_onnxruntime_finds_the_same(folder, cache, cli, runtime):
    out = folder.parent / "detector.onnx"
    said = cli("export", folder, "--out", out, "--size", HEIGHT, WIDTH).out
    assert "detections in a picture of noise" in said
    session = runtime.InferenceSession(out, providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    trained = open_trained(folder, device="cpu")
    assert [row["id"] for row in json.loads(about["classes"])] == [0, 2, 4, 6, 8]
    assert json.loads(about["size"]) == [HEIGHT, WIDTH]
    model = OnePicture(trained, (HEIGHT, WIDTH))
    for seed in range(3):
        image = torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1 + seed))
        image[..., : 20 * seed] = 0.5
        with torch.no_grad():
            expected = model(image)
        found = session.run(["scores", "labels", "boxes"], {"image": image.numpy()})
        found = [torch.from_numpy(one) for one in found]
        assert agreeing(expected, found) == len(expected[0]) == len(found[0]) > 0
        torch.testing.assert_close(found[0], expected[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("change", "width", "words"),
    [
        (lambda patch: patch.setitem(sys.modules, "onnx", None), WIDTH, "needs onnx: pip install"),
        (lambda patch: None, 50, "size is [64, 50], expected two multiples of 32 pixels"),
        (lambda patch: patch.setattr(export, "TOLERANCE", 0.0), WIDTH, "onnxruntime finds 0 of"),
    ],
)
def test_what_is_not_written_says_why_in_one_line(
    folder, cache, cli, monkeypatch, request, change, width, words
):
    if "needs" not in words:
        request.getfixturevalue("runtime")
    change(monkeypatch)
    out = folder.parent / "detector.onnx"
    said = cli("export", folder, "--out", out, "--size", HEIGHT, width, code=2).err
    assert not out.exists() and words in said.splitlines()[-1]


def test_detections_agree_in_any_order():
    scores, labels = torch.tensor([0.5, 0.4999]), torch.tensor([1, 2])
    boxes = torch.tensor([[0.0, 0, 1, 1], [0.0, 0, 0.5, 0.5]])
    one, swapped = (scores, labels, boxes), (scores.flip(0), labels.flip(0), boxes.flip(0))
    assert agreeing(one, swapped) == 2
    assert agreeing(one, (scores, labels, boxes + torch.tensor([[0.0], [0.001]]))) == 1
    assert agreeing(one, tuple(part[:0] for part in one)) == 0
