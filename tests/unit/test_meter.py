"""Running means by kind of batch."""

import torch

from richsem.training.parallel import Meter, means


def scalars(**values):
    return {name: torch.tensor(value) for name, value in values.items()}


def test_means_are_of_the_observations_of_each_kind():
    meter = Meter()
    meter.add("detection", scalars(total=1.0, box=4.0))
    meter.add("detection", scalars(total=3.0))
    meter.add("captions", scalars(total=10.0))
    expected = {"detection": {"total": 2.0, "box": 4.0}, "captions": {"total": 10.0}}
    assert means([meter.sums()]) == expected


def test_a_meter_goes_on_from_its_sums_exactly():
    values = torch.randn(7, generator=torch.Generator().manual_seed(0))
    whole, first = Meter(), Meter()
    for value in values:
        whole.add("a", {"x": value})
    for value in values[:3]:
        first.add("a", {"x": value})
    second = Meter(first.sums())
    for value in values[3:]:
        second.add("a", {"x": value})
    assert second.sums() == whole.sums()


def test_meters_of_several_processes():
    meters = [Meter(), Meter()]
    meters[0].add("a", scalars(x=1.0))
    meters[1].add("a", scalars(x=2.0, y=5.0))
    assert means([meter.sums() for meter in meters]) == {"a": {"x": 1.5, "y": 5.0}}
