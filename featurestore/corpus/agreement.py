"""How far annotators agree, beyond chance: 1 is complete agreement, 0 that of chance, NaN where it is undefined."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import ManifestError


def fleiss_kappa(counts: NDArray[np.floating]) -> float:
    """Return Fleiss' kappa (1971) of (N, C) vote counts, each utterance by its own number of annotators.

    Generalised as by Gwet (Handbook of Inter-Rater Reliability, 4th ed., 2014): agreement is the mean over utterances
    with two votes or more, chance agreement from the mean share of each class. Equal numbers give Fleiss' own kappa.
    """
    counts = _whole(counts)
    n = counts.sum(1)
    counts, n = counts[n > 0], n[n > 0]
    several = n > 1
    if not several.any():
        return float("nan")
    pairs = (counts**2).sum(1) - n
    observed = (pairs[several] / (n * (n - 1))[several]).mean()
    by_chance = ((counts / n[:, None]).mean(0) ** 2).sum()
    return float((observed - by_chance) / (1 - by_chance)) if by_chance < 1 else float("nan")


def krippendorff_nominal(counts: NDArray[np.floating]) -> float:
    """Return Krippendorff's alpha for names (Content Analysis, 4th ed., 2018, ch. 12), from (N, C) vote counts.

    Utterances with one vote pair with nothing and are left out, as he does.
    """
    counts = _whole(counts)
    counts = counts[counts.sum(1) > 1]
    m, n = counts.sum(1), counts.sum()
    expected = n**2 - (counts.sum(0) ** 2).sum()
    if not expected:
        return float("nan")
    observed = ((m**2 - (counts**2).sum(1)) / (m - 1)).sum()
    return float(1 - (n - 1) * observed / expected)


def krippendorff_interval(values: NDArray[np.floating], units: NDArray[np.integer]) -> float:
    """Return Krippendorff's alpha for numbers, differing by (x - y)^2: values (R,), NaN if missing, units (R,)."""
    rated = ~np.isnan(values)
    _, units = np.unique(units[rated], return_inverse=True)
    m = np.bincount(units)[units]
    values, units = values[rated][m > 1], units[m > 1]
    if not len(values):
        return float("nan")
    values = values - values.mean()  # sums of squares of small numbers lose less
    m = np.bincount(units)
    # Over ordered pairs within a set of m values, the squared differences sum to 2 (m sum x^2 - (sum x)^2).
    within = 2 * (m * np.bincount(units, values**2) - np.bincount(units, values) ** 2)
    n = len(values)
    expected = 2 * (n * (values**2).sum() - values.sum() ** 2)
    if not expected:
        return float("nan")
    return float(1 - (n - 1) * (within[m > 1] / (m[m > 1] - 1)).sum() / expected)


def _whole(counts: NDArray[Any]) -> NDArray[np.float64]:
    counts = np.asarray(counts, dtype=np.float64)
    if (counts != np.round(counts)).any() or (counts < 0).any():
        raise ManifestError("Agreement needs vote counts in whole numbers, found shares. Keep the raw votes.")
    return counts
