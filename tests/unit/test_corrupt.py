"""Worse annotations: boxes whose corners move, and boxes that are gone."""

import numpy as np
import pytest
from tiny_files import annotation_file

from richsem.data.box_sets import BoxDataset
from richsem.data.corrupt import drop_annotations, jitter_boxes, uniform_draws

SIZE = np.array([80, 120])  # height, width


def random_boxes(rng, num_boxes):
    corners = rng.uniform(0, 1, (num_boxes, 2, 2)) * SIZE[::-1]
    boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1).astype(np.float32)
    return boxes[(boxes[:, 2:] > boxes[:, :2]).all(1)]


@pytest.mark.parametrize(
    ("box", "scale", "draws", "expected"),
    [
        ([40, 20, 60, 60], 0.5, [-1, 0.5, 1, -0.25], [35, 25, 65, 57.5]),  # the formula
        ([0, 0, 10, 10], 2.0, [-1, -1, -1, -1], [0, 0, 1, 1]),  # a pixel is left at the border
        ([50, 30, 70, 50], 2.0, [1, 0, -1, 0], [50, 30, 70, 50]),  # crossed corners, in order again
    ],
)
def test_formula_on_one_box(box, scale, draws, expected):
    moved = jitter_boxes(np.array([box], dtype=float), scale, SIZE, np.array([draws], dtype=float))
    np.testing.assert_allclose(moved, [expected])


def test_result_is_inside_the_image_keeps_a_pixel_and_without_noise_is_what_it_was():
    for seed in range(30):
        rng = np.random.default_rng(seed)
        boxes = random_boxes(rng, 100)
        sizes = SIZE + rng.integers(0, 30, (len(boxes), 2))  # each box has an image of its own
        draws = uniform_draws(len(boxes), seed)
        assert not np.array_equal(draws, uniform_draws(len(boxes), seed + 1))
        for scale in (0.1, 0.5, 1.0, 1.5, 2.0, 5.0):
            moved = jitter_boxes(boxes, scale, sizes, draws)
            assert (moved >= 0).all() and (moved <= np.tile(sizes[:, ::-1], 2)).all()
            least = np.minimum(1, boxes[:, 2:] - boxes[:, :2])
            assert (moved[:, 2:] - moved[:, :2] >= least - 1e-4).all()
    boxes = random_boxes(np.random.default_rng(0), 50)
    same = jitter_boxes(boxes, 0.0, SIZE, uniform_draws(len(boxes), 0))
    assert np.array_equal(same, boxes) and same is not boxes
    assert jitter_boxes(np.zeros((0, 4)), 1.0, SIZE, uniform_draws(0, 0)).shape == (0, 4)


@pytest.mark.parametrize(
    ("scale", "draws", "message"),
    [(s, 2, "noise scale") for s in (-0.1, float("nan"), float("inf"))]
    + [(1.0, 1, "draws have shape")],
)
def test_impossible_noise_is_refused(scale, draws, message):
    with pytest.raises(ValueError, match=message):
        jitter_boxes(np.ones((2, 4)), scale, SIZE, np.ones((draws, 4)))


# --- dropped annotations -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_tail(tmp_path_factory):
    """200 images, 1000 boxes, 20 classes; class k has far fewer boxes than class k - 1."""
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.arange(20), rng.geometric(0.3, 980).clip(1, 20) - 1])
    images = {i: {"neg_category_ids": [1 + i % 20]} for i in range(200)}
    boxes = [(int(rng.integers(200)), int(c) + 1, (1, 1, 5, 5)) for c in labels]
    categories = [{"id": i + 1, "name": f"c{i}", "image_count": 7} for i in range(20)]
    path = tmp_path_factory.mktemp("drop") / "set.json"
    return BoxDataset.load(annotation_file(path, images, boxes, categories), path.parent)


@pytest.mark.parametrize(
    ("fraction", "left"), [(0.1, 900), (0.5, 500), (0.8, 200), (0.9, 100), (1.0, 20)]
)
def test_the_asked_fraction_goes_and_every_class_keeps_a_box(long_tail, fraction, left):
    reduced = drop_annotations(long_tail, fraction)
    assert len(reduced.labels) == left
    assert reduced.instance_counts().min() >= 1
    assert len(reduced) == len(long_tail)
    assert reduced.neg_category_ids == long_tail.neg_category_ids
    rows = np.isin(long_tail.annotation_ids, reduced.annotation_ids)
    for name in ("annotation_ids", "labels", "box_image"):  # boxes are still those of their image
        np.testing.assert_array_equal(getattr(reduced, name), getattr(long_tail, name)[rows])
    # Categories are recounted and keep their group.
    counts = [(c.image_count, c.instance_count) for c in reduced.categories]
    assert counts == list(zip(reduced.image_counts(), reduced.instance_counts(), strict=True))
    assert reduced.frequency_groups().tolist() == long_tail.frequency_groups().tolist()


def test_the_seed_decides_and_sets_of_one_seed_are_nested(long_tail):
    kept = [set(drop_annotations(long_tail, f, seed=3).annotation_ids) for f in (0.2, 0.5, 0.8)]
    assert kept[0] > kept[1] > kept[2]
    first, again = (drop_annotations(long_tail, 0.5, seed=1) for _ in range(2))
    other = drop_annotations(long_tail, 0.5, seed=2)
    assert first.annotation_ids.tolist() == again.annotation_ids.tolist()
    assert first.annotation_ids.tolist() != other.annotation_ids.tolist()
    prints = [one.fingerprint for one in (first, again, other, long_tail)]
    assert prints[0] == prints[1] and len(set(prints)) == 3


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_at_least_nothing_goes_and_other_fractions_are_refused(long_tail, fraction):
    assert drop_annotations(long_tail, 0.0) is long_tail
    with pytest.raises(ValueError, match="expected 0 to 1"):
        drop_annotations(long_tail, fraction)
