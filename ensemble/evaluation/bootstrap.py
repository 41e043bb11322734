"""Intervals and paired tests for scores, by resampling whole speakers.

Utterances of one speaker are alike, so that resampling utterances gives intervals that are too narrow. The units here
are clusters: speakers. Every score is a function of sums over utterances (confusion counts, moments, means), which add
up over clusters; a resample is then a row of counts times a table of sums, and a thousand of them one matrix product.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from deepser.scores.counts import MIN_PAIRS, N_SUMS, ccc_of_sums, class_f1, mean_f1, ratio
from featurestore.errors import ConfigError
from featurestore.runtime.jsonable import json_fields

CHUNK_BYTES = 64 << 20
LEVEL = 0.95
_DRAWN, _SWAPPED = 11, 12  # separate the random streams that share a seed


@dataclass(frozen=True)
class Interval:
    """A score and the interval around it; NaN ends where none can be computed."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """A score of two systems on the same utterances: first - second with its interval, and a two-sided p-value.

    p_holm: the p-value corrected for the number of systems that are compared with one, see
    `ensemble.evaluation.multiple`; NaN where two systems stand alone. The interval is never corrected.
    """

    first: float
    second: float
    value: float
    low: float
    high: float
    p: float
    p_holm: float = float("nan")


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same utterances, score by score."""

    first: str
    second: str
    n_clusters: int
    n_resamples: int
    differences: dict[str, Difference]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able values."""
        values = json_fields(self)
        return values


@dataclass(frozen=True)
class Sums:
    """Sums over each cluster's utterances, from which `scores` follow: values (G, K) float64.

    K: the C x C confusion counts (row: true class); per attribute n, x, y, xx, yy, xy of predictions x and targets y;
    per mean n and the sum.
    """

    classes: tuple[str, ...]
    attributes: tuple[str, ...]
    means: tuple[str, ...]
    values: np.ndarray

    def scores(self, values: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Return scores of (..., K) sums, by default of all clusters, named as in `deepser.scores.metrics`.

        Defined as there: a class without utterances counts as 0 in macro_f1, not at all in macro_f1_present and uar,
        and its own F1 is NaN; a constant's CCC is 0. Besides them f1_<class>, ccc_<attribute> and the means. NaN where
        nothing is known; so is mean_ccc where an attribute is missing that is known over all clusters.
        """
        values = self.values.sum(0) if values is None else values
        column = len(self.classes) ** 2
        scores = self._class_scores(values[..., :column]) if self.classes else {}
        defined = []  # attributes that have a CCC over all clusters
        for name in self.attributes:
            scores[f"ccc_{name}"] = ccc_of_sums(values[..., column : column + N_SUMS])
            if self.values[:, column].sum() >= MIN_PAIRS:
                defined.append(name)
            column += N_SUMS
        if self.attributes:
            undefined = np.full(values.shape[:-1], np.nan)
            scores["mean_ccc"] = np.mean([scores[f"ccc_{name}"] for name in defined], 0) if defined else undefined
        for name in self.means:
            scores[name] = ratio(values[..., column + 1], values[..., column])
            column += 2
        return scores

    def counting(self) -> "Sums":
        """Return the same without the clusters of which nothing is known, such as speakers without a label."""
        known = self.values.any(1)
        return replace(self, values=self.values[known]) if known.any() else self

    def clusters_of(self) -> dict[str, int]:
        """Return how many clusters each score is of: one that has a label, a target or a mean."""
        column = len(self.classes) ** 2
        labelled = int(self.values[:, :column].any(1).sum())
        clusters = dict.fromkeys(self._class_scores(np.zeros(column)) if self.classes else (), labelled)
        with_target = np.zeros(len(self.values), bool)
        for name in self.attributes:
            clusters[f"ccc_{name}"] = int((self.values[:, column] > 0).sum())
            with_target |= self.values[:, column] > 0
            column += N_SUMS
        if self.attributes:
            clusters["mean_ccc"] = int(with_target.sum())
        for name in self.means:
            clusters[name] = int((self.values[:, column] > 0).sum())
            column += 2
        return clusters

    def _class_scores(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        n_classes = len(self.classes)
        confusion = flat.reshape(*flat.shape[:-1], n_classes, n_classes)
        hits, support = np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(-1)
        n = support.sum(-1)
        f1 = class_f1(confusion)
        accuracy = ratio(hits.sum(-1), n)
        recall = np.nan_to_num(ratio(hits, support))
        scores = {
            "macro_f1": mean_f1(f1, support, absent="zero"),
            "macro_f1_present": mean_f1(f1, support, absent="skip"),
            "micro_f1": accuracy,
            "accuracy": accuracy,
            "uar": ratio(recall.sum(-1), (support > 0).sum(-1)),
        }
        return scores | {
            f"f1_{name}": np.where(support[..., c] > 0, f1[..., c], np.nan) for c, name in enumerate(self.classes)
        }


@dataclass(frozen=True)
class MeanSums(Sums):
    """Sums of M systems side by side, values (G, M * K): a score is the mean over the systems."""

    n_systems: int = 1

    @classmethod
    def of(cls, sums: Sequence[Sums]) -> "MeanSums":
        """Return the mean of systems on the same utterances, with the same classes, attributes and means."""
        first = sums[0]
        values = np.concatenate([each.values for each in sums], 1)
        return cls(first.classes, first.attributes, first.means, values, len(sums))

    def scores(self, values: np.ndarray | None = None) -> dict[str, np.ndarray]:
        values = self.values.sum(0) if values is None else values
        each = [Sums.scores(self, part) for part in np.split(values, self.n_systems, axis=-1)]
        return {name: np.mean([own[name] for own in each], 0) for name in each[0]}

    def clusters_of(self) -> dict[str, int]:
        return Sums(
            self.classes, self.attributes, self.means, np.split(self.values, self.n_systems, 1)[0]
        ).clusters_of()


@dataclass(frozen=True)
class Scored:
    """N utterances with what is true of them and what was predicted, in one order.

    labels (N,) int, -1 without consensus; predicted (N,) int, None where attributes alone were predicted; targets and
    values (N, A), targets NaN where missing; means: further (N,) values to be averaged, NaN where undefined; clusters
    (N,): what is resampled whole, the speaker; notes: what reading the predictions had to assume, or leaves out.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    predicted: np.ndarray | None
    attributes: tuple[str, ...]
    targets: np.ndarray
    values: np.ndarray
    clusters: np.ndarray
    means: Mapping[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def n_clusters(self) -> int:
        """The clusters in which anything is known that was predicted."""
        known = ~np.isnan(self.targets).all(1) if self.attributes else np.zeros(len(self.clusters), bool)
        if self.predicted is not None:
            known |= self.labels >= 0
        for values in self.means.values():
            known |= ~np.isnan(values)
        return len(set(self.clusters[known].tolist()))

    def rows(self, indices: np.ndarray) -> "Scored":
        """Return the same on some rows: (n,) int indices or an (N,) bool mask."""
        predicted = None if self.predicted is None else self.predicted[indices]
        means = {name: values[indices] for name, values in self.means.items()}
        selected = self.targets[indices], self.values[indices], self.clusters[indices]
        return Scored(self.classes, self.labels[indices], predicted, self.attributes, *selected, means)

    def sums(self) -> Sums:
        """One row of sums per cluster, in the order of the sorted cluster names."""
        names, cluster = np.unique(self.clusters.astype(str), return_inverse=True)
        n_clusters = len(names)
        parts = []
        classes = () if self.predicted is None else self.classes
        if self.predicted is not None:
            usable, c = self.labels >= 0, len(classes)
            cell = (cluster[usable] * c + self.labels[usable]) * c + self.predicted[usable]
            parts.append(np.bincount(cell, minlength=n_clusters * c * c).reshape(n_clusters, c * c))
        for a in range(len(self.attributes)):
            usable = ~np.isnan(self.targets[:, a])
            # Both sides less the same number have the same CCC, and squares that keep their digits.
            centre = float(self.targets[usable, a].mean(dtype=np.float64)) if usable.any() else 0.0
            y = self.targets[usable, a].astype(np.float64) - centre
            x = self.values[usable, a].astype(np.float64) - centre
            moments = (np.ones(len(x)), x, y, x * x, y * y, x * y)
            parts.append(np.stack([np.bincount(cluster[usable], m, n_clusters) for m in moments], 1))
        for values in self.means.values():
            usable = ~np.isnan(values)
            counts = np.bincount(cluster[usable], minlength=n_clusters)
            parts.append(np.stack([counts, np.bincount(cluster[usable], values[usable], n_clusters)], 1))
        if not parts:
            raise ConfigError("Neither classes nor attributes were predicted, so there is nothing to resample.")
        stacked = np.concatenate(parts, 1).astype(np.float64)
        return Sums(classes, self.attributes, tuple(self.means), stacked)


def bootstrap(sums: Sums, n_resamples: int = 1000, *, seed: int = 0, level: float = LEVEL) -> dict[str, Interval]:
    """Percentile intervals of every score from a cluster bootstrap (Davison & Hinkley 1997, section 3.8).

    Each resample draws as many clusters as there are, with replacement, each with all its utterances; a cluster of
    which nothing is known is none. NaN ends around a score of one cluster, or with no resample. With few clusters
    (below about twenty) such intervals are known to be too narrow.
    """
    sums = sums.counting()
    return intervals(sums.scores(), sums.scores(resample(sums.values, n_resamples, seed)), sums.clusters_of(), level)


def compare(
    first: Sums, second: Sums, names: tuple[str, str], n_resamples: int = 1000, *, seed: int = 0, level: float = LEVEL
) -> Comparison:
    """Two systems on the same utterances and clusters: differences with intervals, and p-values.

    The interval is a paired cluster bootstrap: both systems on the same resampled speakers. The p-value is that of a
    permutation test: under the null hypothesis the systems' names mean nothing, so they are swapped for a random half
    of the speakers, all utterances of a speaker together, and the difference found is set against those after such
    swaps (approximate randomisation, Noreen 1989; for F1, Yeh 2000, "More accurate tests for the statistical
    significance of result differences"). It holds its level for any score and few speakers, where a p-value read off a
    bootstrap does not: resamples are spread around the difference found, not around none. Two-sided:
    (1 + swaps with a difference at least as large) / (1 + swaps). Of few speakers all swaps are made, if these are no
    more than n_resamples, and the p-value is exact.
    """
    if n_resamples < 1:
        raise ConfigError(f"Comparing {names[0]} and {names[1]} takes 1 resample or more, found {n_resamples}.")
    shape = (first.classes, first.attributes, first.means, first.values.shape)
    if shape != (second.classes, second.attributes, second.means, second.values.shape):
        raise ConfigError(f"{names[0]} and {names[1]} can't be compared: their scores are not of the same utterances.")
    first, second = first.counting(), second.counting()  # the same clusters, as labels and targets are both systems'
    a, b = first.values, second.values
    k, n_clusters = a.shape[1], len(a)
    first_scores, second_scores = first.scores(), second.scores()
    drawn = resample(np.concatenate([a, b], 1), n_resamples, seed)
    drawn_apart = _subtract(first.scores(drawn[:, :k]), first.scores(drawn[:, k:]))
    # A swapped cluster's a - b leaves the first system's sum and joins the second's.
    moved = np.concatenate([swaps @ (a - b) for swaps in _swaps(n_resamples, n_clusters, seed)])
    permuted = _subtract(first.scores(a.sum(0) - moved), first.scores(b.sum(0) + moved))
    differences = {}
    apart = _subtract(first_scores, second_scores)
    for name, interval in intervals(apart, drawn_apart, first.clusters_of(), level).items():
        p = _p_value(interval.value, permuted[name])
        differences[name] = Difference(
            float(first_scores[name]), float(second_scores[name]), interval.value, interval.low, interval.high, p
        )
    return Comparison(*names, n_clusters, n_resamples, differences)


def resample(values: np.ndarray, n_resamples: int, seed: int, stream: int = 0) -> np.ndarray:
    """Return (B, K): the sum of G rows drawn with replacement from (G, K), B times; another draw for another stream."""
    n = len(values)
    rng = np.random.default_rng((_DRAWN, seed, stream))
    sums = [np.empty((0, values.shape[1]))]
    for size in _chunks(n_resamples, n):
        drawn = rng.integers(0, n, (size, n)) + np.arange(size)[:, None] * n
        sums.append(np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float64) @ values)
    return np.concatenate(sums)


def _swaps(n_resamples: int, n_clusters: int, seed: int) -> Iterator[np.ndarray]:
    """Yield (n, G) which clusters are swapped: each way to swap some, where these are no more than asked for."""
    n_ways = 2**n_clusters - 1
    if n_ways <= n_resamples:
        first = 1
        for size in _chunks(n_ways, n_clusters):
            yield (np.arange(first, first + size)[:, None] >> np.arange(n_clusters)) % 2 == 1
            first += size
        return
    rng = np.random.default_rng((_SWAPPED, seed))
    for size in _chunks(n_resamples, n_clusters):
        yield rng.random((size, n_clusters)) < 0.5


def _chunks(n_resamples: int, n_clusters: int) -> Iterator[int]:
    """Yield the sizes that add up to n_resamples, each a block of float64 of about CHUNK_BYTES."""
    if n_resamples < 0 or n_clusters < 1:
        raise ConfigError(f"{n_resamples} resamples of {n_clusters} speakers: expected 0 or more of 1 or more.")
    size = max(1, CHUNK_BYTES // (8 * n_clusters))
    for start in range(0, n_resamples, size):
        yield min(size, n_resamples - start)


def intervals(
    values_of_score: Mapping[str, np.ndarray],
    resampled: Mapping[str, np.ndarray],
    n_clusters: int | Mapping[str, int],
    level: float = LEVEL,
) -> dict[str, Interval]:
    """Return each score between the quantiles of its (B,) resampled values.

    The ends are NaN where there are no such values, and around a score that is undefined itself: a speaker drawn twice
    would make two ratings of one. n_clusters: that were resampled, or by score those that it is of.
    """
    if not 0 < level < 1:
        raise ConfigError(f"The level of an interval must lie between 0 and 1, found {level}.")
    intervals = {}
    for name, value in values_of_score.items():
        values = resampled[name][~np.isnan(resampled[name])]
        n = n_clusters if isinstance(n_clusters, int) else n_clusters[name]
        is_defined = n > 1 and len(values) > 0 and not np.isnan(value)
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2]) if is_defined else (np.nan, np.nan)
        intervals[name] = Interval(float(value), float(low), float(high))
    return intervals


def _subtract(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: first[name] - second[name] for name in first}


def _p_value(difference: float, permuted: np.ndarray) -> float:
    if np.isnan(difference):
        return float("nan")
    values = permuted[~np.isnan(permuted)]
    at_least = int((np.abs(values) >= abs(difference) - 1e-12).sum())  # equal but for rounding is equal
    return (1 + at_least) / (1 + len(values))
