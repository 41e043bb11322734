"""What follows from counts of votes: the consensus, and the soft targets of a training run."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurestore.corpus.ratings import Ratings

PER_CENT = 100  # the sum of shares in per cent; no corpus has a hundred annotators for each utterance
ROUNDING = 1e-6  # of an utterance's votes: 0.1 + 0.2 is more than 0.3, and float32 keeps a share to 6e-8


@dataclass(frozen=True)
class Consensus:
    """What N utterances' voters agreed on: a label where they did, and why there is none where they did not."""

    labels: NDArray[np.int64]  # (N,) class, -1 where there is none
    tied: NDArray[np.bool_]  # (N,) two or more classes share the most votes, or (majority) none has over half
    unrated: NDArray[np.bool_]  # (N,) no votes at all


def consensus(counts: NDArray[np.floating], *, majority: bool = False) -> Consensus:
    """Return the class with the most of an utterance's votes, (N, C).

    With `majority` it must have over half of them. Votes may be shares: two that rounding alone tells apart are equal.
    """
    top, total = counts.max(1, initial=0.0), counts.sum(1)
    unrated, noise = total <= 0, ROUNDING * total
    clear = ((counts >= (top - noise)[:, None]).sum(1) == 1) & ~unrated
    if majority:
        clear &= top > total / 2 + noise
    first = counts.argmax(1) if counts.shape[1] else np.zeros(len(counts), np.int64)
    return Consensus(np.where(clear, first, -1).astype(np.int64), ~clear & ~unrated, unrated)


def plurality(counts: NDArray[np.floating]) -> NDArray[np.int64]:
    """Map (N, C) vote counts -> (N,) class with the most votes, -1 where it is tied or nobody voted."""
    return consensus(counts).labels


def are_counts(votes: NDArray[np.floating]) -> bool:
    """Whether (N, C) votes are numbers of annotators; else they are shares: fractions, or per cent in every row."""
    totals = votes.sum(1)
    per_cent = bool(totals.any()) and bool((totals[totals > 0] == PER_CENT).all())
    return bool((votes == np.round(votes)).all()) and not per_cent


def soft_targets(counts: NDArray[np.floating]) -> NDArray[np.float32]:
    """Map (N, C) vote counts -> (N, C) float32 shares that sum to one; zeros where nobody voted."""
    totals = counts.sum(1, keepdims=True)
    return (counts / np.where(totals > 0, totals, 1.0)).astype(np.float32)


def secondary_weights(ratings: Ratings, classes: Sequence[str], votes: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return (K,): what a secondary label weighs in each utterance's votes (K, C) beside a primary one.

    By least squares; 0 where nobody gave a secondary label, and where no weight makes these votes of the ratings.
    """
    primary = ratings.counts(classes)
    secondary = ratings.counts(classes, also=1.0) - primary
    square = (secondary**2).sum(1)
    product = ((votes - primary) * secondary).sum(1)
    weights: NDArray[np.float64] = np.divide(product, square, out=np.zeros(len(square)), where=square > 0)
    is_theirs = np.isclose(primary + weights[:, None] * secondary, votes).all(1) & (weights >= 0)
    return np.where(is_theirs, weights, 0.0)


def augmented_targets(
    ratings: Ratings,
    classes: Sequence[str],
    *,
    seed: int,
    epoch: int,
    share: float = 0.2,
    also: float | NDArray[np.float64] = 0.0,
) -> NDArray[np.float32]:
    """Return (K, C) soft targets of the annotators an epoch leaves; where they voted for no class, those of all.

    also: a secondary label's weight, one or (K,).
    """
    remaining = soft_targets(ratings.dropped(seed=seed, epoch=epoch, share=share).counts(classes, also=also))
    full = soft_targets(ratings.counts(classes, also=also))
    return np.where(remaining.any(1, keepdims=True), remaining, full)
