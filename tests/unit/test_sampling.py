"""Batch plans: functions of seed and step, complete over processes, faithful to their factors."""

import numpy as np
import pytest

from richsem.data import sampling
from richsem.data.sampling import BatchPlan, RepeatedEpoch, alternate, repeat_factors, shuffled


def plan(**changes):
    settings = {"epoch": shuffled(10), "batch_size": 4, "seed": 0} | changes
    return BatchPlan(**settings)


def test_repeat_factors_and_their_fractions_which_are_rounded_at_random(tiny_set):
    assert tiny_set.image_counts().tolist() == [3, 2, 2, 1]
    expected = np.sqrt(np.array([0.9 / 0.4, 0.9 / 0.2, 1.0, 0.9 / 0.4, 0.9 / 0.4]))
    np.testing.assert_allclose(repeat_factors(tiny_set, 0.9), expected)
    assert (repeat_factors(tiny_set, 0.0) == 1).all()
    with pytest.raises(ValueError, match=r"-0\.1"):
        repeat_factors(tiny_set, -0.1)
    factors = np.array([1.0, 1.25, 2.5, 3.0])
    rng = np.random.default_rng(0)
    counts = np.array([np.bincount(RepeatedEpoch(factors)(rng), minlength=4) for _ in range(2000)])
    assert [set(counts[:, k]) for k in (0, 2)] == [{1}, {2, 3}]
    np.testing.assert_allclose(counts.mean(0), factors, atol=0.05)


def test_every_image_once_per_epoch_in_a_new_order():
    indices = [index for step in range(5) for index, _ in plan().items(step)]
    assert sorted(indices[:10]) == sorted(indices[10:]) == list(range(10))
    assert indices[:10] != indices[10:]
    # A batch larger than the epoch takes several.
    indices = [index for index, _ in plan(epoch=shuffled(3), batch_size=8).items(0)]
    assert sorted(indices[:3]) == sorted(indices[3:6]) == [0, 1, 2]
    with pytest.raises(ValueError, match="no images"):
        plan(epoch=shuffled(0)).items(0)
    for change in ({"rank": 2, "world": 2}, {"world": 5}, {"batch_size": 0}):
        with pytest.raises(ValueError, match="0 <= rank < world <= batch_size"):
            plan(**change)


def test_a_step_depends_on_nothing_but_seed_and_number_and_seeds_of_items_differ():
    epoch = RepeatedEpoch(np.linspace(1, 3, 7))
    walked = plan(epoch=epoch)
    steps = [walked.items(step) for step in range(40)]
    for step in (0, 39, 3, 17, 16, 39):
        assert plan(epoch=epoch).items(step) == steps[step]  # fresh
        assert walked.items(step) == steps[step]  # with history, backwards too
    other = plan(epoch=epoch, seed=1)
    assert [other.items(step) for step in range(40)] != steps
    plans = [plan(seed=seed) for seed in (0, 1)]
    seeds = [seed for one in plans for step in range(100) for _, seed in one.items(step)]
    assert len(set(seeds)) == 800
    assert 0 <= min(seeds) <= max(seeds) < 2**63
    assert sampling.item_seed(1, 2) == sampling.item_seed(1, 2) != sampling.item_seed(2, 1)


def test_sets_alternate_without_skipping_a_step():
    expected = [(False, 0), (False, 1), (True, 0), (False, 2), (False, 3), (True, 1)]
    assert [alternate(step, (2, 1)) for step in range(6)] == expected
    assert [alternate(step) for step in range(3)] == [(False, 0), (True, 0), (False, 1)]
    assert [alternate(step, (1, 0)) for step in range(2)] == [(False, 0), (False, 1)]
    for ratio in ((0, 0), (-1, 2)):
        with pytest.raises(ValueError, match="expected"):
            alternate(0, ratio)


def test_weights_of_images_and_shows_of_classes(tiny_set):
    expected = [1 / 3 + 1 / 2 + 1 / 2, 1.0, 0.0, 1 / 2 + 1 / 3, 1 / 2 + 1 / 3]
    np.testing.assert_allclose(sampling.class_aware_weights(tiny_set), expected)
    once = sampling.class_shows(tiny_set, np.ones(len(tiny_set)))
    np.testing.assert_array_equal(once, tiny_set.image_counts())
    # The first class is in the images 0, 3 and 4, the last one in image 1.
    shows = sampling.class_shows(tiny_set, np.array([2.0, 5.0, 9.0, 1.0, 0.5]))
    np.testing.assert_array_equal(shows[[0, 3]], [3.5, 5.0])
