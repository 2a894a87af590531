"""The supplement's experiments: what differs between arms, and nothing else."""

import pytest

from richsem.config import config_hash, differences
from richsem.operations.store import StoreError, register
from richsem.recipes import dino_recipes
from richsem.structures import Supervision
from richsem.workbook import reference, supplement


def changed(*configs):
    """The settings that differ, but for how often a learning curve is measured."""
    return set(differences(dict(enumerate(configs)))) - {"train.judge_every"}


def test_one_thing_changes_along_figure2():
    part = supplement.dropped(supplement.control("text classifier", seed=2), 0.5)
    base = supplement.table4_run("dino", "baseline", seed=2)
    assert changed(base, part) == {"data.drop", "data.drop_seed"}
    with pytest.raises(ValueError, match="unknown kind of extra data 'INet'; there are inet_lvis"):
        supplement.extra_kind("INet")
    soft = supplement.dropped(supplement.control("soft labels alone", seed=2), 0.5)
    assert changed(part, soft) == {"name", "detector.semantic"}


def test_controls_and_kinds_change_what_they_say_and_seeds_draw_images_anew():
    base, full = supplement.table4_run("dino", "baseline"), supplement.table4_run("dino", "richsem")
    for name, run, setting in (
        ("long baseline", base, "train.steps"),
        ("soft labels alone", base, "detector.semantic"),
        ("hard labels", full, "detector.semantic"),
        ("shuffled teacher", full, "data.teacher_shuffled"),
        ("crop teacher", full, "data.teacher_mode"),
    ):
        assert changed(run, supplement.control(name)) == {"name", setting}
    assert supplement.control("text classifier") == base  # at demo it has one
    with pytest.raises(ValueError, match="unknown control 'x'; there are long baseline"):
        supplement.control("x")
    first, second = (dino_recipes.baseline("demo", seed=seed) for seed in (0, 1))
    assert changed(first, second) == {"train.seed", "data.benchmark.draw"}
    # Other kinds of extra data teach no classes.
    others = {supplement.extra_kind(k).data.extra.supervision for k in supplement.KINDS[1:]}
    assert others == {Supervision.UNLABELLED, Supervision.BOXES_ONLY}


def test_at_paper_the_heads_of_richsem_are_text_whatever_the_extra_data():
    heads = ("classifier", "proposal_classifier", "label_embedding")

    def heads_of(run):
        return {getattr(run.detector, head) for head in heads}

    with_texts = [supplement.extra_kind(kind, "paper") for kind in supplement.KINDS]
    with_texts += [
        supplement.table3_run(key, extra=True, profile="paper") for key in reference.TABLE3
    ]
    names = ("soft labels alone", "hard labels", "text classifier", "crop teacher")
    with_texts += [supplement.control(name, "paper") for name in names]
    assert all(heads_of(run) == {"text"} for run in with_texts)
    base = supplement.table4_run("dino", "baseline", "paper")
    detic = supplement.table4_run("dino", "detic", "paper")
    assert detic.detector == base.detector and heads_of(base) == {"linear", "classifier"}
    assert supplement.control("linear classifier", "paper") == base  # trained once
    plain, soft = (
        supplement.dropped(supplement.control(name, "paper"), 0.5)
        for name in ("text classifier", "soft labels alone")
    )
    assert changed(plain, soft) == {"name", "detector.semantic"}
    with pytest.raises(ValueError, match="soft labels can be shuffled only"):
        supplement.control("shuffled teacher", "paper")
    full = supplement.table4_run("dino", "richsem", "paper")
    assert detic.train.extra_batch_size == full.train.extra_batch_size == 0  # 16, as detection
    half, whole = detic.data.extra.transform, full.data.extra.transform
    assert 2 * max(half.short_sides) == max(whole.short_sides)
    assert base.train.judge_every and full.train.judge_every == 2 * base.train.judge_every


def test_the_second_phase_of_centernet2_starts_from_the_first():
    known = {"profile": "paper", "seed": 2}
    first, *others = (supplement.table4_run("centernet2", m, **known) for m in supplement.METHODS)
    assert first.init == ""
    assert {run.init for run in others} == {f"run:centernet2-{config_hash(first)}"}
    assert all(run.train.judge_every for run in (first, *others))
    with pytest.raises(StoreError, match=r"starts from the run centernet2-.* not in the store"):
        register(others[0])
