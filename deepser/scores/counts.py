"""F1 and concordance from counts and sums: the one definition of each that every score in the library uses."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Absent = Literal["zero", "skip"]
N_SUMS = 6  # of `ccc_of_sums`
MIN_PAIRS = 2  # of a concordance


def ratio(a: NDArray[np.generic], b: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return a / b as float64 (broadcast), NaN where b is 0."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    quotient: NDArray[np.float64] = np.full(np.broadcast_shapes(a.shape, b.shape), np.nan)
    np.divide(a, b, out=quotient, where=b != 0)
    return quotient


def confusions(predicted: NDArray[np.integer], labels: NDArray[np.integer], n_classes: int) -> NDArray[np.int64]:
    """Return the (..., C, C) counts of (..., n) predictions by label, both from 0 to C - 1 (broadcast); row: label."""
    predicted, labels = np.broadcast_arrays(predicted, labels)
    shape, n = predicted.shape[:-1], predicted.shape[-1]
    cells = labels.reshape(-1, n) * n_classes + predicted.reshape(-1, n)
    cells = cells + np.arange(len(cells))[:, None] * n_classes**2
    counts = np.bincount(cells.ravel(), minlength=len(cells) * n_classes**2)
    return counts.reshape(*shape, n_classes, n_classes)


def class_f1(confusion: NDArray[np.number]) -> NDArray[np.float64]:
    """Return each class's F1, (..., C) float64, of (..., C, C) counts; 0 for a class neither predicted nor there."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    f1: NDArray[np.float64] = 2 * hits / np.maximum(confusion.sum(-1) + confusion.sum(-2), 1)
    return f1


def mean_f1(f1: NDArray[np.floating], support: NDArray[np.number], *, absent: Absent) -> NDArray[np.float64]:
    """Return macro-F1, (...) float64, of each class's F1 and number of utterances, both (..., C).

    absent: what a class without utterances counts, "zero" (the challenge's rule, scikit-learn's labels=all and
    zero_division=0) or nothing, "skip". NaN without any utterance.
    """
    if absent == "zero":
        return np.where(support.sum(-1) > 0, f1.mean(-1), np.nan)
    return ratio(f1.sum(-1, where=support > 0), (support > 0).sum(-1))


def macro_f1(
    predicted: NDArray[np.integer], labels: NDArray[np.integer], n_classes: int, *, absent: Absent
) -> NDArray[np.float64]:
    """Return macro-F1, (...) float64, of (..., n) int predictions and labels from 0 to C - 1 (broadcast)."""
    confusion = confusions(predicted, labels, n_classes)
    return mean_f1(class_f1(confusion), confusion.sum(-1), absent=absent)


def ccc_of_sums(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the concordance correlation coefficient (Lin 1989, population moments), (...) float64.

    sums: (..., 6), of predictions x and targets y: n, x, y, xx, yy, xy. 0 where either side is constant, NaN where n
    is below 2: of one utterance nothing varies.
    """
    n = sums[..., 0]
    mx, my, xx, yy, xy = (ratio(sums[..., i], n) for i in range(1, N_SUMS))
    vx, vy = np.maximum(xx - mx**2, 0), np.maximum(yy - my**2, 0)
    # What rounding leaves of a constant's variance is not variance.
    constant = (vx <= 1e-12 * xx) | (vy <= 1e-12 * yy)
    value = ratio(2 * (xy - mx * my), vx + vy + (mx - my) ** 2)
    return np.where(n < MIN_PAIRS, np.nan, np.where(constant, 0.0, value))
