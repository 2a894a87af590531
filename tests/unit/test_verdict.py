"""`evaluate`: detections of a trained detector or of any tool, judged, listed and written."""

import json
import os
import re
import shutil
import sys
import warnings

import pytest
from pycocotools import mask as coco
from tiny_centernet2 import tiny_centernet2
from tiny_dino import LINEAR, tiny_dino
from tiny_files import SIDE, rewritten, write_json, write_set

from richsem import paths
from richsem.__main__ import main
from richsem.data.reading import DataWarning
from richsem.evaluation import Detections, GroundTruth
from richsem.evaluation import evaluate as evaluate_by
from richsem.masks import run_lengths
from richsem.models.backbones import BackboneConfig
from richsem.models.centernet2.cascade import MaskConfig
from richsem.models.centernet2.centernet2 import CenterNet2Config
from richsem.models.dino.dino import DinoConfig
from richsem.models.published.stated import stated
from richsem.operations.verdict import read_detections
from richsem.training.checkpoint import save_detector
from richsem.training.runs import Evaluation

SHOWS = [[0, 1], [0], [0, 2], [1], [0, 3]]  # of image 7 i + 1


@pytest.fixture
def place(tmp_path, own_cache):
    return tmp_path


@pytest.fixture
def evaluate(cli):
    """Runs the command; its lines, or its one error if the code is not 0."""

    def run(*command, code=0):
        printed = cli("evaluate", *command, code=code)
        if code:
            assert printed.out == "" and "error: " in printed.err
        return printed.err if code else printed.out.splitlines()

    return run


def annotated(folder, *, federated=False):
    """A file of five images with 4, 2, 1 and 1 boxes of its classes."""

    def told(content):
        for category, group in zip(content["categories"], "frrc", strict=True):
            category["frequency"] = group

    return rewritten(write_set(folder, SHOWS, federated=federated), told)


def results(file, *, without=0, **changes):
    """A detection of every box, but for a class; `changes` are of the first one."""
    boxes = json.loads(file.read_text())["annotations"]
    keys = ("image_id", "category_id", "bbox")
    rows = [{key: box[key] for key in keys} | {"score": 0.5} for box in boxes]
    rows = [row for row in rows if row["category_id"] != without]
    rows[0] |= changes
    return write_json(file.with_name("found.json"), rows)


def numbers(lines):
    return dict(line.split() for line in lines if re.fullmatch(r"A[PR]\w* +\S+", line))


def by_class(lines):
    at = next(row for row, line in enumerate(lines) if line.startswith("class "))
    rows = [line.rsplit(maxsplit=4) for line in lines[at + 1 :]]
    return lines[at - 1], [(name.strip(), *values) for name, *values in rows]


# --- results of any tool -------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["lvis", "coco"])
def test_results_are_judged_by_group_and_class(evaluate, place, protocol):
    file = annotated(place, federated=True)
    rewritten(file, lambda c: [k.update(image_count=9 * k["id"]) for k in c["categories"]])
    found = results(file, without=2)
    lines = evaluate(found, "--annotations", file, "--protocol", protocol, "--by-class")
    assert lines[:2] == [
        f"set.json: 5 images, {protocol} protocol",
        "6 detections of 3 of 4 classes, on 4 of 5 images; boxes of the others are missed",
    ]
    values = numbers(lines)
    numbers_of_groups = [values[f"AP{group}"] for group in ("", "r", "c", "f")]
    assert numbers_of_groups == ["75.00", "50.00", "100.00", "100.00"]
    source, rows = by_class(lines)
    assert "in training" in source
    assert rows == [
        ("Red_Boat", "rare", "18", "2", "0.00"),
        ("bow_(weapon)", "rare", "27", "1", "100.00"),
        ("hot dog", "common", "36", "1", "100.00"),
        ("dog", "frequent", "9", "4", "100.00"),
    ]


def test_what_the_file_does_not_say_is_counted_in_it(evaluate, place):
    file = write_set(place, [*SHOWS, []])
    rewritten(file, lambda c: c["categories"].append({"id": 9, "name": "yak"}))
    lines = evaluate(results(file, without=1), "--annotations", file, "--by-class")
    assert lines[0] == "set.json: 6 images, coco protocol"
    values, (source, rows) = numbers(lines), by_class(lines)
    assert (values["APr"], values["APc"], values["APf"]) == ("75.00", "-", "-")
    assert "in this file" in source
    assert rows == [
        ("bow_(weapon)", "rare", "1", "1", "100.00"),
        ("hot dog", "rare", "1", "1", "100.00"),
        ("Red_Boat", "rare", "2", "2", "100.00"),
        ("dog", "rare", "4", "4", "0.00"),
    ]


@pytest.mark.parametrize(
    ("changes", "more", "message"),
    [
        ({"score": float("nan")}, [], r"found.json: detections\[0\]: box or score is NaN"),
        ({"bbox": [1, 2, 3]}, [], r'found.json\[0\]: field "bbox" is \[1, 2, 3\]'),
        ({"image_id": 5}, [], r"name 1 image ids that it does not list \(5\). Use the ids"),
        ({"category_id": 0}, [], r"1 category ids that it does not list \(0\).*not positions"),
        ({"image_id": "a.jpg"}, [], "some image ids are text and some numbers, there or in"),
        ({}, ["--protocol", "lvis"], "the LVIS protocol needs neg_category_ids"),
        ({}, ["--out", "found.json"], "found.json exists and was not written by this program"),
    ],
)
def test_results_that_cannot_be_judged(evaluate, place, monkeypatch, changes, more, message):
    monkeypatch.chdir(place)
    file = annotated(place)
    said = evaluate(results(file, **changes), "--annotations", file, *more, code=2)
    assert re.search(message, said)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda row: row.update(bbox=[*row["bbox"][:2], 49, 49]),
         "boxes look like corners [x1, y1, x2, y2]; expected"),
        (lambda row: row.update(bbox=[9, 9, -4, 4]), "8 detections have a side of 0 or below"),
        (lambda row: row.update(image_id=1, category_id=1, bbox=[9, 9, 4, 4]),
         "7 detections have image, class, box and score of another"),  # written twice
        (lambda row: row.update(bbox=[3 * side for side in row["bbox"]]),
         "boxes look like those of larger pictures; expected"),
    ],
)  # fmt: skip
def test_odd_boxes_are_told(place, cli, change, words):
    file = annotated(place)
    found = rewritten(results(file), lambda rows: [change(row) for row in rows])
    assert f"warning: {words}" in cli("evaluate", found, "--annotations", file).err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda box: box.update(bbox=[0.1, 0.1, 0.5, 0.5]), "boxes look like shares of the"),
        (lambda box: box.update(bbox=[29, 20, -25, 16]), "8 annotations have a side of 0 or below"),
        (lambda box: box.update(image_id=1, category_id=1, bbox=[9, 9, 4, 4]),
         "7 annotations have image, class, box and iscrowd of another"),
        (lambda box: box.update(attributes={"rotation": 30}), "8 boxes have a rotation"),
    ],
)  # fmt: skip
def test_odd_annotations_are_told_as_odd_detections_are(place, cli, change, words):
    file = annotated(place)
    found = results(file)
    rewritten(file, lambda content: [change(box) for box in content["annotations"]])
    assert words in cli("evaluate", found, "--annotations", file).err


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"file_name": r"C:\val\1.PNG", "category_name": "Dog"}, ""),
        ({"file_name": "other.jpg", "category_name": "mammal"}, ""),  # tells nothing
        ({"file_name": None, "category_name": 1}, ""),
        (
            {"file_name": "val/8.jpg"},
            "\"image_id\" is that of '1', but \"file_name\" is '8'",
        ),
        (
            {"category_name": "hot dog"},
            "that of 'dog', but \"category_name\" is 'hot dog'. Use the ids of the ann",
        ),
    ],
)
def test_ids_that_are_not_those_of_the_names_beside_them_are_refused(evaluate, place, names, words):
    file = annotated(place)
    said = evaluate(results(file, **names), "--annotations", file, code=2 * bool(words))
    assert words in said if words else numbers(said)["AP"] == "100.00"


def test_a_score_that_is_there_twice_is_refused(evaluate, place):
    file = annotated(place)
    found = results(file)
    found.write_text(found.read_text().replace('"score"', '"score": 0.1, "score"', 1))
    assert 'the key "score" occurs twice' in evaluate(found, "--annotations", file, code=2)


@pytest.mark.parametrize("federated", [False, True])
def test_scores_of_any_scale_are_ranked_alike(place, federated, cli):
    file = annotated(place, federated=federated)
    rows = json.loads(results(file).read_text())
    rows += [row | {"bbox": [40, 40, 5, 5], "score": 0.1 * n} for n, row in enumerate(rows)]
    printed = {}
    for name, scaled in (("p", lambda p: p), ("logit", lambda p: 20 * p - 8)):
        found = [row | {"score": scaled(row["score"])} for row in rows]
        path = write_json(place / f"{name}.json", found)
        printed[name] = cli("evaluate", path, "--annotations", file)
    assert printed["p"].out == printed["logit"].out and printed["p"].err == ""
    words = "warning: 15 detections have a score outside 0 to 1; only their order counts"
    assert words in printed["logit"].err
    kind, expected = "lvis" if federated else "coco", numbers(printed["p"].out.splitlines())["AP"]
    official = evaluate_by(kind, file, read_detections(path), backend="official").metrics["AP"]
    assert f"{100 * official:.2f}" == expected


def test_results_and_the_small_detector_need_a_file_that_judges_them(evaluate, place):
    file = annotated(place)
    assert "(--annotations)" in evaluate(results(file), code=2)
    assert "cannot be read" in evaluate(place / "no.json", "--annotations", file, code=2)
    message = "no list of detections (image_id, category_id, bbox, score) but an object with images"
    assert message in evaluate(file, "--annotations", file, code=2)
    for option in (("--images", place), ("--split", "val"), ("--batch-size", 2)):
        message = evaluate(results(file), "--annotations", file, *option, code=2)
        assert f"{option[0]} is for a detector: leave it out" in message
    assert "of the file" in evaluate("small", "--annotations", annotated(place))[1]
    assert "(--annotations)" in evaluate("small", code=2)


def test_what_is_written_is_what_servers_take(evaluate, place):
    file, out = annotated(place), place / "out.json"
    rows = json.loads(results(file).read_text())
    rows += [rows[0] | {"score": score / 1000} for score in range(400)]
    found = write_json(place / "many.json", [row | {"segmentation": []} for row in rows])
    evaluate(found, "--annotations", file, "--out", out)
    written = json.loads(out.read_text())
    assert all(row.keys() == {"image_id", "category_id", "bbox", "score"} for row in written)
    own = [row["score"] for row in written if row["image_id"] == 1]
    assert len(own) == 300 and min(own) == 0.102
    first = evaluate(out, "--annotations", file)
    assert "306 detections of 4 of 4 classes, on 5 of 5 images" in first


def test_a_reader_that_has_gone_loses_nothing(place, monkeypatch, capfd):
    file, out = annotated(place), place / "out.json"
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        found = str(results(file))
        assert main(["evaluate", found, "--annotations", str(file), "--out", str(out)]) == 0
    assert len(json.loads(out.read_text())) == 8
    assert capfd.readouterr().err == ""


# --- a trained detector --------------------------------------------------------------------------


@pytest.fixture
def detector(place):
    """The folder of one that has learnt nothing, with classes "dog" and "red boat"."""
    names = ("red boat", "dog")
    classes = [{"id": i, "name": name} for i, name in enumerate(names)]
    folder, model = place / "detector", tiny_dino(with_text=False, **LINEAR, num_classes=2)
    save_detector(folder, model, {"classes": classes})
    return folder


def test_classes_that_a_detector_does_not_know_are_counted(evaluate, place, detector):
    file, out = annotated(place), place / "out.json"
    lines = evaluate(detector, "--annotations", file, "--out", out)
    known = "2 of 4 classes of the file (dog, Red_Boat) are known to the detector; the others count"
    assert lines[1] == f"{known} as AP 0"
    written = json.loads(out.read_text())
    assert {row["category_id"] for row in written} == {1, 2} and len(written) == 5 * 12
    assert evaluate(out, "--annotations", file)[2:] == lines[2:]


def test_some_images_show_as_many_classes_as_can_be_and_have_margins(evaluate, place, detector):
    file, out = annotated(place, federated=True), place / "out.json"
    some = (detector, "--annotations", file, "--max-images")
    lines = evaluate(*some, 2, "--out", out)
    assert "2 images, lvis protocol, +-: half of a 95 % interval" in lines[0]
    assert lines[2].split() == ["+-"] and lines[3].split()[0] == "AP" and len(lines[3].split()) == 3
    content = json.loads(file.read_text())
    chosen = {row["image_id"] for row in json.loads(out.read_text())}
    shown = {b["category_id"] for b in content["annotations"] if b["image_id"] in chosen}
    every = {b["category_id"] for b in content["annotations"]}
    assert len(chosen) == 2 and len(shown) >= min(2, len(every))
    assert "needs --annotations" in evaluate(detector, "--max-images", 2, code=2)
    assert "is a number of images" in evaluate(*some, -1, code=2)


R50 = BackboneConfig(name="resnet50.tv_in1k")
FILE = "Detic_LI_CLIP_R5021k_640b64_4x_ft4x_max-size.pth"


@pytest.mark.parametrize(
    ("file", "kind", "fields", "words"),
    [
        (FILE, CenterNet2Config, {"num_classes": 1203}, ["Detic, R50: mask AP 33.2, APr 29.7"]),
        ("model.pth", CenterNet2Config, {"num_classes": 1203}, []),
        ("a.pth", DinoConfig, {"num_classes": 1204}, ["24 epochs: box AP 37.3", "21k", "Table 4"]),
        ("a.pth", DinoConfig, {"num_classes": 1204, "classifier": "linear"}, ["box AP 32.2"]),
        ("a.pth", DinoConfig, {"num_classes": 91}, []),
    ],
)
def test_what_authors_state_stands_beside_the_measured(file, kind, fields, words):
    lines = stated(file, kind(backbone=R50, **fields))
    assert len(lines) == len(words)
    assert all(one in line for one, line in zip(words, lines, strict=True))
    assert all(line.startswith("published for ") for line in lines)


@pytest.mark.parametrize(
    ("shows", "words"),
    [
        ([[0, 1], [0]], "all 2 classes of the file are known to the detector"),
        ([[0, 1], [2]], "2 of 3 classes of the file are known to the detector; the others "
                        "(bow_(weapon)) count as AP 0"),
    ],
)  # fmt: skip
def test_few_classes_are_named(evaluate, place, detector, monkeypatch, shows, words):
    none = Detections(image_id=[], category_id=[], bbox_xywh=[], score=[])
    monkeypatch.setattr("richsem.training.runs.predict", lambda *_, **__: none)
    assert evaluate(detector, "--annotations", write_set(place, shows))[1] == words


@pytest.mark.parametrize("key", ["gone", "empty", "crowds"])
def test_a_test_split_is_detected_and_written_but_not_judged(evaluate, place, detector, key):
    file = annotated(place, federated=key != "crowds")  # which LVIS takes for any others
    found, out = results(file), place / "out.json"
    changes = {
        "gone": lambda c: c.pop("annotations"),
        "empty": lambda c: c.update(annotations=[]),
        "crowds": lambda c: [one.update(iscrowd=1) for one in c["annotations"]],
    }
    rewritten(file, changes[key])
    for source in (detector, found):
        assert "only --out is possible" in evaluate(source, "--annotations", file, code=2)
        lines = evaluate(source, "--annotations", file, "--out", out)
        assert lines[0] == "set.json has no annotations: written, not judged" and len(lines) == 2
        assert {row["image_id"] for row in json.loads(out.read_text())} == {1, 8, 15, 22, 29}


@pytest.mark.parametrize(
    ("change", "more", "message"),
    [
        (None, ["--protocol", "lvis"], "the LVIS protocol needs neg_category_ids"),
        (None, ["--out", "set.json"], "set.json exists and was not written by this program"),
        (None, ["--batch-size", "0"], "--batch-size is 0; at least 1"),
        (lambda c: c.update(annotations=[]), [], "no annotations to judge by"),
        (lambda c: c["categories"][0].update(frequency="x"), [], "expected one of r, c, f"),
        (lambda c: [k.update(name="yak") for k in c["categories"]], [], "none of the 2 classes"),
    ],
)
def test_what_can_fail_does_first(evaluate, place, detector, monkeypatch, change, more, message):
    monkeypatch.chdir(place)
    monkeypatch.setattr("richsem.training.runs.predict", None)
    file = annotated(place)
    if change:
        rewritten(file, change)
    assert message in evaluate(detector, "--annotations", file, *more, code=2)


def test_pictures_that_cannot_be_read_are_found_first(evaluate, place, detector, monkeypatch):
    monkeypatch.setattr("richsem.training.runs.predict", None)
    file = annotated(place)
    assert "--images needs --annotations" in evaluate(detector, "--images", place, code=2)
    (place / "29.jpg").write_bytes(b"")
    assert "leave out --anno" in evaluate(detector, "--split", "val", "--annotations", file, code=2)
    message = evaluate(detector, "--annotations", file, code=2)
    assert "29.jpg" in message and "(it is empty;" in message


def test_detections_outlive_a_judge_that_fails(evaluate, place, detector, monkeypatch):
    def fail(*_):
        raise ImportError("no judge is installed")

    file, out = annotated(place), place / "out.json"
    monkeypatch.setattr(GroundTruth, "judge", fail)
    message = evaluate(detector, "--annotations", file, "--out", out, code=2)
    assert "error: no judge is installed" in message
    assert len(json.loads(out.read_text())) == 60


@pytest.mark.filterwarnings("ignore:.* is damaged")
def test_an_interrupted_evaluation_goes_on(evaluate, place, detector, monkeypatch):
    file, outs = annotated(place), [place / "one.json", place / "two.json"]
    command = (detector, "--annotations", file, "--batch-size", 2, "--out")
    real, asked = Evaluation.detect, []

    def detect(judge, batch_size, images, *, most=2):
        asked.append(images)
        if len(asked) == most:
            raise MemoryError("interrupted")
        return real(judge, batch_size, images)

    whole = evaluate(*command, outs[0])
    shutil.rmtree(paths.CACHE / "detections")
    monkeypatch.setattr(Evaluation, "detect", detect)
    evaluate(*command, outs[1], code=2)
    assert evaluate(*command, outs[1]) == whole
    assert asked == [range(2), range(2, 4), range(2, 4), range(4, 5)]  # nothing twice
    assert outs[0].read_bytes() == outs[1].read_bytes()
    assert evaluate(*command, outs[1]) == whole and len(asked) == 4  # found again
    (shard, *_) = sorted((paths.CACHE / "detections").rglob("*.json"))
    shard.write_bytes(shard.read_bytes()[:-9])
    assert evaluate(*command, outs[1]) == whole and asked[4:] == [range(2)]  # made anew
    shard.write_bytes(b"[]")
    assert evaluate(*command, outs[1]) == whole and asked[5:] == [range(2)]  # JSON as well


def test_what_the_small_detector_found_is_found_again(evaluate, place, monkeypatch):
    command = ("small", "--annotations", annotated(place))
    first = evaluate(*command)
    monkeypatch.setattr(Evaluation, "detect", None)
    assert evaluate(*command) == first


# --- masks ---------------------------------------------------------------------------------------


def outlined(folder):
    """The file of `annotated`, each box with an outline: its left half."""

    def change(content):
        for one in content["annotations"]:
            x, y, w, h = one["bbox"]
            one["segmentation"] = [[x, y, x + w / 2, y, x + w / 2, y + h, x, y + h]]

    return rewritten(annotated(folder), change)


def masked(file):
    """`results` of such a file as rows with masks, which are its outlines."""
    boxes, rows = (json.loads(path.read_text()) for path in (file, results(file)))
    runs = [run_lengths(box["segmentation"], (SIDE, SIDE)) for box in boxes["annotations"]]
    return [row | {"segmentation": one} for row, one in zip(rows, runs, strict=True)]


def test_results_with_masks_are_judged_by_these_too(evaluate, place):
    path = outlined(place)
    rows = [row | {"bbox": [0, 0, 2, 2]} for row in masked(path)]
    rows[0]["segmentation"]["size"] = [50.0, 50.0]
    found = write_json(place / "found.json", rows)
    lines = dict(line.rsplit(maxsplit=1) for line in evaluate(found, "--annotations", path) if line)
    assert {name.strip(): v for name, v in lines.items()}["mask AP"] == "100.00"
    mask = rows[0]["segmentation"]
    for wrong, words in (
        ({"size": 7}, 'found.json: detections[0]: field "segmentation" is no mask'),
        ({"size": [3]}, "is no mask"),
        ({"size": [2**40] * 2, "counts": [2**80]}, "is no mask"),
        ({"counts": f"b'{mask['counts']}'"}, "sum up to"),
        ({"size": [1, 9], "counts": [9]}, "a detection has a mask of [1, 9]"),
    ):
        rows[0]["segmentation"] = mask | wrong
        assert words in evaluate(write_json(found, rows), "--annotations", path, code=2)
    rows[0]["segmentation"] = None
    with pytest.warns(DataWarning, match=f"json: 1 of {len(rows)} detections have no run lengths"):
        assert read_detections(write_json(found, rows)).masks is None
    polygons = [row | {"segmentation": [[1, 1, 9, 1, 9, 9]]} for row in rows]
    with pytest.warns(DataWarning, match=f"{len(rows)} of {len(rows)} detections have no run"):
        assert read_detections(write_json(found, polygons)).masks is None
    rows[0]["segmentation"] = mask
    rewritten(path, lambda c: c["images"][0].pop("height"))
    message = evaluate(write_json(found, rows), "--annotations", path, code=2)
    assert 'images[0] (id 1): field "height" is missing' in message


def test_masks_that_lie_elsewhere_than_their_boxes_are_told(place, cli):
    path, words = outlined(place), "masks lie elsewhere than their boxes"
    rows, content = masked(path), json.loads(path.read_text())
    shares, found = place / "shares.json", write_json(place / "found.json", rows)
    for box in content["annotations"]:
        box["segmentation"] = [[value / SIDE for value in box["segmentation"][0]]]
    assert words not in cli("evaluate", found, "--annotations", path).err
    with warnings.catch_warnings(action="always"):
        told = cli("evaluate", found, "--annotations", write_json(shares, content)).err
    assert f"{shares}: {len(rows)} of {len(rows)} {words}" in told
    rows = [row | {"bbox": [45, 45, 2, 2]} for row in rows]
    told = cli("evaluate", write_json(found, rows), "--annotations", path).err
    assert f"of {len(rows)} {words}" in told


def test_a_detector_with_a_mask_head_writes_masks(evaluate, place):
    path, out = outlined(place), place / "out.json"
    classes = json.loads(path.read_text())["categories"]
    options = {"num_classes": len(classes), "classifier": "linear", "semantic": False}
    masks = MaskConfig(dim=8, depth=1, pooled=4)
    model = tiny_centernet2(masks=masks, min_score=0.0, **options)
    save_detector(place / "model", model, {"classes": classes})
    lines = evaluate(place / "model", "--annotations", path, "--out", out)
    assert any(line.startswith("mask AP ") for line in lines)
    (first, *_) = json.loads(out.read_text())
    assert coco.decode(first["segmentation"]).shape == tuple(first["segmentation"]["size"])
    again = evaluate(out, "--annotations", path)
    assert [one for one in again if "AP" in one] == [one for one in lines if "AP" in one]
