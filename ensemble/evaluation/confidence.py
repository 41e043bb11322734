"""Whether the probabilities of several folds are on one scale, so that they may be pooled."""

from collections.abc import Sequence

import numpy as np

WILD = 0.2  # between the mean confidences of two folds: more than folds of one corpus differ by chance


def confidence_notes(probabilities: np.ndarray, folds: Sequence[str] | np.ndarray) -> list[str]:
    """Return a note where the mean confidence of (N, C) probabilities differs wildly between folds (N,), else nothing.

    Each fold is predicted by another model. Where one is far more confident, figures of pooled probabilities
    (calibration error, a common temperature, reliability curves) mix scales.
    """
    names = np.asarray(folds, dtype=object)
    if not probabilities.size:
        return []
    confidence = {fold: float(probabilities[names == fold].max(1).mean()) for fold in dict.fromkeys(names.tolist())}
    low, high = min(confidence, key=confidence.__getitem__), max(confidence, key=confidence.__getitem__)
    if confidence[high] - confidence[low] <= WILD:
        return []
    return [
        f"mean confidence differs by fold, from {confidence[low]:.2f} (fold {low}) to {confidence[high]:.2f} (fold "
        f"{high}): figures of all folds' probabilities together, such as ECE and temperatures, mix scales"
    ]
