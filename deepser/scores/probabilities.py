"""Logits to probabilities and back, and how unsure a distribution is; over the last axis."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import special

T = TypeVar("T", bound=np.floating)

SMALLEST = float(np.finfo(np.float32).tiny)  # stands for a probability of 0 under a logarithm that must stay finite


def softmax(logits: NDArray[T]) -> NDArray[T]:
    """Return the probabilities of (..., C) logits, in their dtype; none where there is no class."""
    probabilities: NDArray[T] = special.softmax(logits, axis=-1) if logits.shape[-1] else logits.copy()
    return probabilities


def entropy(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the entropy in nats of (..., C) distributions, (...) float64: 0 for a certain class, ln(C) at most."""
    terms: NDArray[np.float64] = special.entr(np.asarray(probabilities, np.float64))
    return np.asarray(terms.sum(-1))


def log_probabilities(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the logarithm of (..., C) float32 probabilities, -87.3 where one is 0."""
    import torch  # numpy's logarithm of float32 differs in the last bit; torch's is what models were stored with

    return torch.from_numpy(probabilities).clamp(min=torch.finfo(torch.float32).tiny).log().numpy()
