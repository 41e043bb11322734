"""From scores to probabilities and to attributes on their scales, by what was held out inside the training part."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from deepser.probes.problem import Pass, Problem

LOWEST, HIGHEST = 1e-3, 1e2  # of a temperature


@dataclass(frozen=True)
class Calibration:
    """Logits are scores / temperature; attributes are centre + slope * (score - offset), kept within their range."""

    temperature: float
    slopes: tuple[float, ...]
    offsets: tuple[float, ...]
    centres: tuple[float, ...]

    @staticmethod
    def of(problem: Problem, each: Pass, inner: NDArray[np.float32], balanced: bool) -> "Calibration":
        """Fitted on held-out scores (n, C + A) of a pass's training rows.

        The temperature minimises the cross-entropy with the targets; balanced, each class weighs alike. An attribute's
        mean and deviation become those of its targets, which is what the concordance asks for.
        """
        values = problem.values[each.train]
        n_classes = problem.n_classes
        temperature = 1.0
        usable = ~np.isnan(values[:, :1]).any(1) & ~np.isnan(inner[:, :n_classes]).any(1)
        if n_classes and usable.any():
            temperature = _temperature(
                inner[usable, :n_classes].astype(np.float64), values[usable, :n_classes], balanced
            )
        return Calibration.of_attributes(problem, each, inner, temperature)

    @staticmethod
    def of_attributes(
        problem: Problem, each: Pass, inner: NDArray[np.float32], temperature: float = 1.0
    ) -> "Calibration":
        """Return the same with a temperature that is given."""
        values, n_classes = problem.values[each.train], problem.n_classes
        slopes, offsets, centres = [], [], []
        for a in range(n_classes, values.shape[1]):
            paired = ~np.isnan(values[:, a]) & ~np.isnan(inner[:, a])
            truth, predicted = values[paired, a], inner[paired, a].astype(np.float64)
            spread = float(predicted.std()) if len(predicted) else 0.0
            slopes.append(float(truth.std()) / spread if spread > 0 else 1.0)
            offsets.append(float(predicted.mean()) if len(predicted) else 0.0)
            centres.append(float(truth.mean()) if len(predicted) else 0.0)
        return Calibration(temperature, tuple(slopes), tuple(offsets), tuple(centres))

    def outputs(
        self, problem: Problem, scores: NDArray[np.floating]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return logits (n, C) and attributes (n, A) of scores (n, C + A)."""
        n_classes = problem.n_classes
        logits = scores[:, :n_classes] / self.temperature
        values = np.array(self.centres) + np.array(self.slopes) * (scores[:, n_classes:] - np.array(self.offsets))
        ranges = np.array(problem.attribute_ranges, np.float64).reshape(-1, 2)
        return logits.astype(np.float32), np.clip(values, ranges[:, 0], ranges[:, 1]).astype(np.float32)


def _temperature(scores: NDArray[np.float64], targets: NDArray[np.float64], balanced: bool) -> float:
    share = targets.mean(0)
    weight = np.where(share > 0, 1 / np.where(share > 0, share, 1), 0) if balanced else np.ones(len(share))
    weighted = targets * weight

    def loss(log_temperature: float) -> float:
        return float(-(weighted * log_softmax(scores / np.exp(log_temperature), 1)).sum())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded").x))
