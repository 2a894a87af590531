"""Detection of anybody's pictures: what is named, what is written, what is never replaced."""

import json
import os
import shutil
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from PIL import Image
from tiny_dino import LINEAR, tiny_dino

import richsem
from richsem.data.categories import Category
from richsem.training import runs
from richsem.training.predict import PictureDetections
from richsem.workbook.figures import gallery, style


@pytest.fixture
def photos(tmp_path, own_cache):
    for name in ("a.jpg", "b.png", "deep/a.PNG", "deep/notes.txt"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), "teal").save(path, format="PNG")
    return tmp_path / "photos"


def found(*names):
    """Detections of these names at places of their own, and the last one once more."""
    boxes = [[10.0 * i, 0, 10.0 * i + 8, 8] for i in range(len(names))]
    rows = [*range(len(names)), len(names) - 1] if names else []
    return PictureDetections(
        names=tuple(names[i] for i in rows),
        frequencies=tuple("rcf"[i % 3] for i in rows),
        labels=np.array(rows, dtype=int),
        scores=np.linspace(0.9, 0.4, len(rows)).astype(np.float32),
        boxes_xyxy=np.array([boxes[i] for i in rows], dtype=np.float32).reshape(-1, 4),
    )


def test_files_folders_and_patterns_name_pictures(photos):
    (photos / "report.pdf").write_bytes(b"%PDF-1.4")
    (photos / "._a.jpg").write_bytes(b"what a Mac leaves")
    every = [photos / name for name in ("a.jpg", "b.png", "deep/a.PNG")]
    assert gallery.pictures([str(photos)]) == every
    assert gallery.pictures([f"{photos}/*.png", str(photos)]) == [every[1], every[0], every[2]]
    assert gallery.pictures([f"{photos}/**/*.PNG"]) == every[2:]
    assert gallery.drawn_names(every) == ["a.png", "b.png", "a-2.png"]
    many = [photos / f"{number}/a.jpg" for number in range(9999)]  # it took hours
    assert gallery.drawn_names(many)[-1] == "a-9999.png"
    (photos / "not fetched.jpg").symlink_to("../.git/annex/objects/x")
    assert photos / "not fetched.jpg" in gallery.pictures([str(photos)])
    for nothing in ("", f"{photos}/*.gif", str(photos / "deep" / "*.md"), "~nobody/a.jpg"):
        with pytest.raises(ValueError, match="no picture there"):
            gallery.pictures([nothing])


@pytest.mark.parametrize("size", [(640, 480), (480, 1000), (40, 30), (7, 5), (1500, 20)])
def test_a_picture_is_drawn_in_its_own_size_or_a_multiple(size, tmp_path):
    picture = Image.new("RGB", size, "teal")
    with matplotlib.rc_context():
        style.apply_style()  # notebooks do
        (tmp_path / "drawn.png").write_bytes(gallery.drawn(picture, found("dog", "cat")))
    with Image.open(tmp_path / "drawn.png") as image:
        factor = round(image.width / size[0])
        assert image.size == (factor * size[0], factor * size[1])
        assert max(image.size) >= 512 and (factor == 1 or max(size) < 512)


def test_a_page_and_a_coco_file_say_what_was_found(photos):
    classes = tuple(Category(id=3 + i, name=name) for i, name in enumerate(("dog", "red_cat")))
    things, nothing = found("dog", "red_cat"), found()
    seen = [
        gallery.Seen(picture=photos / name, size=(40, 30), found=one, drawn=f"{name} 1.png")
        for name, one in (("<a>.jpg", things), ("b.png", nothing))
    ]
    assert [one.words for one in seen] == ["1 dog, 1 red cat", "nothing found"]
    page = gallery.page(seen)
    assert 'alt="1 dog, 1 red cat"' in page and "&lt;a&gt;.jpg" in page and "%3Ca%3E" in page
    content = json.loads(gallery.coco(seen, classes))
    assert [image["id"] for image in content["images"]] == [1, 2]
    boxes = [(a["category_id"], a["bbox"]) for a in content["annotations"][:2]]
    assert boxes == [(3, [0, 0, 8, 8]), (4, [10, 0, 8, 8])]
    assert content["annotations"][0]["score"] == pytest.approx(0.9)


def test_the_small_detector_finds_any_names_in_a_folder(photos, tmp_path, cli):
    (photos / "broken.jpg").write_bytes(b"\xff\xd8 cut")
    (photos / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0")
    odd = (os.fsdecode(b"\xff.png"), f"{'long' * 62}.png")  # no UTF-8; as long as names can be
    for name in odd:
        shutil.copy(photos / "b.png", photos / name)
    out = tmp_path / "seen"
    command = ["detect", photos, "--out", out, "--names", "dog, gas mask, dog"]
    for _ in range(2):  # what this program wrote, it may replace
        said = cli(*command, code=1)
        for words in ("broken.jpg", "a HEIC photo", "drawn pictures only"):
            assert words in said.err
        assert said.out.splitlines()[-1] == str(out / "index.html")
    names = {"a.png", "b.png", "a-2.png", r"\xff.png", odd[1], "index.html", "detections.json"}
    assert {file.name for file in out.iterdir()} == names
    content = json.loads((out / "detections.json").read_text())
    assert [category["name"] for category in content["categories"]] == ["dog", "gas mask"]
    (out / "a.png").write_bytes(b"a picture of my own")
    said = cli(*command, code=2).err
    assert "a.png exists and was not written by this program" in said


def test_nothing_found_is_said_with_the_best_score(photos, cli, monkeypatch):
    one = replace(found("dog"), scores=np.float32([0.2999, 0.1]))
    monkeypatch.setattr(runs.Trained, "detect", lambda *_: one)
    odd = os.fsdecode(b"\xff")  # a name that is no UTF-8
    (photos / "a.jpg").rename(photos / f"{odd}.jpg")
    said = cli("detect", photos / f"{odd}.jpg").out
    assert ".jpg: nothing found (best score: 0.29)" in said
    assert json.loads((photos / f"{odd}-detections.json").read_text()) == []


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("a.jpg", "name a .png for one picture"), ("b.png", "b.png exists"),
        ("mine.png", "mine.json exists"), ("deep/notes.txt", "name a .png"),
    ],
)  # fmt: skip
def test_nothing_of_the_users_own_is_replaced(photos, out, words, cli):
    (photos / "mine.json").write_text('{"labelled": "by hand"}')
    before = {file: file.read_bytes() for file in photos.rglob("*") if file.is_file()}
    assert words in cli("detect", photos / "a.jpg", "--out", photos / out, code=2).err
    assert {file: file.read_bytes() for file in photos.rglob("*") if file.is_file()} == before


def test_names_come_from_a_line_or_a_file(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("Gas mask\n\n leather jacket \ngas mask\n")
    expected = ["gas mask", "leather jacket"]
    assert gallery.given_names(str(path)) == expected
    lists = (
        "gas mask,leather jacket, ",
        "gas mask\uff0cleather jacket; ",
        "gas mask|leather jacket",
    )
    for given in (*lists, "gas mask . leather jacket ."):  # as GroundingDINO takes them
        assert gallery.given_names(given) == expected
    path.write_text("gas mask, leather jacket\r\n")
    assert gallery.given_names(str(path)) == expected
    for name in ("st. bernard", "car/truck", "bow_(weapon)"):
        assert gallery.given_names(name) == [name]
    assert gallery.given_names(None) == []
    absent = f"{tmp_path}/nmaes.txt"
    pipe, page = tmp_path / "pipe", tmp_path / "page.txt"
    os.mkfifo(pipe)
    page.write_text("<!DOCTYPE html>")
    (labels := tmp_path / "map.pbtxt").write_text("item {\n  id: 1\n}")
    wrong = {"": "--names: no names in there", " , ": "no names", absent: "no text file of names"}
    wrong |= {"nmaes.csv": "no text file of names", "x" * 300 + ".names": "too long"}
    wrong |= {f"{pipe}.txt": "a pipe or a device", str(page): r"of names \(it is a web page"}
    (table := tmp_path / "ids.csv").write_text("id,name\n1,gas mask\n")
    wrong |= {str(labels): "holds code or comments", str(table): "holds a table; expected names"}
    wrong |= {'"gas mask", "boat"': "no name: leave out quotes", "[a, b]": "quotes and brackets"}
    wrong |= {"b\udce4r": "write UTF-8", "-": "no name", "/dev/null": "pipe", "../names": "no text"}
    pipe.rename(f"{pipe}.txt")
    for given, words in wrong.items():
        with pytest.raises(ValueError, match=words):
            gallery.given_names(given)


@pytest.mark.parametrize(
    "more",
    ["--clip RN50", "--clip RN50 --names dog", "--clip RN50 --weights mine", "--clip-weights a.pt"],
)
def test_a_clip_that_nothing_would_be_read_with_is_refused(photos, more, cli):
    said = cli("detect", photos / "a.jpg", *more.split(), code=2).err
    assert "--clip names the CLIP" in said


def test_a_vocabulary_can_be_changed_where_classes_are_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small").mkdir()  # which is no detector
    for wrong in ("dog, cat", ["dog", " "], [7]):
        with pytest.raises(ValueError, match="expected a list such as"):
            richsem.load(names=wrong)
    small = richsem.load(names=["dog", "cat", "dog"])
    picture = np.full((40, 40, 3), 90, dtype=np.uint8)
    other = runs.with_names(small, ["cat", "zebra", "dog"])
    assert [one.name for one in other.classes] == ["cat", "zebra", "dog"]
    alone = runs.with_names(small, ["cat"]).detect(picture, 0.0)
    before = small.detect(picture, 0.0)
    cats = before.scores[np.array(before.names) == "cat"]
    assert alone.scores[: len(cats)] == pytest.approx(cats, abs=1e-5)
    trained = runs.Trained(detector=tiny_dino(with_text=False, **LINEAR), classes=(), recipe=None)
    with pytest.raises(ValueError, match="output for each of its own classes"):
        runs.with_names(trained, ["cat"])
