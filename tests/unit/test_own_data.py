"""Recipes on data of one's own, as the command line trains them."""

from unittest import mock

import numpy as np
import pytest
from tiny_files import annotation_file, write_picture, write_set

from richsem.config import config_hash, differences
from richsem.data.box_sets import BoxDataset
from richsem.data.own import OwnConfig
from richsem.data.reading import DataError
from richsem.operations import recipe_book, store
from richsem.operations.check import require_pictures
from richsem.training.run_config import RUN
from richsem.training.runs import open_trained

pytestmark = [
    pytest.mark.filterwarnings("default::UserWarning"), pytest.mark.usefixtures("own_cache")
]  # fmt: skip
SHOWS = [[0, 1], [0], [1], [0, 1, 2], [2], [0], [], [1, 2]]
LOOK = BoxDataset.image


@pytest.fixture
def photos(tmp_path):
    """A set of eight pictures, and beside it extra pictures in folders called like classes."""
    write_set(tmp_path / "photos", SHOWS)
    rng = np.random.default_rng(1)
    for name in ("dog/1.jpg", "red boat/2.jpg", "dog/3.jpg"):
        write_picture(tmp_path / "extra" / name, 32, rng)
    return tmp_path / "photos"


@pytest.fixture
def train(photos, cli):
    def train(recipe, *options, code=0):
        files = ["--annotations", photos / "set.json"]
        return cli("train", recipe, "--profile", "smoke", *files, *options, code=code)

    return train


@pytest.mark.parametrize(
    ("recipe", "form", "kind", "federated"),
    [
        ("baseline", "", "", False),
        ("richsem", "folders", "image labels", True),
        ("detic", "csv", "whole images", False),
        ("centernet2_detic", "folders", "whole images", False),
        ("centernet2_richsem", "bare", "unlabelled", True),
    ],
)
def test_every_recipe_learns_from_every_form(photos, recipe, form, kind, federated, train, cli):
    write_set(photos, SHOWS, federated=federated)
    extra, table = photos.parent / "extra", photos.parent / "labels.csv"
    options = ["--extra", extra / "dog" if form == "bare" else extra] if form else []
    if form == "csv":
        rows = ("file,label", "dog/1.jpg,Red Boat;dog", "dog/3.jpg,bow", "red boat/2.jpg,red-boat")
        table.write_text("\n".join(rows))
        options += ["--extra-labels", table]
    said, warned = train(recipe, *options)
    assert warned.count("which knows drawings only") == 1
    assert "learnt from    7 images" in said and "judged by      1 images of set" in said
    assert "3 rare (at most 10 images), 0 common (11 to 100), 0 frequent (more)" in said
    (one,) = store.entries()
    assert (one.state, said.splitlines()[-1]) == ("finished", str(one.folder))
    data = one.known().data
    assert (data.extra.supervision if data.extra else "") == kind
    protocol = "lvis" if federated else "coco"
    said = cli("evaluate", one.folder, "--split", "val").out
    assert f"set.json: 1 images, {protocol} protocol" in said
    warned = cli("evaluate", one.folder, "--annotations", photos / "set.json").err
    assert "warning: 7 of 8 pictures were learnt from" in warned
    cli("runs", "finish", one.id, "--split", "train")
    judged = {name.split("-")[1] for name in store.describe(one) if name.startswith("judged")}
    assert judged == {"val", "train"}
    assert [c.frequency for c in open_trained(one.folder).classes] == ["r"] * 3
    other = (photos / "set.json").rename(photos / "other.json")
    (photos / "set.json").write_text("{}")
    warned = cli("evaluate", one.folder, "--annotations", other).err
    assert "warning: nothing tells which pictures were learnt from: " in warned


def test_runs_follow_the_files(photos, tmp_path, train, cli):
    """Other pictures or boxes, other runs; every recipe holds out the same."""
    own = OwnConfig(annotations=str(photos / "set.json"), images=str(photos))
    configs = [recipe_book.configure(name, "smoke", own=own) for name in ("baseline", "centernet2")]
    assert len({store.split_state(config, "val") for config in configs}) == 1
    out = tmp_path / "mine"
    said = train("baseline", "--out", out, "--set", "data.features.views=50").err
    assert "14/14" in said and " 1/1" in said  # 4 steps of 4 of 7 images: two views of each
    before = store.run_folder(configs[0])
    (photos / "1.jpg").write_bytes((photos / "1.jpg").read_bytes() + b" ")
    store.data_state.cache_clear()
    assert store.run_folder(configs[0]) != before
    write_set(photos, [*SHOWS, [0]])
    said = cli("evaluate", out, code=2).err
    assert "set.json or its pictures are not what they were" in said
    cli("evaluate", out, "--annotations", photos / "set.json")


def test_a_part_to_judge_by_that_is_none_is_told_before_any_work(train):
    said = train("baseline", "--set", "data.judge_split=test", code=2).err
    assert "has no split 'test'; there are train, val" in said and "start:" not in said


def test_pictures_that_are_judged_by_are_no_extra_pictures(photos, train):
    said = train("richsem", "--extra", photos, "--dry-run")
    words = "photos: 1 of 8 pictures are judged by, too, and left out (22.jpg)"
    assert said.err.count(words) == 1
    words = f"photos: 7 of 7 pictures have boxes in {photos}/set.json, too, and show nothing new"
    assert said.err.count(words) == 1
    assert "extra pictures 7, 0 with labels" in said.out


@pytest.mark.parametrize("name", ["photos/22.jpg", "extra/dog/3.jpg"])
def test_pictures_that_cannot_be_read_are_counted_before_any_work(photos, name, train):
    assert (photos.parent / name).is_file()
    (photos.parent / name).write_bytes(b"\0\0\0\x18ftypheic")
    said = train("richsem", "--extra", photos.parent / "extra", code=2).err
    assert "error: 1 picture to fetch again or leave out: " in said and "a HEIC photo" in said
    assert not list((photos.parent / "cache").glob("features*"))


def test_pictures_are_opened_once_and_replaced_ones_again(photos):
    def opened():
        dataset = BoxDataset.load(photos / "set.json", photos)
        with mock.patch.object(BoxDataset, "image", autospec=True, side_effect=LOOK) as image:
            try:
                require_pictures(dataset)
            except DataError:
                return 0, image.call_count
        return 1, image.call_count

    assert [opened(), opened()] == [(1, 8), (1, 0)]
    content = (photos / "8.jpg").read_bytes()
    (photos / "8.jpg").write_bytes(content[:500] + bytes(len(content) - 500))
    assert [opened(), opened()] == [(0, 8), (0, 8)]
    (photos / "8.jpg").write_bytes(content)
    assert [opened(), opened()] == [(1, 8), (1, 0)]


@pytest.mark.parametrize(
    ("recipe", "options", "words"),
    [
        ("richsem", "--extra EXTRA", "--extra needs --annotations"),
        ("richsem", "--holdout 0.3", "--holdout needs --annotations"),
        ("richsem", "FILE --extra-labels L", "--extra-labels needs --extra"),
        ("richsem", "FILE --val-images EXTRA", "--val-images needs --val-annotations"),
        ("richsem", "FILE --holdout 0.3 --val-annotations L", "leave one out"),
        ("richsem", "FILE --holdout 1.5", "holdout is a share of the pictures, 0 to 1, got 1.5"),
        ("richsem", "FILE --extra NOWHERE", "no pictures"),
        ("richsem", "FILE --extra EXTRA --extra-labels L", "labels.csv: cannot be read"),
        ("richsem", "FILE --val-annotations L", "labels.csv: cannot be read"),
        ("richsem", "FILE --val-annotations OTHER", "other.json: no box of a class of"),
        ("baseline", "FILE --extra EXTRA", "baseline learns from no extra pictures"),
        ("detic", "FILE", "detic learns from labels of whole pictures: name a folder by --extra"),
        ("detic", "FILE --extra EXTRA/dog", "detic learns from labels of whole pictures"),
        ("nothing", "FILE", "no recipe 'nothing'"),
    ],
)
def test_what_makes_no_sense_is_said_before_any_work(photos, recipe, options, words, cli):
    zebra, box = [{"id": 1, "name": "zebra"}], (1, 1, (0, 0, 9, 9))
    places = {
        "OTHER": str(annotation_file(photos.parent / "other.json", {1: {}}, [box], zebra)),
        "FILE": f"--annotations {photos / 'set.json'}",
        "NOWHERE": str(photos / "nowhere"),
        "EXTRA": str(photos.parent / "extra"),
        "L": str(photos.parent / "labels.csv"),
    }
    for name, place in places.items():
        options = options.replace(f" {name}", f" {place}").replace("FILE", places["FILE"])
    assert words in cli("train", recipe, "--profile", "smoke", *options.split(), code=2).err
    assert store.entries() == [] and not (photos.parent / "cache").exists()


@pytest.mark.parametrize(
    ("recipe", "profile", "images", "numbers"),
    [  # steps, steps between judgements, warm-up; views, threshold of repeat factors
        ("baseline", "demo", 100, (600, 150, 20, 10, 0.02)),
        ("richsem", "demo", 100, (600, 150, 20, 10, 0.02)),
        ("centernet2", "demo", 4000, (450, 150, 20, 1, 0.02)),
        ("baseline", "paper", 100, (600, 150, 0, None, 0.02)),
        ("richsem", "paper", 20_000, (15_000, 3750, 0, None, 0.005)),
        ("centernet2", "paper", 100, (600, 150, 67, None, 0.02)),
        ("pretraining", "demo", 100, (600, 0, 11, 10, 0.0)),
    ],
)
def test_lengths_follow_the_size_of_the_data(monkeypatch, recipe, profile, images, numbers):
    dataset = mock.MagicMock(is_federated=False)
    dataset.__len__.return_value = images
    monkeypatch.setattr("richsem.recipes.own_data.open_split", lambda data, split: dataset)
    own = OwnConfig(annotations="file", images="folder")
    config = recipe_book.configure(recipe, profile, seed=3, own=own)
    train, data = config.train, config.data
    views = data.features and data.features.views
    found = (train.steps, train.judge_every, config.optim.warmup, views, data.repeat_threshold)
    assert found == numbers
    assert (train.seed, config.loss.federated_classes) == (3, 0)
    side = 384 if views else 800
    assert max(data.transform.evaluation().short_sides) == data.teacher.short_side == side
    plain = recipe_book.configure(recipe, profile, seed=3)
    parts = {name.split(".")[0] for name in differences({"one": config, "other": plain})}
    assert parts <= {"data", "train", "optim", "loss"}


def test_the_second_of_two_runs_starts_from_the_first_on_the_same_files(photos):
    own = OwnConfig(annotations=str(photos / "set.json"), images=str(photos))
    extra = str(photos.parent / "extra")
    first = recipe_book.configure("centernet2", "paper", own=own)
    second = recipe_book.configure("centernet2_richsem", "paper", own=own, extra=extra)
    assert second.init == f"{RUN}{first.name}-{config_hash(first)}"
    store.register(first)
    assert store.register(second).is_dir()
