"""A run end to end: trained, saved, opened again, judged."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from toys import assert_same, interrupt, small_run

import richsem
from richsem.config import ConfigError
from richsem.data.categories import Category
from richsem.operations.recipe_book import configure, recipe_names
from richsem.structures import Supervision
from richsem.training import runs
from richsem.training.checkpoint import DESCRIPTION
from richsem.training.runs import evaluate_file, evaluate_split, ids_of_classes, open_trained, run


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory):
    """The detector as it was trained, and its folder."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("richsem.paths.CACHE", folder / "cache")
        detector, history = run(small_run(root), folder)
    return detector, history, folder


def test_losses_of_both_kinds_of_batches(trained):
    _, history, _ = trained
    assert history[-1]["step"] == 4
    kinds = history[-1]["losses"]
    assert kinds.keys() == {"detection", "image labels"}
    assert kinds["detection"]["soft"] > 0
    assert all(np.isfinite(value) for terms in kinds.values() for value in terms.values())


def test_the_run_can_be_repeated_from_its_folder(trained, root):
    _, _, folder = trained
    opened = open_trained(folder)
    config = small_run(root)
    tau = opened.recipe.detector.scale  # that of the teacher
    expected = replace(config, detector=replace(config.detector, num_classes=3, scale=tau))
    assert opened.recipe == expected
    assert [c.name for c in opened.classes] == ["dog", "cat", "red_boat"]


def test_an_interrupted_run_ends_as_the_uninterrupted_one(trained, root, tmp_path, monkeypatch):
    detector, history, folder = trained
    monkeypatch.setattr("richsem.paths.CACHE", folder / "cache")
    with pytest.raises(KeyboardInterrupt):  # denoising and federated draws are behind it
        run(small_run(root), tmp_path, on_progress=interrupt)
    assert not (tmp_path / DESCRIPTION).exists()
    resumed, again = run(small_run(root), tmp_path)
    assert [row["losses"] for row in again] == [row["losses"] for row in history]
    assert_same(resumed, detector)


def test_both_ways_of_evaluation_agree(trained, root):
    detector, _, folder = trained
    opened = open_trained(folder)
    split, found = evaluate_split(opened, "val", batch_size=4)
    file, same = evaluate_file(opened, root / "lvis_v1_val.json", root)
    assert split.protocol == file.protocol == "lvis"
    assert split.num_images == 6
    np.testing.assert_allclose(found.score, same.score, atol=1e-5)
    np.testing.assert_equal(split.metrics, file.metrics)
    coco, _ = evaluate_file(opened, root / "lvis_v1_val.json", root, "coco")
    assert coco.protocol == "coco"
    memory = runs.Trained(detector=detector, classes=opened.classes, recipe=opened.recipe)
    _, again = evaluate_split(memory, "val", batch_size=4)
    np.testing.assert_array_equal(again.score, found.score)


def test_without_a_recipe_a_file_is_needed(trained):
    opened = replace(open_trained(trained[2]), recipe=None)
    with pytest.raises(ValueError, match="name the annotations"):
        evaluate_split(opened)
    assert opened.transform.short_sides == (800,)


def test_classes_are_found_by_name():
    def listed(*names):
        return [Category(id=10 + i, name=name) for i, name in enumerate(names)]

    ids = ids_of_classes(listed("cat", "red_boat", "yak"), listed("dog", "red boat", "cat"))
    assert ids == [12, 11, -1]
    with pytest.raises(ValueError, match="none of the 1 classes"):
        ids_of_classes(listed("yak"), listed("dog"))


@pytest.mark.parametrize(
    ("key", "supervision", "changes", "expected"),
    [
        ("inet_unl", Supervision.UNLABELLED, {}, {"soft", "box", "denoising_soft"}),
        ("inet_lvis", Supervision.WHOLE_IMAGES, {}, {"image_level"}),
        ("o365_box", Supervision.BOXES_ONLY, {}, {"soft", "giou"}),
        ("o365", Supervision.DETECTION, {"teacher_boxes": "pred"}, {"soft", "class"}),
        ("o365", Supervision.DETECTION, {"teacher_boxes": "pred_all"}, {"soft", "class"}),
        ("inet_lvis", Supervision.IMAGE_LABELS, {"federated_soft": True}, {"soft", "class"}),
    ],
)
def test_every_kind_of_supervision_trains(
    root, tmp_path, trained, monkeypatch, key, supervision, changes, expected
):
    monkeypatch.setattr("richsem.paths.CACHE", trained[2] / "cache")
    mosaic = supervision is Supervision.UNLABELLED
    config = small_run(root, steps=2, key=key, supervision=supervision, mosaic=mosaic)
    if supervision is Supervision.WHOLE_IMAGES:
        config = replace(config, detector=replace(config.detector, semantic=False))
    _, history = run(replace(config, loss=replace(config.loss, **changes)), tmp_path)
    terms = history[-1]["losses"][str(supervision)]
    assert expected <= terms.keys()
    assert all(np.isfinite(value) for value in terms.values())


def test_a_picture_in_two_lines(trained, root):
    _, _, folder = trained
    file = root / "train2017" / "val1.jpg"
    found = richsem.load(folder, device="cpu").detect(file, threshold=0.0)
    assert len(found) == len(found.scores) == len(found.boxes_xyxy) == len(found.to_list()) == 18
    assert set(found.names) <= {"dog", "cat", "red_boat"} and (np.diff(found.scores) <= 0).all()
    assert found.boxes_xyxy.max() > 1  # pixels
    with Image.open(file) as picture:
        opened = open_trained(folder)
        for same in (str(file), picture, np.asarray(picture)):
            again = opened.detect(same, threshold=0.0)
            np.testing.assert_array_equal(again.boxes_xyxy, found.boxes_xyxy)
    middle = float(found.scores[5])
    assert (opened.detect(file, middle).scores >= middle).all()
    for wrong in (float("nan"), 1.5):
        with pytest.raises(ValueError, match="threshold is a score"):
            opened.detect(file, wrong)


def test_detections_for_supervision(trained, root, monkeypatch):
    found = open_trained(trained[2]).detect(root / "train2017" / "val1.jpg", threshold=0.0)
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match=r'pip install "richsem\[supervision\]"'):
        found.to_supervision()
    stand_in = SimpleNamespace(Detections=lambda **values: values)
    monkeypatch.setitem(sys.modules, "supervision", stand_in)
    values = found.to_supervision()
    assert values["xyxy"].shape == (18, 4) and values["confidence"].shape == (18,)
    assert [("dog", "cat", "red_boat")[i] for i in values["class_id"]] == list(found.names)
    assert values["data"]["class_name"].tolist() == list(found.names)


def test_recipes_are_found_by_name(trained):
    assert {"baseline", "richsem", "centernet2"} <= recipe_names().keys()
    config = configure("baseline", "paper", seed=3, settings=["train.batch_size=32"])
    assert (config.train.seed, config.train.batch_size) == (3, 32)
    assert configure(str(trained[2]), "demo") == open_trained(trained[2]).recipe
    with pytest.raises(ConfigError, match="no recipe 'best'"):
        configure("best", "demo")
