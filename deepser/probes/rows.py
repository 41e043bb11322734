"""One pooled row of each utterance, from a stored pooled set or pooled on reading."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deepser.training.normalise import TOO_LARGE
from featurestore.errors import ConfigError, StoreError
from featurestore.loaders.batch_loader import FeatureRef
from featurestore.rows import moments
from featurestore.sets.feature_set import FeatureSet
from featurestore.store.feature_store import FeatureStore

BATCH_BYTES = 64 << 20  # of frames that are pooled at once
CACHE_BYTES = 1 << 30


@dataclass(frozen=True, order=True)
class Source:
    """One layer of one feature set under one normalisation."""

    features: str
    layer: str
    normalise: str = "none"

    @property
    def short(self) -> str:
        """The layer as references write it: "3" for layer_03."""
        number = self.layer.removeprefix("layer_")
        return str(int(number)) if number.isdecimal() else self.layer

    def __str__(self) -> str:
        return f"{self.features}@{self.short}"


def sources_of(store: FeatureStore, features: Sequence[str]) -> list[Source]:
    """Return the layers that references name, in their order; ConfigError for a set that holds posteriors."""
    sources = []
    for text in features:
        ref = FeatureRef.parse(text)
        opened = store[ref.name]
        if opened.spec.kind == "posteriors":
            raise ConfigError(f"{ref.name!r} holds posteriors; a probe reads features of audio or text.")
        sources += [Source(ref.name, layer) for layer in ref.resolve(opened)]
    twice = {source for source in sources if sources.count(source) > 1}
    if twice:
        raise ConfigError(f"--features names {min(twice)} twice.")
    return sources


@dataclass(eq=False)
class PooledRows:
    """Rows (N, D) float32 of some utterances, by source; what fits into CACHE_BYTES is kept.

    pool: "mean", "mean+std" or "auto", which is mean+std but for sets that were stored as means.
    """

    store: FeatureStore
    keys: Sequence[str]
    pool: str = "auto"
    _kept: dict[Source, NDArray[np.float32]] = field(default_factory=dict, init=False)

    def read(self, source: Source) -> NDArray[np.float32]:
        """All rows, (N, D) float32, read-only."""
        plain = Source(source.features, source.layer)
        if plain not in self._kept:
            rows = self.part(plain, np.arange(len(self.keys)))
            if sum(kept.nbytes for kept in self._kept.values()) + rows.nbytes > CACHE_BYTES:
                return rows
            rows.setflags(write=False)
            self._kept[plain] = rows
        return self._kept[plain]

    def part(self, source: Source, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the rows of some utterances, (n, D) float32."""
        features = self.store[source.features]
        keys = [self.keys[i] for i in indices]
        rows = _pooled(features, source.layer, keys, self.pool)
        sound = np.abs(rows).max(1, initial=0) < TOO_LARGE  # false for NaN
        if not sound.all():
            raise ConfigError(
                f"Feature set {source.features!r}, {source.layer}, holds NaN, infinity or values beyond "
                f"{TOO_LARGE:g} for {keys[int(sound.argmin())]!r}. Encode or import this utterance again, or leave it "
                "out of the manifest."
            )
        return rows

    def dim(self, source: Source) -> int:
        """Return the number of values in a row."""
        spec = self.store[source.features].spec
        if spec.pool == "none":
            return spec.dim * (1 if self.pool == "mean" else 2)
        return spec.dim // 2 if spec.pool == "mean+std" and self.pool == "mean" else spec.dim


def check_pool(store: FeatureStore, source: Source, pool: str) -> None:
    """Raise ConfigError where a set was stored as means and deviations are asked for."""
    if pool == "mean+std" and store[source.features].spec.pool == "mean":
        raise ConfigError(
            f"Feature set {source.features!r} was stored as means over time, so --pool mean+std can't read it; use "
            "--pool mean or auto, or featurize with --pool mean+std."
        )


def _pooled(features: FeatureSet, layer: str, keys: Sequence[str], pool: str) -> NDArray[np.float32]:
    if features.spec.pool != "none":
        packed = features.gather(keys, layer, dtype="float32")
        if len(packed.values) != len(keys):
            raise StoreError(f"Feature set {features.name!r} is pooled, but not every utterance has one row.")
        rows = np.asarray(packed.values, np.float32)
        return rows[:, : features.dim // 2].copy() if pool == "mean" and features.spec.pool == "mean+std" else rows
    reduce = moments.mean if pool == "mean" else moments.mean_std
    lengths = features.lengths(keys)
    batch = np.cumsum(lengths) * features.dim * features.dtype.itemsize // BATCH_BYTES
    parts = []
    for number in np.unique(batch):
        chosen = np.flatnonzero(batch == number)
        packed = features.gather([keys[i] for i in chosen.tolist()], layer)
        parts.append(reduce(packed.values, packed.offsets))
    return np.concatenate([np.zeros((0, features.dim * (1 if pool == "mean" else 2)), np.float32), *parts])
