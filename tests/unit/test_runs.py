"""A run end to end: trained, saved, opened again, judged."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from toys import assert_same, interrupt, small_run, two_stage_run

import richsem
from richsem.data.categories import Category
from richsem.structures import Supervision
from richsem.training.checkpoint import DESCRIPTION
from richsem.training.runs import ids_of_classes, on_file, on_split, open_trained, run


@pytest.fixture(scope="module", params=[small_run, two_stage_run])
def trained(request, root, tmp_path_factory):
    """What makes the configuration, the detector as it was trained, its history and folder."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("richsem.paths.CACHE", folder / "cache")
        detector, history = run(request.param(root), folder)
    return SimpleNamespace(make=request.param, detector=detector, history=history, folder=folder)


def test_the_run_can_be_repeated_from_its_folder_or_needs_a_file(trained, root):
    opened, config = open_trained(trained.folder), trained.make(root)
    assert type(opened.detector) is type(trained.detector)
    tau = opened.recipe.detector.scale  # that of the teacher
    expected = replace(config, detector=replace(config.detector, num_classes=3, scale=tau))
    assert opened.recipe == expected
    assert [c.name for c in opened.classes] == ["dog", "cat", "red_boat"]
    opened = replace(open_trained(trained.folder), recipe=None)
    with pytest.raises(ValueError, match="name the annotations"):
        on_split(opened)
    assert opened.transform.short_sides == (800,)


def test_an_interrupted_run_ends_as_the_uninterrupted_one(trained, root, tmp_path, monkeypatch):
    monkeypatch.setattr("richsem.paths.CACHE", trained.folder / "cache")
    with pytest.raises(KeyboardInterrupt):  # denoising and federated draws are behind it
        run(trained.make(root), tmp_path, on_progress=interrupt)
    assert not (tmp_path / DESCRIPTION).exists()
    resumed, again = run(trained.make(root), tmp_path)
    assert [row["losses"] for row in again] == [row["losses"] for row in trained.history]
    assert_same(resumed, trained.detector)


def test_a_picture_in_two_lines_and_its_detections_for_supervision(trained, root, monkeypatch):
    file = root / "train2017" / "val1.jpg"
    opened = richsem.load(trained.folder, device="cpu")
    found = opened.detect(file, threshold=0.0)
    assert len(found) == len(found.scores) == len(found.boxes_xyxy) == len(found.to_list()) > 2
    assert set(found.names) <= {"dog", "cat", "red_boat"} and (np.diff(found.scores) <= 0).all()
    assert found.boxes_xyxy.max() > 1  # pixels
    with Image.open(file) as picture:
        for same in (str(file), picture, np.asarray(picture)):
            again = opened.detect(same, threshold=0.0)
            np.testing.assert_array_equal(again.boxes_xyxy, found.boxes_xyxy)
    middle = float(found.scores[1])
    fewer = opened.detect(file, middle).scores
    assert (fewer >= middle).all() and 0 < len(fewer) < len(found)
    for wrong in (float("nan"), 1.5):
        with pytest.raises(ValueError, match="threshold is a score"):
            opened.detect(file, wrong)
    found = open_trained(trained.folder).detect(root / "train2017" / "val1.jpg", threshold=0.0)
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match=r'pip install "richsem\[supervision\]"'):
        found.to_supervision()
    stand_in = SimpleNamespace(Detections=lambda **values: values)
    monkeypatch.setitem(sys.modules, "supervision", stand_in)
    values = found.to_supervision()
    assert values["xyxy"].shape == (len(found), 4) and values["confidence"].shape == (len(found),)
    assert [("dog", "cat", "red_boat")[i] for i in values["class_id"]] == list(found.names)
    assert values["data"]["class_name"].tolist() == list(found.names)


@pytest.mark.parametrize(
    ("make", "key", "supervision", "changes", "expected"),
    [
        (small_run, "inet_unl", Supervision.UNLABELLED, {}, {"soft", "box", "denoising_soft"}),
        (small_run, "inet_lvis", Supervision.WHOLE_IMAGES, {}, {"image_level"}),
        (small_run, "o365_box", Supervision.BOXES_ONLY, {}, {"soft", "giou"}),
        (small_run, "o365", Supervision.DETECTION, {"teacher_boxes": "pred"}, {"soft", "class"}),
        (small_run, "o365", Supervision.DETECTION, {"teacher_boxes": "pred_all"}, {"soft"}),
        (small_run, "inet_lvis", Supervision.IMAGE_LABELS, {"federated_soft": True}, {"soft"}),
        (two_stage_run, "inet_lvis", Supervision.IMAGE_LABELS, {}, {"soft", "class"}),
        (two_stage_run, "inet_unl", Supervision.UNLABELLED, {}, {"soft", "box", "heatmap"}),
        (two_stage_run, "inet_lvis", Supervision.WHOLE_IMAGES, {}, {"image_level"}),
    ],
)
def test_every_kind_of_supervision_trains(
    root, tmp_path, cache, make, key, supervision, changes, expected
):
    mosaic = supervision is not Supervision.WHOLE_IMAGES
    config = make(root, steps=2, key=key, supervision=supervision, mosaic=mosaic)
    _, history = run(replace(config, loss=replace(config.loss, **changes)), tmp_path)
    kinds = history[-1]["losses"]
    assert kinds.keys() == {"detection", str(supervision)}
    assert expected <= kinds[str(supervision)].keys()
    assert {"class", "box"} <= kinds["detection"].keys()
    assert all(np.isfinite(value) for terms in kinds.values() for value in terms.values())


def test_both_ways_of_evaluation_agree(trained, root):
    opened = open_trained(trained.folder)
    split, found = on_split(opened, "val").run(4)
    file, same = on_file(opened, root / "lvis_v1_val.json", root).run()
    assert split.protocol == file.protocol == "lvis"
    assert split.num_images == 6 and "AP" in split.metrics
    np.testing.assert_allclose(found.score, same.score, atol=1e-5)
    np.testing.assert_allclose(found.bbox_xywh, same.bbox_xywh, atol=1e-3)
    np.testing.assert_equal(split.metrics, file.metrics)
    coco, _ = on_file(opened, root / "lvis_v1_val.json", root, "coco").run()
    assert coco.protocol == "coco"
    _, again = on_split(replace(opened, detector=trained.detector), "val").run(4)
    np.testing.assert_array_equal(again.score, found.score)


def test_classes_are_found_by_name():
    def listed(*names):
        return [Category(id=10 + i, name=name) for i, name in enumerate(names)]

    ids = ids_of_classes(listed("cat", "red_boat", "yak"), listed("dog", "red boat", "cat"))
    assert ids == [12, 11, -1]
    with pytest.raises(ValueError, match="none of the 1 classes"):
        ids_of_classes(listed("yak"), listed("dog"))
