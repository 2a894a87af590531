"""The reader of detection sets: LVIS v1, LVIS v0.5, COCO, and everything that can be wrong."""

import copy
import json
import os
import shutil
import warnings

import numpy as np
import pytest
from PIL import Image

from richsem.data import reading
from richsem.data.box_sets import BoxDataset, clip_to_images
from richsem.data.categories import read_categories
from richsem.data.reading import DataError, DataWarning

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


def lvis_content():
    content = copy.deepcopy(COCO)
    for image, folder in zip(content["images"], ("val2017", "train2017"), strict=True):
        del image["file_name"]
        image["coco_url"] = f"http://host/{folder}/{image['id']:012d}.jpg"
        image["neg_category_ids"] = [9] if image["id"] == 3 else []
        image["not_exhaustive_category_ids"] = [5]
    for category in content["categories"]:
        category.update(
            synset=f"{category['name']}.n.01",
            synonyms=[category["name"], "pet"],
            frequency="r",
            image_count=3,
            instance_count=4,
            **{"def": "an animal"},
        )
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
    assert dataset.image_ids.tolist() == [7, 3]
    assert dataset.image_sizes.tolist() == [[30, 40], [10, 20]]
    assert dataset.annotation_ids.tolist() == [2, 3, 1]
    assert dataset.box_image.tolist() == [0, 0, 1]
    boxes, labels = dataset.boxes_of(0)
    assert boxes.dtype == np.float32
    assert boxes.tolist() == [[0, 0, 40, 30], [5.5, 6, 12.5, 14]]
    assert labels.tolist() == [1, 0]
    assert dataset.num_crowd == 1
    assert not dataset.is_federated
    assert dataset.instance_counts().tolist() == [2, 1]
    assert dataset.image_counts().tolist() == [2, 1]


def test_lvis_keeps_federated_fields_and_descriptions(load):
    dataset = load(lvis_content())
    assert dataset.is_federated
    assert dataset.neg_category_ids == ((), (9,))
    assert dataset.not_exhaustive_category_ids == ((5,), (5,))
    cat = dataset.categories[0]
    assert (cat.synset, cat.synonyms, cat.definition) == ("cat.n.01", ("cat", "pet"), "an animal")
    assert dataset.frequency_groups().tolist() == ["r", "r"]
    assert dataset.file_names == ("val2017/000000000007.jpg", "train2017/000000000003.jpg")


def test_polygons_are_passed_over_unread(load, monkeypatch):
    monkeypatch.setattr(reading, "_untyped", None)  # the slower parser, which reads them
    content = changed(lambda c: c["annotations"][0].update(segmentation=[{"counts": [None, "x"]}]))
    np.testing.assert_array_equal(load(content).boxes_xyxy, load(COCO).boxes_xyxy)


def test_a_byte_order_mark_and_whole_numbers_are_read(load, monkeypatch):
    monkeypatch.setattr(reading, "_untyped", None)
    dataset = load("\ufeff" + json.dumps(COCO))
    assert dataset.boxes_xyxy.dtype == np.float32
    assert len(dataset) == 2


def test_fingerprint_follows_annotations_and_pictures(load, tmp_path):
    save_image(tmp_path / "a.jpg", (20, 10))
    first = load(COCO).fingerprint
    assert len(first) == 16
    assert load(COCO).fingerprint == first
    shutil.copytree(tmp_path, tmp_path / "moved")  # which keeps times
    assert BoxDataset.load(tmp_path / "moved" / "set.json", tmp_path / "moved").fingerprint == first
    assert load(changed(lambda c: c["annotations"].pop())).fingerprint != first
    dataset = load(COCO).select([1])
    before, status = dataset.fingerprint, (tmp_path / "a.jpg").stat()
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[::-1])  # of the same size
    os.utime(tmp_path / "a.jpg", ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    assert load(COCO).select([1]).fingerprint != before
    assert load(COCO).fingerprint != first


def test_frequency_groups_use_the_lvis_thresholds_where_the_file_has_none(load):
    content = {
        "images": [{"id": i, "file_name": "x.jpg", "width": 9, "height": 9} for i in range(101)],
        "annotations": [],
        "categories": [{"id": c, "name": str(c)} for c in range(5)],
    }
    for category, num_images in enumerate((0, 10, 11, 100, 101)):
        for image in range(num_images):
            content["annotations"].append(
                {
                    "id": len(content["annotations"]),
                    "image_id": image,
                    "category_id": category,
                    "bbox": [1, 1, 2, 2],
                }
            )
    assert load(content).frequency_groups().tolist() == ["r", "r", "c", "c", "f"]


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("train2017/000000000003.jpg", "lvis"),
        ("a.jpg", "coco"),
        ("000000000003.jpg", "lvis"),
        ("000000000003.jpg", "coco"),
    ],
)
def test_image_is_found_by_url_then_name_then_number(load, tmp_path, name, version):
    save_image(tmp_path / "images" / name, (20, 10))
    dataset = load(COCO if version == "coco" else lvis_content(), tmp_path / "images")
    assert dataset.file_names[1] == name
    assert dataset.on_disk.tolist() == [False, True]
    assert dataset.image(1).size == (20, 10)


def test_lvis_v05_file_name_of_another_release_falls_back_to_the_url(load, tmp_path):
    content = lvis_content()
    content["images"][1]["file_name"] = "COCO_val2014_000000000003.jpg"
    save_image(tmp_path / "train2017" / "000000000003.jpg", (20, 10))
    assert load(content).file_names[1] == "train2017/000000000003.jpg"


def test_missing_images_are_counted_and_named(load, tmp_path):
    save_image(tmp_path / "a.jpg", (20, 10))
    dataset = load(COCO)
    assert dataset.missing_images() == ("b.jpg",)
    with pytest.warns(DataWarning, match=r"set\.json: 1 of 2 images .*b\.jpg"):
        subset = dataset.subset_with_images()
    assert subset.image_ids.tolist() == [3]
    assert subset.box_image.tolist() == [0]
    assert subset.boxes_of(0)[0].tolist() == [[1, 2, 4, 6]]
    assert subset.missing_images() == ()
    assert subset.subset_with_images() is subset
    assert subset.fingerprint != dataset.fingerprint


def test_no_image_on_disk_is_an_error_when_images_are_wanted(load, tmp_path):
    with pytest.raises(DataError, match=r"2 of 2 images .*b\.jpg, a\.jpg.*image_root"):
        load(COCO, tmp_path / "nowhere").subset_with_images()


def test_missing_image_names_file_id_and_remedy(load):
    with pytest.raises(DataError, match=r"b\.jpg: image of image id 7 in set\.json is not on disk"):
        load(COCO).image(0)


def test_unreadable_image_names_file_and_id(load, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"a\.jpg: image of image id 3 .* cannot be read"):
        load(COCO).image(1)


def test_truncated_image_is_unreadable(load, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (10, 20, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg", quality=100)
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"image id 3 .* cannot be read"):
        load(COCO).image(1)


def test_image_of_another_size_is_refused(load, tmp_path):
    save_image(tmp_path / "a.jpg", (21, 10))
    with pytest.raises(DataError, match=r"image id 3 is 21 x 10 pixels, .* says 20 x 10"):
        load(COCO).image(1)


def test_bad_boxes_are_dropped_and_clipped_with_one_counted_warning(load):
    boxes = {
        11: [1, 1, 0, 5],
        12: [1, 1, 5, -2],
        13: [float("nan"), 1, 5, 5],
        14: [25, 1, 5, 5],
        15: [-9, -9, 5, 5],
        16: [15, 5, 10, 10],
    }
    extra = [
        {"id": number, "image_id": 3, "category_id": 5, "bbox": box}
        for number, box in boxes.items()
    ]
    with pytest.warns(DataWarning) as caught:
        dataset = load(changed(lambda c: c["annotations"].extend(extra)))
    assert len(caught) == 1
    message = str(caught[0].message)
    assert "set.json: 5 boxes dropped" in message
    assert "annotation ids 11, 12, 13, 14, 15)" in message
    assert "1 boxes clipped to their image (annotation ids 16)" in message
    assert caught[0].filename == __file__
    boxes, _ = dataset.boxes_of(1)
    assert boxes.tolist() == [[1, 2, 4, 6], [15, 5, 20, 10]]


def test_rounding_overhang_is_clipped_silently(load):
    content = changed(lambda c: c["annotations"][0].update(bbox=[15.2, 5.2, 5.3, 5.6]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        boxes, _ = load(content).boxes_of(1)
    np.testing.assert_allclose(boxes, [[15.2, 5.2, 20, 10]], rtol=1e-6)


def test_clipped_boxes_stay_inside_and_untouched_boxes_stay_equal():
    rng = np.random.default_rng(0)
    for _ in range(50):
        sizes = rng.integers(1, 100, (200, 2))
        boxes = rng.uniform(-60, 120, (200, 4))
        inside, usable, clipped = clip_to_images(boxes, sizes)
        limits = np.tile(sizes[:, ::-1], 2)
        assert ((inside >= 0) & (inside <= limits)).all()
        assert (inside[usable, 2:] > inside[usable, :2]).all()
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        assert (np.abs(inside - corners)[usable & ~clipped] < 1).all()


def test_select_equals_loading_fewer_images(load):
    rng = np.random.default_rng(1)
    content = {
        "images": [
            {"id": 100 - i, "file_name": f"{i}.jpg", "width": 50, "height": 50} for i in range(12)
        ],
        "annotations": [
            {
                "id": i,
                "image_id": 100 - int(rng.integers(12)),
                "category_id": int(rng.integers(4)),
                "bbox": [1 + i % 7, 2, 3, 4 + i % 5],
            }
            for i in range(60)
        ],
        "categories": [{"id": c, "name": str(c)} for c in range(4)],
    }
    dataset = load(content)
    for _ in range(20):
        chosen = rng.permutation(12)[: rng.integers(0, 12)]
        subset = dataset.select(chosen)
        assert len(subset) == len(chosen)
        for place, i in enumerate(chosen):
            for ours, theirs in zip(subset.boxes_of(place), dataset.boxes_of(i), strict=True):
                assert np.array_equal(ours, theirs)


def test_without_labels_keeps_the_boxes(load):
    bare = load(lvis_content()).without_labels()
    assert [category.name for category in bare.categories] == ["object"]
    assert bare.labels.tolist() == [0, 0, 0, 0]
    assert not bare.is_federated


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.json: cannot be read .*Check the path"):
        BoxDataset.load(tmp_path / "nothing.json", tmp_path)


def test_truncated_json_names_line_and_column(load):
    text = json.dumps(COCO, indent=1)
    with pytest.raises(DataError, match=r"set\.json: the JSON .*line 14, column \d+"):
        load("\n".join(text.split("\n")[:13]) + "\n ")


def test_empty_file_is_an_error(load):
    with pytest.raises(DataError, match=r"the JSON is empty or ends early at line 1, column 1"):
        load("")


def test_malformed_json_names_line_and_column(load):
    with pytest.raises(DataError, match="the JSON is malformed at line 2, column 1 "):
        load('{"images": [],\n]}' + " more" * 9)


def test_binary_file_is_named(tmp_path):
    (tmp_path / "set.json").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(DataError, match=r"set\.json: not UTF-8 at byte 0"):
        BoxDataset.load(tmp_path / "set.json", tmp_path)


BAD_CONTENT = {
    "top level": (lambda c: c.clear(), 'top-level key "images" is missing'),
    "missing key": (lambda c: c.pop("categories"), 'top-level key "categories" is missing'),
    "key of another type": (lambda c: c.update(images={}), "images is a dict, expected a list"),
    "record of another type": (
        lambda c: c["annotations"].append(5),
        r"annotations\[4\] is 5, expected an object",
    ),
    "no images": (lambda c: c.update(images=[], annotations=[]), '"images" is empty'),
    "no categories": (lambda c: c.update(categories=[], annotations=[]), '"categories" is empty'),
    "missing field": (
        lambda c: c["annotations"][2].pop("bbox"),
        r'annotations\[2\] \(id 3\): field "bbox" is missing',
    ),
    "missing id": (
        lambda c: c["images"][1].pop("id"),
        r'images\[1\]: field "id" is missing',
    ),
    "missing width": (lambda c: c["images"][1].pop("width"), r'\(id 3\): field "width" is missing'),
    "missing name": (
        lambda c: c["images"][1].pop("file_name"),
        r'images\[1\] \(id 3\): needs the field "file_name" or "coco_url"',
    ),
    "size of another type": (
        lambda c: c["images"][0].update(width="40"),
        r"""images\[0\] \(id 7\): field "width" is '40', expected int""",
    ),
    "size of zero": (
        lambda c: c["images"][0].update(height=0),
        r"""images\[0\] \(id 7\): field "height" is 0, expected int >= 1""",
    ),
    "id of another type": (
        lambda c: c["annotations"][1].update(id="2"),
        r"annotations\[1\] \(id 2\): field \"id\" is '2', expected int",
    ),
    "huge id": (
        lambda c: c["annotations"][1].update(id=2**70),
        r"annotations\[1\] \(id \d+\): field \"id\" is 1180591620717411303424, expected int <= ",
    ),
    "short box": (
        lambda c: c["annotations"][0].update(bbox=[1, 2, 3]),
        r"\(id 1\): field \"bbox\"",
    ),
    "box with text": (
        lambda c: c["annotations"][0].update(bbox=[1, 2, 3, "4"]),
        r"\(id 1\): field \"bbox\" is \[1, 2, 3, '4'\], expected four",
    ),
    "box of another type": (
        lambda c: c["annotations"][0].update(bbox="1 2 3 4"),
        r"field \"bbox\" is '1 2 3 4', expected four numbers",
    ),
    "duplicate image": (
        lambda c: c["images"][1].update(id=7),
        r"images\[1\]: duplicate id 7 \(first used by \[0\]\)",
    ),
    "duplicate annotation": (
        lambda c: c["annotations"][3].update(id=1),
        r"annotations\[3\]: duplicate id 1 \(first used by \[0\]\)",
    ),
    "duplicate category": (
        lambda c: c["categories"][1].update(id=9),
        r"categories\[1\]: duplicate id 9",
    ),
    "unknown image": (
        lambda c: c["annotations"][1].update(image_id=99),
        r"annotations\[1\] \(id 2\): unknown image 99; 1 annotations",
    ),
    "unknown category": (
        lambda c: c["annotations"][1].update(category_id=99),
        r"annotations\[1\] \(id 2\): unknown category 99",
    ),
    "bad frequency": (
        lambda c: c["categories"][0].update(frequency="x"),
        r"categories\[0\] \(id 9\): field \"frequency\" is 'x', expected one of r, c, f",
    ),
    "bad synonyms": (
        lambda c: c["categories"][0].update(synonyms="dog"),
        "field \"synonyms\" is 'dog', expected list",
    ),
    "half federated": (
        lambda c: c["images"][0].update(neg_category_ids=[]),
        r'images\[1\] \(id 3\): field "neg_category_ids" is missing',
    ),
    "unknown negative": (
        lambda c: [
            image.update(neg_category_ids=[77], not_exhaustive_category_ids=[])
            for image in c["images"]
        ],
        r'\(id 7\): field "neg_category_ids" names unknown category 77',
    ),
}


@pytest.mark.parametrize("case", BAD_CONTENT)
def test_bad_content_names_file_record_and_field(load, case):
    edit, message = BAD_CONTENT[case]
    with pytest.raises(DataError, match=message) as caught:
        load(changed(edit))
    assert "set.json" in str(caught.value)


def test_top_level_list_is_no_annotation_file(load):
    with pytest.raises(DataError, match="top level is a list"):
        load("[]")


def test_image_without_boxes_is_kept(load):
    dataset = load(changed(lambda c: c.update(annotations=[])))
    assert len(dataset) == 2
    assert dataset.boxes_of(1)[0].shape == (0, 4)
    assert dataset.instance_counts().tolist() == [0, 0]


def test_real_coco_photos(real_data):
    folder = real_data / "coco_val128"
    dataset = BoxDataset.load(folder / "instances.json", folder / "images")
    assert (len(dataset), len(dataset.labels), len(dataset.categories)) == (128, 898, 80)
    assert dataset.missing_images() == ()
    assert dataset.image(0).size == (640, 426)


def test_real_lvis_sample(real_data):
    path = real_data / "lvis" / "lvis_v0.5_val_100.json"
    dataset = BoxDataset.load(path, real_data / "coco_val128" / "images")
    assert (len(dataset), len(dataset.labels), len(dataset.categories)) == (100, 977, 1230)
    assert dataset.is_federated
    assert len(dataset.missing_images()) == 97
    with pytest.warns(DataWarning, match="97 of 100 images"):
        found = dataset.subset_with_images()
    assert sorted(found.image_ids.tolist()) == [6460, 6894, 11813]
    for i in range(len(found)):
        assert found.image(i).size == tuple(found.image_sizes[i, ::-1])


def test_real_lvis_categories(real_data):
    categories = read_categories(real_data / "lvis" / "lvis_v1_train_cat_info.json")
    groups = [category.frequency for category in categories]
    assert [groups.count(group) for group in "rcf"] == [337, 461, 405]
    assert sum(category.instance_count for category in categories) == 1_270_141
