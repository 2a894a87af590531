"""Table 2 and Figure 1: readings that are kept, hand-made ranks, intervals, AP, single boxes."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from threading import Barrier
from unittest import mock

import numpy as np
import pytest
import torch
from scipy import stats
from tiny_files import annotation_file

from richsem import paths
from richsem.config import PROFILES, config_hash
from richsem.data.box_sets import BoxDataset
from richsem.data.corrupt import jitter_boxes, uniform_draws
from richsem.models.clip import MINI, RN50, soft_labels
from richsem.workbook import zero_shot
from richsem.workbook.notebook_data import DataConfig


def test_profiles_differ_in_values_only():
    configs = [zero_shot.configure(DataConfig(profile=profile)) for profile in PROFILES]
    smoke, demo, rehearsal, paper = configs
    assert len({config_hash(config) for config in configs}) == len(PROFILES)
    assert all(config.noise_scales[0] == 0 for config in configs)
    assert all(len(config.noise_seeds) > 1 for config in configs)
    assert (paper.clip, paper.max_images) == (RN50, 0)  # the paper's teacher on everything
    assert (rehearsal.clip, rehearsal.max_images) == (RN50, smoke.max_images)
    assert smoke.clip == demo.clip == MINI and 0 < smoke.max_images < 100
    assert len(smoke.noise_scales) < len(demo.noise_scales)
    seeds = [zero_shot.configure(DataConfig(), seed=s).noise_seeds for s in range(3)]
    assert len({seed for run in seeds for seed in run}) == sum(map(len, seeds))


@pytest.mark.parametrize(
    ("profile", "model", "weights", "expected"),
    [
        ("demo", "RN50-quickgelu", "", RN50),
        ("paper", "richsem-mini", "", MINI),
        ("paper", "", "rn50.pt", replace(RN50, weights="rn50.pt")),
        ("demo", "", "mine.safetensors", replace(MINI, weights="mine.safetensors")),
        ("demo", "RN101-quickgelu", "x", replace(RN50, model="RN101-quickgelu", weights="x")),
    ],
)
def test_the_teacher_can_be_chosen(profile, model, weights, expected):
    chosen = {"clip_model": model, "clip_weights": weights}
    assert zero_shot.configure(DataConfig(profile=profile), **chosen).clip == expected


pytestmark = pytest.mark.usefixtures("own_cache")
NOISY = zero_shot.ReadConfig(noise_scales=(0.0, 0.5, 1.5), noise_seeds=(0, 7))


@pytest.fixture
def read(untrained, tiny_set, tiny_names, monkeypatch, tmp_path):
    def run(config=NOISY, dataset=tiny_set, names=tiny_names, folder="cache", shard=128):
        monkeypatch.setattr(paths, "CACHE", tmp_path / folder)
        monkeypatch.setattr(zero_shot, "_SHARD", shard)
        return zero_shot.read_regions(untrained, dataset, names, config)

    return run


@pytest.fixture
def asked(untrained, monkeypatch):
    """Every question that the teacher was asked."""
    questions = mock.Mock(wraps=untrained.regions)
    monkeypatch.setattr(untrained, "regions", questions)
    return questions


def pixels_of(dataset, image):
    return torch.from_numpy(np.array(dataset.image(image))).permute(2, 0, 1)


def assert_same(one, other):
    for field in ("ranks", "top_classes", "top_scores"):
        np.testing.assert_allclose(getattr(one, field), getattr(other, field), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mode", ["roi", "crop"])
def test_a_reading_equals_asking_box_by_box(read, untrained, tiny_set, tiny_names, tmp_path, mode):
    reading = read(zero_shot.ReadConfig(mode=mode, noise_scales=(0.0, 0.8), noise_seeds=(3,)))
    text = untrained.text_features(tiny_names, tmp_path)
    draws = uniform_draws(len(tiny_set.labels), 3)
    for box, (image, label) in enumerate(zip(tiny_set.box_image, tiny_set.labels, strict=True)):
        pixels, row = pixels_of(tiny_set, image), slice(box, box + 1)
        for s, scale in enumerate((0.0, 0.8)):
            given = tiny_set.boxes_xyxy[row], scale, tiny_set.image_sizes[image], draws[row]
            moved = torch.from_numpy(jitter_boxes(*given))
            seen = soft_labels(untrained.regions(pixels, moved, mode), text, untrained.scale)
            assert reading.ranks[s, 0, box] == zero_shot.rank_of_label(seen, torch.tensor([label]))
            if not s:
                best = seen[0].argsort(descending=True)
                assert reading.top_classes[box].tolist() == best.tolist()
                np.testing.assert_allclose(reading.top_scores[box], seen[0, best], rtol=1e-4)


def test_without_noise_every_seed_is_the_clean_reading_in_any_order_of_images(read, tiny_set):
    clean, noisy = read(zero_shot.ReadConfig()), read()
    assert noisy.ranks.shape == (3, 2, 8)
    assert noisy.top_classes.shape == noisy.top_scores.shape == (8, 4)
    assert (noisy.ranks[0] == clean.ranks[0, 0]).all()
    np.testing.assert_array_equal(noisy.top_classes, clean.top_classes)
    turned = tiny_set.select([4, 2, 0, 3, 1])
    place = np.argsort(turned.annotation_ids)
    other = read(zero_shot.ReadConfig(), turned)
    np.testing.assert_array_equal(clean.ranks, other.ranks[..., place])
    np.testing.assert_allclose(clean.top_scores, other.top_scores[place], rtol=1e-4)


def test_all_scales_share_one_question_per_image_which_is_not_repeated(read, asked, tiny_set):
    first = read()
    boxes = [len(question.args[1]) for question in asked.call_args_list]
    assert boxes == (6 * np.diff(tiny_set.offsets)).tolist()  # three scales, two seeds
    assert_same(read(), first)
    assert asked.call_count == 5
    read(names=["boat", "house", "tree", "car"])  # another reading
    assert asked.call_count == 10


def test_two_that_read_share_the_shards_and_find_it_again(read, untrained, tiny_set, monkeypatch):
    """Threads stand in for processes: the locks of files keep them apart alike."""
    whole, regions, both = read(folder="other"), untrained.regions, Barrier(2, timeout=30)
    asked = []

    def slow(*given):
        asked.append(threading.get_ident())
        if asked.count(asked[-1]) == 1:
            both.wait()  # each has begun a shard of its own
        return regions(*given)

    monkeypatch.setattr(untrained, "regions", slow)
    with ThreadPoolExecutor(2) as pool:
        for one in [pool.submit(read, shard=1) for _ in range(2)]:
            assert_same(one.result(), whole)
    assert len(asked) == 5 and len({*asked}) == 2
    assert_same(read(shard=1), whole)
    assert len(asked) == 5


def test_shards_do_not_matter_and_only_lost_ones_are_read_again(read, asked, tmp_path):
    whole = read(folder="other")
    assert_same(read(shard=2), whole)
    shards = sorted((tmp_path / "cache" / "regions").rglob("*.npz"))
    assert len(shards) == 3
    shards[1].unlink()
    asked.reset_mock()
    assert_same(read(shard=2), whole)
    assert asked.call_count == 2
    assert_same(read(), whole)  # shards of another size beside the old ones


def test_features_are_of_the_images_and_need_names(untrained, tiny_set, read, tiny_names):
    features = zero_shot.region_features(untrained, tiny_set)
    assert features.shape == (len(tiny_set.labels), untrained.dim)
    boxes = torch.from_numpy(tiny_set.boxes_of(3)[0])
    expected = untrained.regions(pixels_of(tiny_set, 3), boxes, "roi")
    torch.testing.assert_close(features[tiny_set.box_image == 3], expected)
    with pytest.raises(ValueError, match=r"tiny\.json: 3 names for 4 categories"):
        read(names=tiny_names[:3])
    with pytest.raises(ValueError, match=r"tiny\.json: .* 0 boxes"):
        read(dataset=tiny_set.select([2]))


# Class 0: four boxes, all right. Class 2: one box, at rank 6. Class 3: two boxes, ranks 0 and 3.
RANKS = np.array([0, 0, 0, 0, 6, 0, 3])
LABELS = np.array([0, 0, 0, 0, 2, 3, 3])
GROUPS = np.array(["f", "c", "r", "c"])


def value(table, k, group, column="accuracy"):
    return table[(table["k"] == k) & (table["group"] == group)][column].item()


def perfect(dataset):
    """A teacher that is sure of every true class and then lists the others."""
    classes = len(dataset.categories)
    order = [[label, *(c for c in range(classes) if c != label)] for label in dataset.labels]
    scores = np.tile(np.linspace(0.9, 0.1, classes), (len(order), 1))
    ranks = np.zeros((1, 1, len(order)), dtype=int)
    return zero_shot.Reading(ranks=ranks, top_classes=np.array(order), top_scores=scores)


def test_classes_are_averaged_and_not_boxes_and_absent_ones_do_not_count():
    assert zero_shot.class_accuracy(RANKS, LABELS, 1).to_dict() == {0: 100.0, 2: 0.0, 3: 50.0}
    assert zero_shot.class_accuracy(RANKS, LABELS, 5).to_dict() == {0: 100.0, 2: 0.0, 3: 100.0}
    table = zero_shot.accuracy_table(RANKS, LABELS, GROUPS)
    assert value(table, 5, "all") == pytest.approx(200 / 3)
    assert value(table, 10, "all") == pytest.approx(100.0)
    expected = {"accuracy": [50.0, 0.0, 50.0, 100.0], "num_classes": [3, 1, 1, 1]}
    for column, values in (expected | {"num_boxes": [7, 1, 2, 4]}).items():
        found = [value(table, 1, group, column) for group in ("all", "r", "c", "f")]
        assert found == pytest.approx(values)  # over boxes the first one would be 5 of 7
    few = zero_shot.accuracy_table(RANKS[:4], LABELS[:4], GROUPS)
    assert set(few["group"]) == {"all", "f"}


def test_the_interval_is_that_of_resampled_boxes_and_shrinks_with_their_number():
    groups, rng, widths = np.array(list("rcff")), np.random.default_rng(1), []
    for num_boxes in (10, 40, 1000):
        labels = np.repeat(np.arange(4), num_boxes)
        ranks = np.tile(np.where(np.arange(num_boxes) < 0.6 * num_boxes, 0, 50), 4)
        table = zero_shot.accuracy_table(ranks, labels, groups)
        low, high = (value(table, 1, "all", column) for column in ("ci_low", "ci_high"))
        assert low < value(table, 1, "all") < high
        widths.append(high - low)
        if num_boxes == 40:
            own = [ranks[labels == c] < 1 for c in range(4)]
            draws = [np.mean([rng.choice(o, 40).mean() for o in own]) for _ in range(1500)]
            expected = np.percentile(np.multiply(draws, 100), [2.5, 97.5])
            assert [low, high] == pytest.approx(expected, abs=1.0)
    assert widths[0] > 1.5 * widths[1] > 3 * widths[2] > 0
    again, other = (zero_shot.accuracy_table(ranks, labels, groups, seed=s) for s in (0, 1))
    assert table.equals(again) and not table.equals(other)


def test_where_some_images_were_read_these_are_resampled():
    groups, rng = np.array(list("rcff")), np.random.default_rng(1)
    images = np.repeat(np.arange(30), 4)
    labels = rng.integers(0, 4, size=120)
    ranks = np.where(rng.random(30) < 0.6, 0, 50)[images]  # an image is right as a whole
    own, by_image = (
        zero_shot.accuracy_table(ranks, labels, groups, images=given) for given in (None, images)
    )
    assert value(own, 1, "all") == value(by_image, 1, "all")
    draws = []
    for _ in range(1500):
        rows = (4 * rng.integers(0, 30, size=(30, 1)) + range(4)).ravel()
        draws.append(zero_shot.class_accuracy(ranks[rows], labels[rows], 1).mean())
    ends = [value(by_image, 1, "all", column) for column in ("ci_low", "ci_high")]
    assert ends == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=2.0)
    assert np.diff(ends) > 1.3 * (value(own, 1, "all", "ci_high") - value(own, 1, "all", "ci_low"))


def test_some_images_are_chosen_by_class_and_the_time_is_said(untrained, tiny_set, tiny_names):
    config = zero_shot.configure(DataConfig(), max_images=2)
    some = zero_shot.chosen_images(tiny_set, config)
    assert len(some) == 2 and len({*some.labels.tolist()}) > 2
    assert zero_shot.chosen_images(tiny_set, replace(config, max_images=0)) is tiny_set
    assert some.is_part and not tiny_set.is_part
    words = zero_shot.forecast(untrained, some, tiny_names, config)
    assert "2 images, " in words
    assert "(reads 2 of these images, each box 36 times), the examples before them at most" in words
    assert "and first of all 4 names of classes 00:0" in words


def test_names_that_are_kept_take_no_time(untrained, tiny_names):
    assert untrained.seconds_of_texts(tiny_names) > 0
    untrained.text_features(tiny_names)
    assert untrained.seconds_of_texts(tiny_names) == 0
    assert untrained.seconds_of_texts([*tiny_names, "zebra"]) > 0


def test_of_a_part_the_curve_reads_few_images_that_show_most_classes(tiny_set):
    def number(profile="paper", **options):
        return zero_shot.configure(DataConfig(profile=profile), **options).noise_images

    assert (number(), number(part=True), number(max_images=500)) == (2000, 30, 30)
    assert number("demo", part=True) == 200  # the embedded teacher is quick
    assert number(noise_images=7) == number("smoke", noise_images=7, part=True) == 7
    config = zero_shot.configure(DataConfig(), noise_images=1)
    part = tiny_set.select([1, 0, 2])
    assert zero_shot.noisy_images(part, config).image_ids.tolist() == [1]  # three of four classes
    assert zero_shot.noisy_images(part, replace(config, noise_images=3)) is part
    whole = replace(config, noise_images=2)
    assert zero_shot.noisy_images(tiny_set, whole).image_ids.tolist() == [1, 5]


def test_a_curve_is_the_mean_over_seeds_with_students_interval():
    rng = np.random.default_rng(0)
    ranks = rng.integers(0, 20, size=(3, 4, len(LABELS)))
    curve = zero_shot.noise_curve(ranks, LABELS, (0.0, 0.5, 1.0))
    assert len(curve) == 6
    columns = curve.set_index(["k", "scale"])[["accuracy", "ci_low", "ci_high"]]
    for k, (s, scale) in product((5, 10), enumerate((0.0, 0.5, 1.0))):
        values = [zero_shot.class_accuracy(r, LABELS, k).mean() for r in ranks[s]]
        interval = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
        assert columns.loc[k, scale].tolist() == pytest.approx([np.mean(values), *interval])
    # Relative to the first scale; of one seed without a band.
    curve = zero_shot.noise_curve(np.stack([RANKS, RANKS + 5])[:, None], LABELS, (0.0, 1.0))
    assert curve[["ci_low", "ci_high"]].isna().all(axis=None)
    assert curve[curve["scale"] == 0]["relative"].tolist() == [1.0, 1.0]
    at_one = curve[(curve["scale"] == 1) & (curve["k"] == 10)].iloc[0]
    assert at_one[["accuracy", "relative"]].tolist() == pytest.approx([200 / 3, 2 / 3])


@pytest.mark.parametrize("k", [1, 3, 10])
@pytest.mark.parametrize("protocol", ["lvis", "coco"])
def test_a_perfect_teacher_has_ap_100(tiny_set, protocol, k):
    result = zero_shot.box_ap(tiny_set, perfect(tiny_set), k, protocol=protocol)
    means = [result.metrics[key] for key in ("AP", "APr", "APc", "APf") if key in result.metrics]
    assert means == pytest.approx([1, 1, 1, 1] if protocol == "lvis" else [1])
    assert result.protocol == protocol


@pytest.mark.parametrize("protocol", ["lvis", "coco"])
def test_a_teacher_that_never_names_a_class_loses_it(tiny_set, protocol):
    """One of four classes is never the first guess; the second guess finds it again."""
    reading, rows = perfect(tiny_set), tiny_set.labels == 0
    reading.top_classes[rows, :2] = reading.top_classes[rows, 1::-1].copy()
    once, twice = (zero_shot.box_ap(tiny_set, reading, k, protocol=protocol) for k in (1, 2))
    assert once.per_category[1] == pytest.approx(0) and twice.per_category[1] > 0.5
    assert [once.per_category[c] for c in (3, 4)] == pytest.approx([1, 1])


def test_ids_need_not_be_positions_and_a_part_of_a_set_is_judged_on_its_images(tmp_path, tiny_set):
    boxes = ((17, 8, [1, 2, 20, 30]), (90, 3, [5, 5, 30, 30]))
    classes = [{"id": 8, "name": "dog"}, {"id": 3, "name": "cat"}]
    path = annotation_file(tmp_path / "coco.json", {90: {}, 17: {}}, boxes, classes)
    dataset = BoxDataset.load(path, tmp_path)
    result = zero_shot.box_ap(dataset, perfect(dataset), 1, protocol="coco")
    assert result.metrics["AP"] == pytest.approx(1)
    part = tiny_set.select([3, 0])
    result = zero_shot.box_ap(part, perfect(part), 1)
    assert (result.num_images, result.metrics["AP"]) == (2, pytest.approx(1))


@pytest.fixture
def inspector(untrained, tiny_set, tiny_names):
    return zero_shot.RegionInspector(untrained, tiny_set, tiny_names)


@pytest.mark.parametrize("mode", ["roi", "crop"])
def test_a_view_is_the_teachers_soft_label(inspector, untrained, tiny_set, tiny_names, mode):
    view = inspector.view(0, 1, scale=0.6, seed=5, mode=mode)
    boxes, labels = tiny_set.boxes_of(0)
    moved = jitter_boxes(boxes, 0.6, tiny_set.image_sizes[0], uniform_draws(len(boxes), 5))[1:2]
    features = untrained.regions(pixels_of(tiny_set, 0), torch.from_numpy(moved), mode)
    expected = soft_labels(features, inspector.text, untrained.scale)[0]
    assert view.names == tuple(tiny_names[i] for i in expected.argsort(descending=True))
    np.testing.assert_allclose(view.probabilities, expected.sort(descending=True)[0], rtol=1e-4)
    assert view.probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert view.true_name == tiny_names[labels[1]] and view.true_box == tuple(boxes[1])
    assert view.moved_box == pytest.approx(tuple(moved[0]))


def test_boxes_stay_inside_and_images_pass_once(inspector, untrained, monkeypatch):
    left, top, right, bottom = inspector.view(0, 0).true_box
    wide, high = right - left, bottom - top
    moved = inspector.view(0, 0, nudge=(0.1, -0.1, -0.4, -0.2)).moved_box
    middle = (left + 0.6 * wide, top + 0.4 * high)
    sides = (0.3 * wide, 0.4 * high)
    expected = [*np.subtract(middle, sides), *np.add(middle, sides)]
    assert moved == pytest.approx(expected, abs=1e-3)
    width, height = inspector.view(0, 0).image.size
    assert inspector.view(0, 0, nudge=(0, 0, 50, 50)).moved_box == (0, 0, width, height)
    view = inspector.view(1, 0, seed=9)
    assert view.moved_box == view.true_box and view.crop.size == (40, 50)
    crops = [inspector.view(4, 1, scale=2.0, seed=seed).crop for seed in range(5)]
    assert all(min(crop.size) >= 1 for crop in crops)
    passes = mock.Mock(wraps=untrained.trunk_map)
    monkeypatch.setattr(untrained, "trunk_map", passes)
    inspector._maps.cache_clear()
    for image, box, scale in ((0, 0, 0.0), (3, 0, 0.0), (0, 0, 0.3), (0, 2, 0.6)):
        inspector.view(image, box, scale=scale)
    assert passes.call_count == 2
