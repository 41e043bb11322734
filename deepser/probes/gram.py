"""Sums over the rows of each cell, from which the ridge regression of any training part follows."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepser.probes.problem import Pass, Problem
from deepser.probes.rows import Source
from deepser.probes.standardise import Rows
from deepser.training.normalise import CONSTANT

# A batch adds a matrix (D, D) for each of its cells: at D = 2048 small batches spend more on that than on the products.
GRAM_ROWS = 16_384
GRAM_COLUMNS = 256
NAMES = ("n", "x", "y", "gram", "xy")  # of Moments


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over some rows: how many, of x (D,), of y (K,), of x x' (D, D) and of x y' (D, K)."""

    n: float
    x: Tensor
    y: Tensor
    gram: Tensor
    xy: Tensor

    def __add__(self, other: "Moments") -> "Moments":
        pairs = [(getattr(self, name), getattr(other, name)) for name in NAMES]
        return Moments(*(a + b for a, b in pairs))

    def __iadd__(self, other: "Moments") -> "Moments":
        for name in NAMES[1:]:
            getattr(self, name).add_(getattr(other, name))
        return replace(self, n=self.n + other.n)

    def less(self, other: "Moments | None") -> "Moments":
        """Return the sums without some of the rows, but for `gram`, which stays that of all."""
        if other is None:
            return self
        return Moments(self.n - other.n, self.x - other.x, self.y - other.y, self.gram, self.xy - other.xy)

    def with_rows(self, x: Tensor, y: Tensor) -> "Moments":
        """Add rows x (n, D) and y (n, K), products in their own dtype, to the sums in place.

        Of gram only blocks on and above the diagonal are made, which takes little more than half the time; see `whole`.
        """
        self.x.add_(x.double().sum(0))
        self.y.add_(y.double().sum(0))
        for start in range(0, x.shape[1], GRAM_COLUMNS):
            stop = start + GRAM_COLUMNS
            self.gram[start:stop, start:].add_(x[:, start:stop].T @ x[:, start:])
        self.xy.add_(x.T @ y)
        return replace(self, n=self.n + len(x))

    def whole(self, dtype: torch.dtype) -> "Moments":
        """Return the sums with both halves of gram, in `dtype`."""
        upper = self.gram.to(dtype).triu()
        return replace(self, gram=upper.add_(upper.triu(1).T))

    def standardised(self, mean: Tensor, inverse_std: Tensor) -> Tensor:
        """Return the matrix Z'Z / D of these rows, (D, D) float64, less a mean (D,) and times an inverse deviation."""
        centred = self.gram - torch.outer(self.x, mean) - torch.outer(mean, self.x) + self.n * torch.outer(mean, mean)
        return centred.mul_(inverse_std[:, None]).mul_(inverse_std / len(mean))

    @staticmethod
    def zeros(dim: int, n_columns: int, device: torch.device) -> "Moments":
        """Return the sums over no rows."""
        shapes = ((dim,), (n_columns,), (dim, dim), (dim, n_columns))
        return Moments(0.0, *(torch.zeros(shape, dtype=torch.float64, device=device) for shape in shapes))


@dataclass(eq=False)
class Grams:
    """Moments by (cell, block) of rows less `shift`, by `scale`; these two only keep sums of squares small.

    A cell's rows of which a block is known; blocks known of the same rows share nothing but are few.
    """

    cells: NDArray[np.int64]
    shift: Tensor
    scale: Tensor
    moments: dict[tuple[int, int], Moments]
    all_rows: dict[int, tuple[float, Tensor, Tensor]]  # by cell: n, sum and sum of squares of every training row
    n_blocks: int

    @property
    def dim(self) -> int:
        return len(self.shift)

    def shifted(self, rows: NDArray[np.float32]) -> Tensor:
        """Return rows (n, D) shifted as those of the moments."""
        return (torch.from_numpy(np.ascontiguousarray(rows)).to(self.shift) - self.shift) / self.scale

    def unshifted(self, mean: Tensor, inverse_std: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Convert statistics of shifted rows to those of the rows themselves."""
        shift, scale = self.shift.double(), self.scale.double()
        unshifted_mean, inverse = shift + scale * mean, inverse_std / scale
        return unshifted_mean.float().cpu().numpy(), inverse.float().cpu().numpy()

    def of_blocks(self, each: Pass) -> Iterator[tuple[Moments, dict[int, Moments]]]:
        """For each block, the sums over a pass's training cells, and over each of them."""
        cells = np.unique(self.cells[each.train]).tolist()
        for block in range(self.n_blocks):
            by_cell = {cell: self.moments[cell, block] for cell in cells}
            first, *others = by_cell.values()
            total = first
            if others:
                total = first + others[0]
                for moments in others[1:]:
                    total += moments
            yield total, by_cell

    def total(self, each: Pass) -> tuple[float, Tensor, Tensor]:
        """Return the number, the sum and the sum of squares of all training rows of a pass."""
        sums = [self.all_rows[cell] for cell in np.unique(self.cells[each.train]).tolist()]
        n, x, squares = sums[0]
        for more in sums[1:]:
            n, x, squares = n + more[0], x + more[1], squares + more[2]
        return n, x, squares

    def standardisation(self, total: tuple[float, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Mean and inverse deviation (D,) float64 of shifted rows; 0 where a dim is constant."""
        n, x, squares = total
        mean = x / n
        std = (squares / n - mean.square()).clamp(min=0).sqrt()
        own_size = (self.scale.double() * std), (self.shift.double() + self.scale.double() * mean)
        live = own_size[0] > CONSTANT * (own_size[0].square() + own_size[1].square()).sqrt()
        return mean, torch.where(live, 1 / torch.where(live, std, torch.ones_like(std)), torch.zeros_like(std))


def accumulate(
    problem: Problem, rows: Rows, source: Source, cells: NDArray[np.int64], device: torch.device, dtype: torch.dtype
) -> Grams:
    """Read a source once, GRAM_ROWS rows at a time; products are made in `dtype` and summed in float64.

    Gram matrices are kept in `dtype`, the other sums in float64.
    """
    at_all = np.flatnonzero(cells >= 0)
    first = rows.part(source, at_all[np.linspace(0, len(at_all) - 1, min(512, len(at_all))).astype(int)])
    spread = first.std(0)
    shift = torch.from_numpy(first.mean(0)).to(device, dtype)
    scale = torch.from_numpy(np.where(spread > 0, spread, 1)).to(device, dtype)
    blocks = problem.blocks
    grams = Grams(cells, shift, scale, {}, {}, len(blocks))
    for start in range(0, len(at_all), GRAM_ROWS):
        batch = at_all[start : start + GRAM_ROWS]
        x = grams.shifted(rows.part(source, batch))
        for cell in np.unique(cells[batch]).tolist():
            mine = np.flatnonzero(cells[batch] == cell)
            cell_rows = x[torch.from_numpy(mine).to(device)]
            wide = cell_rows.double()
            n, total, squares = grams.all_rows.get(cell, (0.0, 0.0, 0.0))
            grams.all_rows[cell] = (n + len(mine), total + wide.sum(0), squares + wide.square().sum(0))
            for b, block in enumerate(blocks):
                rated = np.flatnonzero(block.known[batch[mine]])
                inputs = cell_rows if len(rated) == len(mine) else cell_rows[torch.from_numpy(rated).to(device)]
                y = torch.from_numpy(problem.values[np.ix_(batch[mine][rated], block.columns)]).to(device, dtype)
                former = grams.moments.get((cell, b)) or Moments.zeros(x.shape[1], y.shape[1], device)
                grams.moments[cell, b] = former.with_rows(inputs, y)
    for place, former in grams.moments.items():
        grams.moments[place] = former.whole(dtype)
    return grams
