"""Annotation files, pictures and detections of a few numbers."""

import json

import numpy as np
from PIL import Image

from richsem.evaluation import Detections

CATEGORIES = [
    {"id": 3, "name": "dog", "frequency": "f"},
    {"id": 8, "name": "cat", "frequency": "c"},
    {"id": 9, "name": "red_boat", "frequency": "r"},
]
NAMES = ("dog", "Red_Boat", "bow_(weapon)", "hot dog")
SIDE = 50


def write_json(path, content):
    """A JSON file, with the folders above it; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def rewritten(path, change):
    """The same JSON file after a change; returns its path."""
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    return write_json(path, content)


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
    return write_json(path, annotation_content(images, boxes, categories, federated=federated))


def annotation_content(images, boxes=(), categories=CATEGORIES, *, federated=True):
    """The content of such a file."""
    lists = {"neg_category_ids": [], "not_exhaustive_category_ids": []} if federated else {}
    plain = {"width": 50, "height": 50} | lists
    records = [{"id": i, "file_name": f"{i}.jpg"} | plain | own for i, own in images.items()]
    annotations = [
        {"id": n, "image_id": i, "category_id": c, "bbox": list(box), "area": box[2] * box[3]}
        for n, (i, c, box) in enumerate(boxes, start=1)
    ]
    return {"images": records, "annotations": annotations, "categories": list(categories)}


def write_set(folder, shows, *, federated=False, seed=0, pictures=True):
    """A set as people have them: `set.json` beside its pictures, of which i shows `shows[i]`."""
    classes = range(1 + max(c for own in shows for c in own))
    categories = [
        {"id": c + 1, "name": [*NAMES, f"class {c}"][min(c, len(NAMES))]} for c in classes
    ]
    rng, ids = np.random.default_rng(seed), [7 * i + 1 for i in range(len(shows))]
    for i in ids if pictures else ():
        write_picture(folder / f"{i}.jpg", SIDE, rng)
    boxes = [
        (i, c + 1, (4 * (c % 3), 4, SIDE // 2, SIDE // 3))
        for i, own in zip(ids, shows, strict=True)
        for c in own
    ]
    images = {key: {} for key in ids}
    return annotation_file(folder / "set.json", images, boxes, categories, federated=federated)


ABSENT = 12  # a category without ground truth


def federated_case(num_images=60, seed=0):
    """Images with ties, one image over the cap, one empty, not exhaustive and absent classes."""
    rng = np.random.default_rng(seed)
    categories = [
        {"id": 2 * c, "name": str(c), "frequency": "rcf"[c % 3]} for c in range(1, ABSENT // 2 + 9)
    ]
    ids = np.array([category["id"] for category in categories if category["id"] != ABSENT])
    images, annotations, rows = [], [], []
    for i in range(num_images):
        present = rng.choice(ids, size=rng.integers(1, 5), replace=False)
        others = np.setdiff1d(ids, present)
        absent = [*rng.choice(others, 4, replace=False).tolist(), ABSENT]
        partly = present[:1].tolist() if i % 4 == 0 else []
        federated = {"neg_category_ids": absent, "not_exhaustive_category_ids": partly}
        known = {"file_name": f"{i}.jpg", "width": 400, "height": 400}
        images.append({"id": 1000 + i, **known, **federated})
        if i == 1:
            continue
        for category in np.repeat(present, rng.integers(1, 4)):
            box = np.concatenate([rng.uniform(0, 200, 2), rng.uniform(4, 190, 2)]).round(2)
            # Ids from 0: the official matchers stumble over id 0.
            record = {"id": len(annotations), "image_id": 1000 + i, "category_id": int(category)}
            record |= {"bbox": box.tolist(), "area": float(box[2] * box[3] * 0.8)}
            annotations.append(record)
            for _ in range(3):
                near = box + rng.normal(0, 0.08, 4) * np.tile(box[2:], 2)
                rows.append((1000 + i, category, near))
        for _ in range(420 if i == 5 else 30):
            box = np.concatenate([rng.uniform(0, 300, 2), rng.uniform(2, 90, 2)])
            rows.append((1000 + i, rng.choice([*ids, ABSENT]), box))
    shuffled = [rows[i] for i in rng.permutation(len(rows))]
    image_id, category_id, boxes = zip(*shuffled, strict=True)
    known = {"image_id": image_id, "category_id": category_id, "bbox_xywh": np.abs(boxes)}
    detections = Detections(score=rng.random(len(rows)).round(1), **known)
    return {"images": images, "annotations": annotations, "categories": categories}, detections
