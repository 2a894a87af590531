"""LVIS and COCO protocol: the two backends agree, and agree with the untouched packages."""

import builtins
import copy
import importlib.util
import io
import json
import math
import subprocess
import sys
import warnings
from contextlib import redirect_stdout
from dataclasses import replace

import numpy as np
import pytest
from damage import NAMED
from judged_sets import JUDGES, differences, random_set
from tiny_files import write_json

from richsem.data.box_sets import BoxDataset
from richsem.data.reading import DataError, DataWarning
from richsem.evaluation import COCO_METRICS, LVIS_METRICS, Detections, evaluate_coco, evaluate_lvis

ABSENT = 12  # a category without ground truth
EMPTY_IMAGE = 1001  # an image without ground truth and without detections
needs_fast = pytest.mark.skipif(
    importlib.util.find_spec("hotcoco") is None, reason="the fast backend is not installed"
)


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
        images.append({"id": 1000 + i, "width": 400, "height": 300, **federated})
        if images[-1]["id"] == EMPTY_IMAGE:
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


def coco_case(seed=0):
    truth, detections = federated_case(seed=seed)
    rng = np.random.default_rng(seed)
    for annotation in truth["annotations"]:
        annotation["iscrowd"] = int(rng.random() < 0.05)
        annotation["id"] += 1
    return truth, detections


def perfect_detections(truth):
    annotations = truth["annotations"]
    return Detections(
        image_id=[a["image_id"] for a in annotations],
        category_id=[a["category_id"] for a in annotations],
        bbox_xywh=[a["bbox"] for a in annotations],
        score=np.linspace(0.9, 0.1, len(annotations)),
    )


def assert_equal_results(one, other):
    for key, value in one.metrics.items():
        assert value == pytest.approx(other.metrics[key], abs=1e-12, nan_ok=True), key
    assert one.per_category == pytest.approx(other.per_category, abs=1e-12)


@needs_fast
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("evaluate", "case", "metrics"),
    [(evaluate_lvis, federated_case, LVIS_METRICS), (evaluate_coco, coco_case, COCO_METRICS)],
)
def test_backends_agree(evaluate, case, metrics, seed):
    truth, detections = case(seed=seed)
    official, fast = (evaluate(truth, detections, backend=name) for name in ("official", "fast"))
    assert tuple(official.metrics) == tuple(fast.metrics) == metrics
    assert 0.01 < official.metrics["AP"] < 0.95
    assert_equal_results(official, fast)
    assert ABSENT not in official.per_category


def test_lvis_equals_the_untouched_package(tmp_path):
    """Upstream's own evaluate, loaders and cap, in a process where numpy has its old name."""
    truth, detections = federated_case(num_images=12)
    for annotation in truth["annotations"]:
        annotation["id"] += 1
    files = [tmp_path / "gt.json", tmp_path / "dt.json"]
    for path, content in zip(files, (truth, detections.to_list()), strict=True):
        write_json(path, content)
    script = (
        "import json, sys, warnings; warnings.simplefilter('ignore')\n"
        "import numpy as np; np.float = float\n"
        "from lvis import LVISEval\n"
        "e = LVISEval(sys.argv[1], sys.argv[2], 'bbox'); e.run()\n"
        "print(json.dumps(e.get_results()))"
    )
    command = [sys.executable, "-c", script, *map(str, files)]
    upstream = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    ours = evaluate_lvis(files[0], detections, backend="official")
    assert ours.ground_truth == "gt.json"
    for key, value in upstream.items():
        expected = math.nan if value == -1 else value
        own = ours.metrics[key.partition("@")[0]]
        assert own == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_coco_equals_the_untouched_package():
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, detections = coco_case()
    with redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = copy.deepcopy(truth)
        gt.createIndex()
        evaluator = COCOeval(gt, gt.loadRes(detections.to_list()), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    ours = evaluate_coco(truth, detections, backend="official")
    np.testing.assert_allclose(list(ours.metrics.values()), evaluator.stats, atol=1e-12)


BACKENDS = ["official", pytest.param("fast", marks=needs_fast)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("evaluate", [evaluate_lvis, evaluate_coco])
def test_best_and_worst_detections_and_callers_data_stay_as_they_were(evaluate, backend):
    truth, _ = federated_case()
    perfect, before = perfect_detections(truth), copy.deepcopy(truth)
    arrays = copy.deepcopy(vars(perfect))
    result = evaluate(truth, perfect, backend=backend)
    assert result.metrics["AP"] == pytest.approx(1)
    assert set(result.per_category) == {a["category_id"] for a in truth["annotations"]}
    nothing = evaluate(truth, perfect_detections({"annotations": []}), backend=backend)
    assert nothing.metrics["AP"] == 0 and set(nothing.per_category.values()) == {0.0}
    assert truth == before
    assert all(np.array_equal(values, arrays[name]) for name, values in vars(perfect).items())


@pytest.mark.parametrize("backend", BACKENDS)
def test_group_without_ground_truth_is_nan(backend):
    truth, _ = federated_case()
    for category in truth["categories"]:
        category["frequency"] = "f"
    metrics = evaluate_lvis(truth, perfect_detections(truth), backend=backend).metrics
    assert math.isnan(metrics["APr"])
    assert metrics["APf"] == pytest.approx(1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_federated_rules(backend):
    """A wrong box costs only where its class is known to be absent or exhaustively annotated."""
    truth, _ = federated_case()
    image = truth["images"][0]
    known = {a["category_id"] for a in truth["annotations"] if a["image_id"] == image["id"]}
    judged = known | set(image["neg_category_ids"])
    counted = {a["category_id"] for a in truth["annotations"]}
    unjudged = next(iter(counted - judged))
    absent = next(c for c in image["neg_category_ids"] if c in counted)
    partly = image["not_exhaustive_category_ids"][0]
    perfect = perfect_detections(truth)

    def ap_with(category):
        extra = Detections(
            image_id=[image["id"], *perfect.image_id],
            category_id=[category, *perfect.category_id],
            bbox_xywh=[[390, 290, 5, 5], *perfect.bbox_xywh],
            score=[0.99, *perfect.score],
        )
        return evaluate_lvis(truth, extra, backend=backend).per_category[category]

    assert ap_with(unjudged) == pytest.approx(1)
    assert ap_with(partly) == pytest.approx(1)
    assert ap_with(absent) < 0.99


@pytest.mark.parametrize("backend", BACKENDS)
def test_restriction_to_images(backend):
    truth, detections = federated_case()
    chosen = [image["id"] for image in truth["images"][2:20]]
    part = {
        **truth,
        "images": truth["images"][2:20],
        "annotations": [a for a in truth["annotations"] if a["image_id"] in chosen],
    }
    keep = np.isin(detections.image_id, chosen)
    few = Detections(**{name: values[keep] for name, values in vars(detections).items()})
    restricted = evaluate_lvis(truth, few, backend=backend, image_ids=chosen)
    assert restricted.num_images == 18
    assert_equal_results(restricted, evaluate_lvis(part, few, backend=backend))
    with pytest.raises(DataError, match=r"detections name \d+ image ids"):
        evaluate_lvis(truth, detections, backend=backend, image_ids=chosen)
    with pytest.raises(DataError, match=r"image_ids name 1 images .*\(5\)"):
        evaluate_lvis(truth, few, backend=backend, image_ids=[5])


def test_best_per_image_equals_a_stable_sort():
    rng = np.random.default_rng(0)
    for _ in range(30):
        num = int(rng.integers(0, 200))
        known = {"image_id": rng.integers(0, 5, num), "category_id": np.ones(num)}
        boxes, score = rng.random((num, 4)), rng.random(num).round(1)
        detections = Detections(bbox_xywh=boxes, score=score, **known)
        expected = []
        for image in range(5):
            rows = np.flatnonzero(detections.image_id == image).tolist()
            expected += sorted(rows, key=lambda row: -detections.score[row])[:20]
        kept = detections.best_per_image(20)
        assert np.array_equal(kept.bbox_xywh, boxes[sorted(expected)])


def test_cap_counts_per_image_for_lvis():
    truth, detections = federated_case()
    assert len(detections.best_per_image(300)) < len(detections)
    whole, cut = (evaluate_lvis(truth, d) for d in (detections, detections.best_per_image(300)))
    assert whole.max_dets == 300
    assert_equal_results(whole, cut)


def test_unknown_ids_are_refused():
    truth, _ = federated_case()
    box = {"bbox_xywh": [[0, 0, 1, 1]], "score": [1]}
    with pytest.raises(DataError, match=r"1 image ids that it does not list \(3\)"):
        evaluate_lvis(truth, Detections(image_id=[3], category_id=[2], **box))
    with pytest.raises(DataError, match=r"1 category ids .*\(1\).*not positions"):
        evaluate_coco(truth, Detections(image_id=[1000], category_id=[1], **box))


def test_ground_truth_must_be_federated_for_lvis(tmp_path):
    truth, detections = federated_case()
    del truth["images"][3]["neg_category_ids"]
    path = write_json(tmp_path / "val.json", truth)
    with pytest.raises(DataError, match=r"val\.json: images\[3\] \(id 1003\).*neg_category_ids"):
        evaluate_lvis(path, detections)
    assert evaluate_coco(path, detections).ground_truth == "val.json"


def test_ground_truth_without_annotations_and_unknown_backends_are_refused():
    truth, detections = federated_case(num_images=2)
    with pytest.raises(DataError, match="no annotations to evaluate against"):
        evaluate_lvis({**truth, "annotations": []}, detections)
    with pytest.raises(ValueError, match='expected "auto", "official" or "fast"'):
        evaluate_lvis(truth, detections, backend="slow")


BAD = [("score", [1]), ("score", [1, np.nan]), ("bbox_xywh", [[0, 0, 1, 1], [0, 0, np.inf, 1]])]


@pytest.mark.parametrize(("field", "values"), BAD)
def test_bad_detections_are_refused(field, values):
    good = {"image_id": [1, 1], "category_id": [1, 2], "bbox_xywh": np.ones((2, 4))}
    with pytest.raises(ValueError, match="detections"):
        Detections(**good | {"score": [1, 1], field: values})


def test_result_format_is_json():
    _, detections = federated_case()
    records = json.loads(json.dumps(detections.to_list()))
    assert set(records[0]) == {"image_id", "category_id", "bbox", "score"}
    assert records[7]["bbox"] == detections.bbox_xywh[7].tolist()


def test_auto_falls_back_to_official(monkeypatch):
    truth, _ = federated_case(num_images=4)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert evaluate_coco(truth, perfect_detections(truth)).backend == "official"


@pytest.mark.parametrize(
    ("module", "backend", "cure"),
    [("lvis", "official", "apt install libgl1"), ("hotcoco", "fast", r"richsem\[fast\]")],
)
def test_backend_that_cannot_be_loaded_names_the_cure(monkeypatch, module, backend, cure):
    real_import = builtins.__import__

    def broken(name, *args, **kwargs):
        if name.partition(".")[0] == module:
            raise ImportError("libGL.so.1: cannot open shared object file")
        return real_import(name, *args, **kwargs)

    truth, detections = federated_case(num_images=8)
    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(ImportError, match=cure):
        evaluate_lvis(truth, detections, backend=backend)


def test_import_is_light_and_the_official_backend_leaves_logging_and_numpy_alone():
    """In a process of its own: under pytest the root logger has handlers already."""
    script = (
        "import sys, logging, warnings; warnings.simplefilter('ignore')\n"
        "import numpy as np, richsem.evaluation\n"
        "heavy = {'lvis', 'cv2', 'hotcoco', 'pycocotools', 'torch', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "level = logging.getLogger().level\n"
        "assert richsem.evaluation._import_lvis().LVISEval\n"
        "assert not logging.getLogger().handlers\n"
        "assert logging.getLogger().level == level\n"
        "assert not hasattr(np, 'float')"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_real_lvis_sample(real_data, backend):
    path = real_data / "lvis" / "lvis_v0.5_val_100.json"
    truth = json.loads(path.read_text(encoding="utf-8"))
    result = evaluate_lvis(path, perfect_detections(truth), backend=backend)
    assert (result.num_images, len(truth["annotations"])) == (100, 977)
    assert result.metrics["AP"] == pytest.approx(1)


@needs_fast
def test_real_coco_photos(real_data):
    path = real_data / "coco_val128" / "instances.json"
    truth = json.loads(path.read_text(encoding="utf-8"))
    perfect = perfect_detections(truth)
    noise = np.random.default_rng(0).normal(0, 0.1, (len(perfect), 4))
    boxes = np.abs(perfect.bbox_xywh + noise * np.tile(perfect.bbox_xywh[:, 2:], 2))
    moved = replace(perfect, bbox_xywh=boxes, score=perfect.score.round(1))
    official = evaluate_coco(path, moved, backend="official")
    assert 0.1 < official.metrics["AP"] < 0.9
    assert_equal_results(official, evaluate_coco(path, moved, backend="fast"))


# --- files as people have them: the judges agree with the packages and with each other ------------


@needs_fast
@pytest.mark.parametrize("protocol", JUDGES)
def test_random_files_are_judged_as_the_packages_judge_them(protocol):
    assert np.max([differences(protocol, *random_set(seed)) for seed in range(30)]) < 1e-9


def with_fields(content, **sections):
    """A copy in which the records of each section have other fields; `None` takes one away."""
    content = copy.deepcopy(content)
    for section, change in sections.items():
        for record in content[section]:
            record.update(change(record) if callable(change) else change)
    return content


def squares(box):
    return {"area": box["bbox"][2] * box["bbox"][3]}


def renamed(content, detections, name):
    """The same with other ids of images, in the same order."""
    content = with_fields(
        content,
        images=lambda image: {"id": name(image["id"])},
        annotations=lambda box: {"image_id": name(box["image_id"])},
    )
    return content, replace(detections, image_id=[name(i) for i in detections.image_id.tolist()])


JUNK = {
    "images": {"date_captured": 0, "license": "", "flickr_url": 0, "coco_url": 0, "width": None},
    "categories": {"supercategory": 0, "synset": 0, "synonyms": None, "def": None, "color": []},
    "annotations": {"segmentation": None, "keypoints": "", "score": None, "attributes": {"a": 1}},
}
SAME = {
    "fields nobody needs": lambda *case: (with_fields(case[0], **JUNK), case[1]),
    "no area": lambda *case: (with_fields(case[0], annotations={"area": None}), case[1]),
    "area is no number": lambda *case: (
        with_fields(case[0], annotations={"area": math.nan}), case[1]),
    "no crowds": lambda *case: (with_fields(case[0], annotations={"iscrowd": None}), case[1]),
    "also no crowds": lambda *case: (with_fields(case[0], annotations={"iscrowd": "0"}), case[1]),
    "60-bit ids": lambda *case: renamed(*case, lambda i: 2**60 + i),
    "negative ids": lambda *case: renamed(*case, lambda i: i - 2**60),
    "text for ids": lambda *case: renamed(*case, "id {}".format),
}  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("protocol", JUDGES)
@pytest.mark.parametrize("change", SAME)
def test_numbers_depend_on_nothing_else(change, protocol, backend):
    content, detections = federated_case(num_images=12)
    case = (with_fields(content, annotations=squares), detections)
    expected = JUDGES[protocol](*case, backend="official")
    assert expected.metrics["AP"] > 0.05
    assert_equal_results(JUDGES[protocol](*SAME[change](*case), backend=backend), expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("protocol", "box"),
    [
        ("lvis", {"bbox": [5, 5, 0, 40], "area": 0}),
        ("lvis", {"bbox": [5, 5, 30, 40], "area": -3}),
        ("lvis", {"bbox": [math.nan, 5, 30, 40], "area": 1200}),
        ("coco", {"bbox": [math.nan, 5, 30, 40], "area": 1200}),
        ("coco", {"bbox": [5, 5, math.inf, 40], "area": None}),
        ("coco", {"bbox": [5, 5, 1e200, 1e200]}),
    ],
)
def test_boxes_that_nobody_can_find_are_left_out_with_a_warning(protocol, box, backend):
    content, detections = federated_case(num_images=12)
    expected = JUDGES[protocol](content, detections, backend="official")
    category = content["annotations"][0]["category_id"]
    extra = [
        {"id": 5000 + n, "image_id": 1002 + n % 10, "category_id": category} | box
        for n in range(30)
    ]
    more = {**content, "annotations": [*extra, *content["annotations"]]}
    with pytest.warns(DataWarning, match="30 boxes are not judged .annotation ids 5000, 5001"):
        assert_equal_results(JUDGES[protocol](more, detections, backend=backend), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_images_whose_ids_are_one_float(backend):
    images = [{"id": 2**60 + n, "neg_category_ids": [], "not_exhaustive_category_ids": []}
              for n in range(2)]  # fmt: skip
    boxes = [
        {"id": n, "image_id": 2**60 + n, "category_id": 1, "bbox": [100 * n, 0, 50, 50]}
        for n in range(2)
    ]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "a"}]}
    for evaluate in (evaluate_coco, evaluate_lvis):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)  # that there is no frequency
            result = evaluate(content, perfect_detections(content), backend=backend)
        assert result.metrics["AP"] == pytest.approx(1) and result.per_category.keys() == {1}


@pytest.mark.parametrize("backend", BACKENDS)
def test_groups_are_counted_where_the_file_has_none(backend):
    content, detections = federated_case()
    known = evaluate_lvis(content, detections, backend="official")
    told = with_fields(content, categories=lambda c: {"frequency": None if c["id"] == 4 else "r"})
    with pytest.warns(DataWarning, match="1 of 14 categories have no frequency; rare, common"):
        metrics = evaluate_lvis(told, detections, backend=backend).metrics
    groups = {"APr": known.metrics["APr"], "APc": known.metrics["APc"], "APf": known.metrics["APf"]}
    assert all(metrics[name] == known.metrics[name] for name in metrics.keys() - groups.keys())
    shown = {c["id"]: {a["image_id"] for a in content["annotations"] if a["category_id"] == c["id"]}
             for c in content["categories"]}  # fmt: skip
    common = [ap for c, ap in known.per_category.items() if 10 < len(shown[c]) <= 100]
    assert metrics["APc"] == pytest.approx(np.mean(common)) and math.isnan(metrics["APf"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_openimages_is_judged_as_coco_and_groups_are_crowds(tmp_path, backend):
    """Text for ids, absent classes without classes that are not exhaustive, no frequency."""
    (tmp_path / "val.json").write_text(json.dumps(NAMED), encoding="utf-8")
    dataset = BoxDataset.load(tmp_path / "val.json", tmp_path)
    assert (len(dataset), len(dataset.labels), dataset.num_crowd) == (4, 7, 1)
    assert not dataset.is_federated and dataset.image_ids.tolist() == ["a0", "a1", "a2", "a3"]
    found = perfect_detections(NAMED)
    ours = evaluate_coco(dataset.path, found, backend=backend, image_ids=dataset.image_ids)
    without = {
        **NAMED, "annotations": [box for box in NAMED["annotations"] if not box["iscrowd"]]
    }  # fmt: skip
    assert ours.metrics["AP"] == pytest.approx(1)  # what lies in a group costs nothing
    assert evaluate_coco(without, found, backend=backend).metrics["AP"] < 0.95
    with pytest.raises(DataError, match="needs neg_category_ids and not_exhaustive_category_ids"):
        evaluate_lvis(dataset.path, found, backend=backend)
    with pytest.raises(DataError, match=r"1 image ids that it does not list \(a9\)"):
        evaluate_coco(NAMED, replace(found.select([0]), image_id=["a9"]), backend=backend)
    with pytest.raises(DataError, match=r"does not list \(1\)"):
        evaluate_coco(NAMED, replace(found.select([0]), image_id=[1]), backend=backend)
