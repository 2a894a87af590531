"""What notebook 08 judges: result files, protocols side by side, examples."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_files import write_json

from richsem.data.reading import DataError
from richsem.evaluation import Detections
from richsem.recipes.dino_recipes import baseline
from richsem.workbook import error_verdicts as ev
from richsem.workbook import judging
from richsem.workbook.notebook_data import DataConfig


@pytest.fixture
def found(tiny_set):
    """Every object, one under a wrong name, and a false detection of each class and image."""
    boxes = tiny_set.boxes_xyxy.astype(float)
    labels = tiny_set.labels.copy()
    labels[0] = 1  # dog as cat, a class of the image
    image, label = np.divmod(np.arange(4 * len(tiny_set)), 4)
    own = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    return Detections(
        image_id=tiny_set.image_ids[np.concatenate([tiny_set.box_image, image])],
        category_id=1 + np.concatenate([labels, label]),
        bbox_xywh=[*own, *[[60.0, 60.0, 3.0, 3.0]] * len(image)],
        score=np.linspace(0.9, 0.1, len(own) + len(image)),
    )


@pytest.fixture
def file(tmp_path, found):
    return write_json(tmp_path / "found.json", found.to_list())


def test_a_result_file_is_read_as_it_was_written(file, found):
    again = judging.read_detections(file)
    for field, values in vars(found).items():
        np.testing.assert_array_equal(getattr(again, field), values)
    assert len(judging.read_detections(write_json(file, []))) == 0
    file.write_text('[{"image_id": 1, "image_id": 2, "category_id": 1, "bbox": [0, 0, 1, 1]}]')
    with pytest.raises(DataError, match='the key "image_id" occurs twice'):
        judging.read_detections(file)


def test_detections_come_from_a_file_or_a_run(file, tiny_set, found, monkeypatch):
    run, data = baseline("smoke"), DataConfig(annotations=str(tiny_set.path))
    write_json(file, [*found.to_list(), found.to_list()[0] | {"image_id": 77}])  # of no image
    config = judging.JudgingConfig(data=data, detections=str(file), run=run)
    dataset, read = judging.detections_to_judge(config)
    assert dataset.fingerprint == tiny_set.fingerprint and len(read) == len(found)
    write_json(file, [found.to_list()[0] | {"image_id": 77}])
    with pytest.raises(DataError, match=f"{file.name}: no detection is on an image of"):
        judging.detections_to_judge(config)
    monkeypatch.setattr(judging.store, "finish", lambda configs: None)
    monkeypatch.setattr(judging.runs, "open_trained", lambda folder: folder)
    monkeypatch.setattr(judging.runs, "on_file", lambda *_: SimpleNamespace(detect=lambda: found))
    dataset, detected = judging.detections_to_judge(judging.JudgingConfig(data=data, run=run))
    assert detected is found
    monkeypatch.setattr(judging, "open_detection_set", lambda config: tiny_set)

    def finished(configs, split):
        return {name: SimpleNamespace(detections=split) for name in configs}

    monkeypatch.setattr(judging.store, "finished", finished)
    config = judging.JudgingConfig(data=DataConfig(split="dev"), run=run)
    assert judging.detections_to_judge(config) == (tiny_set, "dev")


def test_a_number_comes_with_all_that_belongs_to_it_and_a_smaller_cap_never_helps(tiny_set, found):
    assert judging.protocols_of(tiny_set) == ("lvis", "coco")
    lvis, coco = (judging.evaluate(tiny_set, found, p, "official") for p in ("lvis", "coco"))
    words = f"LVIS protocol, {tiny_set.name}, 5 images, at most 300 detections per image"
    assert judging.setting(tiny_set, lvis) == words
    assert judging.setting(tiny_set, coco).endswith("at most 100 detections per image and class")
    table = judging.class_frame(tiny_set, lvis)
    assert table["category"].tolist() == ["dog", "cat", "red boat", "guitar"]
    assert table["ap"].mean() == pytest.approx(100 * lvis.metrics["AP"])
    assert judging.protocols_of(tiny_set.without_labels()) == ("coco",)
    curve = judging.cap_curve(tiny_set, found, "lvis", (1, 2, 300))
    for _, part in curve.groupby("group"):
        assert part["ap"].is_monotonic_increasing
    assert curve["ap"].iloc[0] < curve["ap"].iloc[-1]
    assert set(curve["group"]) == {"r", "c", "f", "all"}


def test_examples_show_the_mistake_with_its_object_and_whole_images_the_strongest(tiny_set, found):
    judgement = ev.judge(tiny_set, found, "lvis")
    example = judging.error_example(judgement, ev.WRONG_CLASS)
    assert (example.title, example.origin) == (ev.WRONG_CLASS, (0, 0))
    assert example.names[-1] == "x cat 0.90" and "dog" in example.names
    assert example.kinds[-2:] == ["annotated", "wrong"]
    assert example.image.shape[:2] == (64, 63)  # 44 pixels around (19, 26)
    assert judging.error_example(judgement, ev.WRONG_CLASS, place=1) is None
    far = judging.error_example(judgement, ev.BACKGROUND)
    assert far.image.shape[0] < 64 and min(far.origin) > 0
    example = judging.judged_image(judgement, 0, 3, "first")
    assert example.image.size == (96, 64)
    assert example.names[:3] == [""] * 3 and example.names[3:5] == ["x cat 0.90", "+ cat 0.87"]
    assert example.kinds[3:] == ["wrong", "right", "right"]
    assert len(example.boxes_xyxy) == len(example.names) == 6


def test_the_class_that_tells_protocols_apart(tiny_set, found, monkeypatch):
    upside_down = replace(found, score=found.score[::-1])  # false ones first
    lvis, coco = (ev.judge(tiny_set, upside_down, p) for p in ("lvis", "coco"))
    monkeypatch.setattr(judging, "_OBJECTS_OF_A_CURVE", 1)
    label = judging.telling_class([lvis, coco])
    gaps = np.abs(ev.class_ap(lvis) - ev.class_ap(coco))
    assert gaps[label] == gaps.max() > 0
    assert judging.telling_class([lvis]) == np.nanargmax(ev.class_ap(lvis))
