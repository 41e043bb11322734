"""What a linear meta-classifier has learned: each member's weight per class, beside that member's F1."""

from dataclasses import dataclass

import numpy as np

from ensemble.evaluation.align import PREFIX
from ensemble.fusion.problem import Problem
from ensemble.fusion.selection import attribute_scores
from ensemble.fusion.state import MetaState


@dataclass(frozen=True)
class Learned:
    """By member (row) and class or attribute (column).

    weights: see `own_weights`. reliability: the member's F1 of the class, its concordance of the attribute, on the
    utterances the meta-classifier was fitted on; None where a class or target doesn't occur.
    """

    members: tuple[str, ...]
    columns: tuple[str, ...]
    weights: tuple[tuple[float, ...], ...]
    reliability: tuple[tuple[float | None, ...], ...]


def learned(meta: MetaState, problem: Problem) -> Learned:
    """Of a soup, or the first seed; problem: what it was fitted on, its members in its order."""
    weights, reliability = own_weights(meta), reliability_of(problem)
    return Learned(
        tuple(name.removeprefix(PREFIX) for name in meta.members),
        (*meta.classes, *meta.attributes),
        tuple(tuple(round(float(w), 6) for w in row) for row in weights),
        tuple(tuple(None if np.isnan(r) else round(float(r), 6) for r in row) for row in reliability),
    )


def own_weights(meta: MetaState) -> np.ndarray:
    """Return (M, C + A) float64: what a member's column of a class (attribute) adds to the logit of that same class.

    Logits may all rise alike, and so may a member's centred columns, with no effect; so a member's (C, C) block is
    centred by row and column, and its diagonal scaled by C / (C - 1). The soft vote weighs all members alike: g / M.
    For an attribute it is the weight itself, in units of the sigmoid's argument per half of the range.
    """
    n_classes, n_columns = len(meta.classes), len(meta.classes) + len(meta.attributes)
    blocks = meta.tensors["weight"][0].double().numpy().reshape(len(meta.members), n_columns, n_columns)
    by_class = blocks[:, :n_classes, :n_classes]
    if n_classes > 1:
        by_class = by_class - by_class.mean(1, keepdims=True)
        by_class = (by_class - by_class.mean(2, keepdims=True)) * n_classes / (n_classes - 1)
    diagonals = [by_class, blocks[:, n_classes:, n_classes:]]
    return np.concatenate([np.diagonal(block, axis1=1, axis2=2) for block in diagonals], 1)


def reliability_of(problem: Problem) -> np.ndarray:
    """Return (M, C + A): each member's F1 by class and concordance by attribute, NaN where undefined."""
    labels, n_classes = problem.targets.labels, problem.n_classes
    labelled = labels >= 0
    f1 = np.full((len(problem.members), n_classes), np.nan)
    for m, of_member in enumerate(problem.probabilities):
        for c in np.unique(labels[labelled]):
            truth, guess = labels[labelled] == c, of_member[labelled].argmax(1) == c
            f1[m, c] = 2 * (truth & guess).sum() / (truth.sum() + guess.sum())
    concordance = attribute_scores(problem)
    concordance[:, np.isnan(problem.targets.attribute_values).all(0)] = np.nan
    return np.concatenate([f1, concordance], 1)
