"""The table of data sets and where its files lie."""

import numpy as np
import pytest
from tiny_files import CATEGORIES, annotation_file, write_json, write_picture

from richsem.data import catalog
from richsem.data.catalog import CATALOG, dataset_spec, open_boxes, open_images
from richsem.data.categories import Category
from richsem.data.reading import DataError
from richsem.workbook.reference import summary_rows

SIZE = {"width": 8, "height": 8}
LABELLED = {"id": 1, "file_name": "1.jpg", "pos_category_ids": [8], **SIZE}
IMAGE_LISTS = {
    "inet_lvis": {"images": [LABELLED], "categories": CATEGORIES, "annotations": []},
    "inet_unl": [["1.jpg", -1]],
    "cc3m": [{"caption": "a cat", "image": "1.jpg"}],
    "cc_unl": [{"caption": "a cat", "image": "1.jpg"}],
}
LAYOUTS = [
    pytest.param(spec, layout, id=f"{spec.key} in {layout.annotations}")
    for spec in CATALOG
    for layout in (spec.stand_in_layout, *spec.real_layouts)
    if not layout.annotations.endswith(".npz")  # of archives: test_prepare opens it
]


def write(root, spec, layout):
    """One image; in a set of boxes it has a dog and two cats."""
    path = root / layout.annotations.format(split="train")
    url, boxes = "train/000000000001.jpg", [(1, c, (1, 1, 3, 3)) for c in (3, 8, 8)]
    if spec.splits:
        federated = spec.key == "lvis"
        image = SIZE | ({"coco_url": f"x://{url}"} if federated else {})
        annotation_file(path, {1: image}, boxes, federated=federated)
    else:
        write_json(path, IMAGE_LISTS[spec.key])
    picture = url if spec.key == "lvis" else "1.jpg"
    folder = root / layout.images.format(split="train")
    write_picture(folder / picture, 8, np.random.default_rng(0))
    if layout is spec.stand_in_layout:
        write_json(root / "manifest.json", {})


def test_rows_are_complete_and_unknown_or_wrong_keys_refused(tmp_path):
    assert catalog.BOX_KEYS == ("lvis", "visual_genome", "openimages", "o365", "o365_box")
    assert catalog.IMAGE_KEYS == ("inet_lvis", "inet_unl", "cc3m", "cc_unl")
    for spec in CATALOG:
        assert spec.source.startswith("https://")
        for layout in (spec.stand_in_layout, *spec.real_layouts):
            assert ("{split}" in layout.annotations) == bool(spec.splits)
    with pytest.raises(ValueError, match="unknown data set 'coco', expected one of lvis, "):
        dataset_spec("coco")
    with pytest.raises(ValueError, match="'cc3m' has no boxes, expected one of lvis"):
        open_boxes("cc3m", "train", root=tmp_path)
    with pytest.raises(ValueError, match="'lvis' is a set of boxes, expected one of inet_lvis"):
        open_images("lvis", root=tmp_path)


@pytest.mark.parametrize(("spec", "layout"), LAYOUTS)
def test_every_layout_opens(tmp_path, spec, layout):
    write(tmp_path, spec, layout)
    if spec.splits:
        dataset = open_boxes(spec.key, "train", root=tmp_path)
        name = spec.stand_in if layout is spec.stand_in_layout else spec.name
        assert dataset.name == f"{name} train"
        assert dataset.is_federated == (spec.key == "lvis")
        assert dataset.labels.tolist() == ([0, 0, 0] if spec.key == "o365_box" else [0, 1, 1])
    else:
        dataset = open_images(spec.key, root=tmp_path, categories=[Category(id=1, name="cat")])
        assert dataset.labels == {"inet_lvis": ((1,),), "cc3m": ((0,),)}.get(spec.key, ((),))
        assert bool(dataset.captions) == (spec.key == "cc3m")
    assert dataset.missing_images() == () and dataset.image(0).size == (8, 8)


def test_annotations_without_images_still_open_and_an_absent_set_lists_the_paths_tried(tmp_path):
    images = {1: {"coco_url": "x://train/000000000001.jpg"}}
    annotation_file(tmp_path / "lvis_v1_train.json", images)
    dataset = open_boxes("lvis", "train", root=tmp_path)
    assert dataset.missing_images() == ("train/000000000001.jpg",)
    with pytest.raises(DataError, match="LVIS v1 val is not under") as caught:
        open_boxes("lvis", "val", root=tmp_path)
    for layout in dataset_spec("lvis").real_layouts:
        assert str(tmp_path / layout.annotations.format(split="val")) in str(caught.value)
    assert "https://www.lvisdataset.org, licence: CC BY 4.0" in str(caught.value)


def test_summary_measures_what_is_there(tmp_path):
    rows = summary_rows(tmp_path)  # an empty root claims nothing
    assert all(row["images"] is row["categories"] is row["boxes"] is None for row in rows)
    assert (rows[0]["name"], rows[0]["reference_images"]) == ("LVIS v1", 100_170)
    for spec in CATALOG:
        write(tmp_path, spec, spec.stand_in_layout)
    captions = tmp_path / "annotations" / "cc3m.json"
    captions.unlink()
    rows = {row["name"].partition(" (for ")[0]: row for row in summary_rows(tmp_path)}
    assert catalog.is_rendered(tmp_path)
    lvis = rows["MiniLVIS"]
    assert (lvis["images"], lvis["categories"], lvis["boxes"]) == (1, 2, 3)
    assert lvis["name"] == "MiniLVIS (for LVIS v1)"
    assert (rows["MiniO365, boxes only"]["boxes"], rows["MiniO365"]["categories"]) == (3, 2)
    assert rows["MiniO365, boxes only"]["categories"] == 0
    assert (rows["MiniINet-LVIS"]["images"], rows["MiniINet-LVIS"]["categories"]) == (1, 1)
    assert rows["MiniCC3M"]["images"] is rows["MiniCC-Unl"]["images"] is None
    assert len({tuple(row) for row in rows.values()}) == 1
    captions.write_text("[", encoding="utf-8")  # a damaged set is an error, not an absence
    with pytest.raises(DataError, match=r"cc3m\.json: the JSON"):
        summary_rows(tmp_path)
