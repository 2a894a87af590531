"""Each test here runs on every set of reference tensors that has what the test needs."""

from itertools import product
from pathlib import Path

import pytest
from parity.reference import SETS, describe, has
from safetensors.torch import load_file


def pytest_configure(config):
    config.addinivalue_line(
        "markers",
        "golden(*needs, **cases): what a set must have, a file or file:tensor, and for names of "
        "cases the function that lists those of a set",
    )


def pytest_generate_tests(metafunc):
    if "golden" not in metafunc.fixturenames:
        return
    marks = list(metafunc.definition.iter_markers("golden"))
    needs = [need for mark in marks for need in mark.args]
    cases = {name: listed for mark in marks for name, listed in mark.kwargs.items()}
    rows = [
        pytest.param(folder, *values, id="-".join([kind, *map(str, values)]))
        for kind, folder in SETS.items()
        if all(has(folder, need) for need in needs)
        for values in product(*(listed(folder) for listed in cases.values()))
    ]
    if not rows:
        reason = f"no reference data for {needs}: set RICHSEM_GOLDEN to its folder"
        rows = [pytest.param(*[None] * (1 + len(cases)), marks=pytest.mark.skip(reason=reason))]
    metafunc.parametrize(["golden", *cases], rows, indirect=["golden"], scope="module")


@pytest.fixture(scope="module")
def golden(request) -> Path:
    """Folder with reference tensors."""
    return request.param


@pytest.fixture(scope="module")
def recorded(golden):
    """recorded(name) -> (tensors, description) of a file."""
    return lambda name: (load_file(golden / f"{name}.safetensors"), describe(golden, name))


@pytest.fixture(scope="module")
def utils(recorded):
    return recorded("U_utils")[0]
