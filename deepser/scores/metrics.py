"""What is measured of predictions: class scores, concordance of attributes, and their spread over folds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from deepser.scores.counts import MIN_PAIRS, class_f1, confusions, mean_f1, ratio
from featurestore.errors import ConfigError, ManifestError
from featurestore.runtime.html import html_table
from featurestore.runtime.jsonable import json_fields

SCORES = ("macro_f1", "macro_f1_present", "micro_f1", "accuracy", "uar", "mean_ccc")


@dataclass(frozen=True)
class ClassScore:
    """One class: precision, recall, F1 and its number of utterances.

    Recall and F1 of a class that has no utterance, and precision of one that is never predicted, are NaN.
    """

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Classification:
    """Scores of class predictions, by class name.

    macro_f1 averages over every class of the scheme, as the challenge does: a class without utterances counts as 0
    (scikit-learn's labels=all, zero_division=0) and is named in `absent`. macro_f1_present averages over the classes
    that have utterances, and uar averages recall over them (scikit-learn's balanced_accuracy_score): the recall of a
    class that never occurs is undefined. micro_f1 equals accuracy while each utterance has one label and one
    prediction.
    """

    classes: tuple[str, ...]
    n: int
    n_no_consensus: int
    macro_f1: float
    macro_f1_present: float
    micro_f1: float
    accuracy: float
    uar: float
    per_class: dict[str, ClassScore]
    confusion: tuple[tuple[int, ...], ...]  # row: true class, column: predicted class
    absent: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able values."""
        return json_fields(self)


@dataclass(frozen=True)
class Concordance:
    """Concordance correlation per attribute and its mean; NaN where an attribute has fewer than two targets."""

    ccc: dict[str, float]
    mean: float
    n: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able values."""
        return json_fields(self)


@dataclass(frozen=True)
class Spread:
    """Values by name (folds or seeds), their mean and sample standard deviation (n - 1; NaN of a single value)."""

    mean: float
    std: float
    values: dict[str, float]

    @classmethod
    def of(cls, values: Mapping[str, float]) -> "Spread":
        """Return the spread of the values that are defined (not NaN)."""
        defined = [value for value in values.values() if not math.isnan(value)]
        mean = float(np.mean(defined)) if defined else math.nan
        return cls(mean, float(np.std(defined, ddof=1)) if len(defined) > 1 else math.nan, dict(values))


@dataclass(frozen=True)
class Evaluation:
    """Scores over all utterances pooled and, where folds were given, each score's spread over the folds.

    classification is None where attributes alone were predicted, concordance where classes alone were. absent_by_fold:
    by the folds that lack a class, those classes.
    """

    classification: Classification | None
    concordance: Concordance | None = None
    folds: dict[str, Spread] = field(default_factory=dict)
    absent_by_fold: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def scores(self) -> dict[str, float]:
        """Return the pooled scores by the names in SCORES, as far as they were asked for."""
        of_classes = self.classification
        scores_by_name = {name: float(getattr(of_classes, name)) for name in SCORES[:-1]} if of_classes else {}
        return scores_by_name | ({"mean_ccc": self.concordance.mean} if self.concordance else {})

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able values."""
        return json_fields(self)

    def _repr_html_(self) -> str:
        """Return the scores, then those of each class, as tables for notebooks."""
        rows = []
        for name, value in self.scores().items():
            fold = self.folds.get(name)
            deviation = "" if fold is None or math.isnan(fold.std) else f" ± {fold.std:.3f}"
            rows.append([name, f"{value:.3f}", "" if fold is None else f"{fold.mean:.3f}{deviation}"])
        tables = [html_table(("score", "value", "by fold"), rows, "scores")]
        if self.classification is not None:
            heads = ("class", "precision", "recall", "F1", "utterances")
            tables.append(
                html_table(
                    heads,
                    [
                        [
                            name,
                            *(f"{value:.3f}" for value in (of_class.precision, of_class.recall, of_class.f1)),
                            f"{of_class.support:,}",
                        ]
                        for name, of_class in self.classification.per_class.items()
                    ],
                    f"{self.classification.n:,} utterances",
                )
            )
        if self.concordance is not None:
            concordance = self.concordance
            rows = [[name, f"{value:.3f}", f"{concordance.n[name]:,}"] for name, value in concordance.ccc.items()]
            tables.append(html_table(("attribute", "CCC", "utterances"), rows, "attributes"))
        return "".join(tables)


@dataclass(frozen=True)
class ScoreRow:
    """One line of a results table: a system's scores (names in SCORES), and their spreads over folds and over seeds."""

    name: str
    scores: dict[str, float]
    folds: dict[str, Spread] = field(default_factory=dict)
    seeds: dict[str, Spread] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, evaluation: Evaluation) -> "ScoreRow":
        """Return the row of one system."""
        return cls(name, evaluation.scores(), evaluation.folds)

    @classmethod
    def over_seeds(cls, name: str, evaluations: Mapping[str, Evaluation]) -> "ScoreRow":
        """Return the row of one system trained from several seeds: every score is the mean over them."""
        seeds = per_fold(evaluations)
        folds = {}
        for score in next(iter(evaluations.values())).folds:
            by_seed = [evaluation.folds[score].values for evaluation in evaluations.values()]
            folds[score] = Spread.of(
                {fold: float(np.mean([values[fold] for values in by_seed])) for fold in by_seed[0]}
            )
        return cls(name, {score: spread.mean for score, spread in seeds.items()}, folds, seeds)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able values."""
        return json_fields(self)


def evaluate(
    predicted: np.ndarray | None,
    labels: np.ndarray,
    classes: Sequence[str],
    attributes: np.ndarray | None = None,
    attribute_targets: np.ndarray | None = None,
    attribute_names: Sequence[str] = (),
    folds: Sequence[str] | None = None,
) -> Evaluation:
    """Every score of predictions, pooled and per fold.

    predicted: (N,) int classes or (N, C) scores, None where attributes alone were predicted; labels: (N,) int, -1
    without consensus; attributes and attribute_targets: (N, A), NaN where a target is missing; folds: the fold's name
    of each row. In a fold without any label the scores of classes are NaN, and so is the mean CCC of a fold that lacks
    an attribute which others have: a mean of others is no figure to set beside theirs.
    """
    pooled = None if predicted is None else classification(predicted, labels, classes)
    concord = None
    if attribute_names and attributes is not None and attribute_targets is not None:
        concord = concordance(attributes, attribute_targets, attribute_names)
    if folds is None:
        return Evaluation(pooled, concord)
    names = np.asarray(folds, dtype=object)
    parts = {}
    for fold in sorted(set(folds), key=natural_order):
        rows = names == fold
        is_scored = predicted is not None and bool((labels[rows] >= 0).any())
        parts[fold] = evaluate(
            predicted[rows] if is_scored and predicted is not None else None,
            labels[rows],
            classes,
            None if attributes is None else attributes[rows],
            None if attribute_targets is None else attribute_targets[rows],
            attribute_names,
        )
    if concord is not None:
        defined = [name for name, value in concord.ccc.items() if not math.isnan(value)]
        for fold, own in parts.items():
            if own.concordance is not None and any(math.isnan(own.concordance.ccc[name]) for name in defined):
                parts[fold] = replace(own, concordance=replace(own.concordance, mean=math.nan))
    absent = {fold: own.classification.absent for fold, own in parts.items() if own.classification}
    return Evaluation(pooled, concord, per_fold(parts), {fold: names for fold, names in absent.items() if names})


def per_fold(evaluations: Mapping[str, Evaluation]) -> dict[str, Spread]:
    """Each score's mean and standard deviation over separately scored folds, NaN in a fold that has not that score."""
    scores = {fold: evaluation.scores() for fold, evaluation in evaluations.items()}
    names = [name for name in SCORES if any(name in own for own in scores.values())]
    return {name: Spread.of({fold: own.get(name, math.nan) for fold, own in scores.items()}) for name in names}


def classification(predicted: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> Classification:
    """Return the scores of (N,) int predictions, or of the argmax of (N, C) scores, against (N,) int labels.

    Rows with label -1 (no consensus) are left out and counted. Raises ManifestError when no row has a label, and
    ConfigError where rows or classes don't fit each other.
    """
    if predicted.ndim == 2:
        if predicted.shape[1] != len(classes):
            raise ConfigError(f"Predictions have {predicted.shape[1]} columns, the scheme has {len(classes)} classes.")
        predicted = predicted.argmax(1)
    if len(predicted) != len(labels):
        raise ConfigError(
            f"{len(predicted)} predictions for {len(labels)} labels; they must be rows of the same utterances."
        )
    labelled = labels >= 0
    if not labelled.any():
        raise ManifestError(
            "No utterance has a consensus label, so there is nothing to score; give a manifest with labels."
        )
    truth, guess = labels[labelled], predicted[labelled]
    for kind, values in (("Predictions", guess), ("Labels", truth)):
        if values.min() < 0 or values.max() >= len(classes):
            raise ConfigError(
                f"{kind} hold {values.min()} to {values.max()}; the scheme's {len(classes)} classes are 0 to "
                f"{len(classes) - 1}."
            )
    confusion = confusions(guess, truth, len(classes))
    n, hits, support = len(truth), confusion.diagonal(), confusion.sum(1)
    precision, recall, f1 = ratio(hits, confusion.sum(0)), ratio(hits, support), class_f1(confusion)
    accuracy = int(hits.sum()) / n
    return Classification(
        classes=tuple(classes),
        n=n,
        n_no_consensus=len(labels) - n,
        macro_f1=float(mean_f1(f1, support, absent="zero")),
        macro_f1_present=float(mean_f1(f1, support, absent="skip")),
        micro_f1=accuracy,  # one label and one prediction each
        accuracy=accuracy,
        uar=float(recall[support > 0].mean()),
        per_class={
            name: ClassScore(
                float(precision[c]),
                float(recall[c]),
                float(f1[c]) if support[c] else math.nan,
                int(support[c]),
            )
            for c, name in enumerate(classes)
        },
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
        absent=tuple(name for c, name in enumerate(classes) if support[c] == 0),
    )


def concordance(predicted: np.ndarray, target: np.ndarray, names: Sequence[str]) -> Concordance:
    """Return the CCC of each column of (N, A) predictions, without NaN targets; the mean is over defined ones."""
    if predicted.shape != target.shape or predicted.shape[1] != len(names):
        raise ConfigError(
            f"Attributes {predicted.shape} against targets {target.shape} and {len(names)} names; they must agree."
        )
    values = {name: ccc(predicted[:, a], target[:, a]) for a, name in enumerate(names)}
    defined = [value for value in values.values() if not math.isnan(value)]
    n = {name: int((~np.isnan(target[:, a])).sum()) for a, name in enumerate(names)}
    return Concordance(values, float(np.mean(defined)) if defined else math.nan, n)


def ccc(predicted: np.ndarray, target: np.ndarray) -> float:
    """Concordance correlation coefficient (Lin 1989, population moments) of two (N,) arrays, NaN targets left out.

    0 where either side is constant (nothing varies together), NaN where there are fewer than two targets.
    """
    has_target = ~np.isnan(target)
    x, y = predicted[has_target].astype(np.float64), target[has_target].astype(np.float64)
    if len(x) < MIN_PAIRS:
        return math.nan
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    covariance = np.mean((x - x.mean()) * (y - y.mean()))
    return float(2 * covariance / (x.var() + y.var() + (x.mean() - y.mean()) ** 2))


def natural_order(name: str) -> tuple[bool, int, str]:
    """Return what sorts fold 2 before fold 10, and numbers before words."""
    return (not name.isdecimal(), int(name) if name.isdecimal() else 0, name)
