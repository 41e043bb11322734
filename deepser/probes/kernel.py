"""Kernel ridge regression over pooled rows: one kernel per layer, combinations as means of kernels."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepser.probes.problem import Block, Pass, Problem
from deepser.probes.refine import refined_by_speaker
from deepser.probes.ridge import class_weights, held_out, inverse_of, scores_of
from deepser.probes.rows import Source
from deepser.probes.solver import Fitted, Judged, Part, Piece, Setting
from deepser.probes.standardise import Rows, standardisation

DISTANCES_BYTES = 1 << 30  # of the passes' products that are kept for combinations


@dataclass(frozen=True, eq=False)
class KernelSolver:
    """Ridge regression in the kernel's space, rbf or linear, on `device` in `dtype`.

    Rows are standardised with the statistics of each pass's own training rows. The RBF kernel is
    exp(-|x - y|^2 / (2 bandwidth^2 D)), the linear one x.y / D; both are about 1 on the diagonal. balanced: the squared
    errors of class targets are weighted so that all classes count alike.
    """

    problem: Problem
    rows: Rows
    balanced: bool
    rbf: bool
    penalties: tuple[float, ...]
    bandwidths: tuple[float, ...]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    speakers: NDArray[np.int64] | None = None  # (N,) as `Groups.codes`; for `refined`

    def at(self, each: Pass) -> "KernelPass":
        return KernelPass(self, each)


@dataclass(eq=False)
class KernelPass:
    """`KernelSolver` at one pass."""

    solver: KernelSolver
    each: Pass
    _products: dict[Source, Tensor] = field(default_factory=dict, init=False)
    _judged: dict[tuple[Source, Setting], Judged] = field(default_factory=dict, init=False)

    def single(self, source: Source, settings: Sequence[Setting]) -> list[Judged]:
        """Judge one layer with each setting."""
        for setting in settings:
            if (source, setting) not in self._judged:
                self._judged[source, setting] = self._judge(self._kernel(source, setting.bandwidth), setting)
        return [self._judged[source, setting] for setting in settings]

    def combined(self, parts: Sequence[Part], penalties: Sequence[float]) -> list[Judged]:
        """Judge the mean of the parts' kernels with each penalty."""
        kernel = self._mean_kernel(parts)
        return [self._judge(kernel, Setting(penalty)) for penalty in penalties]

    def fit(self, parts: Sequence[Part], penalty: float) -> Fitted:
        """Fit on all training rows: support rows and dual weights, or one weight vector where the kernel is linear."""
        train, problem = self.each.train, self.solver.problem
        kernel = self._mean_kernel(parts)[: len(train)]
        row_weights, shares = np.zeros(len(train)), np.zeros(problem.n_classes)
        alpha = np.zeros((len(train), problem.values.shape[1]), np.float64)
        offsets = np.zeros(problem.values.shape[1])
        for block, at, targets, weights in self._targets():
            own = kernel if at is None else kernel[at][:, at]
            solution = inverse_of(own, penalty, weights) @ targets
            means = _weighted_mean(targets[:, :-1], weights)
            rows = slice(None) if at is None else at.cpu().numpy()
            dual = solution[:, :-1] - solution[:, -1:] * means
            offsets[block.columns] = means.double().cpu().numpy()
            full = np.zeros((len(train), len(block.columns)))
            full[rows] = dual.double().cpu().numpy()
            alpha[:, block.columns] = full
            if block.columns[0] < problem.n_classes:
                row_weights[rows] = 1 if weights is None else weights.double().cpu().numpy()
                shares = _shares(targets)
        pieces = [self._piece(part, alpha) for part in parts]
        if not self.solver.rbf:
            return Fitted(tuple(pieces), offsets)
        return Fitted(tuple(pieces), offsets, alpha.astype(np.float32), row_weights, shares)

    def refined(self, parts: Sequence[Part], judged: Judged, kinds: Sequence[str]) -> list[Judged]:
        """Refine the class scores of a combination in each way of `kinds`, by each speaker's own clips.

        The covariance of an inner fold's rows given the rest is the inverse of their block of the inverse, less their
        penalty; so held-out scores are refined without a fit, too.
        """
        problem, n, penalty = self.solver.problem, len(self.each.train), judged.setting.penalty
        assert self.solver.speakers is not None
        found = [
            Judged(replace(judged.setting, refine=kind), judged.inner.copy(), judged.outer.copy()) for kind in kinds
        ]
        classes = [each for each in self._targets() if each[0].columns[0] < problem.n_classes]
        if not classes:
            return found
        block, at, targets, weights = classes[0]
        kernel = self._mean_kernel(parts)
        known = torch.arange(n, device=kernel.device) if at is None else at
        inverse = inverse_of(kernel[known][:, known], penalty, weights)
        penalties = torch.full((len(known),), penalty).to(kernel) if weights is None else penalty / weights
        places, shares = known.cpu().numpy(), _shares(targets)
        fold_of = torch.from_numpy(self.each.inner[places]).to(kernel.device)
        parts_of: list[tuple[NDArray[np.int64], Tensor, bool]] = []  # rows, their covariance, are they inner ones?
        for fold in range(self.each.n_inner):
            rows = torch.nonzero(fold_of == fold).ravel()
            if len(rows):
                own = torch.cholesky_inverse(torch.linalg.cholesky(inverse[rows][:, rows]))
                own.diagonal().sub_(penalties[rows])
                parts_of.append((places[rows.cpu().numpy()], own, True))
        if len(self.each.judged):
            across = kernel[n:][:, known]
            own = self._judged_kernel(parts) - across @ inverse @ across.T
            parts_of.append((np.arange(len(self.each.judged)), own, False))
        for rows_at, covariance, is_inner in parts_of:
            of_all = self.each.train if is_inner else self.each.judged
            speakers, wide = self.solver.speakers[of_all[rows_at]], covariance.double().cpu().numpy()
            for each in found:
                scores = each.inner if is_inner else each.outer
                before = scores[np.ix_(rows_at, block.columns)].astype(np.float64)
                matched = shares if each.setting.refine == "shares" else None
                scores[np.ix_(rows_at, block.columns)] = refined_by_speaker(before, wide, penalty, speakers, matched)
        return found

    def _judged_kernel(self, parts: Sequence[Part]) -> Tensor:
        """Return the mean of the parts' RBF kernels between judged rows, (m, m)."""
        total = torch.zeros(())
        for part in parts:
            rows = self.solver.rows.read(part.source)
            mean, inverse_std = standardisation(rows[self.each.train])
            x = torch.from_numpy((rows[self.each.judged] - mean) * inverse_std).to(
                self.solver.device, self.solver.dtype
            )
            norms = x.square().sum(1)
            distances = ((x @ x.T).mul_(-2) + norms[:, None] + norms[None]).clamp_(min=0).div_(x.shape[1])
            distances.diagonal().zero_()
            total = total.to(distances) + torch.exp(distances / (-2 * part.setting.bandwidth**2))
        return total / len(parts)

    def _piece(self, part: Part, alpha: NDArray[np.float64]) -> Piece:
        rows = self.solver.rows.read(part.source)[self.each.train]
        mean, inverse_std = standardisation(rows)
        support = (rows - mean) * inverse_std
        if self.solver.rbf:
            return Piece(part.source, mean, inverse_std, part.setting.bandwidth, support=support)
        weights = (support.astype(np.float64).T @ alpha) / rows.shape[1]
        return Piece(part.source, mean, inverse_std, weights=weights.astype(np.float32))

    def _judge(self, kernel: Tensor, setting: Setting) -> Judged:
        """kernel (n + m, n): training rows first, then those that are judged."""
        problem, n, n_columns = self.solver.problem, len(self.each.train), self.solver.problem.values.shape[1]
        inner = np.full((n, n_columns), np.nan, np.float32)
        outer = np.full((len(self.each.judged), n_columns), np.nan, np.float32)
        for block, at, targets, weights in self._targets():
            own = kernel[:n] if at is None else kernel[at][:, at]
            inverse = inverse_of(own, setting.penalty, weights)
            solution = inverse @ targets
            places = np.arange(n) if at is None else at.cpu().numpy()
            fold_of = torch.from_numpy(self.each.inner[places]).to(kernel.device)
            folds = [torch.nonzero(fold_of == fold).ravel() for fold in range(self.each.n_inner)]
            folds = [rows for rows in folds if len(rows)]
            spared = held_out(inverse, solution, targets, folds)
            n_classes = int((block.columns < problem.n_classes).sum())
            for fold, rows in enumerate(folds):
                rest = torch.cat([other for o, other in enumerate(folds) if o != fold] or [rows])
                means = _weighted_mean(targets[rest, :-1], None if weights is None else weights[rest])
                scores = _scores(spared[rows], means, n_classes)
                inner[np.ix_(places[rows.cpu().numpy()], block.columns)] = scores
            across = kernel[n:] if at is None else kernel[n:][:, at]
            outer[:, block.columns] = _scores(across @ solution, _weighted_mean(targets[:, :-1], weights), n_classes)
        return Judged(setting, inner, outer)

    def _targets(self) -> list[tuple[Block, Tensor | None, Tensor, Tensor | None]]:
        """Each block, the places of its rows among the training rows (None: all), its columns and ones, and weights."""
        found = []
        for block in self.solver.problem.blocks:
            known = block.known[self.each.train]
            if not known.any():
                continue
            values = self.solver.problem.values[np.ix_(self.each.train[known], block.columns)]
            targets = torch.from_numpy(np.concatenate([values, np.ones((len(values), 1))], 1))
            at = None if known.all() else torch.from_numpy(np.flatnonzero(known)).to(self.solver.device)
            weights = None
            if self.solver.balanced and block.columns[0] < self.solver.problem.n_classes:
                weights = torch.from_numpy(class_weights(values)).to(self.solver.device, self.solver.dtype)
            found.append((block, at, targets.to(self.solver.device, self.solver.dtype), weights))
        return found

    def _mean_kernel(self, parts: Sequence[Part]) -> Tensor:
        total = None
        for part in parts:
            kernel = self._kernel(part.source, part.setting.bandwidth)
            total = kernel if total is None else total.add_(kernel)
        assert total is not None
        return total.div_(len(parts))

    def _kernel(self, source: Source, bandwidth: float) -> Tensor:
        """(n + m, n), a fresh tensor."""
        product = self._product(source)
        if not self.solver.rbf:
            return product.clone()
        return torch.mul(product, -0.5 / bandwidth**2).exp_()

    def _product(self, source: Source) -> Tensor:
        """(n + m, n): squared distances, or dot products, of standardised rows, divided by the number of dims."""
        if source in self._products:
            return self._products[source]
        rows = self.solver.rows.read(source)
        train = rows[self.each.train]
        mean, inverse_std = standardisation(train)
        at = np.concatenate([self.each.train, self.each.judged])
        x = torch.from_numpy((rows[at] - mean) * inverse_std).to(self.solver.device, self.solver.dtype)
        own = x[: len(train)]
        product = (x @ own.T).div_(rows.shape[1])
        if self.solver.rbf:
            norms = x.square().sum(1).div_(rows.shape[1])
            product.mul_(-2).add_(norms[:, None]).add_(norms[None, : len(train)]).clamp_(min=0)
            product[: len(train)].diagonal().zero_()
        size = product.numel() * product.element_size()
        if (len(self._products) + 1) * size <= DISTANCES_BYTES:
            self._products[source] = product
        return product


def _shares(targets: Tensor) -> NDArray[np.float64]:
    """Return how frequent the classes of (n, C + 1) targets are, (C,); the last column is of ones."""
    shares: NDArray[np.float64] = targets[:, :-1].double().mean(0).cpu().numpy()
    return shares


def _weighted_mean(targets: Tensor, weights: Tensor | None) -> Tensor:
    """(K,) means of (n, K) targets under weights (n,)."""
    return targets.mean(0) if weights is None else (weights @ targets) / weights.sum()


def _scores(said: Tensor, means: Tensor, n_classes: int) -> NDArray[np.float64]:
    """Scores of predictions (n, K + 1), the last of a column of ones."""
    deviations = said[:, :-1] - said[:, -1:] * means
    return scores_of(deviations.double().cpu().numpy(), means.double().cpu().numpy(), n_classes)
