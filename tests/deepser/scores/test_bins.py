"""Binned attributes are confusion matrices of bin numbers, and show which way extremes are pulled."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from deepser.scores.bins import binned
from featurestore.errors import ConfigError

on_scale = st.floats(1, 7, width=32)


@given(st.lists(st.tuples(on_scale, on_scale), min_size=1, max_size=50), st.integers(2, 9))
def test_the_matrix_is_scikit_learns_of_the_bin_numbers(pairs: list[tuple[float, float]], n_bins: int) -> None:
    predicted, target = np.array(pairs, np.float64).T
    result = binned(predicted, target, (1.0, 7.0), n_bins)
    assert result is not None
    edges = np.array(result.edges)
    x, y = (np.clip(np.digitize(values, edges) - 1, 0, n_bins - 1) for values in (predicted, target))
    assert np.array_equal(result.confusion, confusion_matrix(y, x, labels=range(n_bins)))
    for b, bias in enumerate(result.bias):
        in_bin = y == b
        assert np.isnan(bias) if not in_bin.any() else bias == pytest.approx((predicted - target)[in_bin].mean())


def test_predictions_pulled_to_the_middle_show_in_the_bias() -> None:
    target = np.linspace(1, 7, 200)
    result = binned(4 + 0.5 * (target - 4), target, (1.0, 7.0))
    assert result is not None
    assert result.names == ("1-2", "2-3", "3-4", "4-5", "5-6", "6-7")
    assert list(result.bias) == sorted(result.bias, reverse=True)
    assert result.bias[0] > 1 > -1 > result.bias[-1]


def test_edges_gaps_and_values_outside_the_scale() -> None:
    target = np.array([0.0, 0.5, 1.0, np.nan, 1.0])
    result = binned(np.array([-3.0, 0.5, 9.0, 0.2, 0.4]), target, (0.0, 1.0), 2)
    assert result is not None
    assert result.confusion == ((1, 0), (1, 2))
    assert result.n == 4
    assert binned(target, target * np.nan, (0.0, 1.0)) is None
    with pytest.raises(ConfigError, match="2 or more"):
        binned(target, target, (0.0, 1.0), 1)
    json.dumps(result.to_dict(), allow_nan=False)
