"""Annotation dropping: how many boxes go, which never go, and what stays as it was."""

import json

import numpy as np
import pytest

from richsem.data.box_sets import BoxDataset
from richsem.data.corrupt import drop_annotations


@pytest.fixture(scope="module")
def long_tail(tmp_path_factory):
    """200 images, 1000 boxes, 20 classes; class k has far fewer boxes than class k - 1."""
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.arange(20), rng.geometric(0.3, 980).clip(1, 20) - 1])
    images = [
        {"id": i, "file_name": f"{i}.jpg", "height": 50, "width": 50}
        | {"neg_category_ids": [1 + i % 20], "not_exhaustive_category_ids": []}
        for i in range(200)
    ]
    annotations = [
        {"id": i, "image_id": int(rng.integers(200)), "category_id": int(c) + 1}
        | {"bbox": [1, 1, 5, 5]}
        for i, c in enumerate(labels)
    ]
    categories = [{"id": i + 1, "name": f"c{i}", "image_count": 7} for i in range(20)]
    path = tmp_path_factory.mktemp("drop") / "set.json"
    content = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content), encoding="utf-8")
    return BoxDataset.load(path, path.parent)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.8, 0.9])
def test_the_asked_fraction_goes_and_every_class_keeps_a_box(long_tail, fraction):
    reduced = drop_annotations(long_tail, fraction)
    assert len(reduced.labels) == round(1000 * (1 - fraction))
    assert reduced.instance_counts().min() >= 1
    assert len(reduced) == len(long_tail)
    assert reduced.neg_category_ids == long_tail.neg_category_ids
    assert set(reduced.annotation_ids) <= set(long_tail.annotation_ids)
    for i in (0, 57, 199):  # boxes are still those of their image
        rows = np.isin(long_tail.annotation_ids, reduced.annotation_ids)
        mine = rows & (long_tail.box_image == i)
        np.testing.assert_array_equal(reduced.boxes_of(i)[1], long_tail.labels[mine])


def test_all_but_one_box_per_class_at_most(long_tail):
    assert drop_annotations(long_tail, 1.0).instance_counts().tolist() == [1] * 20


def test_nothing_changes_at_zero(long_tail):
    assert drop_annotations(long_tail, 0.0) is long_tail


def test_sets_of_one_seed_are_nested(long_tail):
    kept = [set(drop_annotations(long_tail, f, seed=3).annotation_ids) for f in (0.2, 0.5, 0.8)]
    assert kept[0] > kept[1] > kept[2]


def test_seed_decides(long_tail):
    first, again = (drop_annotations(long_tail, 0.5, seed=1) for _ in range(2))
    other = drop_annotations(long_tail, 0.5, seed=2)
    assert first.annotation_ids.tolist() == again.annotation_ids.tolist()
    assert first.fingerprint == again.fingerprint
    assert first.annotation_ids.tolist() != other.annotation_ids.tolist()
    assert len({first.fingerprint, other.fingerprint, long_tail.fingerprint}) == 3


def test_boxes_go_uniformly(long_tail):
    lost = np.zeros(1000)
    for seed in range(100):
        kept = drop_annotations(long_tail, 0.5, seed=seed).annotation_ids
        lost[np.setdiff1d(np.arange(1000), kept)] += 1
    by_id = long_tail.labels[np.argsort(long_tail.annotation_ids)]
    frequent = np.flatnonzero(by_id < 3)
    assert lost[frequent].mean() == pytest.approx(51, abs=1.5)  # the kept ones of rare classes
    assert lost[frequent].std() < 7  # binomial: 5


def test_categories_are_recounted_and_keep_their_group(long_tail):
    reduced = drop_annotations(long_tail, 0.8)
    counts = [category.image_count for category in reduced.categories]
    assert counts == reduced.image_counts().tolist() != [7] * 20
    assert [c.instance_count for c in reduced.categories] == reduced.instance_counts().tolist()
    assert reduced.frequency_groups().tolist() == long_tail.frequency_groups().tolist()


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_other_fractions_are_refused(long_tail, fraction):
    with pytest.raises(ValueError, match="expected 0 to 1"):
        drop_annotations(long_tail, fraction)
