"""`data check`: what will happen to a file and its pictures, and a copy that has no fault."""

import json
import os
import re
import shutil
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import ExifTags, Image
from tiny_files import rewritten, write_picture, write_set

from richsem.data.box_sets import read_annotations

SHOWS = [[0, 1], [0], [0, 2], [1], [0, 3], [0], [2], [1, 3], [0], [], [0, 1], [1]]  # of 7 i + 1


@pytest.fixture
def folder(tmp_path, own_cache, monkeypatch):
    monkeypatch.setattr("richsem.operations.check._WIDTH", 1000)  # folders of tests have long names
    monkeypatch.setenv("COLUMNS", "1000")
    return write_set(tmp_path / "set", SHOWS).parent


@pytest.fixture
def check(folder, cli):
    """Runs the command; what is said by topic, and what stops training."""

    def run(*more, file=folder / "set.json", images=folder, code=0):
        more = more if "--images" in more else ("--images", images, *more)
        printed = cli("data", "check", "--annotations", file, *more, code=code)
        said, words = {}, SimpleNamespace()
        words.error = printed.err
        for line in printed.out.splitlines():
            topic, rest = line[:15].strip(), line[15:]
            if topic or rest[:2] == "- ":
                key = topic or len(said)
                said[key] = f"{said[key]}\n{rest}" if key in said else rest
            else:
                said[key] += f" {rest}"
        words.said = {key: rest for key, rest in said.items() if isinstance(key, str)}
        words.stops = [rest[2:] for key, rest in said.items() if isinstance(key, int)]
        return words

    return run


def edited(folder, change):
    rewritten(folder / "set.json", change)


def test_a_sound_file_is_told_in_one_screen(check):
    found = check()
    assert found.stops == []
    assert found.said == {
        "file": "set.json is COCO: its images have no neg_category_ids and no "
        "not_exhaustive_category_ids",
        "judged": "by the COCO protocol: every class counts on every image",
        "pictures": "12 of 12 can be used",
        "classes": "4: 4 rare (at most 10 images), 0 common (11 to 100), 0 frequent (more), "
        "counted in the file",
        "largest": "dog (7 images), Red_Boat (5 images), hot dog (2 images)",
        "smallest": "bow_(weapon) (2 images), hot dog (2 images), Red_Boat (5 images)",
        "names": "all differ",
        "boxes": "16 boxes, 0 crowd regions",
        "learnt from": "10 images, 12 boxes, each 1.0 to 1.0 times per epoch",
        "judged by": "2 images of set, 4 boxes",
        "problems": "none",
    }


def test_a_federated_file_is_judged_by_lvis(check, tmp_path):
    file = write_set(tmp_path / "lvis", SHOWS, federated=True)
    edited(file.parent, fields("categories", frequency="f"))
    said = check(file=file, images=file.parent).said
    assert said["file"].startswith("set.json is LVIS: its images have neg_category_ids and not_")
    assert said["judged"].startswith("by the LVIS protocol")
    copy = tmp_path / "copy.json"
    edited(file.parent, lambda c: c["categories"][3].update(name=c["categories"][0]["name"]))
    image(1, neg_category_ids=[4])(file.parent)
    check("--repair", copy, file=file, images=file.parent)
    check(file=copy, images=file.parent)
    assert json.loads(copy.read_text())["images"][1]["neg_category_ids"] == [1]
    assert said["classes"] == "4: 0 rare, 0 common, 4 frequent, as the file says"


def fields(section, *rows, **values):
    """A change to a content: these fields of some records, or of all."""
    return lambda c: [c[section][row].update(values) for row in rows or range(len(c[section]))]


def image(row, **values):
    return lambda folder: edited(folder, fields("images", row, **values))


def box(row, *bbox, **values):
    values |= {"bbox": bbox} if bbox else {}
    return lambda folder: edited(folder, fields("annotations", row, **values))


def turned(size):
    """Picture 8.jpg with a phone's orientation, of a record of 40 x 50."""

    def damage(folder):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6
        Image.new("RGB", size).save(folder / "8.jpg", exif=exif)
        image(1, width=40)(folder)

    return damage


def names(*given):
    changes = [fields("categories", row, name=name) for row, name in enumerate(given)]
    return lambda folder: edited(folder, lambda c: [change(c) for change in changes])


def repeat(folder):
    edited(folder, lambda c: c["annotations"].append(c["annotations"][2] | {"id": 2**60}))


FAULTS = {
    # what is done to the set -> topic, what is said of it, what stops training
    "missing": (lambda folder: (folder / "8.jpg").unlink(),
                ("pictures", r"11 of 12 can be used; 1 missing and left out \(8.jpg\)", "")),
    "long name": (image(1, file_name=f"{'a' * 300}.jpg"), ("pictures", "1 missing and left", "")),
    "cut": (lambda folder: os.truncate(folder / "8.jpg", 600),
            ("pictures", "1 that cannot be read", "8.jpg: .*Truncated")),
    "text": (lambda folder: (folder / "8.jpg").write_text("<html>"),
             ("pictures", "1 that cannot be read", "it is a web page")),
    "wrong size": (image(1, width=57), ("pictures", "", "8.jpg is 50 x 50, not 57 x 50")),
    "no size": (image(1, width=None), ("pictures", "", "50 x 50, not 0 x 50")),
    "size 0": (image(1, width=0), ("pictures", "", "50 x 50, not 0 x 50")),
    "NaN": (box(0, float("nan"), 1, 2, 3), ("boxes", "; 1 dropped that are NaN", "")),
    "flat": (box(0, 1, 1, 0, 3), ("boxes", "; 1 dropped without area", "")),
    "outside": (box(0, 80, 1, 9, 9), ("boxes", "; 1 dropped outside", "")),
    "beyond": (box(0, 40, 1, 20, 9), ("boxes", "; 1 clipped", "")),
    "area": (box(0, area=-1), ("boxes", "; 1 with an area that keeps it from", "")),
    "thin": (box(0, 1, 1, 20, 0.4), ("boxes", "; 1 thinner than a pixel", "")),
    "repeated": (repeat, ("boxes", "; 1 that repeat another", "")),
    "copy": (lambda folder: shutil.copy(folder / "8.jpg", folder / "1.jpg"),
             ("pictures", "1 with the bytes of another", "")),
    "turned": (turned((50, 40)), ("EXIF", "orientation 6 in 1$", "")),
    "stored": (turned((40, 50)), ("EXIF", "6 in 1; 1 with the size of their stored", "")),
    "names": (names("Dog", "red-boat", "dogs", "Red_Boat"),
              ("names", "CLIP cannot tell apart Dog = dogs, red-boat = Red_Boat: rename them", "")),
    "one name": (names("d\u00f6g", "do\u0308g"),  # umlauts are made up in two ways
                 ("names", "", "1 name of several classes \\(d\u00f6g\\)")),
}  # fmt: skip
STAY = ("thin", "copy", "turned", "stored", "names")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_and_a_copy_is_without_it(check, folder, tmp_path, fault):
    damage, (topic, told, stops) = FAULTS[fault]
    damage(folder)
    found = check(code=int(bool(stops)))
    assert re.search(told, found.said[topic])
    assert len(found.stops) == bool(stops) and re.search(stops, "".join(found.stops))
    copy = tmp_path / "copy.json"
    found = check("--repair", copy)
    assert found.said["problems"] == "none in the repaired copy"
    assert re.search(told, found.said[topic]) and re.search(stops, found.said.get("mended", ""))
    assert re.fullmatch(rf"{copy}, .* kB: without outlines .*", found.said["repaired"])
    again = check(file=copy)
    stays = bool(told and re.search(told, again.said[topic]))
    assert again.stops == [] and stays == (fault in STAY)


LISTS = {"neg_category_ids": [], "not_exhaustive_category_ids": []}
REFUSED = {
    # what is done to a set of 12 images and 16 boxes -> what is told, what a copy has instead
    "class without a name": (
        fields("categories", 1, name=" "),
        r'categories\[1\] \(id 2\): field "name" is \' \', expected text',
        '1 called "class" and their id: name them'),
    "picture twice": (
        lambda c: c["images"].append(c["images"][0]),
        r"images\[12\] \(id 1\): duplicate id, first used by \[0\]",
        "1 left out, which repeat the first"),
    "pictures of one id": (fields("images", 1, id=1), r"images\[1\] .*duplicate id", ""),
    "unlisted pictures": (
        lambda c: c["images"].pop(0),
        r"annotations\[0\] \(id 1\): unknown image 1; 2 annotations are like it", "2 left out"),
    "classes from 0": (
        lambda c: [one.update(category_id=one["category_id"] - 1) for one in c["annotations"]],
        "unknown category 0; 7 annotations are like it. If they count from 0, not 1, number", ""),
    "pictures from 0": (
        lambda c: [one.update(image_id=one["image_id"] - 1) for one in c["annotations"]],
        "unknown image 0; 16 annotations are like it. If they count from 0, not 1, number", ""),
    "numbers as names": (
        fields("categories", 1, name=7), 'field "name" is 7, expected text', "1 read as text"),
    "ids as text": (
        lambda c: [one.update(id=str(one["id"])) for one in c["images"]],
        "unknown image 1; 16 annotations are like it", "ids of all images written as text"),
    "pictures by other ids": (  # two of them are others' numbers
        lambda c: [one.update(id=n) for n, one in enumerate(c["images"])]
        and [one.update(image_id=str(one["image_id"])) for one in c["annotations"]] and None,
        "unknown image '1'; 16 annotations are like it", ""),
    "pictures by name": (fields("annotations", image_id="8.jpg"), "image '8.jpg'; 16 annotat", ""),
    "all classes by name": (
        fields("annotations", category_id="dog"), "'dog', expected a whole .* 16 annotations", ""),
    "ids of two kinds": (
        fields("images", 2, id="15"),
        "field \"id\" is '15', expected a whole number as in the first",
        "ids of all images written as text"),
    "boxes of one id": (
        fields("annotations", id=0),
        "duplicate id, .*; 15 annotations are like it", "all annotations numbered anew"),
    "no ids": (lambda c: c["annotations"][3].pop("id"), '"id" is missing', "all annotations numb"),
    "numbers as text": (
        lambda c: [one.update(bbox=[*map(str, one["bbox"])]) for one in c["annotations"][:3]],
        r"field \"bbox\" is \['0', '4',.*; 3 annotations are like it", "3 read as numbers"),
    "no box": (
        lambda c: [c["annotations"][row].update(bbox=value) for row, value in ((1, None), (3, []))],
        'field "bbox" is None, expected four numbers .*; 2 annotations are like it', "2 left out"),
    "no object": (lambda c: c["annotations"].append(5), "this is 5, expected an object", "1 left"),
    "optional": (
        fields("annotations", 0, area="big"),
        "field \"area\" is 'big', expected a number", "1 taken without area"),
    "nameless": (
        lambda c: c["images"][4].pop("file_name"), 'needs the field "file_name"', "1 left"),
    "unknown class": (
        fields("images", **LISTS | {"neg_category_ids": [77]}),
        "names unknown category 77; 12 images are like it", "unknown ids left out"),
    "no lists": (
        fields("images", 0, **LISTS),
        'field "neg_category_ids" is missing; 11 images are like it', ""),
}  # fmt: skip


@pytest.mark.parametrize("fault", REFUSED)
def test_what_the_reader_refuses_is_told_and_mended(check, folder, tmp_path, fault):
    change, told, done = REFUSED[fault]
    edited(folder, change)
    stops, copy = check(code=1).stops, tmp_path / "copy.json"
    assert len({*stops}) == len(stops)
    assert re.search(told, stops[0]) and f" With --repair: {done}" * bool(done) in stops[0]
    found = check("--repair", copy, code=int(not done))
    if not done:
        assert found.said["repaired"].startswith("no") and not copy.exists()
        return
    assert re.search(rf"{told}.*: {done}", found.said["mended"])
    assert check(file=copy).stops == []


def test_all_faults_of_a_file_are_told_at_once(check, folder, tmp_path):
    changes = [one[0] for name, one in REFUSED.items() if one[2] and name != "ids of two kinds"]
    edited(folder, lambda c: [change(c) for change in changes])
    (folder / "8.jpg").write_text("<html>")
    stops, copy = check(code=1).stops, tmp_path / "copy.json"
    kinds = Counter(re.split(r"\W", line)[0] for line in stops)
    assert kinds == {"annotations": 6, "images": 2, "categories": 1, "1": 1}
    mended = check("--repair", copy).said["mended"]
    assert re.search(r"8\.jpg.*: 1 picture left out with \d box", mended)
    assert len(mended.splitlines()) == len(stops) and check(file=copy).stops == []
    edited(folder, lambda c: c.update(images=[5]))
    told = check(code=1).stops
    assert told[0].startswith("images[0]: this is 5") and told[-1].startswith('"images" is empty.')
    none = tmp_path / "none.json"
    assert "mended" not in check("--repair", none, code=1).said and not none.exists()


def test_a_copy_keeps_ids_and_what_is_read(check, folder, tmp_path):
    """The file of an exporter that fills in all it knows, with two faults."""

    def fill(content):
        content.update(info={"year": 2024}, licenses=[{"id": 0}])
        content["images"][0] |= {"license": "", "date_captured": 0, "flickr_url": None}
        content["categories"][0] |= {"supercategory": 0, "synonyms": ["hound"], "def": "barks"}
        content["annotations"][0] |= {"segmentation": [[1, 2, 3, 4]], "iscrowd": "1", "id": 2**60}
        content["annotations"][1] |= {"bbox": [-10, 5, 30, 10], "area": 299.5}
        content["annotations"][2] |= {"area": None}

    edited(folder, fill)
    check("--repair", tmp_path / "copy.json")
    copy = json.loads((tmp_path / "copy.json").read_text())
    before = json.loads((folder / "set.json").read_text())
    assert copy.keys() == {"images", "annotations", "categories"}
    plain = ("id", "width", "height", "file_name")
    assert copy["images"] == [{key: one[key] for key in plain} for one in before["images"]]
    assert copy["categories"] == [
        {key: one[key] for key in ("id", "name", "synonyms", "def") if key in one}
        for one in before["categories"]
    ]
    first = {"id": 2**60, "image_id": 1, "category_id": 1, "bbox": [0, 4, 25, 16], "area": 400}
    second = {"id": 2, "image_id": 1, "category_id": 2, "bbox": [0, 5, 20, 10], "area": 200}
    assert copy["annotations"][:2] == [first | {"iscrowd": 1}, second | {"iscrowd": 0}]
    assert len(copy["annotations"]) == len(before["annotations"])
    assert copy["annotations"][2]["area"] == 400


@pytest.mark.parametrize(
    ("recorded", "bbox", "expected"),
    [
        (100, [60, 10, 30, 20], [30, 5, 15, 10]),
        (25, [10, 4, 10, 5], [20, 8, 20, 10]),
        (25, [30, 10, 10, 5], [30, 10, 10, 5]),  # lies outside of the record, which is wrong
    ],
)
def test_boxes_follow_a_picture_that_was_resized(check, tmp_path, recorded, bbox, expected):
    folder = write_set(tmp_path / "one", [[0]] * 6).parent
    edited(folder, fields("images", 0, 1, width=recorded, height=recorded))
    box(0, 1, 1, 4, 4)(folder)
    box(1, *bbox)(folder)
    file = {"file": folder / "set.json", "images": folder}
    assert "2 pictures of another size" in check(**file, code=1).stops[0]
    said = check("--repair", tmp_path / "copy.json", **file).said
    assert ("; 2 seem to be resized" in said["mended"]) == (bbox != expected)
    copy = read_annotations(tmp_path / "copy.json")
    assert copy.boxes_xywh[1].tolist() == expected
    assert {(one.width, one.height) for one in copy.images} == {(50, 50)}


@pytest.mark.parametrize(
    ("sizes", "bbox"),
    [
        ([(80, 50)], (60, 10, 15, 9)),  # what is in the record is not in the picture
        ([(80, 50), (60, 50)], (1, 1, 4, 4)),  # pictures of several records are of one size
        ([(80, 50), (100, 100)], (1, 1, 4, 4)),  # one was made smaller, and the other one as well
    ],
)
def test_pictures_that_were_cut_or_stretched_are_left_to_people(check, folder, sizes, bbox):
    box(0, *bbox)(folder)
    for row, (width, height) in enumerate(sizes):
        image(row, width=width, height=height)(folder)
    found = check("--repair", folder / "copy.json", code=1)
    assert "first correct what --repair cannot" in found.said["repaired"]
    assert "of another size than in the file" in found.stops[0]
    assert found.stops[0].endswith("Use the pictures that were annotated, or correct the file.")


POLYGONS = [[5, 6, 15, 6, 15, 14], [5, 14, 10, 10, 9, 9]]
RUNS = {"size": [40, 40], "counts": [206, 8, *(32, 8) * 9, 1026]}  # column by column


@pytest.mark.parametrize("outline", [POLYGONS, RUNS])
@pytest.mark.parametrize("bbox", [None, [], [0, 0, 0, 0], [float("nan")] * 4])
def test_boxes_are_made_of_outlines(check, folder, tmp_path, bbox, outline):
    # Another fault of the record is mended first, and the outline stays.
    box(2, bbox=bbox, segmentation=outline, area=None, category_id="1")(folder)
    box(3, bbox=bbox, segmentation=[[5, 6, 5, 9, 5, 14]])(folder)
    assert "boxes around the outlines" in check("--repair", tmp_path / "copy.json").said["mended"]
    copy = read_annotations(tmp_path / "copy.json")
    assert copy.ids.tolist() == [n for n in range(1, 17) if n != 4]
    assert (copy.boxes_xywh[2].tolist(), copy.areas[2]) == ([5, 6, 10, 8], 80)


ROTATED = "1 boxes have a rotation in their attributes (annotation ids 3) and are read as upright"


@pytest.mark.parametrize(
    ("attributes", "is_told"),
    [
        ({"rotation": 30.0}, True),
        ({"rotation": 180}, False),
        (["rotation"], False),
        ({"rotation": "30"}, True),
        ({"rotation": "none"}, False),
        ({"rotation": None}, False),
    ],
)
def test_rotated_boxes_are_told(check, folder, attributes, is_told):
    box(2, attributes=attributes)(folder)
    assert (ROTATED in " ".join(check().said.values())) == is_told


def test_masks_that_lie_elsewhere_than_their_boxes_are_told(check, folder):
    edited(folder, fields("annotations", 0, 1, segmentation=POLYGONS))
    assert "masks" not in check().said
    box(1, segmentation=[[0.1, 0.1, 0.5, 0.1, 0.5, 0.4]])(folder)
    assert check().said["masks"].startswith("1 of 2 masks lie elsewhere than their boxes; expected")
    for row in (0, 1):  # so thin that no pixel is left
        box(row, 1, 1, 20, 0.2, segmentation=[[1, 1, 21, 1, 21, 1.2, 1, 1.2]])(folder)
    assert "masks" not in check().said


def test_further_pictures_are_held_against_the_classes(check, tmp_path):
    extra = tmp_path / "extra"
    rng = np.random.default_rng(0)
    for name in ("dog/1.jpg", "dog/2.jpg", "red boat/3.jpg", "yak/4.jpg"):
        write_picture(extra / name, 20, rng)
    said = check("--extra", extra).said
    assert said["extra pictures"] == "4, 3 with labels"
    assert "1 of 3 labels name no class, or several (yak)\n" in said["note"]
    assert "1 of 4 pictures have no known label and are not learnt from" in said["note"]
    assert said["note"].count("\n") == 1  # each is told once, however often the sets are opened
    (extra / "yak" / "4.jpg").write_bytes(b"")
    (table := tmp_path / "labels.csv").write_text('yak/4.jpg, "hot dog"\n')
    found = check("--extra", extra, "--extra-labels", table, code=1)
    assert found.said["extra pictures"] == "4, 1 with labels"
    assert re.search("1 picture to fetch again or leave out: .*4.jpg.*it is empty", found.stops[0])
    shutil.rmtree(extra)
    write_picture(extra / "1.jpg", 20, rng)
    assert check("--extra", extra).said["extra pictures"] == "1, 0 with labels"
    write_picture(extra / "yak" / "1.jpg", 20, rng)
    assert "Use names or synonyms of the 4 classes" in check("--extra", extra, code=1).stops[0]


def test_what_is_told_of_training_is_what_training_tells(check, folder, tmp_path, cli):
    val = write_set(tmp_path / "val", [[0], [1]], seed=1)
    own = ["--annotations", folder / "set.json", "--images", folder, "--out", tmp_path / "out"]
    for flags in (["--holdout", "0.4"], ["--val-annotations", val, "--val-images", val.parent]):
        said = check(*flags).said
        printed = cli("train", "richsem", *own, *flags, "--dry-run").out.splitlines()
        for topic in ("learnt from", "judged by"):
            assert f"{topic:15}{said[topic]}" in printed
    rewritten(val, fields("images", width=57))
    stops = check("--val-annotations", val, "--val-images", val.parent, code=1).stops
    assert re.fullmatch("2 pictures to fetch again or leave out: .*1.jpg.* 57 x 50.*", stops[0])
    both = check("--holdout", "0.4", "--val-annotations", val, code=2).error
    assert "--holdout and --val-annotations are two ways to judge" in both


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "nowhere"], "nowhere: no such folder"),
        (["--extra", "nowhere"], "nowhere: no such folder"),
        (["--extra-labels", "some.csv"], "--extra-labels needs --extra"),
        (["--repair", "set.json"], "set.json exists and was not written by this program"),
    ],
)
def test_what_cannot_be_is_an_error_before_any_work(check, folder, monkeypatch, arguments, message):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("richsem.operations.check.inspect", None)
    error = check(*arguments, code=2).error
    assert error.startswith("error: ") and message in error


@pytest.mark.parametrize("content", ["", '{"images": [', "[]", '{"images": []}'])
def test_a_file_that_cannot_be_read_is_one_error_with_its_name(check, folder, content):
    (folder / "set.json").write_text(content, encoding="utf-8")
    assert re.match(r"error: .*set\.json.*\n$", check(code=2).error)
    assert "no.json: cannot be read" in check(file=folder / "no.json", code=2).error


def test_boxes_may_be_of_any_size(check, folder):
    box(2, 1e308, 5, 1e308, 20)(folder)
    found = check()
    assert found.error == "" and "1 dropped outside of their picture" in found.said["boxes"]


def test_names_with_a_folder_too_many_are_told_with_it(check, folder):
    edited(folder, lambda c: [one.update(file_name=f"set/{one['id']}.jpg") for one in c["images"]])
    found = check(code=1)
    assert "missing and left out (set/1.jpg, set/8.jpg" in found.said["pictures"]
    assert f"below {folder}, such as set/1.jpg. Check --images." in found.stops[0]


def test_a_file_of_crowd_regions_says_so(check, folder):
    edited(folder, fields("annotations", iscrowd=1))
    found = check(code=1)
    assert "have no box but crowd regions (16 in the file). Annotate" in found.stops[0]
    assert "largest" not in found.said


def test_too_few_boxes_or_pictures_stop_training(check, folder, tmp_path):
    edited(folder, lambda c: c.update(annotations=c["annotations"][:1]))
    assert re.search("its 2 pictures for 'val' have no box. Annotate more", check(code=1).stops[0])
    (tmp_path / "empty").mkdir()
    found = check(images=tmp_path / "empty", code=1)
    assert re.fullmatch(r"no picture of the .* such as .*\.jpg\. Check --images\.", *found.stops)
    assert found.said["pictures"].startswith("0 of 12 can be used; 12 missing")


def test_real_photos(check, real_data):
    folder = real_data / "coco_val128"
    said = check(file=folder / "instances.json", images=folder / "images").said
    assert said["pictures"] == "128 of 128 can be used" and said["names"] == "all differ"
    assert said["boxes"] == "898 boxes, 0 crowd regions"
    assert said["classes"].startswith("80: 76 rare (at most 10 images), 4 common")
