"""A clip whose values training can't compute with is named before training."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from deepser.training.standardise import _check_range
from featurestore.errors import ConfigError


def data() -> SimpleNamespace:
    return SimpleNamespace(refs=[SimpleNamespace(name="wavlm")], targets=SimpleNamespace(keys=("a", "b", "c")))


@pytest.mark.parametrize("value", [1e38, -1e38, float("nan"), float("inf")])
def test_a_value_that_overflows_is_named_with_its_key_feature_set_and_row(value: float) -> None:
    values = torch.zeros(2, 5, 3)
    values[1, 3, 2] = value
    with pytest.raises(ConfigError, match=r"'wavlm'.*'c', row 1"):
        _check_range(data(), np.array([0, 2]), 0, values, torch.tensor([0, 2, 5]))  # type: ignore[arg-type]


def test_clips_without_rows_and_large_values_that_can_be_squared_pass() -> None:
    _check_range(data(), np.array([0]), 0, torch.zeros(1, 0, 3), torch.tensor([0, 0]))  # type: ignore[arg-type]
    _check_range(data(), np.array([0]), 0, torch.full((1, 1, 3), 1e17), torch.tensor([0, 1]))  # type: ignore[arg-type]
