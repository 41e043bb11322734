"""Ridge regression for large corpora: Gram matrices of each cell, accumulated batch by batch in bounded memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepser.probes.gram import Grams, accumulate
from deepser.probes.leave_out import Systems
from deepser.probes.problem import Pass, Passes, Problem
from deepser.probes.ridge import scores_of
from deepser.probes.rows import Source
from deepser.probes.select import Score
from deepser.probes.solver import Fitted, Judged, Part, Piece, Setting, mean_of
from deepser.probes.standardise import Rows

BATCH_ROWS = 16_384  # each cell has its own share of them, and products with few rows are slow
TILTS = (0.0, 0.5, 1.0)


@dataclass(frozen=True, eq=False)
class _Solution:
    """One layer's fit on all rows of a pass, with its own penalty: weights (D, K) on standardised rows, means (K,).

    mean, inverse_std: (D,) of the rows. tilt: see `StreamingSolver`.
    """

    weights: NDArray[np.float64]
    means: NDArray[np.float64]
    mean: NDArray[np.float32]
    inverse_std: NDArray[np.float32]
    tilt: float


@dataclass(eq=False)
class StreamingSolver:
    """The linear kernel's ridge regression, solved in the rows' own space, whatever the number of utterances.

    Each layer is read twice: once for its Gram matrices, by cell, from which the solution for any training part follows
    (see `leave_out`; the standardisation with that part's statistics included), and once for the scores. A layer's
    penalty is chosen at once, so that one set of scores is kept of each pass. Combinations are means of the layers'
    scores. balanced: a class's score is divided by a power of its share, one of TILTS, that is chosen with the penalty.
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
    _solutions: dict[Source, dict[str, _Solution]] = field(default_factory=dict, init=False)

    def on_pass(self, each: Pass) -> "StreamingPass":
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

    def solution(self, source: Source, name: str) -> _Solution:
        """One layer's fit on all training rows of one pass, which `judged` made."""
        self.judged(source, name)
        return self._solutions[source][name]

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
            batch = np.arange(start, min(start + BATCH_ROWS, shape[0]))
            rows = grams.shifted(self.rows.part(source, batch))
            for cell in np.unique(self.passes.cells[batch]):
                mine = self.passes.cells[batch] == cell
                x = rows[torch.from_numpy(np.flatnonzero(mine)).to(self.device)]
                for name, pass_maps in maps.items():
                    for_judged = is_judged[name][batch[mine]]
                    if for_judged.any():
                        total[name][:, batch[mine][for_judged]] = pass_maps.scores(None, x, for_judged)
                    elif cell in pass_maps.cells:
                        total[name][:, batch[mine]] = pass_maps.scores(int(cell), x, ~for_judged)
        best = {}
        for each in self.all_passes:
            options = [
                Judged(setting, scores[each.train], scores[each.judged])
                for setting, scores in zip(settings, total[each.name], strict=True)
            ]
            best[each.name] = max(options, key=lambda j: self.score(j.inner, each.train))
        self._solutions[source] = {
            each.name: maps[each.name].solution(grams, best[each.name].setting) for each in self.all_passes
        }
        return best


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
            solution = self.solver.solution(part.source, self.each.name)
            # Scores are linear in the deviations, so that the tilt goes into weights and offsets.
            offset = scores_of(np.zeros((1, len(solution.means))), solution.means, problem.n_classes, solution.tilt)[0]
            slope = (
                scores_of(np.ones((1, len(solution.means))), solution.means, problem.n_classes, solution.tilt)[0]
                - offset
            )
            weights = (solution.weights * slope).astype(np.float32)
            pieces.append(Piece(part.source, solution.mean, solution.inverse_std, weights=weights))
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
    """Outputs of one pass for a row: by the fit without the row's cell (inner), or by the whole fit (judged rows)."""

    solver: StreamingSolver
    maps: dict[int | None, _Map]
    whole: Tensor  # (P, D, K), the weights on standardised rows of the fit on all rows
    standard: tuple[Tensor, Tensor]

    @property
    def cells(self) -> set[int | None]:
        return set(self.maps)

    @staticmethod
    def of(solver: StreamingSolver, grams: Grams, each: Pass) -> "_PassMaps":
        standard = grams.standardisation(grams.total(each))
        mean, inverse_std = standard
        n_columns, n = solver.problem.values.shape[1], len(solver.penalties)
        left_out: list[int | None] = [None, *np.unique(solver.passes.cells[each.train]).tolist()]
        weights = torch.zeros((len(left_out), n, grams.dim, n_columns), dtype=solver.dtype, device=solver.device)
        shares = np.zeros((len(left_out), n_columns))
        for block, (part, cells) in zip(solver.problem.blocks, grams.of_blocks(each), strict=True):
            systems = Systems(part, [None, *cells.values()], mean, inverse_std, solver.penalties, solver.dtype)
            solution, means = systems.solve()
            weights[..., torch.from_numpy(block.columns)] = solution.to(solver.dtype)
            shares[:, block.columns] = means
        maps = {}
        for cell, cell_weights, cell_shares in zip(left_out, weights, shares, strict=True):
            flat = (cell_weights * inverse_std.to(solver.dtype)[:, None]).permute(1, 0, 2).reshape(grams.dim, -1)
            maps[cell] = _Map(flat, -(mean.to(solver.dtype) @ flat), cell_shares)
        return _PassMaps(solver, maps, weights[0].clone(), standard)

    def solution(self, grams: Grams, setting: Setting) -> _Solution:
        """Return the fit on all rows with one setting."""
        weights = self.whole[self.solver.penalties.index(setting.penalty)].double().cpu().numpy()
        return _Solution(weights, self.maps[None].means, *grams.unshifted(*self.standard), setting.tilt)

    def scores(self, cell: int | None, x: Tensor, keep: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return (P * tilts, n, K) scores of the kept rows."""
        cell_map = self.maps[cell]
        chosen_rows = x if keep.all() else x[torch.from_numpy(np.flatnonzero(keep)).to(x.device)]
        predicted = torch.addmm(cell_map.offset, chosen_rows, cell_map.weights).double().cpu().numpy()
        problem, n = self.solver.problem, len(self.solver.penalties)
        by_penalty = predicted.reshape(len(predicted), n, -1).transpose(1, 0, 2)
        return np.stack(
            [
                scores_of(dev, cell_map.means, problem.n_classes, tilt)
                for dev in by_penalty
                for tilt in self.solver.tilts
            ]
        )
