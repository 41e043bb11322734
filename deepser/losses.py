"""Losses and Manifold MixUp, on class logits, soft targets and attributes that may be missing."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F


def class_weights(labels: NDArray[np.integer], n_classes: int, exponent: float) -> NDArray[np.float32]:
    """(N / (C f_c)) ** exponent per class, (C,) float32, from the training split's labels (MEDUSA, stage 1).

    Clips without consensus (-1) do not count; a class without a clip gets weight zero.
    """
    counts = np.bincount(labels[labels >= 0], minlength=n_classes).astype(np.float64)
    with np.errstate(divide="ignore"):
        weights = np.where(counts > 0, (counts.sum() / (n_classes * np.maximum(counts, 1))) ** exponent, 0.0)
    return weights.astype(np.float32)


def soft_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Mean over the batch of -sum_c w_c t_c log p_c; logits, targets (B, C), weights (C,)."""
    return -(weights * targets * F.log_softmax(logits, 1)).sum(1).mean()


def masked_mse(predicted: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error over the attributes that are known; (B, A), NaN where missing; zero if none is known."""
    known = ~torch.isnan(targets)
    errors = torch.where(known, predicted - targets, torch.zeros_like(predicted))
    return errors.square().sum() / known.sum().clamp(min=1)


@dataclass(frozen=True)
class Mix:
    """One batch's MixUp: clip i becomes weight_i * clip i + (1 - weight_i) * clip partner_i."""

    weight: Tensor  # (B, 1) float32; 1 leaves a clip as it is
    partner: Tensor  # (B,) int64

    @staticmethod
    def draw(n: int, p: float, alpha: float, rng: np.random.Generator) -> "Mix":
        """Per clip: with probability p, lambda ~ Beta(alpha, alpha) and a random partner (MEDUSA, section 3)."""
        weight = np.where(rng.random(n) < p, rng.beta(alpha, alpha, n), 1.0).astype(np.float32)
        return Mix(torch.from_numpy(weight)[:, None], torch.from_numpy(rng.permutation(n)))

    def to(self, device: torch.device) -> "Mix":
        return Mix(self.weight.to(device), self.partner.to(device))

    def __call__(self, values: Tensor) -> Tensor:
        """(B, ...) -> mixed (B, ...). A clip that is not mixed keeps its value even where its partner's is NaN."""
        mixed = self.weight * values + (1 - self.weight) * values[self.partner]
        return torch.where(self.weight == 1, values, mixed)
