"""Cached features: the same samples as without the cache, resumable, fast to read."""

import pickle
from dataclasses import replace
from itertools import chain

import pytest
import torch
from jobs import job, keep
from torch.nn.functional import avg_pool2d
from toys import exactly

from richsem import paths
from richsem.data import features
from richsem.data.features import FeatureConfig, cached_features
from richsem.data.samples import DetectionTrainingSet, collate
from richsem.data.sampling import item_seed
from richsem.data.transforms import TransformConfig
from richsem.structures import Supervision

SIZES = {"short_sides": (32,), "crop_short_sides": (60,), "crop_range": (40, 60)}
SQUARES = TransformConfig(keep_aspect=False, **SIZES)
CONFIG = FeatureConfig(views=3, seed=4, batch_size=2)


def backbone(batch):
    return avg_pool2d(batch.images, 8), avg_pool2d(batch.images, 16)


def look(batch):
    return batch, backbone(batch)


def teacher(batch):
    def label(target):
        numbers = torch.arange(len(target.labels) * 4).float().reshape(-1, 4)
        return replace(target, soft_labels=numbers.softmax(1)) if len(numbers) else target

    return replace(batch, targets=tuple(map(label, batch.targets)))


@pytest.fixture(scope="module")
def samples(tiny_set):
    return DetectionTrainingSet(tiny_set, SQUARES)


@pytest.fixture(autouse=True)
def small_shards_in_a_cache_of_their_own(monkeypatch, tmp_path):
    monkeypatch.setattr(features, "_SHARD", 4)
    monkeypatch.setattr(paths, "CACHE", tmp_path)


def test_cached_samples_are_those_of_the_set(samples):
    stored = cached_features(samples, lambda b: (teacher(b), backbone(b)), "pool", CONFIG)
    assert len(stored) == len(samples) == 5
    assert stored.shapes == [(3, 4, 4), (3, 2, 2)]
    assert (stored.supervision, stored.fingerprint) == (samples.supervision, samples.fingerprint)
    for index in range(5):
        for view in range(3):
            truth = samples[index, item_seed(4, index, view)]
            cached = stored.view(index, view)
            batch = collate([truth], Supervision.DETECTION)
            assert cached.image is None
            (taught,), maps = teacher(batch).targets, backbone(batch)
            if taught.soft_labels is None:  # there is no box
                taught = replace(taught, soft_labels=torch.zeros(0, 4))
            exactly(vars(cached.target), vars(taught))
            exactly(cached.features, [expected[0].half() for expected in maps])
    packed = pickle.dumps(stored)  # it travels to a worker as the names of its files
    assert len(packed) < 1500
    assert torch.equal(pickle.loads(packed)[0, 0].features[0], stored[0, 0].features[0])
    for seed in (0, 1, 2, 3, 10**18 + 1):
        assert torch.equal(stored[2, seed].features[0], stored.view(2, seed % 3).features[0])


def test_a_batch_of_cached_samples(samples):
    stored = cached_features(samples, look, "pool", CONFIG)
    batch = collate([stored[index, 0] for index in range(5)], stored.supervision)
    assert [tuple(level.shape) for level in batch.features] == [(5, 3, 4, 4), (5, 3, 2, 2)]
    assert all(level.dtype == torch.float32 for level in batch.features)
    assert batch.images is batch.padding is None
    # What a batch holds is its own: changing it must not reach the files.
    batch.features[0].zero_()
    assert stored[0, 0].features[0].any()


@pytest.mark.parametrize("name", ["00000004.npz", "00000004.npy"])
@pytest.mark.parametrize("damage", ["cut", "empty", "other", "gone"])
def test_a_damaged_file_is_made_anew(name, damage, samples, tmp_path):
    taught, seen = lambda batch: (teacher(batch), backbone(batch)), []
    whole = [cached_features(samples, taught, "pool", CONFIG).view(i, 1) for i in range(5)]
    maps = [sample.features[0].clone() for sample in whole]  # not those of the file
    (folder,) = tmp_path.glob("features-*")
    file, before = folder / name, {file.name: file.read_bytes() for file in folder.iterdir()}
    shorter = before[f"00000012{file.suffix}"]
    content = {"cut": before[name][:-9], "empty": b"", "other": shorter}.get(damage)
    file.unlink() if damage == "gone" else file.write_bytes(content)

    def counts(batch):
        seen.append(len(batch))
        return taught(batch)

    if damage == "gone" and name != "00000004.npy":  # that is, not complete
        again = cached_features(samples, counts, "pool", CONFIG)
    else:
        named = name.replace("npy", "npz")
        with pytest.warns(UserWarning, match=rf"{named} is damaged \(.*\); it is made anew"):
            again = cached_features(samples, counts, "pool", CONFIG)
    assert sum(seen) == 4  # the shard alone
    for index, sample in enumerate(whole):
        assert torch.equal(again.view(index, 1).target.boxes, sample.target.boxes)
        assert torch.equal(again.view(index, 1).features[0], maps[index])
    assert all((folder / n).stat().st_size == len(content) for n, content in before.items())


@pytest.mark.slow
def test_processes_share_the_work_and_find_the_same(samples, tmp_path):
    folder = tmp_path / "job"
    codes, said = job(folder, keep, folder, samples)
    assert codes == [0, 0], said
    seen = [(folder / str(rank)).read_text().split() for rank in range(2)]
    # Two views of each image, each looked at once, by either process.
    assert sorted(chain(*seen)) == sorted(2 * [str(i) for i in range(1, 6)]) and all(seen)
    exactly(*(torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)))
    assert len(list(tmp_path.glob("cache/features-*/*.npz"))) == 5


def test_every_change_gets_a_folder_and_uneven_images_none(samples, tiny_set, tmp_path):
    flipped = DetectionTrainingSet(tiny_set, replace(SQUARES, flip=1.0))
    for arguments in (
        (samples, look, "a", CONFIG), (samples, look, "b", CONFIG),
        (samples, look, "a", replace(CONFIG, seed=1)),
        (samples, look, "a", replace(CONFIG, images=2)),
        (flipped, look, "a", CONFIG), (flipped, None, "a", CONFIG),  # complete: not looked at
    ):  # fmt: skip
        stored = cached_features(*arguments)
        assert len(stored) == (arguments[-1].images or 5)
    assert len(list(tmp_path.glob("features-*"))) == 5
    uneven = DetectionTrainingSet(tiny_set, replace(SQUARES, keep_aspect=True))
    with pytest.raises(ValueError, match="keep_aspect=false"):
        cached_features(uneven, look, "pool", CONFIG)
