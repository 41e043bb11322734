"""Pooled rows are those of numpy, whether they were stored pooled or are pooled on reading."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deepser.probes import rows as rows_module
from deepser.probes.normalise import GroupStatistics, NormalisedRows
from deepser.probes.rows import PooledRows, Source, check_pool, sources_of
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
    """Sets "frames", "mean" and "both" of the same clips, the last two stored pooled."""
    made = FeatureStore.create(tmp_path / "store")
    with made.writer("frames", SPEC) as writer:
        for i, key in enumerate(KEYS):
            writer.append(key, frames(i))
    for name, pool in (("mean", "mean"), ("both", "mean+std")):
        values = [expected(layer, pool) for layer in range(2)]
        with made.writer(name, replace(SPEC, pool=pool, dim=values[0].shape[1], frame_rate_hz=0.0)) as writer:
            for i, key in enumerate(KEYS):
                writer.append(key, np.stack([own[i : i + 1] for own in values]))
    return made


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


def test_a_speakers_rows_have_mean_0_and_deviation_1_without_shrinkage() -> None:
    rng = np.random.default_rng(0)
    who = np.array([0] * 30 + [1] * 20)
    x = (rng.normal(size=(50, 4)) * [1, 2, 3, 0] + who[:, None] * 5).astype(np.float32)
    found = GroupStatistics.of(x, who, 2, 0.0).apply(x, who)
    for speaker in (0, 1):
        own = found[who == speaker]
        np.testing.assert_allclose(own.mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(own.std(0), [1, 1, 1, 0], atol=1e-4)  # a constant dim says nothing


def test_a_speaker_of_few_clips_is_shrunk_towards_the_corpus() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(2, 3, (61, 4)).astype(np.float32)
    who = np.array([0] * 60 + [1])
    statistics = GroupStatistics.of(x, who, 2, 5.0)
    weight = 1 / 6
    np.testing.assert_allclose(statistics.mean[1], weight * x[60] + (1 - weight) * x.mean(0), rtol=1e-5)
    alone = GroupStatistics.of(x, who, 2, 5.0, least=2)
    np.testing.assert_allclose(alone.mean[1], x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(alone.inverse_std[1], 1 / x.std(0), rtol=1e-5)


def test_a_blend_of_speaker_and_corpus_is_the_moment_of_their_mixture() -> None:
    rng = np.random.default_rng(1)
    prior = (np.array([0.0, 1.0]), np.array([4.0, 9.0]))
    own = rng.normal(3, 2, (10, 2)).astype(np.float32)
    statistics = GroupStatistics.of(own, np.zeros(10, np.int64), 1, 10.0, prior)
    mean = 0.5 * own.mean(0) + 0.5 * prior[0]
    square = 0.5 * (own.var(0) + own.mean(0) ** 2) + 0.5 * (prior[1] + prior[0] ** 2)
    np.testing.assert_allclose(statistics.mean[0], mean, rtol=1e-5)
    np.testing.assert_allclose(statistics.inverse_std[0], 1 / np.sqrt(square - mean**2), rtol=1e-4)


def test_each_source_is_normalised_as_it_says(store: FeatureStore) -> None:
    speakers = ["a"] * 6 + ["b"] * 6
    rows = NormalisedRows.of(PooledRows(store, KEYS), speakers, ["x"] * 12, 0.0)
    plain = expected(0, "mean+std")
    np.testing.assert_allclose(rows.read(Source("frames", "layer_00")), plain, atol=1e-5)
    corpus = rows.read(Source("frames", "layer_00", "corpus"))
    np.testing.assert_allclose(corpus, (plain - plain.mean(0)) / plain.std(0), atol=1e-3)
    own = rows.read(Source("frames", "layer_00", "speaker"))
    np.testing.assert_allclose(own[:6], (plain[:6] - plain[:6].mean(0)) / plain[:6].std(0), atol=1e-3)
