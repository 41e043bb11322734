"""Pooled rows are those of numpy, whether they were stored pooled or are pooled on reading."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deepser.probes import rows as rows_module
from deepser.probes.normalise import NormalisedRows
from deepser.probes.rows import PooledRows, Source, check_pool, sources_of
from deepser.training.normalise import Groups
from featurestore.errors import ConfigError, StoreError
from featurestore.format.spec import FeatureSpec
from featurestore.store.feature_store import FeatureStore

KEYS = [f"clip {i}" for i in range(12)]
SPEC = FeatureSpec("audio", "e", "none", ("layer_00", "layer_03"), 5, 50.0, dtype="float32")


def frames(i: int) -> np.ndarray:
    return np.random.default_rng(i).normal(3, 2, (2, 2 + i, 5)).astype(np.float32)


def expected(layer: int, pool: str) -> np.ndarray:
    means = np.stack([frames(i)[layer].mean(0) for i in range(12)])
    return means if pool == "mean" else np.hstack([means, np.stack([frames(i)[layer].std(0) for i in range(12)])])


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    """Return sets "frames", "mean" and "both" of the same clips, the last two stored pooled."""
    store = FeatureStore.create(tmp_path / "store")
    with store.writer("frames", SPEC) as writer:
        for i, key in enumerate(KEYS):
            writer.append(key, frames(i))
    for name, pool in (("mean", "mean"), ("both", "mean+std")):
        values = [expected(layer, pool) for layer in range(2)]
        with store.writer(name, replace(SPEC, pool=pool, dim=values[0].shape[1], frame_rate_hz=0.0)) as writer:
            for i, key in enumerate(KEYS):
                writer.append(key, np.stack([own[i : i + 1] for own in values]))
    return store


@pytest.mark.parametrize(("name", "pool", "same_as"), [
    ("frames", "auto", "mean+std"), ("frames", "mean", "mean"), ("frames", "mean+std", "mean+std"),
    ("both", "auto", "mean+std"), ("both", "mean", "mean"), ("mean", "auto", "mean"),
])  # fmt: skip
def test_rows_are_means_or_means_and_deviations_over_time(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch, name: str, pool: str, same_as: str
) -> None:
    monkeypatch.setattr(rows_module, "BATCH_BYTES", 400)  # so that frames are pooled in several batches
    order = [3, 0, 11]
    rows = PooledRows(store, KEYS, pool)
    source = Source(name, "layer_03")
    np.testing.assert_allclose(rows.read(source), expected(1, same_as), atol=1e-5)
    np.testing.assert_allclose(rows.part(source, np.array(order)), expected(1, same_as)[order], atol=1e-5)
    assert rows.dim(source) == rows.read(source).shape[1]


def test_what_a_set_does_not_hold_is_refused(store: FeatureStore) -> None:
    with pytest.raises(ConfigError, match=r"'mean'.*mean\+std"):
        check_pool(store, Source("mean", "layer_00"), "mean+std")
    with pytest.raises(StoreError, match="layer_07"):
        sources_of(store, ["frames@7"])
    assert [str(source) for source in sources_of(store, ["frames@3", "both"])] == ["frames@3", "both@0", "both@3"]


def test_each_source_is_normalised_as_it_says(store: FeatureStore) -> None:
    speakers, corpora = Groups.of(["a"] * 6 + ["b"] * 6), Groups.of(["x"] * 12)
    rows = NormalisedRows(PooledRows(store, KEYS), speakers, corpora, 0.0)
    plain = expected(0, "mean+std")
    np.testing.assert_allclose(rows.read(Source("frames", "layer_00")), plain, atol=1e-5)
    corpus = rows.read(Source("frames", "layer_00", "corpus"))
    np.testing.assert_allclose(corpus, (plain - plain.mean(0)) / plain.std(0), atol=1e-3)
    adapted = rows.read(Source("frames", "layer_00", "speaker"))
    np.testing.assert_allclose(adapted[:6], (plain[:6] - plain[:6].mean(0)) / plain[:6].std(0), atol=1e-3)
