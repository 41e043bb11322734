"""Ridge regression for large corpora: Gram matrices of each cell, accumulated batch by batch in bounded memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepser.probes.gram import Grams, Moments, accumulate
from deepser.probes.problem import Pass, Passes, Problem
from deepser.probes.ridge import scores_of
from deepser.probes.rows import Source
from deepser.probes.select import Score
from deepser.probes.solver import Fitted, Judged, Part, Piece, Setting, mean_of
from deepser.probes.standardise import Rows

BATCH_ROWS = 4096
TILTS = (0.0, 0.5, 1.0)
REFINEMENTS = 4  # each gains about three digits where the condition number is 10,000


@dataclass(eq=False)
class StreamingSolver:
    """The linear kernel's ridge regression, solved in the rows' own space, whatever the number of utterances.

    Each layer is read twice: once for its Gram matrices, by cell, from which the solution for any training part follows
    (the standardisation with that part's statistics included), and once for the scores. A layer's penalty is chosen at
    once, so that one set of scores is kept of each pass. Combinations are means of the layers' scores. balanced: a
    class's score is divided by a power of its share, one of TILTS, that is chosen with the penalty.
    """

    problem: Problem
    rows: Rows
    passes: Passes
    balanced: bool
    penalties: tuple[float, ...]
    score: Score
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    bandwidths: tuple[float, ...] = ()
    _judged: dict[Source, dict[str, Judged]] = field(default_factory=dict, init=False)

    def at(self, each: Pass) -> "StreamingPass":
        return StreamingPass(self, each)

    @cached_property
    def all_passes(self) -> tuple[Pass, ...]:
        return (*self.passes.outer, self.passes.final)

    @property
    def tilts(self) -> tuple[float, ...]:
        return TILTS if self.balanced else (0.0,)

    def judged(self, source: Source, name: str) -> Judged:
        """One layer in one pass, with the penalty whose inner score is best; every pass is judged at the first call."""
        if source not in self._judged:
            self._judged[source] = self._judge(source)
        return self._judged[source][name]

    def grams(self, source: Source) -> Grams:
        """Return sums over the rows of each cell."""
        return accumulate(self.problem, self.rows, source, self.passes.cells, self.device, self.dtype)

    def _judge(self, source: Source) -> dict[str, Judged]:
        grams = self.grams(source)
        maps = {each.name: _PassMaps.of(self, grams, each) for each in self.all_passes}
        shape = (len(self.problem.keys), self.problem.values.shape[1])
        settings = [Setting(penalty, 0.0, tilt) for penalty in self.penalties for tilt in self.tilts]
        total = {each.name: np.full((len(settings), *shape), np.nan, np.float32) for each in self.all_passes}
        is_judged = {each.name: np.isin(np.arange(shape[0]), each.judged) for each in self.all_passes}
        for start in range(0, shape[0], BATCH_ROWS):
            at = np.arange(start, min(start + BATCH_ROWS, shape[0]))
            rows = grams.shifted(self.rows.part(source, at))
            for cell in np.unique(self.passes.cells[at]):
                mine = self.passes.cells[at] == cell
                x = rows[torch.from_numpy(np.flatnonzero(mine)).to(self.device)]
                for name, own in maps.items():
                    for_judged = is_judged[name][at[mine]]
                    if for_judged.any():
                        total[name][:, at[mine][for_judged]] = own.scores(None, x, for_judged)
                    elif cell in own.cells:
                        total[name][:, at[mine]] = own.scores(int(cell), x, ~for_judged)
        found = {}
        for each in self.all_passes:
            options = [
                Judged(setting, scores[each.train], scores[each.judged])
                for setting, scores in zip(settings, total[each.name], strict=True)
            ]
            found[each.name] = max(options, key=lambda j: self.score(j.inner, each.train))
        return found


@dataclass(eq=False)
class StreamingPass:
    """`StreamingSolver` at one pass."""

    solver: StreamingSolver
    each: Pass

    def single(self, source: Source, settings: Sequence[Setting]) -> list[Judged]:
        """Judge one layer with the best of the solver's penalties."""
        return [self.solver.judged(source, self.each.name)]

    def combined(self, parts: Sequence[Part]) -> Judged:
        """Judge the mean of the layers' scores, each with its own penalty."""
        return mean_of([self.solver.judged(part.source, self.each.name) for part in parts])

    def fit(self, parts: Sequence[Part]) -> Fitted:
        """Fit each layer on all training rows of the pass, with its own penalty and tilt."""
        problem = self.solver.problem
        pieces, offsets = [], np.zeros(problem.values.shape[1])
        for part in parts:
            grams = self.solver.grams(part.source)
            own = self.solver.judged(part.source, self.each.name).setting
            weights, means = np.zeros((grams.dim, len(offsets))), np.zeros(len(offsets))
            standard = grams.standardisation(grams.total(self.each))
            for block, moments in zip(problem.blocks, grams.of_blocks(self.each, None), strict=True):
                solution, averages = solve(moments, *standard, [own.penalty], self.solver.dtype)
                weights[:, block.columns], means[block.columns] = solution[0].double().cpu().numpy(), averages
            # Scores are linear in the deviations, so that the tilt goes into weights and offsets.
            offset = scores_of(np.zeros((1, len(means))), means, problem.n_classes, own.tilt)[0]
            slope = scores_of(np.ones((1, len(means))), means, problem.n_classes, own.tilt)[0] - offset
            mean, inverse_std = grams.unshifted(*standard)
            pieces.append(Piece(part.source, mean, inverse_std, weights=(weights * slope).astype(np.float32)))
            offsets += offset / len(parts)
        return Fitted(tuple(pieces), offsets)


@dataclass(frozen=True, eq=False)
class _Map:
    """Deviations x @ weights + offset of all penalties: weights (D, P * K), offset (P * K,), means (K,)."""

    weights: Tensor
    offset: Tensor
    means: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _PassMaps:
    """What one pass says of a row: by the fit without the row's cell (inner), or by the whole fit (judged rows)."""

    solver: StreamingSolver
    maps: dict[int | None, _Map]

    @property
    def cells(self) -> set[int | None]:
        return set(self.maps)

    @staticmethod
    def of(solver: StreamingSolver, grams: Grams, each: Pass) -> "_PassMaps":
        cells = np.unique(solver.passes.cells[each.train])
        standard = grams.standardisation(grams.total(each))
        maps = {}
        for left_out in (None, *cells.tolist()):
            n_columns, n = solver.problem.values.shape[1], len(solver.penalties)
            weights = torch.zeros((n, grams.dim, n_columns), dtype=solver.dtype, device=solver.device)
            shares = np.zeros(n_columns)
            for block, moments in enumerate(grams.of_blocks(each, left_out)):
                columns = solver.problem.blocks[block].columns
                solution, means = solve(moments, *standard, solver.penalties, solver.dtype)
                weights[:, :, torch.from_numpy(columns)] = solution.to(solver.dtype)
                shares[columns] = means
            mean, inverse_std = standard
            flat = (weights * inverse_std.to(solver.dtype)[None, :, None]).permute(1, 0, 2).reshape(grams.dim, -1)
            maps[left_out] = _Map(flat, -(mean.to(solver.dtype) @ flat), shares)
        return _PassMaps(solver, maps)

    def scores(self, cell: int | None, x: Tensor, keep: NDArray[np.bool_]) -> NDArray[np.float64]:
        """(P * tilts, n, K) scores of the kept rows."""
        own = self.maps[cell]
        predicted = (
            (x[torch.from_numpy(np.flatnonzero(keep)).to(x.device)] @ own.weights + own.offset).double().cpu().numpy()
        )
        problem, n = self.solver.problem, len(self.solver.penalties)
        by_penalty = predicted.reshape(len(predicted), n, -1).transpose(1, 0, 2)
        return np.stack(
            [scores_of(dev, own.means, problem.n_classes, tilt) for dev in by_penalty for tilt in self.solver.tilts]
        )


def solve(
    moments: Moments,
    mean: Tensor,
    inverse_std: Tensor,
    penalties: Sequence[float],
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, NDArray[np.float64]]:
    """Weights (P, D, K) on standardised rows, for each penalty, and the targets' means (K,).

    mean, inverse_std: (D,) of the pass's training part. (Z'Z / D + lambda I)^-1 Z'(Y - mean) / D, the same solution as
    the linear kernel's.
    """
    n, dim = moments.n, len(mean)
    centred = moments.gram - torch.outer(moments.x, mean) - torch.outer(mean, moments.x) + n * torch.outer(mean, mean)
    gram = (centred * inverse_std[:, None] * inverse_std[None, :]) / dim
    means = moments.y / max(n, 1)
    cross = (moments.xy - torch.outer(mean, moments.y)) - torch.outer(moments.x - n * mean, means)
    right = cross * inverse_std[:, None] / dim
    found = []
    for penalty in penalties:
        shifted = gram.clone()
        shifted.diagonal().add_(penalty)
        found.append(_refined(shifted, right, dtype))
    return torch.stack(found), means.double().cpu().numpy()


def _refined(matrix: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """matrix^-1 right in float64, from a factor in `dtype`: in float32 it takes half the time."""
    factor, failed = torch.linalg.cholesky_ex(matrix.to(dtype))
    if bool(failed.any()):
        return torch.cholesky_solve(right, torch.linalg.cholesky(matrix))
    solution = torch.zeros_like(right)
    for _ in range(1 if dtype == torch.float64 else REFINEMENTS):
        left = right - matrix @ solution
        solution += torch.cholesky_solve(left.to(dtype), factor).double()
    return solution
