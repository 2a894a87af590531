"""Labs: what their arms change, and short runs beside long ones."""

from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from workbook_toys import frame_of

from richsem.config import config_hash
from richsem.structures import Supervision
from richsem.training import build
from richsem.training.run_config import other_run
from richsem.workbook import labs, noisy_boxes, unseen_glyphs

STUDIES = (
    labs.order, labs.peers, labs.equal_compute, labs.who_pays, labs.soft_label_parts,
    labs.image_labels, labs.full_length, noisy_boxes.box_noise, unseen_glyphs.unseen_glyphs,
)  # fmt: skip


@pytest.mark.parametrize("make_study", STUDIES)
def test_arms_are_runs_of_their_own_and_claims_are_about_arms(make_study):
    study = make_study("demo")
    runs = {arm: make(0) for arm, make in study.arms.items()}
    assert len({replace(run, name="") for run in runs.values()}) == len(runs)
    for run in runs.values():
        build.check(run)
    # Computed from two arms each.
    gains = {f"{noisy_boxes.GAIN}, {shift:g}" for shift in noisy_boxes.SHIFTS}
    for gain in (unseen_glyphs.SOFT_GAIN, unseen_glyphs.ALL_GAIN):
        gains |= {f"{gain}, {saw}" for saw in unseen_glyphs.WORDS.values()}
    for claim in study.claims:
        assert {claim.arm, claim.other} - gains <= set(runs)
    assert len({claim.words for claim in study.claims}) == len(study.claims)  # the report's keys
    assert {arm for pair in study.pairs for arm in pair} - gains <= set(runs)


def test_controls_and_short_runs_change_what_they_name():
    arms = labs.who_pays("demo").arms
    full = arms["RichSem"](0)
    assert other_run(full, arms["own class only"](0)) == ["loss.own_class_only"]
    assert other_run(full, arms["no tiles at the end"](0)) == ["train.extra_until"]
    less = other_run(full, arms["tiles count less at the end"](0))
    assert less == ["train.extra_until", "train.extra_rest"]
    changed = other_run(full, arms["RichSem, three remedies"](0))
    assert set(changed) == {"train.extra_until", "loss.prior_strength", "data.teacher_sharpness"}
    twice = arms["as many steps, all on scenes"](0)
    assert twice.train.steps == full.train.steps and twice.data.extra is None
    trained = labs.who_pays("demo", trunk=True).arms["RichSem, trunk trained"](0)
    changed = {name.partition("features")[0] for name in other_run(full, trained)}
    assert changed == {"data.", "data.extra.", "detector.backbone.trainable"}
    assert list(labs.who_pays("demo", trunk=True).arms)[-5:] == list(arms)[-5:]
    short = labs.order("demo").arms["richsem"](3)
    full = labs.full_length("demo").arms["RichSem"](3)
    assert short.train.steps == full.train.steps / 4
    assert other_run(short, full) == ["train.steps"]


def test_pseudo_labels_are_right_where_a_box_of_the_label_is_in_the_tile(monkeypatch, tmp_path):
    class Made(dict):
        """Samples by index, as a set gives them for a seed."""

        def __getitem__(self, key):
            boxes, labels = map(torch.tensor, super().__getitem__(key[0]))
            return Mock(target=Mock(boxes=boxes, labels=labels))

    left, right, most = [0.25, 0.5, 0.5, 1.0], [0.75, 0.5, 0.5, 1.0], [0.3, 0.5, 0.9, 0.9]
    finds = Made({0: ([most, right], [0, 0]), 1: ([right], [2])})
    finds.samples = Made({0: ([left, right], [0, 1]), 1: ([left, right], [1, 2])})
    made = Mock(**{"dataset.frequency_groups.return_value": np.array(list("rcf"))})
    made.extra.dataset = finds
    monkeypatch.setattr(labs, "store", Mock(run_folder=lambda run: tmp_path))
    monkeypatch.setattr(labs.build, "build", lambda run: made)
    table = labs.named_right("smoke", 0).set_index("group")
    assert table.loc["r"].tolist() == [100, 100, 1]
    assert table.loc["c"].tolist() == [50, 0, 2]  # something is found in one of two tiles
    assert table.loc["f"].tolist() == [100, 100, 1]


def test_at_equal_compute_all_arms_have_as_many_steps_with_those_of_the_run_they_start_from():
    arms = labs.equal_compute("demo").arms
    runs = {name: make(4) for name, make in arms.items()}
    first = runs.pop("first half")
    steps = {name: run.train.steps for name, run in runs.items()}
    for name in ("two halves", "pseudo-labels"):
        assert runs[name].init == f"run:{first.name}-{config_hash(first)}"
        steps[name] += first.train.steps
    assert set(steps.values()) == {runs["RichSem"].train.steps}
    labels = runs["pseudo-labels"]
    assert labels.data.extra.supervision is Supervision.UNLABELLED and not labels.detector.semantic


def test_short_runs_stand_beside_the_shipped_full_ones():
    frame = frame_of({"richsem": [30, 32], "unknown": [1]}, "AP")
    (row,) = labs.beside_full(frame).itertuples(index=False)
    assert (row.arm, row.metric, row.short) == ("richsem", "AP", 31.0)
    assert 35 < row.full < 45


def test_shifts_are_runs_of_their_own_seed_and_what_soft_labels_gain_is_an_arm_at_each():
    values = {"hard labels": (30, 26, 14), "soft labels": (31, 25, 12)}
    arms = {
        f"{labels}, {shift:g}": [value]
        for labels, own in values.items()
        for shift, value in zip(noisy_boxes.SHIFTS, own, strict=True)
    }
    frame = noisy_boxes.with_gains(frame_of(arms, "AP"))
    gains = frame[frame["arm"].str.startswith(noisy_boxes.GAIN)].set_index("arm")["value"]
    expected = {"0": 1, "0.4": -1, "0.8": -2}
    assert gains.to_dict() == {f"{noisy_boxes.GAIN}, {shift}": n for shift, n in expected.items()}
    run = noisy_boxes.box_noise("demo").arms["soft labels, 0.4"](2)
    assert (run.data.box_noise, run.data.drop_seed) == (0.4, 2)


def test_detectors_without_names_stand_beside_every_teacher():
    arms = (unseen_glyphs.NO_NAMES, "names alone, saw all", "soft labels, saw none")
    frame = frame_of({arm: [10] for arm in arms}, "AP_r")
    found = unseen_glyphs.by_teacher(frame).groupby("labels", sort=False)["saw"].agg(list)
    assert found[unseen_glyphs.NO_NAMES] == ["saw all", "saw half", "saw none"]
    assert found["names alone"] == ["saw all"] and found["soft labels"] == ["saw none"]
