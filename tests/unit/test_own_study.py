"""Notebook 15: its runs are the command's, and what it says of a tail is counted rightly."""

from types import SimpleNamespace

import numpy as np
import pytest
from tiny_files import write_picture, write_set

from richsem.config import config_hash
from richsem.processes import used_by_children
from richsem.workbook import notebook_data, own_study
from richsem.workbook.own_study import AFTER, BEFORE

SHOWS = [[0]] * 14 + [[0, 1], [1], [1, 2], [2], [3], []]


@pytest.fixture
def given(tmp_path):
    """Files as a notebook names them: class 0 is common, the others are rare."""
    rng = np.random.default_rng(1)
    for name in ("dog/1.jpg", "dog/3.jpg", "red boat/2.jpg"):
        write_picture(tmp_path / "extra" / name, 32, rng)
    file = write_set(tmp_path / "photos", SHOWS)
    return {"annotations": str(file), "val_annotations": "", "extra": str(tmp_path / "extra")}


def own_runs(given, steps=0, settings=()):
    files = notebook_data.own_files("smoke", given)
    return own_study.own_runs("smoke", files, seed=3, steps=steps, settings=settings)


def test_runs_are_those_of_the_command_and_may_be_shorter(given, cli):
    settings = ["optim.lr=0.5", "data.teacher.short_side=128"]
    configs = own_runs(given, settings=settings)
    files = ["--annotations", given["annotations"]]
    recipes = {BEFORE: ["baseline"], AFTER: ["richsem", "--extra", given["extra"]]}
    for name, words in recipes.items():
        options = ["--profile", "smoke", "--seed", "3", "--set", *settings, *files, "--dry-run"]
        assert f"-{config_hash(configs[name])}-" in cli("train", *words, *options).out
    for steps, expected in ((0, [4, 8]), (3, [3, 6]), (300, [4, 8])):
        assert [run.train.steps for run in own_runs(given, steps).values()] == expected
    given["extra"] = ""
    assert [run.train.steps for run in own_runs(given, 3).values()] == [3, 3]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["images"], "IMAGES needs ANNOTATIONS"), (["extra"], "EXTRA needs ANNOTATIONS"),
        (["annotations", "val_images"], "VAL_IMAGES needs VAL_ANNOTATIONS"),
        (["annotations", "extra_labels"], "EXTRA_LABELS needs EXTRA"),
    ],
)  # fmt: skip
def test_a_file_without_its_partner_is_named(files, words):
    with pytest.raises(ValueError, match=words):
        notebook_data.own_files("smoke", dict.fromkeys(files, "a"))
    with pytest.raises(ValueError, match="the paper profile needs real data"):
        notebook_data.own_files("paper", dict.fromkeys(files, ""))


def test_the_tail_is_counted_where_it_is_learnt_and_judged_where_it_is_held_out(given):
    config = own_runs(given)[AFTER]
    val = own_study.store.judged_dataset(config, "val")
    assert val.image_counts().tolist() == [3, 1, 1, 0]
    per_category = {BEFORE: {1: 0.5, 2: 0.25, 3: 0.0}, AFTER: {1: 0.4, 2: 0.5, 3: 0.5}}
    judged = {
        name: SimpleNamespace(result=SimpleNamespace(per_category=values))
        for name, values in per_category.items()
    }
    tail = own_study.tail_frame(config, judged)
    assert tail["category"].tolist() == ["dog", "Red_Boat", "bow_(weapon)", "hot dog"]
    assert "".join(tail["group"]) == "crrr"
    assert tail["pictures"].tolist() == [12, 2, 1, 1] and tail["extra"].tolist() == [2, 1, 0, 0]
    np.testing.assert_allclose(tail["gain"], [-10, 25, 50, np.nan])
    table, words = own_study.tail_table(tail, "smoke")
    gains = table[table["metric"] == "gain"].set_index("row")["ours"].round(6).to_dict()
    groups = {"all, 3 classes": 65 / 3, "rare, 2 classes": 37.5, "common, 1 classes": -10}
    places = {"1. dog": -10, "2. Red_Boat": 25, "3. bow_(weapon)": 50}
    assert gains == pytest.approx(groups | places)
    assert words["rare, 2 classes"] == {"boxes": "3", "extra pictures": "1", "judged by": "2"}
    marked, rarest = own_study.by_rarest(tail, val)
    assert ("".join(marked.frequency_groups()), rarest) == ("frrr", "rare")
    marked, rarest = own_study.by_rarest(tail.assign(judged=tail["judged"] * (tail.index < 1)), val)
    assert ("".join(marked.frequency_groups()), rarest) == ("rfff", "common")


def test_runs_are_trained_one_after_the_other_and_their_cost_is_told(monkeypatch):
    def finished(configs):
        ((name, config),) = configs.items()
        return {name: SimpleNamespace(history=[{"step": config, "cpu_seconds": 2.5}])}

    used = iter([(1.0, 0.5), (5.0, 0.7), (5.0, 0.7), (8.0, 0.9)])
    monkeypatch.setattr(own_study.store, "finished", finished)
    monkeypatch.setattr(own_study, "used_by_children", lambda: next(used))
    judged, cost = own_study.trained({BEFORE: 4, AFTER: 8})
    assert list(judged) == [BEFORE, AFTER]
    assert cost.loc[BEFORE].tolist() == [4, 2.5, 4.0, 0.7]
    assert cost.loc[AFTER].tolist() == [8, 2.5, 3.0, 0.9]
    seconds, memory = used_by_children()
    assert seconds >= 0 and memory >= 0
