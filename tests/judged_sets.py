"""Random annotation files and detections, and what the official packages say of them untouched.

`python tests/judged_sets.py 500` compares as many sets, by both protocols and both backends.
"""

import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from richsem import evaluation
from richsem.evaluation import COCO_METRICS, LVIS_METRICS, Detections

SIDE = 400  # pixels of the pictures


def random_set(seed):
    """A file of 0 to 12 images and 1 to 7 classes with all that files hold, and detections on it.

    Crowds, boxes without area, tiny ones, large ones, the same twice, beyond the image and outside
    of it; images and classes without boxes; tied scores; now and then more detections of an image
    than are kept, none at all, or ids that no floating-point number holds.
    """
    rng = np.random.default_rng(seed)
    first = int(rng.choice([0, 1, 2**60, -(2**40)]))
    image_ids = first + rng.permutation(40)[: rng.integers(1, 13)]
    class_ids = int(rng.choice([0, 1, 2**59])) + rng.permutation(20)[: rng.integers(1, 8)]
    categories = [
        {"id": int(c), "name": f"class {c}", "frequency": str(rng.choice(list("rcf")))}
        for c in class_ids
    ]
    images, annotations, rows = [], [], []
    for image in image_ids.tolist():
        lists = [rng.choice(class_ids, int(rng.integers(0, 3))).tolist() for _ in range(2)]
        names = ("neg_category_ids", "not_exhaustive_category_ids")
        images.append(
            {"id": image, "width": SIDE, "height": SIDE, **dict(zip(names, lists, strict=True))}
        )
        for _ in range(rng.choice([0, 1, 4, 15])):
            label, box = int(rng.choice(class_ids)), _box(rng)
            if rng.random() < 0.05 and annotations:
                box = annotations[-1]["bbox"]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": label,
                    "bbox": box,
                    "area": _area(box, rng),
                    "iscrowd": int(rng.random() < 0.1),
                }
            )
            for _ in range(rng.integers(0, 4)):
                near = np.array(box) * rng.normal(1, 0.06, 4)
                rows.append(
                    (image, label if rng.random() < 0.9 else int(rng.choice(class_ids)), near)
                )
        many = rng.choice([0, 5, 30, 400], p=[0.3, 0.4, 0.27, 0.03])
        rows += [(image, int(rng.choice(class_ids)), _box(rng)) for _ in range(many)]
    if not annotations:
        return random_set(seed + 10**6)
    if rng.random() < 0.05:
        rows = []
    order = rng.permutation(len(rows))
    image_id, category_id, boxes = ([rows[i][k] for i in order] for k in range(3))
    scores = rng.random(len(rows)).round(int(rng.choice([1, 2, 8])))
    found = Detections(image_id=image_id, category_id=category_id, bbox_xywh=boxes, score=scores)
    return {"images": images, "annotations": annotations, "categories": categories}, found


def _box(rng):
    kind = rng.choice(
        ["any", "whole", "tiny", "flat", "beyond", "outside"], p=[0.7, 0.1, 0.05, 0.05, 0.05, 0.05]
    )
    x, y, w, h = rng.uniform(0, SIDE / 2, 4)
    box = {
        "any": (x, y, w, h),
        "whole": (round(x), round(y), round(w), round(h)),
        "tiny": (x, y, w / 1e4, h / 1e4),
        "flat": (x, y, 0, h),
        "beyond": (x, y, SIDE, h),
        "outside": (SIDE + x, y, w, h),
    }[kind]
    return [float(v) for v in box]


def _area(box, rng):
    area = box[2] * box[3] * float(rng.choice([1, 0.7]))
    return float(rng.choice([area, 0, -area - 1, 32**2, 96**2], p=[0.88, 0.03, 0.03, 0.03, 0.03]))


def official(protocol, truth, found):
    """Metrics by the package itself; None where it cannot answer."""
    return (_lvis if protocol == "lvis" else _coco)(json.loads(json.dumps(truth)), found)


def _coco(truth, found):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    if not len(found):
        return None
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = truth
        gt.createIndex()
        evaluator = COCOeval(gt, gt.loadRes(found.to_list()), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return dict(zip(COCO_METRICS, evaluator.stats, strict=True))


def _lvis(truth, found):
    lvis = evaluation._import_lvis()
    if not len(found):
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "truth.json"
        path.write_text(json.dumps(truth))
        evaluator = lvis.LVISEval(lvis.LVIS(str(path)), found.to_list(), "bbox")
        evaluator.run()
    return {key.partition("@")[0]: v for key, v in evaluator.get_results().items()}


def difference(protocol, truth, found, backend):
    """Largest difference between a backend and the package, infinite where one has no number."""
    expected = official(protocol, truth, found)
    if expected is None:
        expected = dict.fromkeys(LVIS_METRICS if protocol == "lvis" else COCO_METRICS, None)
    judge = evaluation.evaluate_lvis if protocol == "lvis" else evaluation.evaluate_coco
    ours = judge(truth, found, backend=backend).metrics
    gaps = []
    for key, value in ours.items():
        want = expected[key]
        if want is None:
            want = -1.0 if np.isnan(value) else 0.0
        if np.isnan(value) or want == -1:
            gaps.append(0.0 if np.isnan(value) and want == -1 else np.inf)
        else:
            gaps.append(abs(value - want))
    return max(gaps)


if __name__ == "__main__":
    worst = {}
    for seed in range(int(sys.argv[1])):
        truth, found = random_set(seed)
        for protocol in ("coco", "lvis"):
            for backend in ("official", "fast"):
                try:
                    gap = difference(protocol, truth, found, backend)
                except Exception as error:
                    gap = np.inf
                    print(seed, protocol, backend, type(error), str(error)[:150])
                key = (protocol, backend)
                worst.setdefault(key, []).append(gap)
                if gap > 1e-9:
                    print(seed, key, gap)
    for key, gaps in worst.items():
        print(key, "sets", len(gaps), "beyond 1e-9:", sum(g > 1e-9 for g in gaps), "max", max(gaps))
