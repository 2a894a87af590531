"""Batches of step k: the same wherever a run starts, however many share the work."""

from dataclasses import replace

import pytest
from toys import ToySet, exactly

from richsem.config import ConfigError
from richsem.structures import Supervision
from richsem.training.loading import LoadConfig, Source, StepLoader

MAIN = Source(dataset=ToySet(7))
EXTRA = Source(dataset=ToySet(5, supervision=Supervision.UNLABELLED))


def batches(config, first, last, sources=(MAIN, EXTRA), **options):
    return list(StepLoader(sources, config, range(first, last), **options))


def ids(steps):
    return [[target.image_id for batch in parts for target in batch.targets] for parts in steps]


def pictures(steps):
    return [parts[0].images for parts in steps]


def test_a_later_start_sees_the_same_batches():
    config = LoadConfig(batch_size=4, extra_batch_size=2, seed=3)
    whole, tail = batches(config, 0, 8), batches(config, 5, 8)
    exactly(pictures(whole[5:]), pictures(tail))
    assert [a[0].supervision for a in whole[5:]] == [b[0].supervision for b in tail]


def test_detection_and_extra_take_turns():
    config = LoadConfig(batch_size=4, extra_batch_size=2)
    steps = batches(config, 0, 6)
    kinds = [parts[0].supervision for parts in steps]
    assert kinds == [Supervision.DETECTION, Supervision.UNLABELLED] * 3
    assert [len(parts[0]) for parts in steps] == [4, 2] * 3
    alone = batches(config, 0, 3, sources=[MAIN])
    assert {parts[0].supervision for parts in alone} == {Supervision.DETECTION}


@pytest.mark.parametrize("last", [4, 5])
def test_extra_steps_can_end_early_and_detection_goes_on_where_it_was(last):
    config = LoadConfig(batch_size=4, extra_batch_size=2, extra_until=last / 8)
    steps = batches(config, 0, 8)
    kinds = [parts[0].supervision is Supervision.DETECTION for parts in steps]
    assert kinds == [step % 2 == 0 or step >= last for step in range(8)]
    alone = ids(batches(config, 0, 8 - last // 2, sources=[MAIN]))
    assert [ids([step])[0] for step, kind in zip(steps, kinds, strict=True) if kind] == alone
    exactly(pictures(batches(config, 6, 8)), pictures(steps[6:]))


def test_late_extra_steps_can_count_less_instead():
    config = LoadConfig(batch_size=4, extra_until=0.5, extra_rest=0.25)
    loader = StepLoader([MAIN, EXTRA], config, range(8))
    assert [loader.weight(step) for step in range(8)] == [1, 1, 1, 1, 1, 0.25, 1, 0.25]
    plain = batches(LoadConfig(batch_size=4), 0, 8)
    exactly(pictures(batches(config, 0, 8)), pictures(plain))
    ended = StepLoader([MAIN, EXTRA], replace(config, extra_rest=0.0), range(8))
    alone = StepLoader([MAIN], config, range(8))
    assert {one.weight(step) for one in (ended, alone) for step in range(8)} == {1}


@pytest.mark.parametrize("accumulation", [1, 2])
def test_processes_share_the_batch_of_one(accumulation):
    whole = ids(batches(LoadConfig(batch_size=4, seed=1), 0, 4))
    config = LoadConfig(batch_size=4, seed=1, accumulation=accumulation)
    shares = [ids(batches(config, 0, 4, rank=rank, world=2)) for rank in range(2)]
    for step, *parts in zip(whole, *shares, strict=True):
        assert sorted(step) == sorted(parts[0] + parts[1])
    assert len(batches(config, 0, 1, rank=0, world=2)[0]) == accumulation


def test_padding_reaches_the_multiple_and_an_epoch_shows_every_image_once():
    (parts,) = batches(LoadConfig(batch_size=2), 0, 1, sources=[MAIN], pad_multiple=16)
    assert parts[0].images.shape == (2, 3, 16, 16)
    assert parts[0].padding.float().mean() == 0.75
    (step,) = ids(batches(LoadConfig(batch_size=7), 0, 1, sources=[MAIN]))
    assert sorted(step) == list(range(100, 107))


@pytest.mark.parametrize("values", [{"batch_size": 3}, {"batch_size": 0}, {"batch_size": 2}])
def test_uneven_shares_are_refused(values):
    with pytest.raises(ConfigError, match="2 processes x 2 accumulation parts"):
        StepLoader([MAIN], LoadConfig(accumulation=2, **values), range(1), world=2)


@pytest.mark.slow
def test_workers_change_nothing():
    inside, outside = (batches(LoadConfig(batch_size=4, workers=n), 0, 3) for n in (0, 2))
    assert len(inside) == 3
    exactly(pictures(inside), pictures(outside))
