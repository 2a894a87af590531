"""The reader of detection sets: LVIS v1, LVIS v0.5, COCO, and everything that can be wrong."""

import copy
import functools
import gzip
import json
import operator
import os
import re
import shutil
import warnings

import damage
import numpy as np
import pytest
from PIL import Image
from tiny_files import annotation_file

from richsem.data import reading
from richsem.data.box_sets import BoxDataset, clip_to_images
from richsem.data.categories import read_categories
from richsem.data.reading import DataError, DataWarning
from richsem.foreign import box_format
from richsem.paths import write_atomic

COCO = {
    "images": [
        {"id": 7, "file_name": "b.jpg", "width": 40, "height": 30},
        {"id": 3, "file_name": "a.jpg", "width": 20, "height": 10},
    ],
    "annotations": [
        {"id": 1, "image_id": 3, "category_id": 5, "bbox": [1, 2, 3, 4], "iscrowd": 0},
        {"id": 2, "image_id": 7, "category_id": 9, "bbox": [0, 0, 40, 30]},
        {"id": 3, "image_id": 7, "category_id": 5, "bbox": [5.5, 6, 7, 8], "iscrowd": 0},
        {"id": 4, "image_id": 7, "category_id": 5, "bbox": [0, 0, 9, 9], "iscrowd": 1},
    ],
    "categories": [{"id": 9, "name": "dog"}, {"id": 5, "name": "cat"}],
}


def lvis_content(**fields):
    content = copy.deepcopy(COCO)
    for image, folder in zip(content["images"], ("val2017", "train2017"), strict=True):
        del image["file_name"]
        url = f"http://host/{folder}/{image['id']:012d}.jpg"
        negative = [9] if image["id"] == 3 else []
        image |= {"coco_url": url, "neg_category_ids": negative, "not_exhaustive_category_ids": [5]}
        image |= fields
    for category in content["categories"]:
        category |= {"synset": f"{category['name']}.n.01", "synonyms": [category["name"], "pet"]}
        category |= {"def": "an animal", "frequency": "r", "image_count": 3, "instance_count": 4}
    for annotation in content["annotations"]:
        annotation.pop("iscrowd", None)
        annotation["segmentation"] = [[0, 0, 1, 1, 2, 2]]
    return content


@pytest.fixture
def load(tmp_path):
    def write_and_load(content, image_root=None):
        path = tmp_path / "set.json"
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text, encoding="utf-8")
        return BoxDataset.load(path, image_root or tmp_path)

    return write_and_load


def changed(edit):
    content = copy.deepcopy(COCO)
    edit(content)
    return content


def save_image(path, size):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "red").save(path)


def test_coco_becomes_flat_arrays_grouped_by_image(load):
    dataset = load(COCO)
    assert [category.name for category in dataset.categories] == ["cat", "dog"]
    expected = {
        "image_ids": [7, 3],
        "image_sizes": [[30, 40], [10, 20]],
        "annotation_ids": [2, 3, 1],
        "box_image": [0, 0, 1],
    }
    assert {name: getattr(dataset, name).tolist() for name in expected} == expected
    boxes, labels = dataset.boxes_of(0)
    assert boxes.dtype == np.float32
    assert boxes.tolist() == [[0, 0, 40, 30], [5.5, 6, 12.5, 14]] and labels.tolist() == [1, 0]
    assert (dataset.num_crowd, dataset.is_federated) == (1, False)
    assert dataset.instance_counts().tolist() == dataset.image_counts().tolist() == [2, 1]
    # Images without boxes are kept.
    empty = load(COCO | {"annotations": []})
    assert (len(empty), empty.boxes_of(1)[0].shape) == (2, (0, 4))
    assert empty.instance_counts().tolist() == [0, 0]


def test_lvis_keeps_federated_fields_and_descriptions(load):
    dataset = load(lvis_content())
    assert dataset.is_federated
    assert dataset.neg_category_ids == ((), (9,))
    assert dataset.not_exhaustive_category_ids == ((5,), (5,))
    cat = dataset.categories[0]
    assert (cat.synset, cat.synonyms, cat.definition) == ("cat.n.01", ("cat", "pet"), "an animal")
    assert dataset.frequency_groups().tolist() == ["r", "r"]
    assert dataset.file_names == ("val2017/000000000007.jpg", "train2017/000000000003.jpg")
    bare = dataset.without_labels()
    assert [category.name for category in bare.categories] == ["object"]
    assert bare.labels.tolist() == [0, 0, 0, 0] and not bare.is_federated
    message = r'images\[0\] \(id 7\): field "neg_category_ids" names unknown category 77'
    with pytest.raises(DataError, match=message):
        load(lvis_content(neg_category_ids=[77]))


def test_polygons_names_of_fields_and_a_byte_order_mark_need_no_slow_parser(load, monkeypatch):
    monkeypatch.setattr(reading, "untyped", None)
    monkeypatch.setattr(reading, "_PART", 40)  # a file is looked through in parts
    content = changed(lambda c: c["annotations"][0].update(segmentation=[{"counts": [None, "x"]}]))
    boxes = load(COCO).boxes_xyxy
    np.testing.assert_array_equal(load(content).boxes_xyxy, boxes)
    for marks in ("\ufeff", "\ufeff\ufeff"):  # programs put theirs before another's
        np.testing.assert_array_equal(load(marks + json.dumps(COCO)).boxes_xyxy, boxes)
    named = changed(lambda c: c["categories"][0].update(name="area"))  # as a class of VG is
    np.testing.assert_array_equal(load(named).boxes_xyxy, boxes)


def test_fingerprint_follows_annotations_and_pictures(load, tmp_path):
    save_image(tmp_path / "a.jpg", (20, 10))
    first = load(COCO).fingerprint
    assert len(first) == 16 and load(COCO).fingerprint == first
    shutil.copytree(tmp_path, tmp_path / "moved")  # which keeps times
    assert BoxDataset.load(tmp_path / "moved" / "set.json", tmp_path / "moved").fingerprint == first
    assert load(changed(lambda c: c["annotations"].pop())).fingerprint != first
    picture, before = tmp_path / "a.jpg", load(COCO).select([1]).fingerprint
    status = picture.stat()
    picture.write_bytes(picture.read_bytes()[::-1])  # of the same size
    os.utime(picture, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    assert load(COCO).select([1]).fingerprint != before and load(COCO).fingerprint != first


def test_frequency_groups_use_the_lvis_thresholds_where_the_file_has_none(tmp_path):
    numbers, box = (0, 10, 11, 100, 101), (1, 1, 2, 2)
    boxes = [(i, c, box) for c, number in enumerate(numbers) for i in range(number)]
    classes = [{"id": c, "name": str(c)} for c in range(5)]
    path = annotation_file(tmp_path / "set.json", {i: {} for i in range(101)}, boxes, classes)
    groups = BoxDataset.load(path, tmp_path).frequency_groups()
    assert groups.tolist() == ["r", "r", "c", "c", "f"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train2017/000000000003.jpg", lvis_content()),
        ("a.jpg", COCO),
        ("000000000003.jpg", lvis_content()),
        ("000000000003.jpg", COCO),
        # LVIS v0.5 says file names of another release.
        ("train2017/000000000003.jpg", lvis_content(file_name="COCO_val2014_000000000003.jpg")),
    ],
)
def test_image_is_found_by_url_then_name_then_number(load, tmp_path, name, content):
    save_image(tmp_path / "images" / name, (20, 10))
    dataset = load(content, tmp_path / "images")
    assert dataset.file_names[1] == name
    assert dataset.missing_images() == dataset.file_names[:1]
    assert dataset.image(1).size == (20, 10)


@pytest.mark.parametrize(
    ("written", "there"),
    [
        ("/data/photos/{}.jpg", "{}.jpg"), ("C:\\data\\photos\\{}.jpg", "{}.jpg"),
        ("D:\\data\\left\\{}.jpg", "left/{}.jpg"), ("s3://a/b/{}.jpg?key=c/d", "b/{}.jpg"),
        ("file:///data/{}.jpg", "{}.jpg"), ("http://a.b/Ba%CC%88r%20{}.jpg", "B\u00e4r {}.jpg"),
        ("B\u00e4r {}.jpg", "Ba\u0308r {}.jpg"), ("Ba\u0308r {}.jpg", "B\u00e4r {}.jpg"),
    ],
    ids=["path", "path of Windows", "its end", "query", "address", "web", "one letter", "two"],
)  # fmt: skip
def test_names_of_other_machines_are_tried_in_their_forms_here(load, tmp_path, written, there):
    content = copy.deepcopy(COCO)
    for image in content["images"]:
        image["file_name"] = written.format(image["id"])
        write_atomic(tmp_path / there.format(image["id"]), "")
    assert not load(content).missing_images()


@pytest.mark.parametrize(
    ("written", "there"),
    [
        ("IMG_1.jpg", ["IMG_1.JPG"]), ("Photos/img_1.JPG", ["photos/IMG_1.jpg"]),
        ("c.jpg\n", ["c.jpg"]), ("/data/local-files/?d=c.jpg", ["c.jpg"]),
        ("/data/local-files/?d=x%2Fb%20c.jpg", ["b c.jpg"]),
        ("/data/local-files/?d=x%5Cc.jpg", ["c.jpg"]), ("../../media/upload/c.jpg", ["c.jpg"]),
        ("c.jpg", ["C.jpg", "c.JPG"]),  # either may be meant
        ("c.jpg", ["B.jpg"]),
    ],
)  # fmt: skip
def test_names_are_those_on_disk_but_for_case_and_spaces(load, tmp_path, written, there):
    for name in there:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save_image(tmp_path / name, (40, 30))
    content = copy.deepcopy(COCO)
    content["images"][0]["file_name"] = written
    dataset = load(content)
    if len(there) == 1 and there != ["B.jpg"]:
        assert dataset.file_names[0] == there[0] and dataset.image(0).size == (40, 30)
    else:
        assert written in dataset.missing_images()


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["/a/left/x.jpg", "/a/right/x.jpg"], []),  # folders that are not here
        (["lost.jpg", "000000000007.jpg"], ["000000000007.jpg"]),  # id 7 is another's name
        (["x.jpg", "x.jpg"], ["x.jpg", "x.jpg"]),  # one picture annotated twice
    ],
)
def test_one_file_is_not_the_picture_of_two_records(load, tmp_path, names, found):
    for name in ("x.jpg", "000000000007.jpg"):
        save_image(tmp_path / name, (20, 10))
    content = copy.deepcopy(COCO)
    for image, name in zip(content["images"], names, strict=True):
        image["file_name"] = name
    with warnings.catch_warnings(record=True, action="always") as told:
        dataset = load(content)
    assert [n for n in dataset.file_names if n not in dataset.missing_images()] == found
    words = f"{2 - len(found)} images count as missing, since the file that would do is another's"
    assert any(words in str(one.message) for one in told) == (len(found) < 2)


@pytest.mark.parametrize(
    ("bbox", "words"),
    [
        ((60, 40, 90, 55), "corners"), ((0.3, 0.2, 0.9, 0.9), "shares of the picture"),
        ((70, 40, 60, 36), "centres"), ((70, 40, 70, 36), "larger pictures"),
        ((10, 10, 90, 50), ""), ((60, 40, 30, 15), ""), ((0, 0, 0, 0), ""),
    ],
)  # fmt: skip
def test_boxes_of_another_format_are_told(bbox, words):
    boxes = np.array([bbox] * 20 + [(50, 30, 80, 40)] * (max(bbox) > 1), dtype=float)
    sizes = np.array([(60, 100)] * len(boxes))
    told = box_format(boxes, sizes)
    assert bool(words) == bool(told) and words in told and not box_format(boxes[:4], sizes[:4])


def test_boxes_of_smaller_pictures_are_told_if_they_differ():
    boxes, sizes = np.linspace(5, 15, 20)[:, None].repeat(4, axis=1), np.array([(60, 100)] * 20)
    assert "those of smaller pictures" in box_format(boxes, sizes)
    same, unknown = box_format(boxes[[0] * 20], sizes), box_format(boxes, 0 * sizes)
    assert same == unknown == box_format(2 * boxes, sizes) == ""


def test_missing_images_are_counted_and_named_and_bad_ones_have_a_remedy(load, tmp_path):
    with pytest.raises(DataError, match=r"a\.jpg: image of image id 3 in set.json is not on disk"):
        load(COCO).image(1)
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"a\.jpg: image of image id 3 .* cannot be read"):
        load(COCO).image(1)
    save_image(tmp_path / "a.jpg", (20, 10))
    dataset = load(COCO)
    assert dataset.missing_images() == ("b.jpg",)
    with pytest.warns(DataWarning, match=r"set\.json: 1 of 2 pictures .*b\.jpg"):
        subset = dataset.subset_with_images()
    assert subset.image_ids.tolist() == [3] and subset.box_image.tolist() == [0]
    assert subset.boxes_of(0)[0].tolist() == [[1, 2, 4, 6]]
    assert subset.missing_images() == () and subset.subset_with_images() is subset
    # Intervals are then by resampling images, whoever chose those that are there.
    assert subset.is_part and not dataset.is_part and not dataset.select([1, 0]).is_part
    assert subset.fingerprint != dataset.fingerprint
    with pytest.raises(DataError, match=r"2 of 2 pictures .*b\.jpg, a\.jpg.*--images"):
        load(COCO, tmp_path / "nowhere").subset_with_images()


def test_bad_boxes_are_dropped_and_clipped_with_one_counted_warning(load):
    boxes = [[1, 1, 0, 5], [1, 1, 5, -2], [float("nan"), 1, 5, 5], [25, 1, 5, 5], [-9, -9, 5, 5]]
    overhangs = [[15, 5, 10, 10], [15.2, 5.2, 5.3, 5.6]]  # the second one by rounding: no word
    thin = [[2, 1, 5, 0.5], [2.1, 1, 1, 5]]  # the second one is a pixel wide
    numbered = enumerate([*boxes, *overhangs, *thin], start=11)
    extra = [{"id": i, "image_id": 3, "category_id": 5, "bbox": box} for i, box in numbered]
    with pytest.warns(DataWarning) as caught:
        dataset = load(changed(lambda c: c["annotations"].extend(extra)))
    assert len(caught) == 1
    told = r"5 boxes dropped .*ids 11, 12, 13, 14, 15\); 1 boxes clipped to their image .*ids 16\)"
    told += r"; 1 boxes thinner than a pixel, kept \(annotation ids 18\)"
    assert re.search(rf"set\.json: {told}", str(caught[0].message))
    assert caught[0].filename == __file__
    boxes, _ = dataset.boxes_of(1)
    clipped = [[15, 5, 20, 10], [15.2, 5.2, 20, 10]]
    expected = [[1, 2, 4, 6], *clipped, [2, 1, 7, 1.5], [2.1, 1, 3.1, 6]]
    np.testing.assert_allclose(boxes, expected)


def test_clipped_boxes_stay_inside_and_untouched_boxes_stay_equal():
    rng = np.random.default_rng(0)
    for _ in range(50):
        sizes = rng.integers(1, 100, (200, 2))
        boxes = rng.uniform(-60, 120, (200, 4))
        inside, usable, clipped = clip_to_images(boxes, sizes)
        assert ((inside >= 0) & (inside <= np.tile(sizes[:, ::-1], 2))).all()
        assert (inside[usable, 2:] > inside[usable, :2]).all()
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        assert (np.abs(inside - corners)[usable & ~clipped] < 1).all()


TEXT = json.dumps(COCO, indent=1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("\n".join(TEXT.split("\n")[:13]) + "\n ", r"the JSON .*line 14, column \d+"),
        ("", "this is empty; copy or download it again"),
        ('{"images": [],\n]}' + " more" * 9, "the JSON is malformed at line 2, column 1 "),
        ("version https://git-lfs.github.com/spec/v1\noid", "this is a pointer of Git LFS"),
        ("<html>", "this is a web page; download"),
        ("images: []", '.* begins with "images: .*"; write it as JSON of COCO or LVIS'),
        (b"\xff\xd8\xff\xe0", "this is not UTF-8 at byte 0"),
        (b"PK\3\4%26d_1/data.pkl" % 0, "this is packed; unpack .* torch wrote as COCO's JSON"),
        ("0 0.5 0.5 0.2 0.1\n1 0.2 0.3 0.1 0.1\n", "this is labels of YOLO; write them as JSON"),
        ("[]", "the top level is a list, expected object"),
        (None, "cannot be read .*Check the path"),
        (os.mkdir, "this is a folder"),
        (os.mkfifo, "this is a pipe or"),  # which is not waited for
        (TEXT.encode("utf-16"), "this is UTF-16 or UTF-32 text; save it as"),
        (TEXT.encode("utf-16-be"), "this is UTF-16 or UTF-32 text; save it as"),
        (TEXT.replace("cat", "b\u00e4r").encode("latin-1"),
         r"this is not UTF-8 at byte \d+.*save it as"),
        (f"{TEXT}\n{TEXT}", "the JSON goes on after its end at line"),
        (TEXT[: TEXT.rindex("name") + 2], "the JSON ends early at line"),
        (TEXT[:-1] + ",}", "the JSON is malformed at line"),
        (gzip.compress(TEXT.encode()), "this is packed; unpack it and name the file"),
        ('{"images": ' + "[" * 50_000, "this JSON cannot be read .*recursion"),
        (TEXT.replace('"id": 7', '"id": ' + "7" * 5000, 1),
         "this JSON cannot be read .*5000 digits"),
        (TEXT.replace("cat", r"\ud800"), "this JSON cannot be read .*surrogates not allowed"),
        (TEXT[:-1] + ', "annotations": []}',
         r'the key "annotations" occurs twice. Make one of'),
        (TEXT.replace('"category_id"', '"category_id": 1, "category_id"', 1),
         r'the key "category_id" occurs twice \(id 1\). Make one'),
        (TEXT.replace('"height"', '"height": 1, "height"', 1),
         r'the key "height" occurs twice \(id \d\). Make one'),
    ],
)  # fmt: skip
def test_a_bad_file_is_named_with_the_place_of_its_mistake(tmp_path, content, message):
    path = tmp_path / "set.json"
    if callable(content):
        content(path)
    elif content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=rf"set\.json: {message}"):
        BoxDataset.load(path, tmp_path)


def test_damaged_files_load_or_are_refused_and_nothing_is_lost(capsys):
    counts = damage.main(200)
    fine = not counts["failed"] and min(counts["loads"], counts["refused"]) > 20
    assert fine, capsys.readouterr()


NULLS = {
    "images": ("coco_url", "neg_category_ids", "not_exhaustive_category_ids", "license"),
    "annotations": ("area", "segmentation"),
    "categories": ("synset", "synonyms", "def", "frequency", "image_count", "instance_count"),
}


def test_null_is_absent(load):
    content = {key: [one | dict.fromkeys(NULLS[key]) for one in COCO[key]] for key in COCO}
    one, other = load(COCO), load(content)
    assert one.categories == other.categories and one.file_names == other.file_names
    assert not other.is_federated and other.frequency_groups().tolist() == ["r", "r"]
    np.testing.assert_array_equal(one.boxes_xyxy, other.boxes_xyxy)


@pytest.mark.parametrize("plain", [0, "0", False, None, 0.0])
@pytest.mark.parametrize("crowd", [1, "1", True, 1.0])
def test_crowds_are_marked_in_many_ways(load, crowd, plain):
    content = copy.deepcopy(COCO)
    for box in content["annotations"]:
        box["iscrowd"] = crowd if box["id"] == 4 else plain
    dataset = load(content)
    assert (dataset.num_crowd, dataset.annotation_ids.tolist()) == (1, [2, 3, 1])


def test_ids_may_be_text_and_tables_write_whole_numbers_with_a_point(load):
    words = copy.deepcopy(COCO)
    for section, key in (("images", "id"), ("annotations", "image_id")):
        for one in words[section]:
            one[key] = f"x{one[key]}"
    dataset = load(words)
    assert dataset.image_ids.tolist() == ["x7", "x3"]
    np.testing.assert_array_equal(dataset.boxes_xyxy, load(COCO).boxes_xyxy)
    assert dataset.select([1]).image_ids.tolist() == ["x3"]
    with pytest.raises(DataError, match=r"annotations\[1\] \(id 2\): unknown image 'x9'"):
        words["annotations"][1]["image_id"] = "x9"
        load(words)
    points = re.sub(r'("(?:id|image_id|category_id|width)": \d+)', r"\1.0", json.dumps(COCO))
    assert load(points).image_ids.tolist() == [7, 3]


@pytest.mark.parametrize(
    ("lists", "is_federated"),
    [
        (["neg_category_ids"], False),
        (["not_exhaustive_category_ids"], False),
        (["neg_category_ids", "not_exhaustive_category_ids"], True),
    ],
)
def test_a_file_is_federated_if_it_has_both_lists(load, lists, is_federated):
    told = changed(lambda c: [one.update({key: [9] for key in lists}) for one in c["images"]])
    assert load(told).is_federated is is_federated
    assert load(told).neg_category_ids == (((9,), (9,)) if is_federated else ((), ()))
    del told["images"][1][lists[0]]
    if is_federated:
        with pytest.raises(DataError, match=r'\[1\] \(id 3\): field "neg_.*_ids" is missing'):
            load(told)


GONE = object()
BAD_CONTENT = [
    # place in the file, value there, message; more of it where `data check` mends files
    (("images",), GONE, 'top-level key "images" is missing; found annotations, categories. Is '),
    (("images",), {}, "images is an object, expected a list"),
    (("images",), [], '"images" is empty'),
    (("categories",), [], '"categories" is empty'),
    (("annotations", 2, "bbox"), GONE, r'annotations\[2\] \(id 3\): field "bbox" is missing'),
    (("images", 1, "id"), GONE, r'images\[1\]: field "id" is missing'),
    (("images", 1, "width"), GONE, r'\(id 3\): field "width" is missing'),
    (("images", 1, "file_name"), 5, r'\[1\] \(id 3\): needs .* "file_name" or "coco_url" as text'),
    (("images", 0, "width"), "40",
     r"images\[0\] \(id 7\): field \"width\" is '40', expected a whole"),
    (("images", 0, "height"), 0, r'images\[0\] \(id 7\): field "height" is 0. Add it'),
    (("images", 0, "height"), -1, r'images\[0\] \(id 7\): field "height" is -1, .* number >= 0'),
    (("categories", 0, "id"), "9", r"id\" is '9', expected a whole number; only images and annot"),
    (("annotations", 1, "id"), "2", r"ations\[1\] \(id 2\): field \"id\" is '2', .* whole"),
    (("annotations", 1, "id"), 2**70,
     r'\[1\] .*field "id" is 1180591620717411303424, .* number <= '),
    (("annotations", 0, "bbox"), "1 2", "field \"bbox\" is '1 2', expected four numbers"),
    (("categories", 1, "id"), 9, r"categories\[1\] \(id 9\): duplicate id"),
    (("annotations", 1, "category_id"), 99, r"annotations\[1\] \(id 2\): unknown category 99"),
    (("categories", 0, "frequency"), "x", r"\[0\] \(id 9\): .* is 'x', expected one of r, c, f"),
    (("categories", 0, "synonyms"), "dog", "field \"synonyms\" is 'dog', expected list"),
]  # fmt: skip


@pytest.mark.parametrize(("place", "value", "message"), BAD_CONTENT)
def test_bad_content_names_file_record_and_field(load, place, value, message):
    content = copy.deepcopy(COCO)
    *way, last = place
    spot = functools.reduce(operator.getitem, way, content)
    if value is GONE:
        del spot[last]
    else:
        spot[last] = value
    with pytest.raises(DataError, match=rf"set\.json: .*{message}"):
        load(content)


def test_real_lvis_sample_and_categories(real_data):
    path = real_data / "lvis" / "lvis_v0.5_val_100.json"
    dataset = BoxDataset.load(path, real_data / "coco_val128" / "images")
    assert (len(dataset), len(dataset.labels), len(dataset.categories)) == (100, 977, 1230)
    assert dataset.is_federated
    assert len(dataset.missing_images()) == 97
    with pytest.warns(DataWarning, match="97 of 100 pictures"):
        found = dataset.subset_with_images()
    assert sorted(found.image_ids.tolist()) == [6460, 6894, 11813]
    for i in range(len(found)):
        assert found.image(i).size == tuple(found.image_sizes[i, ::-1])
    categories = read_categories(real_data / "lvis" / "lvis_v1_train_cat_info.json")
    groups = [category.frequency for category in categories]
    assert [groups.count(group) for group in "rcf"] == [337, 461, 405]
    assert sum(category.instance_count for category in categories) == 1_270_141
