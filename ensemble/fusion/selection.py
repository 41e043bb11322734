"""Which members make an ensemble: the best by held-out score, greedy forward selection, and the best per attribute.

A rule looks at the rows it is given and at nothing else; whoever scores it gives it other rows than those scored.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from deepser.scores.counts import macro_f1
from deepser.scores.metrics import ccc
from ensemble.fusion.problem import Problem
from featurestore.errors import ConfigError


@dataclass(frozen=True)
class Selection:
    """The members that are chosen.

    members: indices into a problem's members, best or first chosen first. counts: how often each was chosen, if known.
    """

    members: tuple[int, ...]
    counts: tuple[int, ...] | None = None


Rule = Callable[[Problem], Selection]


def everyone(problem: Problem) -> Selection:
    """All members, in their order."""
    return Selection(tuple(range(len(problem.members))))


def top(k: int) -> Rule:
    """Return the k members of the largest score, see `member_scores`; ties in the members' order."""

    def rule(problem: Problem) -> Selection:
        if not 1 <= k <= len(problem.members):
            raise ConfigError(f"The top {k} can't be chosen of {len(problem.members)} members.")
        order = np.argsort(-member_scores(problem), kind="stable")
        return Selection(tuple(order[:k].tolist()))

    return rule


def greedy(replacement: bool = False, limit: int | None = None) -> Rule:
    """Forward selection of members for the soft vote (Caruana et al. 2004, "Ensemble selection from libraries").

    From none, the member is added whose joining gives the mean of all chosen the best score; then the beginning of that
    sequence with the best score is taken, the shortest of equals. replacement: a member may be chosen again, and weighs
    as often as it was. limit: the most additions; by default as many as members, thrice that with replacement.
    """

    def rule(problem: Problem) -> Selection:
        n_members = len(problem.members)
        n_most = limit or (3 * n_members if replacement else n_members)
        if not replacement:
            n_most = min(n_most, n_members)
        rows = _scorable(problem)
        values, score = rows.posteriors.values, _scoring(rows)
        total = np.zeros(values.shape[1:], np.float64)
        chosen: list[int] = []
        scores: list[float] = []
        while len(chosen) < n_most:
            free = [m for m in range(n_members) if replacement or m not in chosen]
            worth = [score((total + values[m]) / (len(chosen) + 1)) for m in free]
            best = int(np.argmax(worth))
            chosen.append(free[best])
            scores.append(worth[best])
            total += values[free[best]]
        chosen = chosen[: int(np.argmax(scores)) + 1]
        members = tuple(dict.fromkeys(chosen))
        return Selection(members, tuple(chosen.count(m) for m in members) if replacement else None)

    return rule


def best_per_attribute(problem: Problem, k: int) -> tuple[tuple[int, ...], ...]:
    """For each attribute the k members of the largest concordance (all, where there are fewer), best first (SRPOL)."""
    scores = attribute_scores(problem)
    return tuple(tuple(np.argsort(-scores[:, a], kind="stable")[:k].tolist()) for a in range(scores.shape[1]))


def member_scores(problem: Problem) -> np.ndarray:
    """Return (M,): each member's macro-F1 over all classes that occur, or its mean CCC without labels."""
    rows = _scorable(problem)
    score = _scoring(rows)
    return np.array([score(own) for own in rows.posteriors.values])


def attribute_scores(problem: Problem) -> np.ndarray:
    """Return (M, A) float64: each member's concordance by attribute, 0 where an attribute has no target."""
    target = problem.targets.attribute_values
    scores = [[ccc(own[:, a], target[:, a]) for a in range(own.shape[1])] for own in problem.attributes]
    return np.nan_to_num(np.array(scores, np.float64).reshape(problem.attributes.shape[0], problem.attributes.shape[2]))


def scoring_of(problem: Problem) -> Callable[[np.ndarray], float]:
    """Return a function that scores (N, C + A) predictions of all of the problem's rows, by those that have a label."""
    labelled = np.flatnonzero(problem.targets.labels >= 0) if problem.has_labels else np.arange(len(problem.groups))
    score = _scoring(problem.rows(labelled))
    return lambda values: score(values[labelled])


def _scorable(problem: Problem) -> Problem:
    """Return the rows with a label, all where there is none."""
    return problem.rows(problem.targets.labels >= 0) if problem.has_labels else problem


def _scoring(problem: Problem) -> Callable[[np.ndarray], float]:
    """Return a function that scores (N, C + A) predictions of the problem's rows."""
    targets, n_classes = problem.targets, problem.n_classes
    if problem.has_labels:
        return lambda values: float(macro_f1(values[:, :n_classes].argmax(1), targets.labels, n_classes, absent="skip"))

    def concordance(values: np.ndarray) -> float:
        concordances = [ccc(values[:, n_classes + a], column) for a, column in enumerate(targets.attribute_values.T)]
        defined = [value for value in concordances if value == value]
        return float(np.mean(defined)) if defined else 0.0

    return concordance
