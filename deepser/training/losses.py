"""Losses and Manifold MixUp, on class logits, soft targets and attributes that may be missing."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from deepser.config import LossConfig

SEVEN_POINT_SPAN = 6.0  # of the scale that a Gaussian penalty's sigma is given on, 1 to 7
CONFUSION_FLOOR = 0.1  # of 1 - F1: a class that is never confused still counts
CCC_FLOOR = 1e-8  # a batch in which predictions and targets are one constant has no concordance to divide by


def class_weights(labels: NDArray[np.integer], n_classes: int, exponent: float) -> NDArray[np.float32]:
    """Return (N / (C f_c)) ** exponent per class, (C,) float32, from the training split's labels (MEDUSA, stage 1).

    Clips without consensus (-1) do not count; a class without a clip gets weight zero. Where no clip has a label all
    classes weigh the same, as they do with exponent 0: their votes are learned from.
    """
    if not exponent or not (labels >= 0).any():
        return np.ones(n_classes, np.float32)
    counts = np.bincount(labels[labels >= 0], minlength=n_classes).astype(np.float64)
    with np.errstate(divide="ignore"):
        weights = np.where(counts > 0, (counts.sum() / (n_classes * np.maximum(counts, 1))) ** exponent, 0.0)
    return weights.astype(np.float32)


def confusion_factors(
    logits: NDArray[np.floating], labels: NDArray[np.integer], exponent: float
) -> NDArray[np.float32]:
    """Return the factors of class weights that let confused classes count more.

    (C,) float32, 1 on average.

    (0.1 + 1 - F1_c) over its mean over classes, to the power of `exponent`. F1 counts both kinds of confusion: clips of
    c called otherwise, and others called c. logits (n, C), labels (n,), -1 for none; a class without a clip gets 1.
    SRPOL weighs "the classes most confused" in its phase 2 and gives no formula: this one is ours.
    """
    labelled, n_classes = labels >= 0, logits.shape[1]
    true, predicted = labels[labelled], logits[labelled].argmax(1)
    n_true, n_predicted = np.bincount(true, minlength=n_classes), np.bincount(predicted, minlength=n_classes)
    hits = np.bincount(true[true == predicted], minlength=n_classes)
    confused = CONFUSION_FLOOR + 1 - 2 * hits / np.maximum(n_true + n_predicted, 1)
    present = n_true > 0
    mean = confused[present].mean() if present.any() else 1.0
    return np.where(present, (confused / mean) ** exponent, 1.0).astype(np.float32)


def total_loss(
    config: LossConfig,
    logits: Tensor,
    soft: Tensor,
    weights: Tensor,
    attributes: Tensor,
    values: Tensor,
    ranges: Tensor,
) -> Tensor:
    """Return a stage's loss: the weighted sum of the losses of classes and attributes.

    A loss whose weight is zero is left out.

    logits, soft (B, C); weights (C,); attributes, values (B, A) on their own scales, values NaN where missing;
    ranges (A, 2): low and high of each.
    """
    total = logits.new_zeros(())
    if config.classification_weight:
        total = config.classification_weight * CLASS_LOSSES[config.classes](logits, soft, weights, config)
    if config.attribute_weight and attributes.shape[1]:
        total = total + config.attribute_weight * ATTRIBUTE_LOSSES[config.attributes](
            attributes, values, ranges, config
        )
    return total


def soft_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Mean over the batch of -sum_c w_c t_c log p_c; logits, targets (B, C), weights (C,)."""
    return -(weights * targets * F.log_softmax(logits, 1)).sum(1).mean()


def focal_loss(logits: Tensor, targets: Tensor, weights: Tensor, gamma: float) -> Tensor:
    """Mean over the batch of -sum_c w_c t_c (1 - p_c) ** gamma log p_c (Lin et al. 2017, for soft targets)."""
    log_p = F.log_softmax(logits, 1)
    # p can round to one, where the slope of (1 - p) ** gamma is not finite for gamma below one.
    far = (1 - log_p.exp()).clamp(min=torch.finfo(log_p.dtype).eps) ** gamma
    return -(weights * targets * far * log_p).sum(1).mean()


def masked_mse(predicted: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error over the attributes that are known; (B, A), NaN where missing; zero if none is known."""
    rated, errors = _errors(predicted, targets)
    return errors.square().sum() / rated.sum().clamp(min=1)


def gaussian_mse(predicted: Tensor, targets: Tensor, ranges: Tensor, sigma: float) -> Tensor:
    """Mean over the known of exp(-(y' - mu)^2 / (2 sigma^2)) (y - y')^2: errors near the scale's middle cost more.

    SRPOL's penalty against predictions near the mean: mu = 4 and sigma in {3, 5, 7} on a scale from 1 to 7. On any
    other scale, mu is its middle and sigma grows with it. predicted, targets (B, A), ranges (A, 2).
    """
    rated, errors = _errors(predicted, targets)
    low, high = ranges[:, 0], ranges[:, 1]
    from_middle = (predicted - (low + high) / 2) / (sigma * (high - low) / SEVEN_POINT_SPAN)
    return (torch.exp(-from_middle.square() / 2) * errors.square()).sum() / rated.sum().clamp(min=1)


def ccc_loss(predicted: Tensor, targets: Tensor) -> Tensor:
    """Sum over attributes of 1 - CCC within the batch (population moments); (B, A), NaN where missing.

    The same on any scale. An attribute known of fewer than two clips adds nothing.
    """
    rated = ~torch.isnan(targets)
    n = rated.sum(0).clamp(min=1)
    x, y = torch.where(rated, predicted, 0), torch.where(rated, targets, 0)
    mean_x, mean_y = x.sum(0) / n, y.sum(0) / n
    dx, dy = torch.where(rated, x - mean_x, 0), torch.where(rated, y - mean_y, 0)
    covariance, variances = (dx * dy).sum(0) / n, (dx.square() + dy.square()).sum(0) / n
    ccc = 2 * covariance / (variances + (mean_x - mean_y).square() + CCC_FLOOR)
    return torch.where(rated.sum(0) > 1, 1 - ccc, 0).sum()


def _errors(predicted: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Which (B, A) are known, and predicted - target there, zero elsewhere (no NaN reaches a gradient)."""
    rated = ~torch.isnan(targets)
    return rated, torch.where(rated, predicted - targets, torch.zeros_like(predicted))


CLASS_LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor, LossConfig], Tensor]] = {
    "cross-entropy": lambda logits, soft, weights, config: soft_cross_entropy(logits, soft, weights),
    "focal": lambda logits, soft, weights, config: focal_loss(logits, soft, weights, config.focal_gamma),
}
ATTRIBUTE_LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor, LossConfig], Tensor]] = {
    "mse": lambda predicted, values, ranges, config: masked_mse(predicted, values),
    "ccc": lambda predicted, values, ranges, config: ccc_loss(predicted, values),
    "gaussian-mse": lambda predicted, values, ranges, config: gaussian_mse(
        predicted, values, ranges, config.gaussian_sigma
    ),
}


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
        """Map (B, ...) -> mixed (B, ...). A clip that is not mixed keeps its value even where its partner's is NaN."""
        mixed = self.weight * values + (1 - self.weight) * values[self.partner]
        return torch.where(self.weight == 1, values, mixed)
