"""Rendered records in the formats of the real sets: LVIS v1, COCO, INet-LVIS and CC3M lists."""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from richsem.data.categories import COMMON_MAX_IMAGES, RARE_MAX_IMAGES
from richsem.data.drawn import MiniLvisConfig
from richsem.minilvis import plans
from richsem.minilvis.glyphs import GlyphClass, vocabulary

_LICENSE = {
    "id": 1,
    "name": "CC BY-SA 4.0 (drawn from OpenMoji)",
    "url": "https://creativecommons.org/licenses/by-sa/4.0/",
}


def annotation_files(config: MiniLvisConfig, records: dict[str, list]) -> dict[str, Any]:
    """Content of every annotation file by its name.

    The records are, for each folder of images that the draw has, one per image: `file`, `side`,
    `labels`, `caption` and `objects` with `label`, `bbox` (xywh), `area` and, for LVIS,
    `segmentation`.
    """
    files: dict[str, Any] = {}
    for folder, rows in records.items():
        name, _, split = folder.partition("/")
        if name == "lvis":
            info = {"description": f"MiniLVIS {split}, seed {config.seed}", "version": "v1"}
            content = _lvis_records(config, split, rows)
            files[f"lvis_v1_{split}.json"] = {"info": info, "licenses": [_LICENSE], **content}
        elif split:
            files[f"{name}_{split}.json"] = _coco(name, rows)
    train = files.get("lvis_v1_train.json", {"annotations": []})
    categories = _lvis_categories(plans.detection_classes(config), train["annotations"])
    for name in files:
        if name.startswith("lvis"):
            files[name]["categories"] = categories
    if "imagenet_lvis" not in records:
        return files
    files["imagenet_lvis_image_info.json"] = _imagenet(categories, records["imagenet_lvis"])
    files["imagenet_unl_images.json"] = [[row["file"], -1] for row in records["imagenet_unl"]]
    files["cc3m.json"] = [
        {"caption": row["caption"], "image": row["file"]} for row in records["cc3m"]
    ]
    return files


def _lvis_categories(classes: Sequence[GlyphClass], train: list[dict]) -> list[dict[str, Any]]:
    """LVIS v1 categories; counts and r/c/f come from the annotations of the training split."""
    shown = [annotation["category_id"] for annotation in train]
    pairs = {(annotation["image_id"], annotation["category_id"]) for annotation in train}
    instances = np.bincount(shown, minlength=len(classes) + 1).tolist()
    images = np.bincount([c for _, c in pairs], minlength=len(classes) + 1).tolist()
    bands = np.digitize(images, (RARE_MAX_IMAGES + 1, COMMON_MAX_IMAGES + 1))
    return [
        {
            "id": index,
            "name": c.name,
            "synset": c.synset,
            "synonyms": list(c.synonyms),
            "def": c.definition,
            "frequency": "rcf"[bands[index]],
            "image_count": images[index],
            "instance_count": instances[index],
        }
        for index, c in enumerate(classes, start=1)
    ]


def _lvis_records(config: MiniLvisConfig, split: str, rows: list[dict]) -> dict[str, list[dict]]:
    """Images and annotations in LVIS v1 format: federated, some crowds not fully annotated."""
    rng = plans.stream(config, "lvis", split, "annotation")
    every = np.arange(1, len(plans.detection_classes(config)) + 1)
    share = 0.15 if split == "train" else 0.4
    images, hidden = [], []
    for image_id, row in enumerate(rows, start=1):
        labels = [thing["label"] for thing in row["objects"]]
        absent = np.setdiff1d(every, np.array(labels) + 1)
        negatives = rng.choice(absent, size=round(share * len(absent)), replace=False)
        # One instance of a category stays unannotated in some of the crowds of three or more.
        crowds = [label for label, n in Counter(labels).items() if n >= 3]
        hidden.append({label + 1 for label in sorted(crowds) if rng.random() < 0.3})
        images.append(
            {
                "id": image_id,
                "height": row["side"],
                "width": row["side"],
                "coco_url": f"minilvis://{split}/{row['file']}",
                "flickr_url": "",
                "license": 1,
                "date_captured": "",
                "neg_category_ids": sorted(map(int, negatives)),
                "not_exhaustive_category_ids": sorted(hidden[-1]),
            }
        )
    return {"images": images, "annotations": _annotations(rows, hidden)}


def _annotations(
    rows: list[dict], hidden: Sequence[Collection[int]], **fixed: int
) -> list[dict[str, Any]]:
    """A record for each object, but for the first of each `hidden` category of its image."""
    annotations = []
    for image_id, (row, left_out) in enumerate(zip(rows, hidden, strict=True), start=1):
        unseen = set(left_out)
        for thing in row["objects"]:
            category = thing["label"] + 1
            if category in unseen:
                unseen.remove(category)
                continue
            ids = {"id": len(annotations) + 1, "image_id": image_id, "category_id": category}
            shape = {key: value for key, value in thing.items() if key != "label"}
            annotations.append(ids | shape | fixed)
    return annotations


def _coco(name: str, rows: list[dict]) -> dict[str, Any]:
    images = [
        {"id": image_id, "file_name": row["file"], "height": row["side"], "width": row["side"]}
        for image_id, row in enumerate(rows, start=1)
    ]
    categories = [
        {"id": i, "name": c.name, "supercategory": c.group}
        for i, c in enumerate(vocabulary(name), start=1)
    ]
    annotations = _annotations(rows, [()] * len(rows), iscrowd=0)
    return {"images": images, "annotations": annotations, "categories": categories}


def _imagenet(categories: list[dict], rows: list[dict]) -> dict[str, Any]:
    """INet-LVIS: LVIS categories with this set's own image counts, one image-level label each."""
    counts = np.bincount([row["labels"][0] for row in rows], minlength=len(categories))
    own = [c | {"image_count": int(n)} for c, n in zip(categories, counts, strict=True)]
    images = [
        {
            "id": image_id,
            "file_name": row["file"],
            "pos_category_ids": [label + 1 for label in row["labels"]],
            "width": row["side"],
            "height": row["side"],
        }
        for image_id, row in enumerate(rows, start=1)
    ]
    return {"categories": own, "images": images, "annotations": []}
