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


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """An empty cache folder of one test, also for commands in processes of their own."""
    monkeypatch.setattr("richsem.paths.CACHE", tmp_path / "cache")
    monkeypatch.setenv("RICHSEM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
