"""Some of the cases of `damage_weights.py`, in this process."""

import pytest
from damage_weights import FILES, Trial, attempt


@pytest.mark.parametrize("kind", FILES)
def test_damaged_weights_load_as_written_or_are_refused(kind, tmp_path):
    trial = Trial(kind, tmp_path)
    found = {number: attempt(trial, number) for number in range(12)}
    assert not {n: case for n, case in found.items() if case[1].startswith("wrong")}
    assert len({outcome for _, outcome in found.values()}) > 1  # some are noticed, some do no harm
