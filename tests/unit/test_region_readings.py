"""The teacher over a data set: shards, resumption, noise, order."""

import numpy as np
import pytest
import torch

from richsem.data.corrupt import jitter_boxes, uniform_draws
from richsem.models.clip import rank_of_label, soft_labels
from richsem.workbook import region_readings
from richsem.workbook.region_readings import ReadConfig, read_regions, region_features

NOISY = ReadConfig(noise_scales=(0.0, 0.5, 1.5), noise_seeds=(0, 7))
FIELDS = ("ranks", "top_classes", "top_scores", "own_scores")


@pytest.fixture
def read(untrained, tiny_set, tiny_names, tmp_path):
    def run(config=NOISY, dataset=tiny_set, names=tiny_names, folder="cache"):
        return read_regions(untrained, dataset, names, config, cache=tmp_path / folder)

    return run


@pytest.fixture
def asked(untrained, monkeypatch):
    """The number of boxes of every question the teacher was asked; may fail at one of them."""
    calls, answer = [], untrained.regions

    class Asked(list):
        fails_at = None

    calls = Asked()

    def regions_of(image, boxes, mode):
        if len(calls) == calls.fails_at:
            raise KeyboardInterrupt
        calls.append(len(boxes))
        return answer(image, boxes, mode)

    monkeypatch.setattr(untrained, "regions", regions_of)
    return calls


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(region_readings, "_SHARD", 2)


def assert_same(one, other):
    for field in FIELDS:
        np.testing.assert_allclose(getattr(one, field), getattr(other, field), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mode", ["roi", "crop"])
def test_a_reading_equals_asking_box_by_box(read, untrained, tiny_set, tiny_names, tmp_path, mode):
    reading = read(ReadConfig(mode=mode, noise_scales=(0.0, 0.8), noise_seeds=(3,)))
    text = untrained.text_features(tiny_names, tmp_path)
    draws = uniform_draws(len(tiny_set.labels), 3)
    for box, (image, label) in enumerate(zip(tiny_set.box_image, tiny_set.labels, strict=True)):
        pixels = torch.from_numpy(np.array(tiny_set.image(image))).permute(2, 0, 1)
        for s, scale in enumerate((0.0, 0.8)):
            given = tiny_set.boxes_xyxy[box : box + 1], scale, tiny_set.image_sizes[image]
            moved = torch.from_numpy(jitter_boxes(*given, draws[box : box + 1]))
            seen = soft_labels(untrained.regions(pixels, moved, mode), text, untrained.scale)
            rank = int(rank_of_label(seen, torch.tensor([label])))
            assert reading.ranks[s, 0, box] == rank
            if not s:
                best = seen[0].argsort(descending=True)
                assert reading.top_classes[box].tolist() == best.tolist()
                np.testing.assert_allclose(reading.top_scores[box], seen[0, best], rtol=1e-4)
                assert reading.own_scores[box] == pytest.approx(float(seen[0, label]), rel=1e-4)


def test_shapes(read, tiny_set):
    reading = read()
    boxes, classes = len(tiny_set.labels), len(tiny_set.categories)
    assert reading.ranks.shape == (3, 2, boxes)
    assert reading.top_classes.shape == reading.top_scores.shape == (boxes, classes)
    assert reading.own_scores.shape == (boxes,)


def test_without_noise_every_seed_is_the_clean_reading(read):
    clean, noisy = read(ReadConfig()), read()
    for repeat in noisy.ranks[0]:
        np.testing.assert_array_equal(repeat, clean.ranks[0, 0])
    np.testing.assert_array_equal(noisy.top_classes, clean.top_classes)


def test_all_scales_share_one_question_per_image(read, asked, tiny_set):
    read()
    per_image = np.diff(tiny_set.offsets)
    assert asked == (6 * per_image).tolist()  # three scales, two seeds


def test_a_finished_reading_is_not_repeated(read, asked):
    first = read()
    del asked[:]
    assert_same(read(), first)
    assert asked == []


def test_shards_do_not_matter(read, monkeypatch):
    whole = read()
    monkeypatch.setattr(region_readings, "_SHARD", 2)
    assert_same(read(folder="other"), whole)
    assert_same(read(), whole)  # shards of another size beside the old ones


def test_a_lost_shard_is_read_again(read, asked, small_shards, tmp_path):
    whole = read()
    shards = sorted((tmp_path / "cache" / "regions").rglob("*.npz"))
    assert len(shards) == 3
    shards[1].unlink()
    del asked[:]
    assert_same(read(), whole)
    assert len(asked) == 2


def test_an_interrupted_reading_goes_on(read, asked, small_shards):
    whole = read(folder="uninterrupted")
    del asked[:]
    asked.fails_at = 3  # the fourth image, in the second shard
    with pytest.raises(KeyboardInterrupt):
        read()
    asked.fails_at = None
    del asked[:]
    assert_same(read(), whole)
    assert len(asked) == 3  # the first shard is kept


def test_image_order_does_not_matter(read, tiny_set):
    turned = tiny_set.select([4, 2, 0, 3, 1])
    place = np.argsort(turned.annotation_ids)
    straight, other = read(ReadConfig()), read(ReadConfig(), turned)
    np.testing.assert_array_equal(straight.ranks, other.ranks[..., place])
    np.testing.assert_allclose(straight.top_scores, other.top_scores[place], rtol=1e-4)


def test_other_names_are_another_reading(read, asked):
    read(ReadConfig())
    del asked[:]
    read(ReadConfig(), names=["boat", "house", "tree", "car"])
    assert len(asked) == 5


def test_one_name_per_category_is_needed(read, tiny_names):
    with pytest.raises(ValueError, match=r"tiny\.json: 3 names for 4 categories"):
        read(names=tiny_names[:3])


def test_a_set_without_boxes_is_refused(read, tiny_set):
    with pytest.raises(ValueError, match=r"tiny\.json: .* 0 boxes"):
        read(dataset=tiny_set.select([2]))


def test_features_of_a_small_set_are_those_of_its_images(untrained, tiny_set):
    features = region_features(untrained, tiny_set)
    assert features.shape == (len(tiny_set.labels), untrained.dim)
    pixels = torch.from_numpy(np.array(tiny_set.image(3))).permute(2, 0, 1)
    boxes = torch.from_numpy(tiny_set.boxes_of(3)[0])
    rows = slice(tiny_set.offsets[3], tiny_set.offsets[4])
    torch.testing.assert_close(features[rows], untrained.regions(pixels, boxes, "roi"))
