"""Corner jitter of boxes."""

import numpy as np
import pytest

from richsem.data.corrupt import jitter_boxes, uniform_draws

SIZE = np.array([80, 120])  # height, width


def random_boxes(rng, num_boxes):
    corners = rng.uniform(0, 1, (num_boxes, 2, 2)) * SIZE[::-1]
    boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1).astype(np.float32)
    return boxes[(boxes[:, 2:] > boxes[:, :2]).all(1)]


def test_formula_on_one_box():
    box = np.array([[40.0, 20.0, 60.0, 60.0]])
    moved = jitter_boxes(box, 0.5, SIZE, np.array([[-1.0, 0.5, 1.0, -0.25]]))
    np.testing.assert_allclose(moved, [[35, 25, 65, 57.5]])


def test_scale_zero_changes_nothing():
    boxes = random_boxes(np.random.default_rng(0), 50)
    same = jitter_boxes(boxes, 0.0, SIZE, uniform_draws(len(boxes), 0))
    assert np.array_equal(same, boxes)
    assert same is not boxes


def test_result_is_inside_the_image_and_keeps_a_pixel():
    for seed in range(30):
        boxes = random_boxes(np.random.default_rng(seed), 100)
        draws = uniform_draws(len(boxes), seed)
        for scale in (0.1, 0.5, 1.0, 1.5, 2.0, 5.0):
            moved = jitter_boxes(boxes, scale, SIZE, draws)
            assert (moved >= 0).all()
            assert (moved <= np.tile(SIZE[::-1], 2)).all()
            least = np.minimum(1, boxes[:, 2:] - boxes[:, :2])
            assert (moved[:, 2:] - moved[:, :2] >= least - 1e-4).all()


def test_up_to_scale_one_the_middle_stays_covered():
    boxes = random_boxes(np.random.default_rng(3), 300)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    moved = jitter_boxes(boxes, 1.0, SIZE, uniform_draws(len(boxes), 3))
    assert (moved[:, :2] <= middle + 1e-4).all()
    assert (moved[:, 2:] >= middle - 1e-4).all()


def test_shared_draws_move_further_with_the_scale():
    boxes = random_boxes(np.random.default_rng(4), 300)
    draws = uniform_draws(len(boxes), 4)
    shifts = [np.abs(jitter_boxes(boxes, scale, SIZE, draws) - boxes) for scale in (0.2, 0.5, 0.9)]
    assert (shifts[0] <= shifts[1] + 1e-4).all()
    assert (shifts[1] <= shifts[2] + 1e-4).all()


def test_collapsed_box_keeps_one_pixel_at_the_border():
    box = np.array([[0.0, 0.0, 10.0, 10.0]])
    moved = jitter_boxes(box, 2.0, SIZE, np.array([[-1.0, -1.0, -1.0, -1.0]]))
    np.testing.assert_allclose(moved, [[0, 0, 1, 1]])


def test_crossed_corners_are_put_in_order():
    box = np.array([[50.0, 30.0, 70.0, 50.0]])
    moved = jitter_boxes(box, 2.0, SIZE, np.array([[1.0, 0.0, -1.0, 0.0]]))
    np.testing.assert_allclose(moved, [[50, 30, 70, 50]])


def test_sizes_per_box_equal_sizes_one_by_one():
    rng = np.random.default_rng(5)
    boxes = random_boxes(rng, 40)
    sizes = SIZE + rng.integers(0, 30, (len(boxes), 2))
    draws = uniform_draws(len(boxes), 5)
    together = jitter_boxes(boxes, 1.5, sizes, draws)
    single = [
        jitter_boxes(boxes[i : i + 1], 1.5, sizes[i], draws[i : i + 1]) for i in range(len(boxes))
    ]
    assert np.array_equal(together, np.concatenate(single))
    assert together.dtype == np.float32


def test_draws_repeat_with_the_seed():
    assert np.array_equal(uniform_draws(9, 1), uniform_draws(9, 1))
    assert not np.array_equal(uniform_draws(9, 1), uniform_draws(9, 2))


def test_no_boxes_give_no_boxes():
    assert jitter_boxes(np.zeros((0, 4)), 1.0, SIZE, uniform_draws(0, 0)).shape == (0, 4)


@pytest.mark.parametrize("scale", [-0.1, float("nan"), float("inf")])
def test_bad_scale_is_refused(scale):
    with pytest.raises(ValueError, match="noise scale"):
        jitter_boxes(np.ones((1, 4)), scale, SIZE, np.ones((1, 4)))


def test_draws_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="draws have shape"):
        jitter_boxes(np.ones((2, 4)), 1.0, SIZE, np.ones((1, 4)))
