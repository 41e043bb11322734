"""Fixtures of the feature store's tests."""

import pytest


@pytest.fixture(params=["zarr", "hdf5"])
def store_format(request: pytest.FixtureRequest) -> str:
    """Return the format of segments; a test that asks for it runs over both."""
    return str(request.param)
