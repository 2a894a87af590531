"""Runs side by side: tables, and examples chosen by a rule."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from richsem.evaluation import Detections, EvaluationResult
from richsem.recipes import dino_recipes
from richsem.workbook import comparison
from richsem.workbook.figures import training_charts


def result(ap, per_category):
    return EvaluationResult(
        protocol="lvis", ground_truth="x", max_dets=300, backend="fast", num_images=1,
        num_detections=1, metrics={"AP": ap, "APr": ap / 2}, per_category=per_category,
    )  # fmt: skip


def rows(run_seconds):
    losses = {"detection": {"total": 2.0, "soft": 1.0}}
    return [
        {"step": 2, "cpu_seconds": run_seconds, "losses": losses},
        {"step": 4, "cpu_seconds": 2.0 * run_seconds, "losses": losses, "metrics": {"AP": 0.5}},
    ]


def detections(dataset, boxes):
    """Detections (image, box number, score) exactly on annotated boxes."""
    chosen = []
    for image, box, score in boxes:
        corners, labels = dataset.boxes_of(image)
        left, top, right, bottom = corners[box]
        category = dataset.categories[labels[box]].id
        xywh = [left, top, right - left, bottom - top]
        chosen.append((dataset.image_ids[image], category, xywh, score))
    images, categories, xywh, scores = zip(*chosen, strict=True)
    return Detections(
        image_id=np.array(images), category_id=np.array(categories), bbox_xywh=np.array(xywh),
        score=np.array(scores),
    )  # fmt: skip


def test_steps_count_detection_batches():
    configs = {"a": dino_recipes.baseline("demo"), "b": dino_recipes.richsem("demo")}
    changed = comparison.with_steps(configs, 10)
    assert [changed[name].train.steps for name in "ab"] == [10, 20]
    assert comparison.with_steps(configs, 0) == configs


def test_histories_become_tidy_tables():
    frame = comparison.history_frame({"a": rows(1.0), "b": rows(3.0)})
    assert len(frame) == 8 and set(frame["term"]) == {"total", "soft"}
    curves = comparison.curve_frame({"a": rows(1.0), "b": rows(3.0)})
    assert curves[["run", "step", "cpu_seconds", "value"]].values.tolist() == [
        ["a", 4, 2.0, 50.0],
        ["b", 4, 6.0, 50.0],
    ]
    assert len(training_charts.loss_figure(frame).axes) == 2
    assert len(training_charts.curve_figure(curves).axes) == 2


def test_the_verdict_is_the_difference_of_the_table():
    table = comparison.metrics_frame({"a": result(0.2, {}), "b": result(0.3, {})})
    said = comparison.verdict(table, "a", "b")
    assert "AP +10.0" in said and "APr +5.0" in said and "one seed" in said


def test_classes_carry_their_group(tiny_set):
    per_category = {1: 0.5, 2: 0.1, 3: 0.2, 4: 0.3}
    frame = comparison.class_frame({"a": result(0.2, per_category)}, tiny_set)
    assert frame["group"].tolist() == list("rcff")
    frame["b"] = frame["a"]
    assert training_charts.class_figure(frame, "a", "b").axes


def test_images_are_chosen_by_the_rare_objects_found(tiny_set):
    # Class 1 is rare: the first box of image 0 and the second of images 3 and 4.
    none = detections(tiny_set, [(1, 0, 0.9)])
    some = detections(tiny_set, [(0, 0, 0.9), (3, 1, 0.2)])
    shares = comparison.rare_found(tiny_set, some)
    assert shares[[0, 3, 4]].tolist() == [1.0, 1.0, 0.0]
    assert np.isnan(shares[[1, 2]]).all()
    assert comparison.largest_changes(tiny_set, {"a": none, "b": some}, 1) == [0]
    assert comparison.largest_changes(tiny_set, {"a": some, "b": none}, 1) == [0]
    assert comparison.largest_changes(tiny_set, {"a": some, "b": none}, 9) == [0, 3]
    shown = comparison.panels(tiny_set, {"a": none, "b": some}, [0])
    assert [panel.title for panel in shown[0]] == ["annotated", "a", "b"]
    assert shown[0][2].rare.tolist() == [True] and shown[0][1].names == []
    assert training_charts.side_by_side(shown).axes
    assert training_charts.side_by_side([]) is None


def test_parameters_are_counted_by_part():
    module = torch.nn.ModuleDict({"head": torch.nn.Linear(2, 3), "neck": torch.nn.Linear(1, 1)})
    frame = comparison.size_frame({"a": module})
    assert frame["a"].to_dict() == {"all": 11, "head": 9, "neck": 2}


@pytest.mark.parametrize("profile", ["smoke", "demo"])
def test_a_comparison_can_be_stamped(profile):
    runs = (dino_recipes.baseline(profile), replace(dino_recipes.richsem(profile), name="x"))
    assert comparison.ComparisonConfig(runs=runs, split="val").runs[1].name == "x"
