"""Table 2 and Figure 1 as arithmetic: hand-made ranks, intervals, AP of true boxes."""

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from richsem.data.box_sets import BoxDataset
from richsem.workbook.zero_shot import Reading, accuracy_table, box_ap, class_accuracy, noise_curve

# Class 0: four boxes, all right. Class 2: one box, at rank 6. Class 3: two boxes, ranks 0 and 3.
RANKS = np.array([0, 0, 0, 0, 6, 0, 3])
LABELS = np.array([0, 0, 0, 0, 2, 3, 3])
GROUPS = np.array(["f", "c", "r", "c"])


def value(table, k, group, column="accuracy"):
    return table[(table["k"] == k) & (table["group"] == group)][column].item()


def perfect(dataset, num_classes=None):
    """A teacher that is sure of every true class and then lists the others."""
    classes = num_classes or len(dataset.categories)
    order = [[label, *(c for c in range(classes) if c != label)] for label in dataset.labels]
    scores = np.tile(np.linspace(0.9, 0.1, classes), (len(order), 1))
    return Reading(
        ranks=np.zeros((1, 1, len(order)), dtype=int),
        top_classes=np.array(order)[:, :10],
        top_scores=scores[:, :10],
        own_scores=scores[:, 0],
    )


# --- accuracy ----------------------------------------------------------------------------------


def test_accuracy_is_counted_per_class():
    assert class_accuracy(RANKS, LABELS, 1).to_dict() == {0: 100.0, 2: 0.0, 3: 50.0}
    assert class_accuracy(RANKS, LABELS, 5).to_dict() == {0: 100.0, 2: 0.0, 3: 100.0}


def test_classes_are_averaged_and_not_boxes():
    table = accuracy_table(RANKS, LABELS, GROUPS)
    assert value(table, 1, "all") == pytest.approx(50.0)  # over boxes it would be 5 of 7
    assert value(table, 5, "all") == pytest.approx(200 / 3)
    assert value(table, 10, "all") == pytest.approx(100.0)
    assert [value(table, 1, group) for group in "rcf"] == [0.0, 50.0, 100.0]


def test_absent_classes_do_not_count():
    table = accuracy_table(RANKS, LABELS, GROUPS)
    assert [value(table, 1, g, "num_classes") for g in ("all", "r", "c", "f")] == [3, 1, 1, 1]
    assert [value(table, 1, g, "num_boxes") for g in ("all", "r", "c", "f")] == [7, 1, 2, 4]
    few = accuracy_table(RANKS[:4], LABELS[:4], GROUPS)
    assert set(few["group"]) == {"all", "f"}


def hits(num_boxes, share, num_classes=4):
    labels = np.repeat(np.arange(num_classes), num_boxes)
    right = np.tile(np.arange(num_boxes) < share * num_boxes, num_classes)
    return np.where(right, 0, 50), labels


def test_the_interval_holds_the_mean_and_shrinks_with_boxes():
    widths = []
    for num_boxes in (10, 100, 1000):
        table = accuracy_table(*hits(num_boxes, 0.6), np.array(list("rcff")))
        low, high = (value(table, 1, "all", column) for column in ("ci_low", "ci_high"))
        assert low < value(table, 1, "all") < high
        widths.append(high - low)
    assert widths[0] > 2 * widths[1] > 4 * widths[2] > 0


def test_the_interval_is_that_of_resampled_boxes():
    ranks, labels = hits(40, 0.6)
    table = accuracy_table(ranks, labels, np.array(list("rcff")))
    rng = np.random.default_rng(1)
    draws = [
        np.mean([rng.choice(ranks[labels == c] < 1, 40).mean() for c in range(4)])
        for _ in range(1500)
    ]
    low, high = np.percentile(np.multiply(draws, 100), [2.5, 97.5])
    assert value(table, 1, "all", "ci_low") == pytest.approx(low, abs=1.0)
    assert value(table, 1, "all", "ci_high") == pytest.approx(high, abs=1.0)


def test_equal_seeds_give_equal_intervals():
    ranks, labels = hits(20, 0.5)
    tables = [accuracy_table(ranks, labels, np.array(list("rcff")), seed=s) for s in (1, 1, 2)]
    assert tables[0].equals(tables[1])
    assert not tables[0].equals(tables[2])


# --- noise -------------------------------------------------------------------------------------


def test_a_curve_is_the_mean_over_seeds_with_students_interval():
    rng = np.random.default_rng(0)
    ranks = rng.integers(0, 20, size=(3, 4, len(LABELS)))
    curve = noise_curve(ranks, LABELS, (0.0, 0.5, 1.0))
    assert len(curve) == 6
    for k in (5, 10):
        for s, scale in enumerate((0.0, 0.5, 1.0)):
            row = curve[(curve["k"] == k) & (curve["scale"] == scale)].iloc[0]
            values = [class_accuracy(r, LABELS, k).mean() for r in ranks[s]]
            low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
            assert row["accuracy"] == pytest.approx(np.mean(values))
            assert row["ci_low"] == pytest.approx(low)
            assert row["ci_high"] == pytest.approx(high)


def test_a_curve_of_one_seed_has_no_band():
    curve = noise_curve(np.stack([RANKS, RANKS + 5])[:, None], LABELS, (0.0, 1.0))
    np.testing.assert_array_equal(curve["ci_low"], curve["accuracy"])
    np.testing.assert_array_equal(curve["ci_high"], curve["accuracy"])


def test_a_curve_is_relative_to_its_first_scale():
    curve = noise_curve(np.stack([RANKS, RANKS + 5])[:, None], LABELS, (0.0, 1.0), ks=(5, 10))
    assert curve[curve["scale"] == 0]["relative"].tolist() == [1.0, 1.0]
    at_one = curve[(curve["scale"] == 1) & (curve["k"] == 10)].iloc[0]
    assert at_one["accuracy"] == pytest.approx(200 / 3)
    assert at_one["relative"] == pytest.approx(2 / 3)


# --- AP of true boxes --------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3, 10])
@pytest.mark.parametrize("protocol", ["lvis", "coco"])
def test_a_perfect_teacher_has_ap_100(tiny_set, protocol, k):
    result = box_ap(tiny_set, perfect(tiny_set), k, protocol=protocol)
    assert result.protocol == protocol
    assert 100 * result.metrics["AP"] == pytest.approx(100)


def test_frequency_groups_come_with_the_lvis_protocol(tiny_set):
    metrics = box_ap(tiny_set, perfect(tiny_set), 1).metrics
    assert [metrics[key] for key in ("APr", "APc", "APf")] == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("protocol", ["lvis", "coco"])
def test_a_teacher_that_never_names_a_class_loses_it(tiny_set, protocol):
    """One of four classes is never the first guess; the second guess finds it again."""
    reading = perfect(tiny_set)
    swapped = reading.top_classes.copy()
    rows = tiny_set.labels == 0
    swapped[rows, :2] = swapped[rows, 1::-1]
    reading = dataclasses.replace(reading, top_classes=swapped)
    once = box_ap(tiny_set, reading, 1, protocol=protocol)
    twice = box_ap(tiny_set, reading, 2, protocol=protocol)
    assert once.per_category[1] == pytest.approx(0)
    assert twice.per_category[1] > 0.5
    assert [once.per_category[c] for c in (3, 4)] == pytest.approx([1, 1])


def test_ids_of_images_and_categories_need_not_be_positions(tmp_path):
    content = {
        "images": [
            {"id": 90, "file_name": "a.jpg", "width": 50, "height": 40},
            {"id": 17, "file_name": "b.jpg", "width": 50, "height": 40},
        ],
        "annotations": [
            {"id": 5, "image_id": 17, "category_id": 8, "bbox": [1, 2, 20, 30], "area": 600},
            {"id": 6, "image_id": 90, "category_id": 3, "bbox": [5, 5, 30, 30], "area": 900},
        ],
        "categories": [{"id": 8, "name": "dog"}, {"id": 3, "name": "cat"}],
    }
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    dataset = BoxDataset.load(path, tmp_path)
    assert box_ap(dataset, perfect(dataset), 1, protocol="coco").metrics["AP"] == pytest.approx(1)


def test_a_part_of_a_set_is_judged_on_its_images_only(tiny_set):
    part = tiny_set.select([3, 0])
    result = box_ap(part, perfect(part), 1)
    assert result.num_images == 2
    assert result.metrics["AP"] == pytest.approx(1)
