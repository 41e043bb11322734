"""Fusion without training: the votes of MEDUSA's Table 3, and the challenge baseline's plurality and mean fusion."""

import numpy as np


def majority_vote(probabilities: np.ndarray) -> np.ndarray:
    """Map members' (M, N, C) probabilities -> (N,) int64 classes that most members put first (by plurality).

    Ties go to the tied class with the largest summed probability.
    """
    classes: np.ndarray = vote_shares(probabilities).argmax(1)
    return classes


def vote_shares(probabilities: np.ndarray) -> np.ndarray:
    """Map members' (M, N, C) probabilities -> (N, C) float64, the share of the members' votes; rows sum to one.

    The mean probability counts as half a vote besides, so that the largest share is `majority_vote`'s, ties and all.
    """
    n_members, _, n_classes = probabilities.shape
    votes = np.zeros(probabilities.shape[1:])
    for of_member in probabilities if n_classes else ():
        votes[np.arange(len(of_member)), of_member.argmax(1)] += 1
    mean = probabilities.mean(0, dtype=np.float64)
    shares: np.ndarray = (votes + mean / (2 * np.maximum(mean.sum(1, keepdims=True), 1e-300))) / (n_members + 0.5)
    return shares


def soft_vote(probabilities: np.ndarray) -> np.ndarray:
    """Map members' (M, N, C) probabilities (or attributes, (M, N, A)) -> their mean over members, float32."""
    mean: np.ndarray = probabilities.mean(0, dtype=np.float64).astype(np.float32)
    return mean


def weighted_vote(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Map members' (M, N, K) values -> their weighted mean, (N, K) float32.

    weights: (M,), or (M, K) with a weight for every column; none below zero. Where all weights of a column are zero,
    members count alike.
    """
    weights = np.broadcast_to(np.atleast_2d(weights.T).T, (len(values), values.shape[2])).astype(np.float64)
    total = weights.sum(0)
    weights = np.where(total > 0, weights / np.where(total > 0, total, 1), 1 / len(values))
    mean: np.ndarray = np.einsum("mnk,mk->nk", values, weights, dtype=np.float64).astype(np.float32)
    return mean
