"""Attributes cut into bins, so that a confusion matrix shows where on the scale predictions go."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from featurestore.errors import ConfigError
from featurestore.runtime.jsonable import json_fields

N_BINS = 6  # one per unit of the usual scale from 1 to 7


@dataclass(frozen=True)
class BinnedAttribute:
    """One attribute over equal parts of its scale.

    edges: (n_bins + 1,); confusion: row the bin of the target, column the bin of the prediction, values outside the
    scale counted in its end bins; bias: per target bin the mean of prediction - target (NaN in an empty bin), which
    shows extreme values that are pulled to the middle.
    """

    edges: tuple[float, ...]
    confusion: tuple[tuple[int, ...], ...]
    bias: tuple[float, ...]
    n: int

    @property
    def names(self) -> tuple[str, ...]:
        """The bins as text: "1-2", "2-3", ..."""
        return tuple(f"{low:g}-{high:g}" for low, high in zip(self.edges[:-1], self.edges[1:], strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able values."""
        return json_fields(self)


def binned(
    predicted: np.ndarray, target: np.ndarray, ends: tuple[float, float], n_bins: int = N_BINS
) -> BinnedAttribute | None:
    """Compare (N,) predictions with (N,) targets (NaN: left out) in `n_bins` equal parts of the scale (low, high).

    A value on an edge belongs to the bin above it, the upper end to the last bin. None where there is no target.
    """
    if n_bins < 2:
        raise ConfigError(f"Bins of an attribute must be 2 or more, found {n_bins}.")
    has_target = ~np.isnan(target)
    if not has_target.any():
        return None
    x, y = predicted[has_target].astype(np.float64), target[has_target].astype(np.float64)
    edges = np.linspace(ends[0], ends[1], n_bins + 1)
    column, row = (np.searchsorted(edges[1:-1], values, side="right") for values in (x, y))
    confusion = np.bincount(row * n_bins + column, minlength=n_bins**2).reshape(n_bins, n_bins)
    counts = confusion.sum(1)
    off = np.bincount(row, weights=x - y, minlength=n_bins)
    bias = np.divide(off, counts, out=np.full(n_bins, np.nan), where=counts > 0)
    return BinnedAttribute(
        edges=tuple(edges.tolist()),
        confusion=tuple(tuple(int(n) for n in line) for line in confusion),
        bias=tuple(bias.tolist()),
        n=int(has_target.sum()),
    )
