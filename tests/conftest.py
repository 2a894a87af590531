"""A small data root, and a cache of the tests' own."""

import pytest
from toys import write_root


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """Six small pictures of each set, laid out as the real ones are."""
    return write_root(tmp_path_factory.mktemp("data"))


@pytest.fixture
def cache(tmp_path_factory, monkeypatch):
    """A cache folder that all tests of a session share."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setattr("richsem.paths.CACHE", folder)
    return folder
