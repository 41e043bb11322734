"""What an ensemble's fit is about - posteriors, targets, predictions - and how its ways of fusing are scored."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepser.metrics import Evaluation, ScoreRow, evaluate, jsonable
from deepser.targets import Targets
from ensemble.align import Aligned
from ensemble.config import MetaConfig
from ensemble.evaluation import PREFIX
from ensemble.meta import Prediction
from ensemble.votes import MAJORITY_VOTE, SOFT_VOTE, majority_vote, soft_vote

META_SINGLE, META_SOUP = "meta (single)", "meta (soup)"


@dataclass(frozen=True)
class EnsembleReport:
    """What `fit_ensemble` found: a table per evaluated part, and how the meta-classifier was fitted.

    parts: "all folds", or "development", "test", ...: a ScoreRow per member, vote and meta-classifier; evaluations: the
    soup's full evaluation of each part.
    """

    name: str
    members: tuple[str, ...]
    fitted_on: str
    n_fitted: int
    in_sample: bool
    notes: tuple[str, ...]
    parts: dict[str, tuple[ScoreRow, ...]]
    evaluations: dict[str, Evaluation]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able values."""
        return jsonable(dataclasses.asdict(self))


@dataclass(frozen=True)
class Problem:
    """Everything of N utterances that fitting and scoring need, in one order; `logits` where the meta reads those."""

    posteriors: Aligned
    inputs: Aligned
    targets: Targets
    groups: np.ndarray

    def rows(self, index: np.ndarray) -> "Problem":
        index = np.arange(len(self.groups))[index]
        t = self.targets
        targets = dataclasses.replace(
            t,
            keys=tuple(t.keys[i] for i in index),
            labels=t.labels[index],
            soft=t.soft[index],
            attribute_values=t.attribute_values[index],
        )
        return Problem(self.posteriors.rows(index), self.inputs.rows(index), targets, self.groups[index])


@dataclass(frozen=True)
class Fused:
    """The meta-classifiers' predictions of some utterances: one per seed, and the soup's."""

    seeds: tuple[Prediction, ...]
    soup: Prediction


def score(
    problem: Problem, fused: Fused, config: MetaConfig, folds: np.ndarray | None
) -> tuple[tuple[ScoreRow, ...], Evaluation]:
    """The table of members, votes, meta and soup; and the soup's whole evaluation."""
    targets, values = problem.targets, problem.posteriors.values
    n_classes = len(targets.classes)
    names = None if folds is None else folds.tolist()

    def scored(predicted: np.ndarray, attributes: np.ndarray) -> Evaluation:
        known = targets.attribute_values, targets.attributes
        return evaluate(predicted, targets.labels, targets.classes, attributes, *known, names)

    def systems() -> Iterator[ScoreRow]:
        for member, own in zip(problem.posteriors.members, values, strict=True):
            yield ScoreRow.of(member.removeprefix(PREFIX), scored(own[:, :n_classes], own[:, n_classes:]))
        probabilities, attributes = values[..., :n_classes], soft_vote(values[..., n_classes:])
        yield ScoreRow.of(MAJORITY_VOTE, scored(majority_vote(probabilities), attributes))
        yield ScoreRow.of(SOFT_VOTE, scored(soft_vote(probabilities), attributes))
        single = {
            str(seed): scored(p.probabilities, p.attributes) for seed, p in zip(config.seeds, fused.seeds, strict=True)
        }
        yield ScoreRow.over_seeds(META_SINGLE, single)

    soup = scored(fused.soup.probabilities, fused.soup.attributes)
    return (*systems(), ScoreRow.of(META_SOUP, soup)), soup
