"""From small releases of the very format to the layout that the readers expect."""

import io
import json
import os
import re
import shutil
import tarfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image
from raw_releases import picture, tarred, write, zipped
from tiny_files import write_json

from richsem.data.catalog import open_boxes, open_images
from richsem.data.categories import Category
from richsem.data.pictures import ArchivedNames, open_rgb
from richsem.data.reading import DataError, DataWarning
from richsem.data.releases import RELEASES
from richsem.operations.prepare import prepare, unpack, wordnet_synsets

pytestmark = pytest.mark.usefixtures("cache")
SPLITS = ("train", "val")


def prepared(name, root, split=""):
    return [*prepare(RELEASES[name], root, split)]


@pytest.fixture
def lvis(tmp_path):
    write(tmp_path, "lvis")
    prepared("lvis", tmp_path)
    return tmp_path


def boxes(key, root, split):
    """A prepared set, and each of its boxes after its name."""
    dataset = open_boxes(key, split, root=root)
    assert dataset.missing_images() == () and dataset.image(0).size == (40, 30)
    names = [dataset.categories[label].name for label in dataset.labels]
    return dataset, list(zip(names, dataset.boxes_xyxy.tolist(), strict=True))


@pytest.mark.parametrize("split", SPLITS)
def test_lvis_with_pictures_of_coco(lvis, split):
    for part in SPLITS:
        write(lvis, "coco", part)
    said = prepared("coco", lvis)
    assert [words.split(": ")[1] for words in said] == ["3 pictures", "9 pictures"]
    dataset, found = boxes("lvis", lvis, split)
    assert dataset.is_federated and len(dataset) == 12
    assert found[0] == ("bow_(weapon)", [4, 4, 13.5, 12])


@pytest.mark.parametrize("split", SPLITS)
def test_visual_genome(tmp_path, split):
    write(tmp_path, "visual_genome")
    (words,) = prepared("visual_genome", tmp_path, split)
    assert words.endswith(f"visual_genome_{split}.json: 2 pictures, 4 boxes")
    dataset, found = boxes("visual_genome", tmp_path, split)
    place = [3, 2, 23, 12]
    assert found == [("ball", place), ("ball boy", place), ("yolk", place), ("yolk", place)]
    assert dataset.file_names == ("VG_100K_2/1.jpg", "VG_100K/2.jpg")
    assert [category.id for category in dataset.categories] == [1, 2, 3]


@pytest.mark.parametrize("split", SPLITS)
def test_openimages_and_objects365(tmp_path, split):
    write(tmp_path, "openimages")
    (words,) = prepared("openimages", tmp_path, split)
    assert words.endswith("1 pictures, 2 boxes; left out without a picture: 1")
    dataset, found = boxes("openimages", tmp_path, split)
    assert found == [("Person", [0.5, 3, 20.5, 18])]
    assert dataset.num_crowd == 1 and dataset.image_ids.dtype.kind == "U"
    write(tmp_path, "o365")
    (words,) = prepared("o365", tmp_path, split)
    assert words.endswith("1 pictures, 1 boxes; left out without a picture: 1")
    dataset, found = boxes("o365", tmp_path, split)
    assert found == [("Bird", [1.5, 2, 11.5, 14])]
    assert dataset.categories[1].name == "Noodles"


def test_inet_lvis_and_inet_unl(lvis):
    write(lvis, "inet_lvis")
    (words,) = prepared("inet_lvis", lvis)
    assert words.endswith("2 pictures of 2 of the 2 synsets; left out that cannot be read: 1")
    images = open_images("inet_lvis", root=lvis)
    assert images.file_names == ("n02121620/n02121620_7.JPEG", "n02879718/n02879718_1.JPEG")
    assert images.labels == ((1,), (0,)) and images.image_counts().tolist() == [1, 1, 0]
    assert [category.image_count for category in images.categories] == [1, 1, 0]
    assert images.image_sizes.tolist() == [[30, 40]] * 2 and images.missing_images() == ()
    (words,) = prepared("inet_unl", lvis)
    said = "images.npz: 3 pictures, which stay in 3 archives; left out that cannot be read: 1"
    assert words.endswith(said)
    unlabelled = open_images("inet_unl", root=lvis)
    assert len(unlabelled) == 3 and unlabelled.missing_images() == ()
    assert not (lvis / "imagenet-21k" / "unzip").exists()


def test_inet_lvis_has_the_997_synsets_of_the_reference_list(tmp_path, real_data):
    index = Path(os.environ.get("WNSEARCHDIR", "/usr/share/wordnet")) / "index.noun"
    if not index.is_file():
        pytest.skip(f"no {index} (Debian: wordnet-base; else WNSEARCHDIR names WordNet's folder)")
    raw = write(tmp_path, "inet_lvis") / "imagenet-lvis"
    (raw / "WNdb-3.0.tar.gz").write_bytes(tarred({"dict/index.noun": index.read_bytes()}))
    shutil.copy(real_data / "lvis" / "imagenet_lvis_wnid.txt", raw)
    categories = json.loads((real_data / "lvis" / "lvis_v1_train_cat_info.json").read_bytes())
    write_json(tmp_path / "lvis_v1_train.json", {"categories": categories})
    (words,) = prepared("inet_lvis", tmp_path)  # every listed synset is of a class, or it refuses
    assert "2 pictures of 2 of the 997 synsets" in words  # the third archive is of no class
    images = open_images("inet_lvis", root=tmp_path)
    names = [images.categories[label].name for (label,) in images.labels]
    assert names == ["cat", "bow_(weapon)"]
    synsets = wordnet_synsets(index)
    classes = {synsets.get(one["synset"]) for one in categories}
    assert len(classes) == len(categories) == 1203 and None in classes  # no two share a synset


def test_without_a_safe_way_nothing_is_unpacked(tmp_path, monkeypatch):
    write(tmp_path, "inet_unl")
    archive = min((tmp_path / "raw").rglob("n*.tar"))
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    with pytest.raises(DataError, match=r"\.tar: .* Python 3\.11\.4"):
        unpack(archive, tmp_path / "apart")
    assert not (tmp_path / "apart").exists()


def test_pictures_in_archives_are_those_that_an_unpacked_set_has(tmp_path):
    write(tmp_path, "inet_unl")
    prepared("inet_unl", tmp_path)
    index, folder = tmp_path / "imagenet-21k/images.npz", tmp_path / "raw/imagenet-21k"
    images = open_images("inet_unl", root=tmp_path)
    assert isinstance(images.file_names, ArchivedNames) and images.image_counts().tolist() == []
    archives = sorted(folder.rglob("n*.tar"))
    seen = []
    for archive in archives:
        unpack(archive, tmp_path / "apart")
        with tarfile.open(archive) as tar:
            seen += tar.getnames()
    seen.remove("n02879718_2.JPEG")  # "no picture"
    for i, name in enumerate(seen):
        expected = open_rgb(tmp_path / "apart" / name, "it")
        assert images.image(i).tobytes() == expected.tobytes()
    some, own = images.select([2, 0]), images.file_names
    assert isinstance(some.file_names, ArchivedNames) and list(some.file_names) == [own[2], own[0]]
    first, print_ = archives[0], images.fingerprint
    assert some.fingerprint != print_ == open_images("inet_unl", root=tmp_path).fingerprint
    first.write_bytes(first.read_bytes()[:900])
    with pytest.raises(DataError, match=r"n00004475\.tar@512\+\d+: .* cannot be read"):
        images.image(0)
    assert open_images("inet_unl", root=tmp_path).fingerprint != print_
    first.unlink()
    assert images.missing_images() == (images.file_names[0],)
    with pytest.warns(DataWarning, match=r"1 of 3 pictures are not under .*n00004475\.tar@512"):
        assert len(images.subset_with_images()) == 2
    index.write_bytes(index.read_bytes()[:-50])
    with pytest.raises(DataError, match=r"images\.npz is damaged .* Prepare the set anew"):
        open_images("inet_unl", root=tmp_path)


def test_names_in_archives_take_16_bytes():
    number = 100_000
    columns = {"archive": np.zeros(number, np.int32), "offset": np.arange(number)}
    columns |= {"length": np.ones(number, np.int32), "archives": np.array(["n1.tar"])}
    names = ArchivedNames(**columns)
    own = sum(values.nbytes for values in vars(names).values())
    assert own < 16.1 * number and names[7] == "n1.tar@7+1" and len(names[::1000]) == 100


def test_cc3m(tmp_path):
    write(tmp_path, "cc3m")
    second = {"000000007.jpg": picture(7), "000000007.txt": b"a bow\n", "7.json": {}}
    second |= {"000000008.jpg": b"gone", "000000008.txt": b"a dog"}
    (tmp_path / "raw/cc3m/00001.tar").write_bytes(tarred(second, plain=True))
    assert prepared("cc3m", tmp_path)[0].endswith(
        "json: 2 pictures, which stay in 2 archives; left out that cannot be read: 1"
    )
    images = open_images("cc3m", root=tmp_path, categories=[Category(id=1, name="cat")])
    assert images.captions == ("a cat", "a bow") and images.labels == ((0,), ())
    assert isinstance(images.file_names, ArchivedNames) and images.missing_images() == ()
    assert images.image(1).tobytes() == Image.open(io.BytesIO(picture(7))).tobytes()
    print_ = images.fingerprint
    assert open_images("cc_unl", root=tmp_path).select([1]).file_names[0] == images.file_names[1]
    (tmp_path / "raw/cc3m/00001.tar").unlink()
    with pytest.warns(DataWarning, match="1 of 2 pictures are not under"):
        assert images.subset_with_images().captions == ("a cat",)
    assert open_images("cc3m", root=tmp_path).fingerprint != print_
    # One that was unpacked earlier is read as before.
    (tmp_path / "gcc/CC3M/cc3m_shards.json").unlink()
    write_json(tmp_path / "gcc/CC3M/cc3m_zip_json.json", [{"caption": "cat", "image": "0/1.jpg"}])
    (tmp_path / "gcc/CC3M/0").mkdir()
    (tmp_path / "gcc/CC3M/0/1.jpg").write_bytes(picture())
    assert open_images("cc3m", root=tmp_path).image(0).size == (40, 30)


# --- what goes wrong -----------------------------------------------------------------------------


def cut(end):
    return lambda content: content[:end]


def add(more):
    return lambda content: content + more


def swap(old, new):
    return lambda content: content.replace(old, new)


def put(content):
    return lambda _: content


EVIL, OTHER = ({name: picture()} for name in ("../../evil.jpg", "validation/0.jpg"))
NO_NAMES = {"image_id": 1, "objects": [{"x": 1, "y": 1, "w": 1, "h": 1}]}
BROKEN = {
    ("coco", "val", "coco/val/val2017.zip"): {
        cut(-40): "cannot be unpacked, delete it and get it again",
        put(b"<html>"): "not a zip file"},
    ("openimages", "val", "openimages/val/validation.tar.gz"): {
        cut(-40): "cannot be unpacked", put(tarred(EVIL)): "outside the destination",
        put(tarred(OTHER)): "no picture that is named in the"},
    ("openimages", "val", "openimages/val/challenge-2019-validation-detection-bbox.csv"): {
        swap(b"XMax", b"Xmax"): "expected but not found: .*XMax",
        swap(b"0.012500", b"left"): "left", swap(b"/m/01g317", b"/m/0"): "no class is called /m/0"},
    ("openimages", "val", "openimages/challenge-2019-classes-description-500.csv"): {
        add(b"/m/x\n"): "line 3 has 1 fields, not 2"},
    ("visual_genome", "val", "visual_genome/val/val.txt"): {
        add(b"VG_100K/9.jpg xml/9.xml\n"): "names picture 9, which no",
        add(b"one two three\n"): "line 4 has 3 fields, not 2"},
    ("visual_genome", "val", "visual_genome/objects_v1_2.json.zip"): {
        put(zipped({"objects.json": [{"image_id": 1}]})): "objects.json.*objects",
        put(zipped({"objects.json": [NO_NAMES]})): "objects.json.*names"},
    ("o365", "val", "object365/val/zhiyuan_objv2_val.json"): {
        swap(b'"category_id": 57', b'"category_id": "57"'): "category",
        cut(-9): "the JSON .*ends early|malformed"},
    ("o365", "val", "object365/Objects365_names_fix.csv"): {add(b"352\r\n"): "line 3 has 1 fields"},
    ("inet_lvis", "", "imagenet-lvis/imagenet_lvis_wnid.txt"): {
        add(b"n00000001\n"): "1 synsets are of no class of LVIS v1"},
    ("inet_lvis", "", "imagenet-lvis/WNdb-3.0.tar.gz"): {
        put(tarred({"dict/index.noun": b"cat n 8\n"})): "2 synsets are of no class of LVIS",
        put(tarred({"dict/index.verb": b""})): "index.noun"},
    ("inet_lvis", "", "imagenet-21k/winter21_whole/n02121620.tar"): {
        cut(700): "n02121620.tar: cannot be unpacked"},
    ("inet_unl", "", "imagenet-21k/winter21_whole/n02121620.tar"): {
        cut(700): "n02121620.tar: cannot be read, delete it", put(b"x" * 600): "cannot be read"},
    ("cc3m", "", "cc3m/00000.tar"): {
        put(tarred({"1.jpg": picture()}, plain=True)): "1 captions are absent: tell img2dataset",
        cut(700): "00000.tar: cannot be read, delete it"},
}  # fmt: skip
CASES = [(*where, harm, words) for where, own in BROKEN.items() for harm, words in own.items()]


@pytest.mark.parametrize(("name", "split", "place", "harm", "words"), CASES)
def test_a_damaged_release_names_the_file(tmp_path, name, split, place, harm, words):
    if name == "inet_lvis":
        write(tmp_path, "lvis")
        prepared("lvis", tmp_path)
    path = write(tmp_path, name, split) / place
    whole = path.read_bytes()
    path.write_bytes(harm(whole))
    with pytest.raises((DataError, FileNotFoundError)) as caught:
        prepared(name, tmp_path, split)
    said = str(caught.value)
    assert re.search(words, said) and "\n" not in said and str(tmp_path) in said
    assert not [*tmp_path.glob("*.json*/../evil.jpg"), *tmp_path.parent.glob("evil.jpg")]


def test_what_lies_there_stays_and_an_interruption_is_made_good(tmp_path, monkeypatch):
    archive = write(tmp_path, "coco", "val") / "coco/val/val2017.zip"
    mine = tmp_path / "val2017" / f"{1:012}.jpg"
    mine.parent.mkdir()
    mine.write_text("mine")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("shutil.rmtree", lambda *_, **__: None)  # as after kill -9
        patch.setattr("shutil.unpack_archive", mock.Mock(side_effect=KeyboardInterrupt))
        unpack(archive, tmp_path)
    assert (tmp_path / ".val2017.zip.unpacking").is_dir()
    prepared("coco", tmp_path, "val")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"raw", "val2017", ".val2017.zip.unpacked"}
    assert mine.read_text() == "mine" and len(os.listdir(mine.parent)) == 9
    mine.unlink()
    prepared("coco", tmp_path, "val")  # once is enough
    assert not mine.exists()


def test_annotations_of_the_users_are_not_replaced(tmp_path):
    write(tmp_path, "openimages", "val")
    target = tmp_path / "openimages/openimages_challenge_2019_val_bbox.json"
    target.parent.mkdir(parents=True)
    target.write_text("mine")
    with pytest.raises(FileExistsError, match="was not written by this program"):
        prepared("openimages", tmp_path, "val")
    assert target.read_text() == "mine"
    target.unlink()
    for _ in range(2):
        prepared("openimages", tmp_path, "val")


def test_boxes_are_placed_by_the_size_of_each_picture(tmp_path):
    raw = write(tmp_path, "openimages", "val")
    other = tarred({"validation/00001a21632de752.jpg": picture(size=(80, 90))})
    (raw / "openimages/val/validation.tar.gz").write_bytes(other)
    prepared("openimages", tmp_path, "val")
    dataset = open_boxes("openimages", "val", root=tmp_path)
    assert np.allclose(dataset.boxes_xyxy, [[1, 9, 41, 54]])
