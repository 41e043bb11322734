"""Speaker normalisation of pooled rows: each speaker's own statistics, shrunk towards the corpus's."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deepser.probes.rows import CACHE_BYTES, PooledRows, Source
from deepser.probes.standardise import inverse_std_of


@dataclass(frozen=True, eq=False)
class GroupStatistics:
    """Mean and inverse deviation of each group's rows, (G, D) float32, shrunk towards all rows; counts (G,)."""

    mean: NDArray[np.float32]
    inverse_std: NDArray[np.float32]
    counts: NDArray[np.int64]

    @staticmethod
    def of(
        rows: NDArray[np.float32],
        groups: NDArray[np.int64],
        n_groups: int,
        shrinkage: float,
        prior: tuple[NDArray[np.floating], NDArray[np.floating]] | None = None,
        least: int = 1,
    ) -> "GroupStatistics":
        """The statistics of (N, D) rows by group, (N,) in [0, n_groups).

        With n rows of a group, weight w = n / (n + shrinkage): the mean is w m + (1 - w) M, and the second moment about
        it is blended likewise, where M and the variance beside it are `prior`, by default those of all rows. This is
        the posterior mean under a prior worth `shrinkage` rows. A group of fewer than `least` rows has the prior alone.
        """
        counts = np.bincount(groups, minlength=n_groups)
        total_mean, total_var = moments(rows) if prior is None else prior
        means = np.empty((n_groups, rows.shape[1]), np.float32)
        inverses = np.empty_like(means)
        for group in range(n_groups):
            own = rows[groups == group].astype(np.float64)
            weight = len(own) / (len(own) + shrinkage) if len(own) >= max(least, 1) else 0.0
            own_mean = own.mean(0) if len(own) else total_mean
            mean = weight * own_mean + (1 - weight) * total_mean
            variance = weight * (own.var(0) if len(own) else total_var) + (1 - weight) * total_var
            # The speaker's own rows lie around own_mean, which is off the blended one.
            variance += weight * (1 - weight) * (own_mean - total_mean) ** 2
            means[group], inverses[group] = mean, inverse_std_of(mean, variance)
        return GroupStatistics(means, inverses, counts)

    def apply(self, rows: NDArray[np.float32], groups: NDArray[np.int64]) -> NDArray[np.float32]:
        """Rows (N, D) less their group's mean, by its deviation."""
        return (rows - self.mean[groups]) * self.inverse_std[groups]


def moments(rows: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and variance, (D,) float64 each."""
    return rows.mean(0, dtype=np.float64), rows.var(0, dtype=np.float64)


@dataclass(eq=False)
class NormalisedRows:
    """Pooled rows, normalised as each source says: "none", by "corpus", or by "speaker".

    speakers, corpora: (N,) names; the statistics are those of these N utterances, and no label is read.
    """

    plain: PooledRows
    speakers: NDArray[np.int64]
    corpora: NDArray[np.int64]
    shrinkage: float
    _kept: dict[Source, NDArray[np.float32]] = field(default_factory=dict, init=False)

    @staticmethod
    def of(plain: PooledRows, speakers: Sequence[str], corpora: Sequence[str], shrinkage: float) -> "NormalisedRows":
        """The rows of utterances whose speakers and corpora are named, one name each."""
        codes = [np.unique(np.asarray(names, str), return_inverse=True)[1] for names in (speakers, corpora)]
        return NormalisedRows(plain, codes[0].astype(np.int64), codes[1].astype(np.int64), shrinkage)

    def read(self, source: Source) -> NDArray[np.float32]:
        """All rows, (N, D) float32, read-only."""
        if source.normalise == "none":
            return self.plain.read(source)
        if source in self._kept:
            return self._kept[source]
        rows = self.plain.read(source)
        groups = self.speakers if source.normalise == "speaker" else self.corpora
        shrinkage = self.shrinkage if source.normalise == "speaker" else 0.0
        found = GroupStatistics.of(rows, groups, int(groups.max()) + 1, shrinkage).apply(rows, groups)
        if sum(kept.nbytes for kept in self._kept.values()) + found.nbytes <= CACHE_BYTES:
            self._kept[source] = found
        return found

    def prior(self, source: Source) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and variance of all rows before normalisation, towards which speakers of few clips are shrunk."""
        mean, variance = moments(self.plain.read(source))
        return mean.astype(np.float32), variance.astype(np.float32)

    def part(self, source: Source, at: NDArray[np.int64]) -> NDArray[np.float32]:
        """The rows of some utterances, (n, D) float32."""
        return self.plain.part(source, at) if source.normalise == "none" else self.read(source)[at]

    def dim(self, source: Source) -> int:
        """Numbers in a row."""
        return self.plain.dim(source)
