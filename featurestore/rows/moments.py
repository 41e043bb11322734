"""Means and deviations of each utterance's rows, as compiled loops; sums are kept in float64."""

import numba
import numpy as np

from featurestore.rows.kernels import _bits, _checked, _value


@numba.njit(nogil=True)
def _mean(values, offsets, out):  # type: ignore[no-untyped-def]
    total = np.empty(values.shape[1], dtype=np.float64)
    for b in range(out.shape[0]):
        total[:] = 0.0
        for t in range(offsets[b], offsets[b + 1]):
            for d in range(total.size):
                total[d] += _value(values[t, d])
        n_rows = max(offsets[b + 1] - offsets[b], 1)
        for d in range(total.size):
            out[b, d] = np.float32(total[d] / n_rows)


@numba.njit(nogil=True)
def _std(values, offsets, mean, out):  # type: ignore[no-untyped-def]
    total = np.empty(values.shape[1], dtype=np.float64)
    for b in range(out.shape[0]):
        total[:] = 0.0
        for t in range(offsets[b], offsets[b + 1]):
            for d in range(total.size):
                difference = np.float64(_value(values[t, d])) - mean[b, d]
                total[d] += difference * difference
        n_rows = max(offsets[b + 1] - offsets[b], 1)
        for d in range(total.size):
            out[b, d] = np.float32(np.sqrt(total[d] / n_rows))


def mean(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Mean over each utterance's rows: packed (sum T, D) -> (B, D) float32; zeros for an utterance of no rows."""
    offsets = _checked(values, offsets)
    out = np.empty((len(offsets) - 1, values.shape[1]), dtype=np.float32)
    _mean(_bits(values), offsets, out)
    return out


def mean_std(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Mean and standard deviation (over T, not T - 1), side by side: packed (sum T, D) -> (B, 2 D) float32."""
    averages = mean(values, offsets)
    spread = np.empty_like(averages)
    _std(_bits(values), _checked(values, offsets), averages, spread)
    return np.concatenate([averages, spread], axis=1)
