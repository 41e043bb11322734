"""Multinomial logistic regression over pooled rows, by scikit-learn; much slower than the closed forms."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepser.probes.problem import Pass, Problem
from deepser.probes.rows import Source
from deepser.probes.solver import Fitted, Judged, Part, Piece, Setting, mean_of
from deepser.probes.standardise import Rows, standardisation

ITERATIONS = 1000
NEVER = -30.0  # the logit of a class that the training part doesn't have


@dataclass(frozen=True, eq=False)
class LogisticSolver:
    """scikit-learn's LogisticRegression (lbfgs) on standardised rows; penalties are 1 / C.

    Soft targets enter as one weighted row for each class with a share. Combinations are means of logits.
    """

    problem: Problem
    rows: Rows
    balanced: bool
    penalties: tuple[float, ...]
    bandwidths: tuple[float, ...] = ()

    def on_pass(self, each: Pass) -> "LogisticPass":
        return LogisticPass(self, each)


@dataclass(frozen=True, eq=False)
class LogisticPass:
    """`LogisticSolver` at one pass."""

    solver: LogisticSolver
    each: Pass
    _judged: dict[tuple[Source, Setting], Judged] = field(default_factory=dict, init=False)

    def single(self, source: Source, settings: Sequence[Setting]) -> list[Judged]:
        """Judge one layer with each penalty, refitted without each inner fold in turn."""
        x, judged, _, _ = self._standardised(source)
        for setting in settings:
            if (source, setting) in self._judged:
                continue
            inner = np.full((len(x), self.solver.problem.values.shape[1]), np.nan, np.float32)
            for fold in range(self.each.n_inner):
                in_fold = self.each.inner == fold
                weights, bias = self._fit(x[~in_fold], self.each.train[~in_fold], setting.penalty)
                inner[in_fold] = x[in_fold] @ weights + bias
            weights, bias = self._fit(x, self.each.train, setting.penalty)
            outer = (judged @ weights + bias).astype(np.float32)
            self._judged[source, setting] = Judged(setting, inner, outer)
        return [self._judged[source, setting] for setting in settings]

    def combined(self, parts: Sequence[Part]) -> Judged:
        """Judge the mean of the layers' logits, each with its own penalty."""
        return mean_of([self.single(part.source, [part.setting])[0] for part in parts])

    def fit(self, parts: Sequence[Part]) -> Fitted:
        """Fit each layer on all training rows of the pass, with its own penalty."""
        pieces, biases = [], []
        for part in parts:
            x, _, mean, inverse_std = self._standardised(part.source)
            weights, bias = self._fit(x, self.each.train, part.setting.penalty)
            pieces.append(Piece(part.source, mean, inverse_std, weights=weights.astype(np.float32)))
            biases.append(bias)
        return Fitted(tuple(pieces), np.mean(biases, 0))

    def _standardised(self, source: Source) -> tuple[NDArray[np.float32], ...]:
        rows = self.solver.rows.read(source)
        mean, inverse_std = standardisation(rows[self.each.train])
        train, judged = ((rows[at] - mean) * inverse_std for at in (self.each.train, self.each.judged))
        return train, judged, mean, inverse_std

    def _fit(
        self, x: NDArray[np.float32], indices: NDArray[np.int64], penalty: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return weights (D, C) and biases (C,) of the classes' logits."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        n_classes = self.solver.problem.n_classes
        soft = self.solver.problem.values[indices, :n_classes]
        rows, labels = np.nonzero(np.nan_to_num(soft) > 0)
        share = soft[rows, labels]
        if self.solver.balanced:
            total = np.bincount(labels, share, minlength=n_classes)
            share = share * total.sum() / ((total > 0).sum() * total[labels])
        model: Any = LogisticRegression(C=1 / penalty, max_iter=ITERATIONS)
        weights, bias = np.zeros((x.shape[1], n_classes)), np.full(n_classes, NEVER)
        if len(set(labels.tolist())) == 1:
            bias[labels[0]] = 0
            return weights, bias
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(x[rows], labels, sample_weight=share)
        coefficients, intercepts = model.coef_, model.intercept_
        if len(coefficients) == 1:
            coefficients, intercepts = (
                np.concatenate([-coefficients, coefficients]) / 2,
                np.r_[-intercepts, intercepts] / 2,
            )
        weights[:, model.classes_], bias[model.classes_] = coefficients.T, intercepts
        return weights, bias
