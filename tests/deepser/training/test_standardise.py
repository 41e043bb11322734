"""A clip whose values training can't compute with is named when it is first read, wherever in the corpus it is."""

from pathlib import Path

import numpy as np
import pytest
import torch

from deepser.training.data import TrainingData
from deepser.training.targets import Targets
from featurestore.errors import ConfigError
from featurestore.format.spec import FeatureSpec
from featurestore.loaders.batch_loader import FeatureRef
from featurestore.store.feature_store import FeatureStore

KEYS = ("a", "b", "c")


def data(tmp_path: Path, value: float) -> TrainingData:
    """Three clips of 2 rows in two layers; `value` is in the second row of "c"."""
    store = FeatureStore.create(tmp_path / "store")
    rows = np.zeros((3, 2, 4), np.float32)
    rows[2, 1, 3] = value
    spec = FeatureSpec("audio", "wavlm", "none", ("layer_01", "layer_02"), 4, 50.0, dtype="float32")
    with store.writer("wavlm", spec) as writer:
        for key, values in zip(KEYS, rows, strict=True):
            writer.append(key, {"layer_01": np.zeros_like(values), "layer_02": values})
    return TrainingData(store, (FeatureRef("wavlm", spec.layers),), Targets.unknown(KEYS, ("x",), (), ()))


@pytest.mark.parametrize("value", [1e38, -1e38, 2e18])
def test_a_value_that_overflows_is_named_with_its_key_feature_set_and_row(value: float, tmp_path: Path) -> None:
    training_data = data(tmp_path, value)
    with training_data.open_batches([np.array([0, 1]), np.array([0, 2])], 1) as epoch:
        next(epoch)
        with pytest.raises(ConfigError, match=r"'wavlm'.*'c', row 1"):
            next(epoch)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_named_too_where_another_program_stored_it(value: float, tmp_path: Path) -> None:
    rows = torch.zeros(2, 4, 4)
    rows[1, 3, 2] = value
    with pytest.raises(ConfigError, match=r"'wavlm' holds no number for 'b', row 1"):
        list(data(tmp_path, 0.0)._checked([np.array([0, 1])], iter([[(rows, torch.tensor([0, 2, 4]))]])))


def test_a_scan_reads_every_utterance_and_large_values_that_can_be_squared_pass(tmp_path: Path) -> None:
    data(tmp_path / "good", 1e17).scan(1)
    with pytest.raises(ConfigError, match="'c'"):
        data(tmp_path / "bad", 1e19).scan(1)


def test_what_is_too_large_to_be_scanned_is_not_read_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deepser.training.data.SCANNED_BYTES", 1)
    data(tmp_path, 1e38).scan(1)
