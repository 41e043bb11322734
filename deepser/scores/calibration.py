"""How good probabilities are: calibration against labels, temperature scaling, and closeness to the raters' votes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepser.scores.metrics import natural_order
from deepser.scores.probabilities import SMALLEST, entropy, softmax
from featurestore.errors import ConfigError, ManifestError
from featurestore.runtime.jsonable import json_fields

N_BINS = 15  # Guo et al. 2017
EPSILON = float(np.finfo(np.float32).eps)  # a probability of 0 costs as much as this one, as in scikit-learn's log_loss
EDGE = 1e-6  # float32 keeps a probability to 6e-8 or better
COLDEST, HOTTEST = 0.02, 50.0  # where a fit of the temperature stops: all right or all wrong has no finite optimum
N_STEPS = 60


@dataclass(frozen=True)
class ReliabilityBin:
    """Utterances whose largest probability lies in (low, high]: how many, their mean confidence and their accuracy."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """Calibration of N utterances' probabilities.

    ece, mce: expected and maximum calibration error of the predicted class over equal-width bins (Guo et al. 2017,
    "On Calibration of Modern Neural Networks", equations 3 and 5); nll: mean -ln p(label); brier: mean over utterances
    of the squared distance to the one-hot label, 0 to 2 (Brier 1950). confidence - accuracy > 0 is overconfidence.
    bins: those that are not empty.
    """

    n: int
    ece: float
    mce: float
    nll: float
    brier: float
    confidence: float
    accuracy: float
    bins: tuple[ReliabilityBin, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able values."""
        return json_fields(self)


@dataclass(frozen=True)
class SoftScores:
    """Probabilities against the votes' distribution, means over the `n` utterances that have votes.

    cross_entropy: -sum v ln p, in nats, of which vote_entropy is the least possible: the raters' own disagreement.
    jensen_shannon: divergence in bits, 0 (equal) to 1 (disjoint) (Lin 1991, "Divergence Measures Based on the Shannon
    Entropy").
    """

    n: int
    cross_entropy: float
    vote_entropy: float
    jensen_shannon: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able values."""
        return json_fields(self)


def calibration(probabilities: np.ndarray, labels: np.ndarray, n_bins: int = N_BINS) -> Calibration:
    """Calibration of (N, C) probabilities against (N,) labels; rows with label -1 are left out.

    ManifestError when no row has a label, ConfigError when rows are no distributions.
    """
    p, y = _labelled(probabilities, labels)
    if n_bins < 1:
        raise ConfigError(f"A reliability curve needs 1 bin or more, found {n_bins}.")
    confidence, correct = p.max(1), p.argmax(1) == y
    edges = np.linspace(0, 1, n_bins + 1)
    # (low, high], as Guo et al. have it. A share such as 3 / 5 is on an edge whether it was kept in float32 or float64.
    bin_of = np.searchsorted(edges[1:-1] + EDGE, confidence, side="left")
    n = np.bincount(bin_of, minlength=n_bins)
    mean_confidence, mean_right = (
        np.divide(np.bincount(bin_of, values, n_bins), n, out=np.full(n_bins, math.nan), where=n > 0)
        for values in (confidence, correct.astype(np.float64))
    )
    gap = np.nan_to_num(np.abs(mean_confidence - mean_right))
    off = p.copy()
    off[np.arange(len(y)), y] -= 1
    return Calibration(
        n=len(y),
        ece=float((gap * n).sum() / len(y)),
        mce=float(gap.max()),
        nll=_nll(p, y),
        brier=float((off**2).sum(1).mean()),
        confidence=float(confidence.mean()),
        accuracy=float(correct.mean()),
        bins=tuple(
            ReliabilityBin(float(edges[b]), float(edges[b + 1]), int(n[b]), float(c), float(a))
            for b, (c, a) in enumerate(zip(mean_confidence, mean_right, strict=True))
            if n[b]
        ),
    )


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray, *, smoothing: float = 0.0) -> float:
    """Return the temperature T that minimises the negative log-likelihood of softmax(z / T).

    Guo et al. 2017, section 4.2.

    z = ln p of (N, C) probabilities: it differs from the logits by a constant per row, which a softmax ignores. The
    likelihood is concave in 1 / T, whose optimum is found by Newton's method kept inside a shrinking bracket. T > 1
    softens. Rows with label -1 are left out. smoothing: the share of each label that is spread over all classes. Fit
    it on utterances other than those it is used on.
    """
    p, y = _labelled(probabilities, labels)
    z = np.log(np.maximum(p, SMALLEST))
    z -= z.max(1, keepdims=True)  # a softmax ignores it, and no power of these is too large
    z_label = (1 - smoothing) * z[np.arange(len(y)), y] + smoothing * z.mean(1)
    low, high, inverse = 1 / HOTTEST, 1 / COLDEST, 1.0
    for _ in range(N_STEPS):
        q = np.exp(inverse * z)
        total = q.sum(1)
        mean = np.einsum("nc,nc->n", q, z) / total
        slope = float((mean - z_label).mean())
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        curvature = float((np.einsum("nc,nc,nc->n", q, z, z) / total - mean**2).mean())
        step = inverse - slope / curvature if curvature > 0 else math.nan
        moved = step if low < step < high else (low + high) / 2
        if abs(moved - inverse) <= 1e-10 * inverse:
            break
        inverse = moved
    return 1 / inverse


def scale(probabilities: np.ndarray, temperature: float | np.ndarray) -> np.ndarray:
    """Return softmax(ln p / T) of (N, C) probabilities, float32; T is one number or (N,). The argmax stays the same."""
    t = np.broadcast_to(np.asarray(temperature, np.float64), len(probabilities))[:, None]
    if not (t > 0).all():
        raise ConfigError(f"A temperature must be more than 0, found {float(t.min())}.")
    return softmax(np.log(np.maximum(probabilities.astype(np.float64), SMALLEST)) / t).astype(np.float32)


def cross_scaled(
    probabilities: np.ndarray, labels: np.ndarray, folds: Sequence[str] | np.ndarray
) -> tuple[np.ndarray, dict[str, float]]:
    """Return (N, C) probabilities, scaled by a temperature fitted on the other folds, and each fold's temperature."""
    names = np.asarray(folds, dtype=object)
    scaled, temperatures = np.empty(probabilities.shape, np.float32), {}
    for fold in sorted(set(names.tolist()), key=natural_order):
        in_fold = names == fold
        temperatures[str(fold)] = fit_temperature(probabilities[~in_fold], labels[~in_fold])
        scaled[in_fold] = scale(probabilities[in_fold], temperatures[str(fold)])
    return scaled, temperatures


def cross_entropies(probabilities: np.ndarray, soft: np.ndarray) -> np.ndarray:
    """Return cross-entropies (N,) in nats of (N, C) probabilities under (N, C) vote shares; NaN without votes."""
    return np.where(soft.sum(1) > 0, -(soft * np.log(np.maximum(probabilities, EPSILON))).sum(1), math.nan)


def jensen_shannons(probabilities: np.ndarray, soft: np.ndarray) -> np.ndarray:
    """Return Jensen-Shannon divergences (N,) in bits of (N, C) probabilities and vote shares; NaN without votes."""
    p, v = probabilities.astype(np.float64), soft.astype(np.float64)
    divergence = entropy((p + v) / 2) - (entropy(p) + entropy(v)) / 2
    return np.where(v.sum(1) > 0, np.clip(divergence / math.log(2), 0, 1), math.nan)


def soft_scores(probabilities: np.ndarray, soft: np.ndarray) -> SoftScores | None:
    """Return the scores of (N, C) probabilities against (N, C) vote distributions (zeros: no votes).

    None without any vote.
    """
    voted = soft.sum(1) > 0
    if not voted.any():
        return None
    p, v = probabilities[voted], soft[voted]
    return SoftScores(
        n=int(voted.sum()),
        cross_entropy=float(cross_entropies(p, v).mean()),
        vote_entropy=float(entropy(v.astype(np.float64)).mean()),
        jensen_shannon=float(jensen_shannons(p, v).mean()),
    )


def _labelled(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows that have a label, as float64."""
    if probabilities.ndim != 2 or len(probabilities) != len(labels):
        raise ConfigError(f"Probabilities {probabilities.shape} for {len(labels)} labels; expected one row for each.")
    labelled = labels >= 0
    if not labelled.any():
        raise ManifestError("No utterance has a consensus label, so calibration can't be computed; give labelled ones.")
    p = probabilities[labelled].astype(np.float64)
    sums = p.sum(1)
    if (p < 0).any() or np.abs(sums - 1).max() > 1e-3:
        worst = int(np.abs(sums - 1).argmax())
        raise ConfigError(f"Probabilities must be 0 or more and sum to 1; row {worst + 1} sums to {sums[worst]:.4g}.")
    return p, labels[labelled]


def _nll(p: np.ndarray, y: np.ndarray) -> float:
    return float(-np.log(np.maximum(p[np.arange(len(y)), y], EPSILON)).mean())
