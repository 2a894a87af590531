"""The table of data sets and where its files lie."""

import json

import pytest
from PIL import Image

from richsem.data.catalog import (
    BOX_KEYS,
    CATALOG,
    IMAGE_KEYS,
    dataset_spec,
    is_rendered,
    open_boxes,
    open_images,
    summary_rows,
)
from richsem.data.categories import Category
from richsem.data.reading import DataError

CATEGORIES = [
    {"id": 1, "name": "cat", "frequency": "r"},
    {"id": 2, "name": "dog", "frequency": "c"},
]


def box_content(url=False):
    image = {"id": 1, "width": 8, "height": 6}
    if url:
        image |= {"coco_url": "x://train/000000000001.jpg", "neg_category_ids": []}
        image["not_exhaustive_category_ids"] = []
    else:
        image["file_name"] = "000000000001.jpg"
    annotations = [
        {"id": i, "image_id": 1, "category_id": c, "bbox": [1, 1, 3, 3]}
        for i, c in enumerate((1, 2, 2))
    ]
    return {"images": [image], "annotations": annotations, "categories": CATEGORIES}


def image_content(key):
    labelled = {"id": 1, "file_name": "a.jpg", "pos_category_ids": [2], "width": 8, "height": 6}
    return {
        "inet_lvis": {"images": [labelled], "categories": CATEGORIES, "annotations": []},
        "inet_unl": [["a.jpg", -1]],
        "cc3m": [{"caption": "a cat", "image": "a.jpg"}],
        "cc_unl": [{"caption": "a cat", "image": "a.jpg"}],
    }[key]


def write(root, layout, content, split="", image="a.jpg"):
    path = root / layout.annotations.format(split=split)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    picture = root / layout.images.format(split=split) / image
    picture.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6)).save(picture)


@pytest.fixture
def rendered(tmp_path):
    (tmp_path / "manifest.json").write_text("{}", encoding="utf-8")
    for key in BOX_KEYS:
        lvis = key == "lvis"
        name = "train/000000000001.jpg" if lvis else "000000000001.jpg"
        layout = dataset_spec(key).stand_in_layout
        write(tmp_path, layout, box_content(url=lvis), "train", name)
    for key in IMAGE_KEYS:
        write(tmp_path, dataset_spec(key).stand_in_layout, image_content(key))
    return tmp_path


def test_rows_are_complete():
    names = {spec.name.split(" ")[0].split(",")[0] for spec in CATALOG}
    expected = {"LVIS", "INet-LVIS", "INet-Unl", "CC3M", "CC-Unl", "Objects365", "Visual"}
    assert expected | {"OpenImages"} == names
    assert len({spec.key for spec in CATALOG}) == len(CATALOG) == 9
    assert set(BOX_KEYS) | set(IMAGE_KEYS) == {spec.key for spec in CATALOG}
    for spec in CATALOG:
        assert spec.source.startswith("https://")
        for layout in (spec.stand_in_layout, *spec.real_layouts):
            assert ("{split}" in layout.annotations) == bool(spec.splits)


@pytest.mark.parametrize("key", BOX_KEYS)
def test_stand_in_with_boxes_opens(rendered, key):
    dataset = open_boxes(key, "train", root=rendered)
    assert dataset.name == f"{dataset_spec(key).stand_in} train"
    assert dataset.image(0).size == (8, 6)
    assert dataset.is_federated == (key == "lvis")
    expected = [0, 0, 0] if key == "o365_box" else [0, 1, 1]
    assert dataset.labels.tolist() == expected


@pytest.mark.parametrize("key", IMAGE_KEYS)
def test_stand_in_without_boxes_opens(rendered, key):
    images = open_images(key, root=rendered, categories=[Category(id=1, name="cat")])
    assert images.image(0).size == (8, 6)
    assert images.labels == {"inet_lvis": ((1,),), "cc3m": ((0,),)}.get(key, ((),))
    assert bool(images.captions) == (key == "cc3m")


@pytest.mark.parametrize("key", [*BOX_KEYS, *IMAGE_KEYS])
def test_every_real_layout_opens(tmp_path, key):
    spec, url = dataset_spec(key), key == "lvis"
    for number, layout in enumerate(spec.real_layouts):
        root = tmp_path / str(number)
        if spec.splits:
            image = "train/000000000001.jpg" if url else "000000000001.jpg"
            write(root, layout, box_content(url), "train", image)
            dataset = open_boxes(key, "train", root=root)
            assert dataset.name == f"{spec.name} train"
        else:
            write(root, layout, image_content(key))
            dataset = open_images(key, root=root)
        assert dataset.missing_images() == ()


def test_annotations_without_images_still_open_and_an_absent_set_lists_the_paths_tried(tmp_path):
    (tmp_path / "lvis_v1_train.json").write_text(json.dumps(box_content(url=True)))
    dataset = open_boxes("lvis", "train", root=tmp_path)
    assert dataset.missing_images() == ("train/000000000001.jpg",)
    with pytest.raises(DataError, match="LVIS v1 val is not under") as caught:
        open_boxes("lvis", "val", root=tmp_path)
    for layout in dataset_spec("lvis").real_layouts:
        assert str(tmp_path / layout.annotations.format(split="val")) in str(caught.value)
    assert "https://www.lvisdataset.org, licence: CC BY 4.0" in str(caught.value)


def test_unknown_keys_and_the_wrong_kind_of_set_are_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown data set 'coco', expected one of lvis, "):
        dataset_spec("coco")
    with pytest.raises(ValueError, match="'cc3m' has no boxes, expected one of lvis"):
        open_boxes("cc3m", "train", root=tmp_path)
    with pytest.raises(ValueError, match="'lvis' is a set of boxes, expected one of inet_lvis"):
        open_images("lvis", root=tmp_path)


def test_summary_measures_what_is_there(rendered):
    (rendered / "annotations" / "cc3m.json").unlink()
    rows = {row["name"]: row for row in summary_rows(rendered)}
    assert is_rendered(rendered)
    lvis = rows["MiniLVIS"]
    assert (lvis["images"], lvis["categories"], lvis["boxes"]) == (1, 2, 3)
    assert lvis["stands_for"] == "LVIS v1"
    assert (rows["MiniO365, boxes only"]["boxes"], rows["MiniO365"]["categories"]) == (3, 2)
    assert rows["MiniO365, boxes only"]["categories"] == 0
    assert (rows["MiniINet-LVIS"]["images"], rows["MiniINet-LVIS"]["categories"]) == (1, 1)
    assert rows["MiniCC3M"]["images"] is rows["MiniCC-Unl"]["images"] is None
    assert len({tuple(row) for row in rows.values()}) == 1
    # A damaged set is an error, not an absence.
    (rendered / "annotations" / "cc3m.json").write_text("[", encoding="utf-8")
    with pytest.raises(DataError, match=r"cc3m\.json: the JSON"):
        summary_rows(rendered)


def test_summary_of_an_empty_root_claims_nothing(tmp_path):
    rows = summary_rows(tmp_path)
    assert all(row["images"] is row["categories"] is row["boxes"] is None for row in rows)
    assert (rows[0]["name"], rows[0]["reference_images"]) == ("LVIS v1", 100_170)
