"""Folders of pictures as extra images, in every form that they come in."""

from unittest import mock

import numpy as np
import pytest
from tiny_files import write_picture

from richsem.data.categories import Category
from richsem.data.own import read_folder
from richsem.data.pictures import on_disk, open_rgb
from richsem.data.reading import DataError, DataWarning
from richsem.kept import pictures_below

CLASSES = (
    Category(id=2, name="red_boat", synonyms=("Punt",)),
    Category(id=5, name="bow_(weapon)", synonyms=("bow",)),
    Category(id=6, name="bow_(ribbon)", synonyms=("bow", "hair-bow")),
    Category(id=9, name="Bär"),
)


def folder(root, *names):
    rng = np.random.default_rng(0)
    for name in names:
        write_picture(root / name, 8, rng)
    return root


def labelled(images):
    return {name: images.labels[i] for i, name in enumerate(images.file_names)}


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("red_boat", 0), ("Red Boat", 0), ("RED-boat", 0), ("redboat", 0), ("punt", 0),
        ("bow (weapon)", 1), ("Bow_(Ribbon)", 2), ("Hair Bow", 2), ("Ba\u0308r", 3), ("BÄR", 3),
    ],
)  # fmt: skip
def test_sub_folders_are_names_or_synonyms_however_they_are_written(tmp_path, name, place):
    images = read_folder(folder(tmp_path, f"{name}/1.jpg"), None, CLASSES)
    assert images.labels == ((place,),) and images.categories == CLASSES
    assert images.image(0).size == (8, 8)


def test_what_is_unknown_is_counted_and_named(tmp_path):
    root = folder(
        tmp_path,
        "train/punt/1.jpg",
        "bow/2.PNG",
        "loose.jpg",
        ".trash/3.jpg",
        "bow/@eaDir/2.PNG/small.jpg",
    )
    (root / "punt.txt").write_text("no picture")
    (root / "._1.jpg").write_bytes(b"what a Mac leaves")
    (root / "train" / "round").symlink_to(root)
    with pytest.warns(DataWarning) as said:
        images = read_folder(root, None, CLASSES)
    labels, pictures = (str(one.message) for one in said)
    assert "2 of 3 labels name no class, or several (bow, train)" in labels  # two are called bow
    assert "2 of 3 pictures have no known label and are not learnt from" in pictures
    assert labelled(images) == {"bow/2.PNG": (), "loose.jpg": (), "train/punt/1.jpg": (0,)}
    assert read_folder(root).labels == ((),) * 3  # without classes nothing is read


def test_what_may_not_be_read_is_told(tmp_path, monkeypatch):
    closed = mock.Mock(side_effect=PermissionError(13, "Permission denied", "closed"))
    (tmp_path / "1.jpg").write_bytes(b"anything")
    for place in ("os.scandir", "os.listdir", "PIL.Image.open"):
        monkeypatch.setattr(place, closed)
    with pytest.warns(UserWarning, match="closed may not be read and is passed over"):
        assert pictures_below(tmp_path) == []
    with pytest.raises(PermissionError):  # and not: it is not there
        on_disk(tmp_path)("1.jpg")
    with pytest.raises(DataError, match=r"1\.jpg: it may not be read"):
        open_rgb(tmp_path / "1.jpg", "it")


def test_a_csv_file_labels_pictures(tmp_path):
    root = folder(tmp_path / "photos", "1.jpg", "sub/2.jpg", "sub/3.jpg")
    table = tmp_path / "labels.csv"
    lines = ["file,label", "1.jpg, punt ; Bär", r"sub\2.jpg,red boat", "", "./Sub/2.JPG,BÄR"]
    table.write_text("\n".join(lines), encoding="utf-8-sig")
    with pytest.warns(DataWarning, match=r"labels\.csv: 1 of 3 pictures have no known label"):
        images = read_folder(root, table, CLASSES)
    assert labelled(images) == {"1.jpg": (0, 3), "sub/2.jpg": (0, 3), "sub/3.jpg": ()}
    before = images.fingerprint
    table.write_text("sub/3.jpg,punt", encoding="utf-8")
    with pytest.warns(DataWarning, match="2 of 3"):
        assert read_folder(root, table, CLASSES).fingerprint != before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"1.jpg,punt\n2.jpg,punt\nx/3.jpg,punt", r"2 of 3 lines .* \(line 2: 2\.jpg, line 3: x/3"),
        (b"2.jpg,punt", r"1 of 1 lines name no picture below .*photos \(line 1: 2\.jpg\)"),
        (b"1.jpg;punt", r"line 1 is '1\.jpg;punt', expected FILE,LABEL"),
        (b"1.jpg,punt,red boat", "line 1 is .*, expected FILE,LABEL"),
        (
            b"1.jpg,Boot;Hund",
            r"2 of 2 labels name no class, .* \(Boot, Hund\)\. .*such as red_boat",
        ),
        (b"1.jpg,", r"it has no labels, expected lines of FILE,LABEL\[;LABEL\]"),
        (b"", r"csv file \(it is empty"),
        (b"version https://git-lfs.github.com/spec/v1", r"csv file \(it is a pointer of Git LFS"),
        (b"\xff\xfe1", "cannot be read as a UTF-8 csv file"),
        (None, "cannot be read as a UTF-8 csv file"),
    ],
)
def test_a_csv_file_that_cannot_be_used(tmp_path, content, words):
    root, table = folder(tmp_path / "photos", "1.jpg"), tmp_path / "labels.csv"
    if content is not None:
        table.write_bytes(content)
    with pytest.raises(DataError, match=rf"labels\.csv: {words}|labels\.csv: .*{words}"):
        read_folder(root, table, CLASSES)


def test_folders_without_pictures_or_known_labels_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("none")
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match=r"no pictures \(\.apng, .*\) below it"):
            read_folder(root)
    with pytest.raises(DataError, match=r"1 of 1 labels .*\(2024\).*supervision=unlabelled"):
        read_folder(folder(tmp_path, "2024/1.jpg"), None, CLASSES)
