"""Ridge regression in closed form: held-out predictions by block inverses, and scores from deviations."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featurestore.errors import ConfigError


def inverse_of(kernel: Tensor, penalty: float, weights: Tensor | None = None) -> Tensor:
    """Return the inverse of kernel + penalty / weights on the diagonal, (n, n), by Cholesky.

    weights: (n,) of each row's squared error, by default 1. ConfigError where rounding makes the matrix singular.
    """
    shifted = kernel.clone()
    shifted.diagonal().add_(penalty if weights is None else penalty / weights)
    factor, failed = torch.linalg.cholesky_ex(shifted)
    if bool(failed.any()):
        raise ConfigError(
            f"The kernel of {len(kernel)} utterances can't be inverted in {kernel.dtype} with lambda {penalty:g}; give "
            "a larger --lambdas."
        )
    return inverse_by(factor)


def inverse_by(factor: Tensor) -> Tensor:
    """Return the inverse of a matrix (n, n) from its lower Cholesky factor.

    torch.cholesky_inverse takes 10 to 30 times as long on a CPU (MKL 2024.2, n of 1,000 and 2,048, float32).
    """
    return torch.cholesky_solve(torch.eye(len(factor), dtype=factor.dtype, device=factor.device), factor)


def held_out(inverse: Tensor, solution: Tensor, targets: Tensor, folds: list[Tensor]) -> Tensor:
    """Return the predictions of each fold by the ridge regression that learned from all other folds, (n, K).

    inverse: (K + lambda W^-1)^-1 of all n rows, (n, n), for any weights W. solution: inverse @ targets. folds: row
    indices of each fold.
    With G the inverse and S a fold, the prediction is y_S - G_SS^-1 (G y)_S: leave-one-out's identity (Wahba 1990,
    section 4.2) for blocks, from the inverse of a partitioned matrix. It costs one inverse in place of a refit for each
    fold.
    """
    out = torch.full_like(targets, float("nan"))
    for rows in folds:
        factor = torch.linalg.cholesky(inverse[rows][:, rows])
        out[rows] = targets[rows] - torch.cholesky_solve(solution[rows], factor)
    return out


def class_weights(targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return weights (n,) of rows with class targets (n, C) that make all classes that occur equally frequent."""
    share = targets.mean(0)
    inverse = np.where(share > 0, 1 / np.where(share > 0, share, 1), 0)
    return targets @ inverse / max(int((share > 0).sum()), 1)


def scores_of(
    deviations: NDArray[np.float64], means: NDArray[np.float64], n_classes: int, tilt: float = 0.0
) -> NDArray[np.float64]:
    """Return scores (n, K) from what ridge regression predicts of targets less their means, (n, K).

    means: (K,) of the training targets, a class's being its share. Scores are mean + deviation, for a class an estimate
    of its posterior. That is divided by share ** tilt: with 1, as if all classes were equally frequent. A class that
    never occurs in the training part scores 0.
    """
    scores = deviations + means
    if tilt:
        share = means[:n_classes]
        scores[:, :n_classes] *= np.where(share > 0, np.where(share > 0, share, 1) ** -tilt, 0)
    return scores
