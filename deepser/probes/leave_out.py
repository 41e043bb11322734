"""Ridge regression of a training part and without each of its cells: conjugate gradients, preconditioned."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepser.probes.gram import Moments
from deepser.probes.ridge import inverse_by

# The preconditioned matrix is near the identity where cells are alike, and each step then gains about one digit.
MOST_STEPS = 40
REFINEMENTS = 4  # of a direct solution: each gains about three digits where the condition number is 10,000
TOLERANCES = {torch.float32: 3e-6, torch.float64: 1e-12}  # of a residual's norm, by the right side's


@dataclass(frozen=True, eq=False)
class Systems:
    """The systems of one training part with all of its rows, and without each of some cells.

    part: sums over all rows of the part. cells: of what each system leaves out, None for nothing. mean, inverse_std:
    (D,) by which rows are standardised. The matrix of system s with penalty p is Z'Z / D + p I over the rows that are
    left, centred by the part's mean. Products with it come from the part's Gram matrix and the cell's, so that no
    matrix is made. Grams are of `dtype`.
    """

    part: Moments
    cells: Sequence[Moments | None]
    mean: Tensor
    inverse_std: Tensor
    penalties: Sequence[float]
    dtype: torch.dtype

    def solve(self) -> tuple[Tensor, NDArray[np.float64]]:
        """Return weights (S, P, D, K) on standardised rows, and the targets' means (S, K)."""
        dim, n_columns, n_systems = len(self.mean), len(self.part.y), len(self.cells)
        lefts = [self.part.less(cell) for cell in self.cells]
        n = torch.tensor([left.n for left in lefts], dtype=torch.float64, device=self.mean.device)  # (S,)
        x, y = torch.stack([left.x for left in lefts], 1), torch.stack([left.y for left in lefts])  # (D, S), (S, K)
        means = y / n.clamp(min=1)[:, None]
        cross = torch.stack([left.xy for left in lefts], 1) - self.mean[:, None, None] * y
        cross -= (x - n * self.mean[:, None])[:, :, None] * means
        right = (cross * self.inverse_std[:, None, None] / dim).to(self.dtype)
        right = right[None].expand(len(self.penalties), dim, n_systems, n_columns).contiguous()
        inverses = self._preconditioners()
        if inverses is not None:
            solution = self._conjugate_gradients(right, inverses, n.to(self.dtype), x.to(self.dtype))
            if solution is not None:
                return solution.permute(2, 0, 1, 3), means.cpu().numpy()
        return self._directly()

    def _preconditioners(self) -> Tensor | None:
        """Return inverses (P, D, D) for the part less one cell, were its cells alike; None if rounding defeats it."""
        n_left = max(len(self.cells) - 1, 1)
        gram = (self.part.standardised(self.mean, self.inverse_std) * (1 - 1 / n_left)).to(self.dtype)
        inverses = []
        for penalty in self.penalties:
            shifted = gram.clone()
            shifted.diagonal().add_(penalty)
            factor, failed = torch.linalg.cholesky_ex(shifted)
            if bool(failed.any()):
                return None
            inverses.append(inverse_by(factor))
        return torch.stack(inverses)

    def _directly(self) -> tuple[Tensor, NDArray[np.float64]]:
        """Factor the matrix of every system and penalty."""
        solutions, means = [], []
        for cell in self.cells:
            left = self.part.less(cell)
            if cell is not None:
                left = replace(left, gram=self.part.gram - cell.gram)
            solution, solution_means = solve(left, self.mean, self.inverse_std, self.penalties, self.dtype)
            solutions.append(solution)
            means.append(solution_means)
        return torch.stack(solutions), np.stack(means)

    def _conjugate_gradients(self, right: Tensor, inverses: Tensor, n: Tensor, x: Tensor) -> Tensor | None:
        """Solve for right (P, D, S, K) all at once; each column has its own steps (Hestenes and Stiefel 1952)."""
        solution, residual = torch.zeros_like(right), right.clone()
        limit = TOLERANCES[self.dtype] * right.norm(dim=1, keepdim=True)
        direction = torch.zeros_like(right)
        former = torch.ones_like(limit)
        for step in range(MOST_STEPS):
            if bool((residual.norm(dim=1, keepdim=True) <= limit).all()):
                return solution
            near = (inverses @ residual.flatten(2)).view_as(right)
            product = (residual * near).sum(1, keepdim=True)
            direction = near if step == 0 else near + direction * _ratio(product, former)
            image = self._times(direction, n, x)
            length = _ratio(product, (direction * image).sum(1, keepdim=True))
            solution += length * direction
            residual -= length * image
            former = product
        return None

    def _times(self, values: Tensor, n: Tensor, x: Tensor) -> Tensor:
        """Multiply (P, D, S, K) by each system's matrix. n: (S,) rows; x: (D, S) their sums."""
        scale, mean = self.inverse_std.to(self.dtype), self.mean.to(self.dtype)
        scaled = values * scale[:, None, None]
        image = (self.part.gram @ scaled.flatten(2)).view_as(values)
        for s, cell in enumerate(self.cells):
            if cell is not None:
                columns = scaled[:, :, s].permute(1, 0, 2)  # (D, P, K), so that the cell's matrix is read once
                image[:, :, s] -= (cell.gram @ columns.flatten(1)).view_as(columns).permute(1, 0, 2)
        by_mean = (mean @ scaled.flatten(2)).view(len(scaled), *scaled.shape[2:])  # (P, S, K)
        by_sum = (scaled * x[:, :, None]).sum(1)
        image -= x[None, :, :, None] * by_mean[:, None]
        image -= mean[:, None, None] * (by_sum - n[:, None] * by_mean)[:, None]
        image *= scale[:, None, None] / len(mean)
        return image + torch.tensor(self.penalties, dtype=self.dtype, device=image.device)[:, None, None, None] * values


def _ratio(top: Tensor, bottom: Tensor) -> Tensor:
    """Divide, with 0 for a column that has come to its solution already."""
    return torch.where(bottom > 0, top / torch.where(bottom > 0, bottom, 1), 0)


def solve(
    moments: Moments,
    mean: Tensor,
    inverse_std: Tensor,
    penalties: Sequence[float],
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, NDArray[np.float64]]:
    """Return weights (P, D, K) on standardised rows, for each penalty, and the targets' means (K,).

    mean, inverse_std: (D,) of the pass's training part. (Z'Z / D + lambda I)^-1 Z'(Y - mean) / D, the same solution as
    the linear kernel's.
    """
    n, dim = moments.n, len(mean)
    gram = moments.standardised(mean, inverse_std)
    means = moments.y / max(n, 1)
    cross = (moments.xy - torch.outer(mean, moments.y)) - torch.outer(moments.x - n * mean, means)
    right = cross * inverse_std[:, None] / dim
    solutions = []
    for penalty in penalties:
        shifted = gram.clone()
        shifted.diagonal().add_(penalty)
        solutions.append(_refined(shifted, right, dtype))
    return torch.stack(solutions), means.double().cpu().numpy()


def _refined(matrix: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """Return matrix^-1 right in float64, from a factor in `dtype`: float32 takes half the time."""
    factor, failed = torch.linalg.cholesky_ex(matrix.to(dtype))
    if bool(failed.any()):
        return torch.cholesky_solve(right, torch.linalg.cholesky(matrix))
    solution = torch.zeros_like(right)
    for _ in range(1 if dtype == torch.float64 else REFINEMENTS):
        remainder = right - matrix @ solution
        solution += torch.cholesky_solve(remainder.to(dtype), factor).double()
    return solution
