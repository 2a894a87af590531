"""Annotation files and pictures of a few numbers."""

import json

import numpy as np
from PIL import Image

CATEGORIES = [
    {"id": 3, "name": "dog", "frequency": "f"},
    {"id": 8, "name": "cat", "frequency": "c"},
    {"id": 9, "name": "red_boat", "frequency": "r"},
]


def write_json(path, content):
    """A JSON file, with the folders above it; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_picture(path, side, rng):
    """Noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(0, 256, (side, side, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def annotation_file(path, images, boxes=(), categories=CATEGORIES, *, federated=True):
    """A file of LVIS, or of COCO where it is not federated; returns its path.

    images: id -> fields that are not "{id}.jpg", 50 x 50 pixels and empty lists of classes;
    boxes: (image id, category id, xywh), whose ids count from 1.
    """
    lists = {"neg_category_ids": [], "not_exhaustive_category_ids": []} if federated else {}
    plain = {"width": 50, "height": 50} | lists
    records = [{"id": i, "file_name": f"{i}.jpg"} | plain | own for i, own in images.items()]
    annotations = [
        {"id": n, "image_id": i, "category_id": c, "bbox": list(box), "area": box[2] * box[3]}
        for n, (i, c, box) in enumerate(boxes, start=1)
    ]
    content = {"images": records, "annotations": annotations, "categories": list(categories)}
    return write_json(path, content)
