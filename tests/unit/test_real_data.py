"""The commands as a user calls them, against a mirror on this machine."""

import hashlib

import numpy as np
import pytest
import raw_releases
from loopback import Server
from tiny_files import CATEGORIES, annotation_file

from richsem.data import releases
from richsem.data.box_sets import BoxDataset
from richsem.data.catalog import CATALOG, open_boxes
from richsem.data.releases import MIRROR, RELEASES
from richsem.data.sampling import stratified
from richsem.operations import fetch, prepare, real_data
from richsem.paths import only_one

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def mirror(monkeypatch):
    """A server with all small releases, which the commands take for the official hosts."""
    small, served = raw_releases.shrunk(lambda content: hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(real_data, "RELEASES", small)
    monkeypatch.setattr(releases, "RELEASES", small)
    monkeypatch.setattr(fetch, "AGAIN", fetch.AGAIN.new(backoff_factor=0, connect=1))
    monkeypatch.setattr(fetch, "PAUSE", 0)
    with Server() as server:
        server.files |= served
        monkeypatch.setenv(MIRROR, server.url + "/")
        yield server


@pytest.fixture
def data(tmp_path, cli):
    """Runs `data WORDS --root DIR`, which ends with a code; returns output and errors."""

    def data(words, code=0):
        said = cli("data", *words.split(), "--root", tmp_path, code=code)
        return said.out + "".join(line for line in said.err.splitlines(True) if "%" not in line)

    return data


def test_the_table_agrees_with_the_catalogue_and_list_shows_every_set(cli):
    assert {*RELEASES} == {*prepare._PREPARE}
    assert {key for one in RELEASES.values() for key in one.keys} == {spec.key for spec in CATALOG}
    for one in RELEASES.values():
        places = [file.place for file in one.files]
        assert len(places) == len(set(places)) and set(one.also) <= {*RELEASES}
        assert one.page.startswith("https://") and one.licence
        for file in one.files:
            assert not file.sha256 or (len(file.sha256) == 64 and file.said_by)
            assert bool(file.bytes) == bool(file.said_by)
            assert file.by_hand or file.url.endswith(file.place.split("/")[-1])
    said = cli("data", "list").out
    for one in RELEASES.values():
        assert one.name in said and one.licence in said and one.page in said


@pytest.mark.parametrize(
    ("name", "split"), [("lvis", ""), ("openimages", "val"), ("inet_lvis", "")]
)
def test_a_dry_run_asks_nobody_and_writes_nothing(mirror, data, tmp_path, name, split):
    said = data(f"get {name} --dry-run {split and '--split ' + split}")
    for file in RELEASES[name].of(split):
        assert str(tmp_path / "raw" / file.place) in said
        assert file.by_hand in said
    assert mirror.url in said and "free below" in said
    assert mirror.asked == [] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", RELEASES)
def test_from_nothing_to_a_checked_set(mirror, data, tmp_path, name):
    one = RELEASES[name]
    for other in (*one.also, name):
        said = data(f"get {other}")
        for file in one.files if other == name else ():
            if file.by_hand:
                assert file.by_hand in said
                raw_releases.write(tmp_path, name)
        data(f"prepare {other}")
    if name != "coco":  # some have too few boxes to hold any out
        data(f"check {name}", code=int(name in ("visual_genome", "openimages", "o365")))
    asked = len(mirror.asked)
    assert "to fetch" not in data(f"get {name}") and len(mirror.asked) == asked
    assert not list(tmp_path.rglob("*.part")) + list(tmp_path.rglob("*.mark"))


def test_pictures_of_lvis_by_their_addresses(mirror, data, tmp_path):
    for i in range(1, 13):
        folder = "train" if i % 4 == 2 else "val"
        path = f"/images.cocodataset.org/{folder}2017/{i:012}.jpg"
        mirror.files[path] = raw_releases.picture(i)
    assert "5 pictures by their addresses" in data("get lvis --split val --images 5 --dry-run")
    data("get lvis --split val --images 5")
    dataset = open_boxes("lvis", "val", root=tmp_path)
    missing = dataset.missing_images()
    assert len(dataset) - len(missing) == 5
    data("get lvis --split val --images 8")
    assert set(dataset.missing_images()) < set(missing)
    del mirror.files["/images.cocodataset.org/val2017/000000000001.jpg"]
    (tmp_path / "val2017/000000000001.jpg").unlink(missing_ok=True)
    said = data("get lvis --split val --images 12", code=1)
    assert said.count("error: ") == 1 and "000000000001.jpg: 404" in said
    data("check lvis --split val")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("get nothing", "unknown data set 'nothing', expected one of lvis, coco"),
        ("get cc3m --split val", "cc3m has no split 'val', it has none: leave --split out"),
        ("get lvis coco --images 3", "--images is a number of pictures of LVIS"),
        ("get lvis --jobs 0", "--jobs is 0; at least one"),
        ("get lvis --images -3", "--images is a number of pictures of LVIS"),
        ("prepare lvis", "lvis train: 1 of 1 files are missing below"),
        ("check coco", "unknown data set 'coco'"),
        ("check lvis", "LVIS v1 train is not under"),
        ("check cc3m --split val", "cc3m has no split 'val'"),
        ("check lvis --repair a", "--repair of your own file: leave it out"),
        ("check lvis --annotations a --images b", "name a real set and its --root, or"),
        ("check", "name a real set and its --root, or"),
    ],
)
def test_mistakes_are_one_line(mirror, data, words, said):
    words = data(words, code=2)
    assert words.startswith("error: ") and said in words and words.count("\n") == 1


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_root_is_a_folder(tmp_path, cli, place):
    (tmp_path / "file").write_text("")
    said = cli("data", "get", "lvis", "--root", tmp_path / place, "--dry-run", code=2).err
    assert said == f"error: {tmp_path}/file: Not a directory; name another file or folder\n"


def test_a_mirrors_password_is_not_shown_and_its_address_is_whole(mirror, data, monkeypatch):
    monkeypatch.setenv(MIRROR, mirror.url.replace("://", "://me:secret@") + "/nowhere")
    said = data("get lvis --split val", code=1)
    assert f"error: {mirror.url}/nowhere/" in said and "secret" not in said
    monkeypatch.setenv(MIRROR, "localhost/sets")
    assert "'localhost/sets'; an address needs http:// or" in data("get lvis --dry-run", code=2)


def test_two_at_once_and_too_little_space(mirror, data, tmp_path, monkeypatch):
    for words in ("get lvis", "prepare lvis"):
        with only_one(tmp_path / "raw" / "lvis"):
            said = data(words, code=2)
        assert "error: lvis is being fetched or prepared" in said
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    assert "too little space" in data("get lvis", code=2)
    assert mirror.asked == []


@pytest.mark.parametrize(
    ("words", "needed", "said"),  # GB; archives stay beside what is made of them
    [
        ("coco", 20.15 + 20.15, "in transit 20.2 GB; prepared about 20.2 GB"),
        ("coco --split val", 0.82 + 0.82, "in transit 0.8 GB; prepared about 0.8 GB"),
        ("visual_genome", 15.5 + 15.5, "in transit unknown; prepared about 15.5 GB"),
        ("o365", 367 + 367, "in transit unknown; prepared about 367.0 GB"),
        ("lvis --split val --images 500", 0.064 + 0.18 + 0.082, "in transit 64.03 MB; prep"),
    ],
)
def test_space_is_asked_for_what_comes_and_what_is_made_of_it(
    data, monkeypatch, words, needed, said
):
    for times, code in ((0.95, 2), (1.05, 0)):
        free = int(1e9 * needed * times)
        monkeypatch.setattr(real_data, "free_bytes", lambda _, free=free: free)
        told = data(f"get {words} --dry-run", code=code)
        assert said in told and ("too little space" in told) == bool(code)


def test_what_came_is_not_asked_for_again(data, monkeypatch, tmp_path):
    """Half of a set of unknown size is there, and then all of it."""
    one = RELEASES["visual_genome"]
    unknown = [file for file in one.files if not file.bytes]
    for number, needed in ((len(unknown) - 1, 15.5 + 15.5 / len(unknown)), (len(one.files), 0)):
        files = unknown[:number] if needed else one.files
        for file in files:
            place = tmp_path / "raw" / file.place
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("wb") as stream:
                stream.truncate(file.bytes)
        monkeypatch.setattr(real_data, "free_bytes", lambda _, free=1e9 * needed: free + 1e8)
        assert ("in transit nothing" in data("get visual_genome --dry-run")) == (not needed)


def test_list_says_unknown_rather_than_the_few_bytes_that_are_known(cli):
    said = " ".join(cli("data", "list").out.split())
    assert "to fetch: 20.2 GB; prepared: about 20.2 GB; both stay: about 40.3 GB" in said
    assert "to fetch: unknown; prepared: about 15.5 GB; both stay: about 31.0 GB" in said
    assert "to fetch: unknown; prepared: unknown" in said and "at least" not in said


def test_classes_take_turns(tmp_path):
    labels = np.array([0] * 30 + [1] * 4 + [2])
    boxes = [(i, CATEGORIES[label]["id"], (1, 1, 5, 5)) for i, label in enumerate(labels, 1)]
    file = annotation_file(tmp_path / "a.json", {i: {} for i, *_ in boxes}, boxes)
    dataset = BoxDataset.load(file, tmp_path)
    few, more, all_of_them = (stratified(dataset, n) for n in (3, 12, 99))
    assert sorted(dataset.labels[dataset.box_image.searchsorted(few)]) == [0, 1, 2]
    assert np.bincount(dataset.labels[more])[1:].tolist() == [4, 1]
    assert set(few) <= set(more) and all_of_them.tolist() == list(range(35))
