"""Random annotation files with detections, and what the official packages say when called directly.

`python tests/judged_sets.py 500` compares so many files: both protocols, both backends.
"""

import contextlib
import copy
import io
import json
import logging
import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np

from richsem import evaluation, lvis_package
from richsem.evaluation import COCO_METRICS, LVIS_METRICS, Detections
from richsem.masks import run_lengths

SIDE = 400  # pixels of the pictures
PROTOCOLS = ("coco", "lvis")
METRICS = {"coco": COCO_METRICS, "lvis": LVIS_METRICS}
# What boxes are like, and how often.
BOXES = {
    "any": 0.67, "whole numbers": 0.1, "tiny": 0.05, "flat": 0.04, "turned over": 0.02,
    "beyond": 0.05, "outside": 0.05, "huge": 0.02,
}  # fmt: skip


def random_set(seed):
    """A file of up to 12 images and 7 classes, and detections on it.

    Ids are small, negative or too large for floating-point numbers. There are crowd regions, areas
    of 0 and less, boxes twice, images and classes without boxes, tied scores, now and then more
    detections of an image than are kept, or none at all.
    """
    rng = np.random.default_rng(seed)
    image_ids = (
        int(rng.choice([0, 1, 2**60, -(2**40)])) + rng.permutation(40)[: rng.integers(1, 13)]
    )
    class_ids = int(rng.choice([0, 1, 2**59])) + rng.permutation(20)[: rng.integers(1, 8)]
    categories = [{"id": c, "name": f"{c}"} for c in class_ids.tolist()]
    for category in categories:
        category["frequency"] = "rcf"[rng.integers(3)]
    images, annotations, rows = [], [], []
    for image in image_ids.tolist():
        lists = [rng.choice(class_ids, rng.integers(3)).tolist() for _ in range(2)]
        record = {"neg_category_ids": lists[0], "not_exhaustive_category_ids": lists[1]}
        images.append({"id": image, "width": SIDE, "height": SIDE} | record)
        for _ in range(rng.choice([0, 1, 4, 15])):
            label, box = int(rng.choice(class_ids)), _box(rng)
            if annotations and rng.random() < 0.05:
                box = annotations[-1]["bbox"]
            record = {"image_id": image, "category_id": label, "bbox": box, "area": _area(box, rng)}
            record |= {"id": len(annotations) + 1, "iscrowd": int(rng.random() < 0.1)}
            annotations.append(record)
            for _ in range(rng.integers(4)):
                other = rng.random() < 0.1
                near = np.array(box) * rng.normal(1, 0.06, 4)
                rows.append((image, int(rng.choice(class_ids)) if other else label, near))
        many = rng.choice([0, 5, 30, 400], p=[0.3, 0.4, 0.27, 0.03])
        rows += [(image, int(rng.choice(class_ids)), _box(rng)) for _ in range(many)]
    if not any(record["area"] > 0 for record in annotations):
        return random_set(seed + 10**6)  # there is nothing to judge by
    rows = [] if rng.random() < 0.05 else [rows[i] for i in rng.permutation(len(rows))]
    columns = zip(*rows, strict=True) if rows else ([], [], [])
    named = dict(zip(("image_id", "category_id", "bbox_xywh"), columns, strict=True))
    scores = rng.random(len(rows)).round(int(rng.choice([1, 2, 8])))
    content = {"images": images, "annotations": annotations, "categories": categories}
    return content, Detections(**named, score=scores)


def _box(rng):
    x, y, w, h = rng.uniform(0, SIDE / 2, 4)
    box = {
        "any": (x, y, w, h),
        "whole numbers": np.round((x, y, w, h)),
        "tiny": (x, y, w / 1e4, h / 1e4),
        "flat": (x, y, 0, h),
        "turned over": (x, y, -w, h),
        "beyond": (x, y, SIDE, h),
        "outside": (SIDE + x, y, w, h),
        "huge": (x, y, w * 1e5, h * 1e5),
    }[rng.choice(list(BOXES), p=list(BOXES.values()))]
    return [float(value) for value in box]


def _area(box, rng):
    area = box[2] * box[3] * float(rng.choice([1, 0.7]))
    return float(rng.choice([area, 0, -area - 1, 32**2, 96**2], p=[0.88, 0.03, 0.03, 0.03, 0.03]))


def with_masks(content, found):
    """The same with outlines: a triangle within each box, within or beyond the picture."""
    outlines = [triangle(record["bbox"]) for record in content["annotations"]]
    pairs = zip(content["annotations"], outlines, strict=True)
    annotations = [record | {"segmentation": [outline]} for record, outline in pairs]
    masks = [run_lengths([triangle(box)], (SIDE, SIDE)) for box in found.bbox_xywh.tolist()]
    return content | {"annotations": annotations}, replace(found, masks=np.array(masks))


def triangle(box):
    x, y, w, h = box
    return [x, y, x + w, y, x + w / 2, y + h]


def published(protocol, content, found, kind="bbox"):
    """The metrics of the package itself, from copies; -1 where there is no object."""
    if not len(found):  # both packages stumble: nothing is found of what is there
        ours = evaluation.evaluate(protocol, content, found, backend="official").metrics
        return {name: -1.0 if np.isnan(value) else 0.0 for name, value in ours.items()}
    records = found.to_list()
    if kind == "segm":  # with boxes, the packages would take these
        records = [{key: one[key] for key in one if key != "bbox"} for one in records]
    judge = _lvis if protocol == "lvis" else _coco
    return judge(copy.deepcopy(content), records, kind)


def _coco(content, records, kind):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = content
        truth.createIndex()
        evaluator = COCOeval(truth, truth.loadRes(records), kind)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return dict(zip(COCO_METRICS, evaluator.stats, strict=True))


def _lvis(content, records, kind):
    lvis = lvis_package.import_lvis()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "truth.json")
        path.write_text(json.dumps(content), encoding="utf-8")
        evaluator = lvis.LVISEval(lvis.LVIS(str(path)), records, kind)
    evaluator.run()
    return {name.partition("@")[0]: value for name, value in evaluator.get_results().items()}


def differences(protocol, content, found, backends=("official", "fast")):
    """Largest difference of each backend from the package; infinite where only one has a number."""
    largest = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # boxes that are not judged, what the package announces
        theirs = published(protocol, content, found)
        for backend in backends:
            ours = evaluation.evaluate(protocol, content, found, backend=backend).metrics
            assert tuple(ours) == METRICS[protocol]
            pairs = [(value, theirs[name]) for name, value in ours.items()]
            gaps = [(b != -1) * np.inf if np.isnan(a) else abs(a - b) for a, b in pairs]
            largest.append(max(np.nan_to_num(gaps, posinf=np.inf)))
    return largest


def main(number):
    """Prints how many files differ by more than 1e-9, and the largest difference."""
    logging.getLogger("lvis").setLevel(logging.ERROR)
    for protocol in PROTOCOLS:
        gaps = np.array([differences(protocol, *random_set(seed)) for seed in range(number)])
        for name, own in zip(("official", "fast"), gaps.T, strict=True):
            beyond = np.flatnonzero(own > 1e-9).tolist()
            print(f"{protocol} {name}: {number} files, largest {own.max():g}, differ: {beyond}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
