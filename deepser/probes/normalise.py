"""Pooled rows, normalised by speaker or by corpus."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deepser.probes.rows import CACHE_BYTES, PooledRows, Source
from deepser.training.normalise import Groups, GroupStatistics


def moments(rows: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and variance, (D,) float64 each."""
    return rows.mean(0, dtype=np.float64), rows.var(0, dtype=np.float64)


@dataclass(eq=False)
class NormalisedRows:
    """Pooled rows, normalised as each source says: "none", by "corpus", or by "speaker".

    speakers, corpora: who is normalised together. The statistics are those of these N utterances; no label is read.
    """

    plain: PooledRows
    speakers: Groups
    corpora: Groups
    shrinkage: float
    _kept: dict[Source, NDArray[np.float32]] = field(default_factory=dict, init=False)

    def read(self, source: Source) -> NDArray[np.float32]:
        """All rows, (N, D) float32, read-only."""
        if source.normalise == "none":
            return self.plain.read(source)
        if source in self._kept:
            return self._kept[source]
        rows = self.plain.read(source)
        groups = self.speakers if source.normalise == "speaker" else self.corpora
        shrinkage = self.shrinkage if source.normalise == "speaker" else 0.0
        normalised = GroupStatistics.of(rows, groups, shrinkage).apply(rows, groups.codes)
        if sum(kept.nbytes for kept in self._kept.values()) + normalised.nbytes <= CACHE_BYTES:
            self._kept[source] = normalised
        return normalised

    def prior(self, source: Source) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and variance of all rows before normalisation, towards which speakers of few clips are shrunk."""
        mean, variance = moments(self.plain.read(source))
        return mean.astype(np.float32), variance.astype(np.float32)

    def part(self, source: Source, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the rows of some utterances, (n, D) float32."""
        return self.plain.part(source, indices) if source.normalise == "none" else self.read(source)[indices]

    def dim(self, source: Source) -> int:
        """Return the number of values in a row."""
        return self.plain.dim(source)
