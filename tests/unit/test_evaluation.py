"""LVIS and COCO protocol: the two backends agree, and agree with the untouched packages."""

import copy
import importlib.util
import json
import math
import subprocess
import sys
import warnings
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from damage import NAMED
from judged_sets import PROTOCOLS, differences, published, random_set, with_masks
from scipy import stats
from tiny_files import federated_case, write_json

from richsem.data.box_sets import BoxDataset
from richsem.data.reading import DataError, DataWarning
from richsem.evaluation import Detections, GroundTruth, evaluate

needs_fast = pytest.mark.skipif(
    importlib.util.find_spec("hotcoco") is None, reason="the fast backend is not installed"
)


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


BACKENDS = ["official", pytest.param("fast", marks=needs_fast)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_best_and_worst_detections_and_callers_data_stay_as_they_were(protocol, backend):
    truth, _ = federated_case()
    perfect, before = perfect_detections(truth), copy.deepcopy(truth)
    arrays = copy.deepcopy(vars(perfect))
    result = evaluate(protocol, truth, perfect, backend=backend)
    assert result.metrics["AP"] == pytest.approx(1)
    assert set(result.per_category) == {a["category_id"] for a in truth["annotations"]}
    nothing = evaluate(protocol, truth, perfect_detections({"annotations": []}), backend=backend)
    assert nothing.metrics["AP"] == 0 and set(nothing.per_category.values()) == {0.0}
    assert truth == before
    assert all(np.array_equal(values, arrays[name]) for name, values in vars(perfect).items())


@pytest.mark.parametrize("backend", BACKENDS)
def test_restriction_to_images(backend):
    truth, detections = federated_case()
    chosen = [image["id"] for image in truth["images"][2:20]]
    boxes = [box for box in truth["annotations"] if box["image_id"] in chosen]
    part = truth | {"images": truth["images"][2:20], "annotations": boxes}
    few = detections.select(np.isin(detections.image_id, chosen))
    restricted = evaluate("lvis", truth, few, backend=backend, image_ids=chosen)
    assert restricted.num_images == 18
    assert_equal_results(restricted, evaluate("lvis", part, few, backend=backend))
    with pytest.raises(DataError, match=r"detections name \d+ image ids"):
        evaluate("lvis", truth, detections, backend=backend, image_ids=chosen)
    with pytest.raises(DataError, match=r"image_ids name 1 images .*\(5\)"):
        evaluate("lvis", truth, few, backend=backend, image_ids=[5])


def test_backends_that_are_not_there_and_files_that_cannot_judge_are_refused(tmp_path):
    truth, detections = federated_case(num_images=2)
    with pytest.raises(DataError, match="no annotations to evaluate against"):
        evaluate("lvis", {**truth, "annotations": []}, detections)
    with pytest.raises(ValueError, match='expected "auto", "official" or "fast"'):
        evaluate("lvis", truth, detections, backend="slow")
    truth, detections = federated_case()
    del truth["images"][3]["neg_category_ids"]
    path = write_json(tmp_path / "val.json", truth)
    with pytest.raises(DataError, match=r"val\.json: images\[3\] \(id 1003\).*neg_category_ids"):
        evaluate("lvis", path, detections)
    assert evaluate("coco", path, detections).ground_truth == "val.json"


def test_bad_detections_are_refused():
    good = {"image_id": [1, 1], "category_id": [1, 2], "bbox_xywh": np.ones((2, 4))}
    boxes = [[0, 0, 1, 1], [0, 0, np.inf, 1]]
    for bad in ({"score": [1]}, {"score": [1, np.nan]}, {"score": [1, 1], "bbox_xywh": boxes}):
        with pytest.raises(ValueError, match="detections"):
            Detections(**good | bad)


def test_auto_falls_back_to_official(monkeypatch):
    truth, _ = federated_case(num_images=4)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert evaluate("coco", truth, perfect_detections(truth)).backend == "official"


@pytest.mark.parametrize(
    ("module", "backend", "cure"),
    [("lvis", "official", "apt install libgl1"), ("hotcoco", "fast", r"richsem\[fast\]")],
)
def test_backend_that_cannot_be_loaded_names_the_cure(monkeypatch, module, backend, cure):
    truth, detections = federated_case(num_images=8)
    monkeypatch.setitem(sys.modules, module, None)  # its import fails
    with pytest.raises(ImportError, match=cure):
        evaluate("lvis", truth, detections, backend=backend)


def test_import_is_light_and_the_official_backend_leaves_logging_and_numpy_alone():
    """In a process of its own: under pytest the root logger has handlers already."""
    script = (
        "import sys, logging, warnings; warnings.simplefilter('ignore')\n"
        "import numpy as np, richsem.evaluation\n"
        "heavy = {'lvis', 'cv2', 'hotcoco', 'pycocotools', 'torch', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "level = logging.getLogger().level\n"
        "assert richsem.lvis_package.import_lvis().LVISEval\n"
        "assert not logging.getLogger().handlers\n"
        "assert logging.getLogger().level == level\n"
        "assert not hasattr(np, 'float')"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@needs_fast
@pytest.mark.parametrize(
    ("protocol", "file", "images"),
    [("lvis", "lvis/lvis_v0.5_val_100.json", 100), ("coco", "coco_val128/instances.json", 128)],
)
def test_real_annotations(real_data, protocol, file, images):
    path = real_data / file
    perfect = perfect_detections(json.loads(path.read_text(encoding="utf-8")))
    noise = np.random.default_rng(0).normal(0, 0.1, (len(perfect), 4))
    boxes = np.abs(perfect.bbox_xywh + noise * np.tile(perfect.bbox_xywh[:, 2:], 2))
    moved = replace(perfect, bbox_xywh=boxes, score=perfect.score.round(1))
    for found, least, most in ((perfect, 0.99, 1.001), (moved, 0.1, 0.9)):
        official = evaluate(protocol, path, found, backend="official")
        assert official.num_images == images and least < official.metrics["AP"] < most
        assert_equal_results(official, evaluate(protocol, path, found, backend="fast"))


# --- files as people have them: the judges agree with the packages and with each other ------------


@needs_fast
@pytest.mark.parametrize("protocol", PROTOCOLS)
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
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("change", SAME)
def test_numbers_depend_on_nothing_else(change, protocol, backend):
    content, detections = federated_case(num_images=12)
    case = (with_fields(content, annotations=squares), detections)
    expected = evaluate(protocol, *case, backend="official")
    assert expected.metrics["AP"] > 0.05
    assert_equal_results(evaluate(protocol, *SAME[change](*case), backend=backend), expected)


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
    expected = evaluate(protocol, content, detections, backend="official")
    known = {"category_id": content["annotations"][0]["category_id"]} | box
    extra = [{"id": 5000 + n, "image_id": 1002 + n % 10} | known for n in range(30)]
    more = content | {"annotations": [*extra, *content["annotations"]]}
    with pytest.warns(DataWarning, match="30 boxes are not judged .annotation ids 5000, 5001"):
        assert_equal_results(evaluate(protocol, more, detections, backend=backend), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_groups_are_counted_where_the_file_has_none(backend):
    content, detections = federated_case()
    known = evaluate("lvis", content, detections, backend="official")
    told = with_fields(content, categories=lambda c: {"frequency": None if c["id"] == 4 else "r"})
    with pytest.warns(DataWarning, match="1 of 14 categories have no frequency; rare, common"):
        metrics = evaluate("lvis", told, detections, backend=backend).metrics
    groups = {"APr": known.metrics["APr"], "APc": known.metrics["APc"], "APf": known.metrics["APf"]}
    assert all(metrics[name] == known.metrics[name] for name in metrics.keys() - groups.keys())
    pairs = {(a["image_id"], a["category_id"]) for a in content["annotations"]}
    shown = Counter(category for _, category in pairs)
    common = [ap for c, ap in known.per_category.items() if 10 < shown[c] <= 100]
    assert metrics["APc"] == pytest.approx(np.mean(common)) and math.isnan(metrics["APf"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_openimages_is_judged_as_coco_and_groups_are_crowds(tmp_path, backend):
    """Text for ids, absent classes without classes that are not exhaustive, no frequency."""
    (tmp_path / "val.json").write_text(json.dumps(NAMED), encoding="utf-8")
    dataset = BoxDataset.load(tmp_path / "val.json", tmp_path)
    assert (len(dataset), len(dataset.labels), dataset.num_crowd) == (4, 7, 1)
    assert not dataset.is_federated and dataset.image_ids.tolist() == ["a1", "a2", "a3", "a4"]
    found = perfect_detections(NAMED)
    ours = evaluate("coco", dataset.path, found, backend=backend, image_ids=dataset.image_ids)
    alone = [box for box in NAMED["annotations"] if not box["iscrowd"]]
    assert ours.metrics["AP"] == pytest.approx(1)  # what lies in a group costs nothing
    without = evaluate("coco", NAMED | {"annotations": alone}, found, backend=backend)
    assert without.metrics["AP"] < 0.95


# --- masks ---------------------------------------------------------------------------------------


def masked_case(seed=1):
    """A file and detections whose boxes lie in the picture, with outlines."""
    content, found = random_set(seed)
    for record in content["annotations"]:
        record["bbox"] = np.clip(np.abs(record["bbox"]), 8, 180).tolist()
        record["area"] = record["bbox"][2] * record["bbox"][3] / 2
    boxes = np.clip(np.abs(found.bbox_xywh), 8, 180)
    return with_masks(content, replace(found, bbox_xywh=boxes))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("seed", [1, 3, 8])
def test_mask_ap_is_that_of_the_packages(protocol, backend, seed):
    truth, found = masked_case(seed)
    ours = evaluate(protocol, truth, found, backend=backend).metrics
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the packages announce
        theirs = published(protocol, truth, found, "segm")
    assert any(0 < value < 1 for value in theirs.values())
    for name, value in theirs.items():
        expected = float("nan") if value == -1 else value
        assert ours[f"mask {name}"] == pytest.approx(expected, abs=1e-9, nan_ok=True), name
    boxes = evaluate(protocol, truth, replace(found, masks=None), backend=backend).metrics
    assert {name: ours[name] for name in boxes} == pytest.approx(boxes, nan_ok=True)
    assert len(ours) == 2 * len(boxes)


def test_without_all_outlines_boxes_alone_are_judged():
    truth, found = masked_case()
    del truth["annotations"][0]["segmentation"]
    with pytest.warns(DataWarning, match="masks are not judged, as 1 of"):
        metrics = evaluate("coco", truth, found).metrics
    assert not any("mask" in name for name in metrics)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_margins_are_a_jackknife_over_images(protocol):
    content, found = random_set(4)
    judge = GroundTruth.read(content, protocol)
    order = np.random.default_rng(0).permutation(judge.image_ids)
    ap = []
    for left_out in order:  # fewer images than parts
        ids = np.setdiff1d(order, left_out)
        rest = found.select(np.isin(found.image_id, ids))
        ap.append(evaluate(protocol, content, rest, image_ids=ids.tolist()).metrics["AP"])
    error = ((len(ap) - 1) / len(ap) * np.square(ap - np.mean(ap)).sum()) ** 0.5
    expected = stats.t.ppf(0.975, len(ap) - 1) * error
    assert judge.margins(found)["AP"] == pytest.approx(expected) and expected > 0
