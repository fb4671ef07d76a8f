"""One small prepared av-digits for all tests of this folder."""

import pytest

from neuroav import data

SMALL = 200


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def prepared(cache_dir):
    """The file of 200 pairs of the default preset."""
    return data.prepare("av-digits", cache_dir=cache_dir, limit=SMALL)


@pytest.fixture(scope="session")
def small(cache_dir, prepared):
    """The same, loaded: 128 train, 22 val, 50 test pairs."""
    return data.load("av-digits", cache_dir=cache_dir, limit=SMALL)
