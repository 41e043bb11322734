"""Each dim less its mean, by its standard deviation, with the statistics of some rows."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from deepser.probes.rows import Source

CONSTANT = 1e-6  # of a dim's root mean square: a deviation below it is rounding


class Rows(Protocol):
    """Pooled rows by source."""

    def read(self, source: Source) -> NDArray[np.float32]:
        """All rows, (N, D) float32, read-only."""
        ...

    def part(self, source: Source, at: NDArray[np.int64]) -> NDArray[np.float32]:
        """The rows of some utterances, (n, D) float32."""
        ...

    def dim(self, source: Source) -> int:
        """Numbers in a row."""
        ...


def standardisation(rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and inverse standard deviation, (D,) float32 each; the inverse is 0 where a dim is constant."""
    mean = rows.mean(0, dtype=np.float64)
    return mean.astype(np.float32), inverse_std_of(mean, rows.var(0, dtype=np.float64))


def inverse_std_of(mean: NDArray[np.float64], variance: NDArray[np.float64]) -> NDArray[np.float32]:
    """(D,) float32 inverse standard deviations; 0 where a dim is constant but for rounding."""
    std = np.sqrt(np.maximum(variance, 0))
    live = std > CONSTANT * np.sqrt(np.maximum(variance, 0) + mean**2)
    return np.where(live, 1 / np.where(live, std, 1), 0).astype(np.float32)
