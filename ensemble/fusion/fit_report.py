"""How an ensemble's ways of fusing are scored, and what is reported of a fit."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deepser.scores.metrics import Evaluation, ScoreRow, evaluate
from deepser.scores.report import TITLES
from ensemble.evaluation.align import PREFIX
from ensemble.evaluation.bootstrap import Interval, MeanSums, Scored, Sums, bootstrap
from ensemble.evaluation.posteriors import scores_classes
from ensemble.fusion.learned import Learned
from ensemble.fusion.problem import Problem
from ensemble.fusion.state import Prediction
from ensemble.fusion.techniques import CHOICE, Fused, Technique
from featurestore.runtime.jsonable import jsonable

OTHER_WAYS = {"soft": "soft vote", "auto": CHOICE}  # --meta by the row that it makes: what may be better than another


@dataclass(frozen=True)
class EnsembleReport:
    """What `fit_ensemble` found: a table per evaluated part, and how the meta-classifier was fitted.

    parts: "all folds", or "development", "test", ...: a ScoreRow per member, vote and meta-classifier; evaluations: the
    meta-classifier's full evaluation of each part. members: those it is made of; chosen: those of each pass, where they
    were selected. protocol: what the check of the folds or splits found, as `ProtocolReport.to_dict` gives it.
    held_out: by pass, who chose the rounds and took no part in training, as `HeldOut.to_dict` gives it. choices: by
    pass, which way of fusing was chosen and the held-out score of each, where one was.
    """

    name: str
    members: tuple[str, ...]
    fitted_on: str
    n_fitted: int
    in_sample: bool
    notes: tuple[str, ...]
    parts: dict[str, tuple[ScoreRow, ...]]
    evaluations: dict[str, Evaluation]
    chosen: dict[str, tuple[str, ...]] = field(default_factory=dict)
    learned: Learned | None = None
    protocol: dict[str, Any] = field(default_factory=dict)
    held_out: dict[str, Any] = field(default_factory=dict)
    choices: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able values."""
        values: dict[str, Any] = jsonable(dataclasses.asdict(self))
        return values


def scored(problem: Problem, probabilities: np.ndarray, attributes: np.ndarray, folds: np.ndarray | None) -> Evaluation:
    """Return the evaluation of (N, C) probabilities and (N, A) attributes of the problem's rows; folds: (N,) names."""
    targets = problem.targets
    return evaluate(
        probabilities if scores_classes(targets) else None,
        targets.labels,
        targets.classes,
        attributes,
        targets.attribute_values,
        targets.attributes,
        None if folds is None else folds.tolist(),
    )


def member_rows(problem: Problem, folds: np.ndarray | None) -> list[ScoreRow]:
    """Return a row for every member."""
    outputs = zip(problem.members, problem.probabilities, problem.attributes, strict=True)
    return [ScoreRow.of(member.removeprefix(PREFIX), scored(problem, p, a, folds)) for member, p, a in outputs]


def technique_rows(problem: Problem, technique: Technique, fused: Fused, folds: np.ndarray | None) -> list[ScoreRow]:
    """Return a technique's row, after that of its seeds alone where it has several."""
    rows = []
    if fused.seeds:
        by_seed = {str(s): scored(problem, p.probabilities, p.attributes, folds) for s, p in enumerate(fused.seeds)}
        rows.append(ScoreRow.over_seeds(technique.single, by_seed))
    whole = scored(problem, fused.whole.probabilities, fused.whole.attributes, folds)
    return [*rows, ScoreRow.of(technique.name, whole)]


def technique_intervals(
    problem: Problem, technique: Technique, fused: Fused, n_resamples: int, seed: int = 0
) -> dict[str, dict[str, Interval]]:
    """Return 95 % intervals of the rows of `technique_rows`, by their names, from resampling speakers."""
    intervals = {technique.name: bootstrap(_sums(problem, fused.whole), n_resamples, seed=seed)}
    if fused.seeds:
        each = MeanSums.of([_sums(problem, own) for own in fused.seeds])
        intervals[technique.single] = bootstrap(each, n_resamples, seed=seed)
    return intervals


def _sums(problem: Problem, prediction: Prediction) -> Sums:
    targets = problem.targets
    predicted = prediction.probabilities.argmax(1) if scores_classes(targets) else None
    return Scored(
        targets.classes, targets.labels, predicted, targets.attributes, targets.attribute_values,
        prediction.attributes, problem.groups,
    ).sums()  # fmt: skip


def beaten_by(part: str, rows: Sequence[ScoreRow]) -> list[str]:
    """Return a sentence where a member or another vote beats the ensemble, the last row, on the same part."""
    score = "macro_f1" if "macro_f1" in rows[-1].scores else "mean_ccc"
    ensemble_row = rows[-1]
    others = [row for row in rows[:-1] if not math.isnan(row.scores.get(score, math.nan))]
    if not others or math.isnan(ensemble_row.scores.get(score, math.nan)):
        return []
    best = max(others, key=lambda row: row.scores[score])
    if not round(ensemble_row.scores[score], 3) < round(best.scores[score], 3):  # as they are shown
        return []
    remedies = [
        "Fewer members",
        *(f"--meta {m}" for m, own in OTHER_WAYS.items() if not ensemble_row.name.startswith(own)),
    ]
    remedy = " or ".join([", ".join(remedies[:-1]), remedies[-1]])
    return [
        f"On {part} {best.name} scores more than {ensemble_row.name}: {TITLES[score]} {best.scores[score]:.3f} against "
        f"{ensemble_row.scores[score]:.3f}. {remedy} may be the better choice."
    ]


def worth_scoring(problem: Problem) -> bool:
    """Whether anything of these rows is known; a challenge's test part may have no labels: predicted, not scored."""
    return problem.has_labels or not np.isnan(problem.targets.attribute_values).all()
