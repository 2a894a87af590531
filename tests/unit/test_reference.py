"""Rows of the published tables: ours measured, the paper's beside it and never in its place."""

import numpy as np
import pytest

from richsem.evaluation import EvaluationResult
from richsem.workbook import reference
from richsem.workbook.results import checked_table
from richsem.workbook.zero_shot import accuracy_table

STATUS = "trend at demo scale"
PUBLISHED = {value for row in reference.TABLE2.values() for value in row.values()}


def accuracy(seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 9, 400)
    return accuracy_table(rng.integers(0, 30, 400), labels, np.array(list("rrrcccfff")))


def evaluation(protocol, **metrics):
    return EvaluationResult(
        protocol=protocol, ground_truth="x.json", max_dets=300, backend="fast", num_images=5,
        metrics=metrics, per_category={},
    )  # fmt: skip


LVIS = evaluation("lvis", AP=0.421, APr=0.311, APc=0.402, APf=0.513)
COCO = evaluation("coco", AP=0.377, AP50=0.5)


@pytest.fixture
def table():
    box_ap = {"roi": {1: LVIS, 5: COCO}, "crop": {1: LVIS}}
    frame = reference.table2_rows({"roi": accuracy(), "crop": accuracy(1)}, box_ap, status=STATUS)
    return checked_table(frame, "table2_zero_shot")


def test_ours_is_what_was_measured_and_published_numbers_stand_beside_it(table):
    measured = np.concatenate([accuracy()["accuracy"], accuracy(1)["accuracy"]])
    ap = [100 * value for value in LVIS.metrics.values()]
    expected = sorted([*measured, *ap, *ap, 37.7])
    np.testing.assert_allclose(sorted(table["ours"]), expected)
    assert set(table["status"]) == {STATUS}
    assert sum(reference.LVIS_V1_GROUPS.values()) == 1203
    assert set(table["paper"].dropna()) <= PUBLISHED and not set(table["ours"]) & PUBLISHED
    row = table.query("row == 'top-5 accuracy, RoIAlign on the map' and metric == 'AP_r'")
    assert row["paper"].item() == 29.9
    assert table[table["row"].str.contains("crop")]["paper"].isna().all()
    assert table[table["row"].str.contains("COCO")]["paper"].isna().all()
    assert table[table["row"].str.contains("LVIS AP.*RoIAlign")]["paper"].notna().all()
    frame = reference.table2_rows({"roi": accuracy()}, {}, status=STATUS, beside_paper=False)
    assert checked_table(frame, "table2_zero_shot")["paper"].isna().all()


def test_groups_and_metrics_that_do_not_exist_have_no_row():
    nothing = evaluation("lvis", AP=0.5, APr=float("nan"), APc=0.5, APf=0.5)
    some = accuracy()
    some = some[some["group"] != "r"]
    frame = reference.table2_rows({"roi": some}, {"roi": {1: nothing}}, status=STATUS)
    ap = frame[frame["row"].str.startswith("LVIS AP")]
    assert ap["metric"].tolist() == ["AP", "AP_c", "AP_f"]
    assert "AP_r" not in set(frame["metric"])


def test_sets_that_are_there_are_counted_and_others_were_not_run(tmp_path):
    frame, words = reference.dataset_table(reference.summary_rows(tmp_path), status=STATUS)
    frame = checked_table(frame, "datasets")
    assert frame["ours"].isna().all() and set(frame["status"]) == {"not run", "reference only"}
    assert (frame["paper"].notna() == (frame["status"] == "reference only")).all()
    assert set(words) == set(frame["row"])
    # Those that are there; without labels they have no number of categories.
    row = {"name": "MiniLVIS", "role": "detection", "supervision": "boxes"}
    numbers = {"images": 12, "categories": 3, "boxes": 40}
    published = {"reference_images": 100_170, "reference_categories": 1203}
    frame, words = reference.dataset_table([row | numbers | published], status=STATUS)
    frame = checked_table(frame, "datasets").set_index("metric")
    assert frame["ours"].to_dict() == numbers
    assert frame["paper"].dropna().to_dict() == {"images": 100_170, "categories": 1203}
    assert words == {"MiniLVIS": {"role": "detection", "supervision": "boxes"}}
    row = {"name": "Unl", "role": "unlabelled", "supervision": "images only"}
    row |= {"images": 7, "categories": 0, "boxes": 0}
    frame, _ = reference.dataset_table([row], status=STATUS)
    assert frame["metric"].tolist() == ["images"]
