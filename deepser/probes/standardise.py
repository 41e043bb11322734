"""Each dim less its mean, by its standard deviation, with the statistics of some rows."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from deepser.probes.rows import Source
from deepser.training.normalise import inverse_std_of


class Rows(Protocol):
    """Pooled rows by source."""

    def read(self, source: Source) -> NDArray[np.float32]:
        """All rows, (N, D) float32, read-only."""
        ...

    def part(self, source: Source, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the rows of some utterances, (n, D) float32."""
        ...

    def dim(self, source: Source) -> int:
        """Return the number of values in a row."""
        ...


def standardisation(rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and inverse standard deviation, (D,) float32 each; the inverse is 0 where a dim is constant."""
    mean = rows.mean(0, dtype=np.float64)
    return mean.astype(np.float32), inverse_std_of(mean, rows.var(0, dtype=np.float64))
