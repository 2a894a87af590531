"""Verdicts and what errors cost: hand-made cases, and agreement with the evaluators."""

import numpy as np
import pytest
from tiny_files import annotation_file, federated_case, write_json

from richsem.data.box_sets import BoxDataset
from richsem.data.reading import DataError
from richsem.evaluation import Detections, evaluate
from richsem.workbook import error_verdicts as ev

CAT, DOG, BIRD = 3, 5, 8
BOX = (10, 10, 20, 20)


def dataset_of(tmp_path, objects, *, images=1, negatives=(), open_ended=(), federated=True):
    """Objects are (image, category, xywh); image ids fall, so that order matters."""
    lists = {"neg_category_ids": negatives, "not_exhaustive_category_ids": open_ended}
    records = {10 - i: {"width": 200, "height": 200} for i in range(images)}
    for i in range(images if federated else 0):
        own = {name: [c for at, c in pairs if at == i] for name, pairs in lists.items()}
        records[10 - i] |= own
    boxes = [(10 - i, c, box) for i, c, box in objects]
    named = ((CAT, "cat", "r"), (DOG, "dog", "f"), (BIRD, "bird", "f"))
    categories = [{"id": i, "name": name, "frequency": group} for i, name, group in named]
    path = tmp_path / "truth.json"
    annotation_file(path, records, boxes, categories, federated=federated)
    return BoxDataset.load(path, tmp_path)


def detections_of(rows):
    """Rows are (image, category, xywh, score)."""
    image, category, box, score = zip(*rows, strict=True) if rows else [()] * 4
    known = {"category_id": category, "bbox_xywh": box, "score": score}
    return Detections(image_id=10 - np.array(image, dtype=int), **known)


def moved(shift):
    return (BOX[0] + shift, *BOX[1:])


def judged(tmp_path, objects, rows, protocol="coco", **lists):
    return ev.judge(dataset_of(tmp_path, objects, **lists), detections_of(rows), protocol)


FAR = (150, 150, 20, 20)
ONE = [(0, CAT, BOX)]
UNSURE = [(CAT, BOX), (CAT, FAR), (DOG, BOX), (BIRD, BOX)]
LISTS = {"negatives": [(0, DOG)], "open_ended": [(0, CAT)]}


@pytest.mark.parametrize(
    ("objects", "found", "options", "expected"),
    [
        (  # the second is better placed, but weaker; the third has an IoU of 1/3
            ONE,
            [(CAT, moved(2)), (CAT, BOX), (CAT, moved(10)), (DOG, moved(2)), (DOG, moved(10)),
             (CAT, FAR)],
            {},
            [ev.CORRECT, ev.DUPLICATE, ev.BAD_LOCATION, ev.WRONG_CLASS, ev.BOTH, ev.BACKGROUND],
        ),
        # Thresholds belong to the better side.
        ([(0, CAT, (0, 0, 20, 20))], [(CAT, (0, 0, 20, 10))], {}, [ev.CORRECT]),
        ([(0, CAT, (0, 0, 20, 20))], [(CAT, (0, 0, 20, 2))], {}, [ev.BAD_LOCATION]),
        # An image without objects, and what is not verified.
        ([(1, CAT, BOX)], [(CAT, BOX)], {"images": 2}, [ev.BACKGROUND]),
        (
            ONE, UNSURE,
            {"protocol": "lvis", **LISTS},
            [ev.CORRECT, ev.NOT_EXHAUSTIVE, ev.WRONG_CLASS, ev.NOT_VERIFIED],
        ),
        (ONE, UNSURE, LISTS, [ev.CORRECT, ev.BACKGROUND, ev.WRONG_CLASS, ev.WRONG_CLASS]),
    ],
)  # fmt: skip
def test_verdicts_by_hand(tmp_path, objects, found, options, expected):
    rows = [(0, *one, 0.9 - 0.1 * i) for i, one in enumerate(found)]
    assert judged(tmp_path, objects, rows, **options).verdict.tolist() == expected


def test_two_objects_are_shared_out_and_those_nothing_points_at_are_missed(tmp_path):
    objects = [(0, CAT, BOX), (0, CAT, moved(4))]
    rows = [(0, CAT, moved(2), 0.9), (0, CAT, moved(2), 0.8), (0, CAT, moved(2), 0.7)]
    judgement = judged(tmp_path, objects, rows)
    assert judgement.verdict.tolist() == [ev.CORRECT, ev.CORRECT, ev.DUPLICATE]
    assert sorted(judgement.truth[:2].tolist()) == [0, 1] and not judgement.missed.any()
    far = [(40 * k, 100, 20, 20) for k in range(4)]
    objects = [(0, CAT, box) for box in far]
    rows = [(0, CAT, far[0], 0.9), (0, DOG, far[1], 0.8), (0, CAT, (far[2][0], 110, 20, 20), 0.7)]
    judgement = judged(tmp_path, objects, rows)
    assert judgement.missed.tolist() == [False, False, False, True]
    assert judgement.truth.tolist() == [0, 1, 2]


def test_caps_of_the_protocols_and_order_of_the_strongest(tmp_path):
    rows = [(0, CAT, BOX, k / 1000) for k in range(350)]
    lvis = judged(tmp_path, ONE, rows, "lvis")
    assert (len(lvis), lvis.score.min()) == (300, 0.05)
    assert len(judged(tmp_path, ONE, rows)) == 100
    rows = [(0, CAT, (150, 150, 9, 9), s) for s in (0.2, 0.9, 0.5)]
    judgement = judged(tmp_path, ONE, rows)
    assert judgement.score[judgement.strongest(ev.BACKGROUND, 2)].tolist() == [0.9, 0.5]


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        ([(0, CAT, BOX, 0.9), (0, DOG, (90, 90, 9, 9), 0.8)], None),
        ([(0, DOG, BOX, 0.9)], ev.WRONG_CLASS),
        ([(0, CAT, moved(10), 0.9)], ev.BAD_LOCATION),
        ([(0, CAT, FAR, 0.9), (0, CAT, BOX, 0.8)], ev.BACKGROUND),
        ([(0, DOG, moved(10), 0.9), (0, CAT, BOX, 0.8)], None),  # an error of a class without AP
        ([], ev.MISSED),
    ],
)
def test_putting_the_only_error_right_gives_everything(tmp_path, rows, error):
    judgement = judged(tmp_path, ONE, rows)
    lost = ev.lost_ap(judgement).query("group == 'r'").set_index("error")["lost"]
    expected = 100 * (1 - ev.class_ap(judgement)[0])
    assert lost.drop(error or []).abs().max() == 0
    if error:
        assert lost[error] == pytest.approx(expected) and expected >= 49


def test_duplicates_cost_nothing_in_front_and_only_the_strongest_mistake_is_righted(tmp_path):
    objects = [(0, CAT, BOX), (0, CAT, (100, 100, 20, 20))]
    rows = [(0, CAT, BOX, 0.9), (0, CAT, BOX, 0.8), (0, CAT, (100, 100, 20, 20), 0.7)]
    judgement = judged(tmp_path, objects, rows)
    assert ev.class_ap(judgement, ev.DUPLICATE)[0] == pytest.approx(1)
    with pytest.raises(ValueError, match="unknown error 'duplicates'; there are wrong class"):
        ev.class_ap(judgement, "duplicates")
    objects = [(0, CAT, BOX), (0, DOG, (100, 100, 20, 20))]
    rows = [(0, DOG, BOX, 0.9), (0, BIRD, BOX, 0.8), (0, DOG, (100, 100, 20, 20), 0.7)]
    judgement = judged(tmp_path, objects, rows)
    assert ev.class_ap(judgement).tolist()[:2] == pytest.approx([0, 0.5])
    righted = ev.class_ap(judgement, ev.WRONG_CLASS)
    assert righted[:2].tolist() == pytest.approx([1, 1]) and np.isnan(righted[2])


def random_case(tmp_path, seed):
    truth, detections = federated_case(num_images=25, seed=seed)
    return BoxDataset.load(write_json(tmp_path / "truth.json", truth), tmp_path), detections


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("protocol", ["lvis", "coco"])
def test_average_precision_is_that_of_the_evaluators(tmp_path, protocol, seed):
    dataset, detections = random_case(tmp_path, seed)
    judgement = ev.judge(dataset, detections, protocol)
    expected = evaluate(protocol, dataset.path, detections, backend="official")
    ours = ev.class_ap(judgement)
    assert np.nanmean(ours) == pytest.approx(expected.metrics["AP50"], abs=1e-12)
    assert 0.1 < expected.metrics["AP50"] < 0.9
    kinds = {"lvis": {ev.NOT_VERIFIED, ev.NOT_EXHAUSTIVE}, "coco": {ev.DUPLICATE}}
    assert kinds[protocol] <= set(judgement.verdict)


def test_shares_curve_and_calibration_count_every_judged_detection(tmp_path):
    judgement = ev.judge(*random_case(tmp_path, 0), "lvis")
    table = ev.top_verdicts(judgement)
    assert set(table["group"]) == {"r", "c", "f", "all"}
    assert table.groupby("group")["share"].sum().tolist() == pytest.approx([1] * 4)
    assert table["share"].between(0, 1).all()
    lost = ev.lost_ap(judgement)
    assert len(lost) == 4 * len(ev.ERRORS) and (lost["lost"] > -1e-9).all()
    curve, right = ev.precision_recall(judgement, 0), judgement.verdict == ev.CORRECT
    number = right[judgement.label == 0].sum()
    assert curve["recall"].iloc[-1] == number / (judgement.dataset.labels == 0).sum()
    assert curve["score"].is_monotonic_decreasing
    table = ev.calibration(judgement).query("group == 'all'")
    assert table["number"].sum() == judgement.counted.sum()
    assert (table["correct"] * table["number"]).sum() == pytest.approx(right.sum())


def test_ids_and_protocol_must_fit_and_boxes_without_area_overlap_nothing(tmp_path):
    dataset = dataset_of(tmp_path, ONE, federated=False)
    with pytest.raises(DataError, match="not federated"):
        ev.judge(dataset, detections_of([]), "lvis")
    with pytest.raises(DataError, match=r"1 category ids that it does not list \(4\)"):
        ev.judge(dataset, detections_of([(0, 4, BOX, 0.5)]), "coco")
    boxes = np.array([[0, 0, 0, 0], [0, 0, 2, 2]], dtype=float)
    assert ev.box_iou(boxes, boxes).tolist() == [[0, 0], [0, 1]]
