"""Fixtures of the feature store's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.small_store import quick_directory


@pytest.fixture(params=["zarr", "hdf5"])
def store_format(request: pytest.FixtureRequest) -> str:
    """Return the format of segments; a test that asks for it runs over both."""
    return str(request.param)


@pytest.fixture
def quick_path() -> Iterator[Path]:
    """Yield a directory in memory where there is one, for a test of thousands of files or fsyncs."""
    with quick_directory() as directory:
        yield directory
