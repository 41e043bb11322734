"""What a probe predicts, and which utterances each of its passes learns from and judges."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepser.members.folds import FoldPlan
from deepser.training.targets import Targets
from featurestore.corpus.splits import group_folds
from featurestore.errors import ManifestError

Indices = NDArray[np.int64]

LEAST_INNER_FOLDS = 5
FINAL = "all"


@dataclass(frozen=True, eq=False)
class Block:
    """Target columns that are known of the same utterances: columns (k,) int64, known (N,) bool."""

    columns: Indices
    known: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Problem:
    """The targets of N utterances as one table: values (N, C + A) float64, classes first, NaN where unknown."""

    keys: tuple[str, ...]
    classes: tuple[str, ...]
    attributes: tuple[str, ...]
    attribute_ranges: tuple[tuple[float, float], ...]
    labels: Indices
    values: NDArray[np.float64]

    @staticmethod
    def of(targets: Targets, kind: str = "soft") -> "Problem":
        """Return the problem of a corpus's targets. kind: "soft" (votes where there are any) or "one-hot" (labels)."""
        soft = (targets.one_hot if kind == "one-hot" else targets.soft).astype(np.float64)
        soft[soft.sum(1) == 0] = np.nan
        values = np.concatenate([soft, targets.attribute_values.astype(np.float64)], 1)
        return Problem(
            targets.keys, targets.classes, targets.attributes, targets.attribute_ranges, targets.labels, values
        )

    @property
    def n_classes(self) -> int:
        return len(self.classes)

    @property
    def blocks(self) -> list[Block]:
        """The classes, then the attributes, these grouped by the utterances of which they are known."""
        groups: dict[tuple[bool, bytes], tuple[list[int], NDArray[np.bool_]]] = {}
        for column in range(self.values.shape[1]):
            is_known = ~np.isnan(self.values[:, column])
            groups.setdefault((column < self.n_classes, is_known.tobytes()), ([], is_known))[0].append(column)
        return [Block(np.array(columns), known) for columns, known in groups.values() if known.any()]


@dataclass(frozen=True, eq=False)
class Pass:
    """One fit with its own selection: train (n,) rows, the inner fold of each, (n,), and judged (m,) rows.

    Inner folds are numbered from 0; nothing of `judged` is read until the selection is made.
    """

    name: str
    train: Indices
    inner: Indices
    judged: Indices

    @property
    def n_inner(self) -> int:
        return int(self.inner.max()) + 1


@dataclass(frozen=True, eq=False)
class Passes:
    """The outer passes (one for each fold of the plan) and the final one, which learns from every training row.

    With one fold the outer passes are empty: the final pass judges the rest. cells: (N,) the finest division, of which
    each inner fold is one; -1 for rows that no pass learns from. by_utterance: a part with too few speakers had to be
    cut through them.
    """

    outer: tuple[Pass, ...]
    final: Pass
    cells: Indices
    by_utterance: bool


def passes_of(problem: Problem, plan: FoldPlan, groups: NDArray[np.str_], seed: int = 0) -> Passes:
    """Divide a plan's folds into cells of whole speakers, and list the passes.

    The inner folds of a pass are the cells of its training part: the plan's own folds where there are six or more,
    else parts of them, so that each selection is made over five inner folds or more where there are as many speakers.
    groups: (N,) who must not be on both sides. ManifestError where a training part can't be divided in two.
    """
    usable = ~np.isnan(problem.values).all(1) & (plan.folds >= 0)
    n_folds = len(plan.names)
    n_each = math.ceil(LEAST_INNER_FOLDS / max(n_folds - 1, 1))
    cells = np.full(len(problem.keys), -1, np.int64)
    by_utterance, n_cells = False, 0
    for fold in range(n_folds):
        rows = np.flatnonzero(usable & (plan.folds == fold))
        if not len(rows):
            raise ManifestError(
                f"Fold {plan.names[fold]!r} has no utterance with a label, a vote or an attribute; join it to another."
            )
        fold_groups = groups[rows].tolist()
        if len(set(fold_groups)) < 2 and n_folds <= 2:
            fold_groups, by_utterance = [problem.keys[row] for row in rows], True
        n = min(n_each, len(set(fold_groups)))
        cells[rows] = n_cells + group_folds(fold_groups, n, seed=seed, labels=problem.labels[rows])
        n_cells += n
    outer = []
    if n_folds > 1:
        for fold, name in enumerate(plan.names):
            train = np.flatnonzero(usable & (plan.folds != fold))
            outer.append(_pass(name, train, cells, np.flatnonzero(plan.folds == fold)))
    train = np.flatnonzero(usable)
    return Passes(tuple(outer), _pass(FINAL, train, cells, np.flatnonzero(plan.folds == -1)), cells, by_utterance)


def _pass(name: str, train: Indices, cells: Indices, judged: Indices) -> Pass:
    _, inner = np.unique(cells[train], return_inverse=True)
    if not len(inner) or inner.max() < 1:
        raise ManifestError(
            f"The {len(train)} training utterances of pass {name!r} can't be divided in two to choose settings; a "
            "probe needs two speakers or more."
        )
    return Pass(name, train, inner.astype(np.int64), judged)
