"""Compiled means and deviations are numpy's."""

import itertools

import numpy as np
import pytest

from featurestore.errors import StoreError
from featurestore.rows import moments


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("lengths", [[3, 0, 1, 7], [0], [], [500, 2]])
def test_moments_are_those_of_each_utterances_rows(dtype: type, lengths: list[int]) -> None:
    offsets = np.cumsum([0, *lengths])
    values = np.random.default_rng(0).normal(100, 2, (offsets[-1], 5)).astype(dtype)
    parts = [values[a:b].astype(np.float64) for a, b in itertools.pairwise(offsets)]
    means = np.array([part.mean(0) if len(part) else np.zeros(5) for part in parts]).reshape(-1, 5)
    spreads = np.array([part.std(0) if len(part) else np.zeros(5) for part in parts]).reshape(-1, 5)
    np.testing.assert_allclose(moments.mean(values, offsets), means, rtol=1e-6)
    np.testing.assert_allclose(moments.mean_std(values, offsets), np.hstack([means, spreads]), rtol=1e-5, atol=1e-5)


def test_offsets_that_lead_outside_the_rows_are_refused() -> None:
    with pytest.raises(StoreError, match=r"0\.\.3"):
        moments.mean_std(np.zeros((3, 2), np.float32), np.array([0, 4]))
