"""Runs side by side: tables, and examples chosen by a rule."""

import torch

from richsem.evaluation import EvaluationResult
from richsem.recipes import dino_recipes
from richsem.workbook import comparison
from richsem.workbook.figures import training_charts


def result(ap, per_category):
    return EvaluationResult(
        protocol="lvis", ground_truth="x", max_dets=300, backend="fast", num_images=1,
        metrics={"AP": ap, "APr": ap / 2}, per_category=per_category,
    )  # fmt: skip


def rows(run_seconds):
    losses = {"detection": {"total": 2.0, "soft": 1.0}}
    return [
        {"step": 2, "cpu_seconds": run_seconds, "losses": losses},
        {"step": 4, "cpu_seconds": 2.0 * run_seconds, "losses": losses, "metrics": {"AP": 0.5}},
    ]


def test_steps_count_detection_batches():
    changed = comparison.pair("demo", seed=1, steps=10)
    assert [config.train.steps for config in changed.values()] == [10, 20]
    recipes = {"baseline": dino_recipes.baseline, "RichSem": dino_recipes.richsem}
    known = {"seed": 1, "root": "real"}
    own = {name: recipe("paper", **known) for name, recipe in recipes.items()}
    assert comparison.pair("paper", **known) == own


def test_histories_become_tidy_tables():
    frame = comparison.history_frame({"a": rows(1.0), "b": rows(3.0)})
    assert len(frame) == 8 and set(frame["term"]) == {"total", "soft"}
    curves = comparison.curve_frame({"a": rows(1.0), "b": rows(3.0)})
    assert curves[["run", "step", "cpu_seconds", "value"]].values.tolist() == [
        ["a", 4, 2.0, 50.0],
        ["b", 4, 6.0, 50.0],
    ]
    assert len(training_charts.loss_figure(frame).axes) == 2
    assert len(training_charts.curves_figure(curves).axes) == 2


def test_the_verdict_is_the_difference_of_the_table():
    table = comparison.metrics_frame({"a": result(0.2, {}), "b": result(0.3, {})})
    said = comparison.what_we_saw(table, "a", "b")
    assert "AP +10.0" in said and "APr +5.0" in said and "one seed" in said


def test_classes_carry_their_group(tiny_set):
    per_category = {1: 0.5, 2: 0.1, 3: 0.2, 4: 0.3}
    frame = comparison.ap_by_class({"a": result(0.2, per_category)}, tiny_set)
    assert frame["group"].tolist() == list("rcff")
    frame["b"] = frame["a"]
    assert training_charts.class_figure(frame, "a", "b").axes


def test_parameters_are_counted_by_part():
    module = torch.nn.ModuleDict({"head": torch.nn.Linear(2, 3), "neck": torch.nn.Linear(1, 1)})
    frame = comparison.parameters_frame({"a": module})
    assert frame["a"].to_dict() == {"all": 11, "head": 9, "neck": 2}
