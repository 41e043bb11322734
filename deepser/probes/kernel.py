"""Kernel ridge regression over pooled rows: one kernel and solution per layer, combinations as means of solutions."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepser.probes.problem import Block, Pass, Problem
from deepser.probes.refine import clips_of_speakers, refined_by_speaker
from deepser.probes.ridge import class_weights, held_out, inverse_by, inverse_of, scores_of
from deepser.probes.rows import Source
from deepser.probes.solver import Fitted, Judged, Part, Piece, Setting, mean_of
from deepser.probes.standardise import Rows, standardisation

DISTANCES_BYTES = 1 << 30  # of the products of a pass that are kept

# A block, the places of its rows among the training rows (None: all), its columns and one of ones, and weights.
BlockTargets = tuple[Block, Tensor | None, Tensor, Tensor | None]


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

    def on_pass(self, each: Pass) -> "KernelPass":
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

    def combined(self, parts: Sequence[Part]) -> Judged:
        """Judge the mean of the layers' scores, each with its own setting."""
        return mean_of([self.single(part.source, [part.setting])[0] for part in parts])

    def fit(self, parts: Sequence[Part]) -> Fitted:
        """Fit on all training rows: support rows and dual weights, or weights of dims where the kernel is linear."""
        problem, n = self.solver.problem, len(self.each.train)
        row_weights, shares, offsets = np.zeros(n), np.zeros(problem.n_classes), np.zeros(problem.values.shape[1])
        for block, rated, targets, weights in self._targets():
            offsets[block.columns] = _weighted_mean(targets[:, :-1], weights).double().cpu().numpy()
            if block.columns[0] < problem.n_classes:
                row_weights[_places(rated, n)] = 1 if weights is None else weights.double().cpu().numpy()
                shares = _shares(targets)
        pieces = tuple(self._piece(part) for part in parts)
        return Fitted(pieces, offsets, row_weights, shares) if self.solver.rbf else Fitted(pieces, offsets)

    def _piece(self, part: Part) -> Piece:
        penalty, n = part.setting.penalty, len(self.each.train)
        kernel = self._kernel(part.source, part.setting.bandwidth)[:n]
        alpha = np.zeros((n, self.solver.problem.values.shape[1]))
        for block, rated, targets, weights in self._targets():
            block_kernel = kernel if rated is None else kernel[rated][:, rated]
            solution = inverse_of(block_kernel, penalty, weights) @ targets
            dual = solution[:, :-1] - solution[:, -1:] * _weighted_mean(targets[:, :-1], weights)
            alpha[np.ix_(_places(rated, n), block.columns)] = dual.double().cpu().numpy()
        rows = self.solver.rows.read(part.source)[self.each.train]
        mean, inverse_std = standardisation(rows)
        support = (rows - mean) * inverse_std
        if self.solver.rbf:
            tensors = {"support": support, "alpha": alpha.astype(np.float32)}
            return Piece(part.source, mean, inverse_std, part.setting.bandwidth, penalty=penalty, **tensors)
        weights_of = (support.astype(np.float64).T @ alpha) / rows.shape[1]
        return Piece(part.source, mean, inverse_std, weights=weights_of.astype(np.float32), penalty=penalty)

    def refined(self, parts: Sequence[Part], kinds: Sequence[str]) -> list[Judged]:
        """Judge the mean of the layers' scores, refined in each way of `kinds` by each speaker's own clips."""
        plain = self.combined(parts)
        refinements = [
            Judged(replace(plain.setting, refine=kind), plain.inner.copy(), plain.outer.copy()) for kind in kinds
        ]
        blocks = [own for own in self._targets() if own[0].columns[0] < self.solver.problem.n_classes]
        if not blocks:
            return refinements
        assert self.solver.speakers is not None
        block, at, targets, _ = blocks[0]
        n, n_inner = len(self.each.train), self.each.n_inner
        places, shares = _places(at, n), _shares(targets)
        layers = [self.single(part.source, [part.setting])[0] for part in parts]
        penalties = np.array([part.setting.penalty for part in parts])
        sides = [places[self.each.inner[places] == fold] for fold in range(n_inner)]  # and behind them the judged rows
        codes = [
            *(self.solver.speakers[self.each.train[rows]] for rows in sides),
            self.solver.speakers[self.each.judged],
        ]
        clips_of = [clips_of_speakers(own) for own in codes]
        covariances = [self._covariances(part, blocks[0], clips_of) for part in parts]
        for side, clips in enumerate(clips_of):
            is_inner = side < n_inner
            cells = np.ix_(sides[side] if is_inner else np.arange(len(self.each.judged)), block.columns)
            before = np.stack([(own.inner if is_inner else own.outer)[cells] for own in layers]).astype(np.float64)
            blocks_of = [np.stack([own[side][i] for own in covariances]) for i in range(len(clips))]
            for own in refinements:
                matched = shares if own.setting.refine == "shares" else None
                after = refined_by_speaker(before, clips, blocks_of, penalties, matched)
                (own.inner if is_inner else own.outer)[cells] = after
        return refinements

    def _covariances(
        self, part: Part, block: BlockTargets, clips_of: Sequence[Sequence[NDArray[np.int64]]]
    ) -> list[list[NDArray[np.float64]]]:
        """Return the covariance (m, m) of each speaker's clips given the training rows of the others.

        clips_of: of each inner fold's speakers, then of the judged ones. Of a fold's rows the covariance is the inverse
        of their block of the inverse, less their penalty: no fit is needed.
        """
        n, penalty = len(self.each.train), part.setting.penalty
        _, rated, _, weights = block
        kernel = self._kernel(part.source, part.setting.bandwidth)
        clip_rows = torch.arange(n, device=kernel.device) if rated is None else rated
        inverse = inverse_of(kernel[clip_rows][:, clip_rows], penalty, weights)
        penalties = torch.full((len(clip_rows),), penalty).to(kernel) if weights is None else penalty / weights
        fold_of = torch.from_numpy(self.each.inner[clip_rows.cpu().numpy()]).to(kernel.device)
        covariances = []
        for fold, clips in enumerate(clips_of[:-1]):
            rows = torch.nonzero(fold_of == fold).ravel()
            covariance = inverse_by(torch.linalg.cholesky(inverse[rows][:, rows]))
            covariance.diagonal().sub_(penalties[rows])
            covariances.append([_wide(covariance[each][:, each]) for each in clips])
        across = kernel[n:][:, clip_rows]
        x, bandwidth = self._judged_rows(part.source), part.setting.bandwidth
        covariances.append(
            [
                _wide(_rbf(_distances(x[each], len(each)), bandwidth) - across[each] @ inverse @ across[each].T)
                for each in clips_of[-1]
            ]
        )
        return covariances

    def _judged_rows(self, source: Source) -> Tensor:
        """Return the standardised rows (m, D) that are judged."""
        rows = self.solver.rows.read(source)
        mean, inverse_std = standardisation(rows[self.each.train])
        judged = (rows[self.each.judged] - mean) * inverse_std
        return torch.from_numpy(judged).to(self.solver.device, self.solver.dtype)

    def _judge(self, kernel: Tensor, setting: Setting) -> Judged:
        """Return the judgements from the kernel (n + m, n): training rows first, then those that are judged."""
        problem, n, n_columns = self.solver.problem, len(self.each.train), self.solver.problem.values.shape[1]
        inner = np.full((n, n_columns), np.nan, np.float32)
        outer = np.full((len(self.each.judged), n_columns), np.nan, np.float32)
        for block, rated, targets, weights in self._targets():
            block_kernel = kernel[:n] if rated is None else kernel[rated][:, rated]
            inverse = inverse_of(block_kernel, setting.penalty, weights)
            solution = inverse @ targets
            places = _places(rated, n)
            fold_of = torch.from_numpy(self.each.inner[places]).to(kernel.device)
            folds = [torch.nonzero(fold_of == fold).ravel() for fold in range(self.each.n_inner)]
            folds = [rows for rows in folds if len(rows)]
            spared = held_out(inverse, solution, targets, folds)
            n_classes = int((block.columns < problem.n_classes).sum())
            for fold, rows in enumerate(folds):
                train_rows = torch.cat([other for o, other in enumerate(folds) if o != fold] or [rows])
                means = _weighted_mean(targets[train_rows, :-1], None if weights is None else weights[train_rows])
                scores = _scores(spared[rows], means, n_classes)
                inner[np.ix_(places[rows.cpu().numpy()], block.columns)] = scores
            across = kernel[n:] if rated is None else kernel[n:][:, rated]
            outer[:, block.columns] = _scores(across @ solution, _weighted_mean(targets[:, :-1], weights), n_classes)
        return Judged(setting, inner, outer)

    def _targets(self) -> list[BlockTargets]:
        """Return each block that is known of some training row."""
        parts = []
        for block in self.solver.problem.blocks:
            rated = block.known[self.each.train]
            if not rated.any():
                continue
            values = self.solver.problem.values[np.ix_(self.each.train[rated], block.columns)]
            targets = torch.from_numpy(np.concatenate([values, np.ones((len(values), 1))], 1))
            at = None if rated.all() else torch.from_numpy(np.flatnonzero(rated)).to(self.solver.device)
            weights = None
            if self.solver.balanced and block.columns[0] < self.solver.problem.n_classes:
                weights = torch.from_numpy(class_weights(values)).to(self.solver.device, self.solver.dtype)
            parts.append((block, at, targets.to(self.solver.device, self.solver.dtype), weights))
        return parts

    def _kernel(self, source: Source, bandwidth: float) -> Tensor:
        """Return the kernel (n + m, n), a fresh tensor."""
        product = self._product(source)
        if not self.solver.rbf:
            return product.clone()
        return _rbf(product, bandwidth)

    def _product(self, source: Source) -> Tensor:
        """Return squared distances, or dot products, of standardised rows over the number of dims, (n + m, n)."""
        if source in self._products:
            return self._products[source]
        rows = self.solver.rows.read(source)
        train = rows[self.each.train]
        mean, inverse_std = standardisation(train)
        indices = np.concatenate([self.each.train, self.each.judged])
        x = torch.from_numpy((rows[indices] - mean) * inverse_std).to(self.solver.device, self.solver.dtype)
        product = _distances(x, len(train)) if self.solver.rbf else (x @ x[: len(train)].T).div_(rows.shape[1])
        size = product.numel() * product.element_size()
        if (len(self._products) + 1) * size <= DISTANCES_BYTES:
            self._products[source] = product
        return product


def _distances(x: Tensor, n: int) -> Tensor:
    """Return the squared distances of rows (m, D) to the first n of them, divided by the number of dims, (m, n)."""
    dim = x.shape[1]
    norms = x.square().sum(1).div_(dim)
    distances = (x @ x[:n].T).div_(dim).mul_(-2).add_(norms[:, None]).add_(norms[None, :n]).clamp_(min=0)
    distances[:n].diagonal().zero_()
    return distances


def _rbf(distances: Tensor, bandwidth: float) -> Tensor:
    """Return the RBF kernel of squared distances by dim."""
    return torch.mul(distances, -0.5 / bandwidth**2).exp_()


def _wide(values: Tensor) -> NDArray[np.float64]:
    wide: NDArray[np.float64] = values.double().cpu().numpy()
    return wide


def _places(rated: Tensor | None, n: int) -> NDArray[np.int64]:
    """Return the places that `BlockTargets` has among n training rows."""
    return np.arange(n) if rated is None else rated.cpu().numpy()


def _shares(targets: Tensor) -> NDArray[np.float64]:
    """Return the frequencies (C,) of the classes of (n, C + 1) targets; the last column is of ones."""
    shares: NDArray[np.float64] = targets[:, :-1].double().mean(0).cpu().numpy()
    return shares


def _weighted_mean(targets: Tensor, weights: Tensor | None) -> Tensor:
    """Return (K,) means of (n, K) targets under weights (n,)."""
    return targets.mean(0) if weights is None else (weights @ targets) / weights.sum()


def _scores(outputs: Tensor, means: Tensor, n_classes: int) -> NDArray[np.float64]:
    """Return the scores of predictions (n, K + 1), the last of a column of ones."""
    deviations = outputs[:, :-1] - outputs[:, -1:] * means
    return scores_of(deviations.double().cpu().numpy(), means.double().cpu().numpy(), n_classes)
