"""Fusion without training: the majority and soft votes of MEDUSA's Table 3."""

import numpy as np

MAJORITY_VOTE = "majority vote"
SOFT_VOTE = "soft vote"


def majority_vote(probabilities: np.ndarray) -> np.ndarray:
    """Members' (M, N, C) probabilities -> (N,) int64 classes, the one most members put first.

    Ties go to the tied class with the largest summed probability.
    """
    n_classes = probabilities.shape[2]
    votes = (probabilities.argmax(2)[..., None] == np.arange(n_classes)).sum(0)
    tied = votes == votes.max(1, keepdims=True)
    return np.where(tied, probabilities.sum(0, dtype=np.float64), -np.inf).argmax(1)


def soft_vote(probabilities: np.ndarray) -> np.ndarray:
    """Members' (M, N, C) probabilities (or attributes, (M, N, A)) -> their mean over members, float32."""
    return probabilities.mean(0, dtype=np.float64).astype(np.float32)
