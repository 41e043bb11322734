"""Everything that can be computed of one system's predictions of some utterances, beside another's if need be."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from deepser.scores import calibration as probabilities
from deepser.scores.bins import BinnedAttribute, binned
from deepser.scores.calibration import Calibration, SoftScores
from deepser.scores.metrics import Evaluation, ccc, evaluate
from deepser.training.targets import Targets
from ensemble.evaluation.bootstrap import LEVEL, Comparison, Interval, Scored, bootstrap, compare
from ensemble.evaluation.confidence import confidence_notes
from ensemble.evaluation.groups import GroupTable, by_group, by_speaker
from ensemble.evaluation.posteriors import fold_names, group_names, named, scores_classes, targets_of
from ensemble.evaluation.system import System
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.splits import group_folds
from featurestore.corpus.votes import soft_targets
from featurestore.errors import ConfigError, ManifestError
from featurestore.runtime.html import html_table
from featurestore.runtime.wording import counted

N_PARTS = 5  # over which a temperature is cross-fitted where no fold column divides the utterances
FEW_SPEAKERS = 20
OTHER_SCALE, SHIFT, WIDER = 0.1, 0.5, 1.25  # see `scale_notes`


class CalibrationError(ConfigError):
    """The calibration of a system can't be computed on these utterances."""


@dataclass(frozen=True)
class ScoringOptions:
    """What `assess` is to find out besides the scores: see there."""

    n_resamples: int = 1000
    seed: int = 0
    by: str | None = None
    calibration: bool = False


@dataclass(frozen=True)
class HeldOut:
    """Utterances other than those that are scored, on which a temperature may be fitted."""

    name: str
    manifest: Manifest


@dataclass(frozen=True)
class Calibrated:
    """Calibration of the probabilities as they are, and after temperature scaling fitted on other utterances."""

    unscaled: Calibration
    scaled: Calibration
    fitted_on: str
    temperatures: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able values."""
        fit = {"fitted_on": self.fitted_on, "temperatures": self.temperatures}
        return {"given": self.unscaled.to_dict(), "scaled": self.scaled.to_dict()} | fit


@dataclass(frozen=True)
class Assessment:
    """One system on one part of a corpus; what was not asked for, or can't be computed, is empty or None."""

    system: str
    evaluation: Evaluation
    n_clusters: int  # speakers of whom anything is known, and utterances of unknown ones
    intervals: dict[str, Interval] = field(default_factory=dict)
    soft: SoftScores | None = None
    bins: dict[str, BinnedAttribute] = field(default_factory=dict)
    calibration: Calibrated | None = None
    groups: GroupTable | None = None
    against: Comparison | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able values: those of the evaluation, and under their own names what goes beyond it."""
        intervals = {name: [i.value, i.low, i.high] for name, i in self.intervals.items()}
        report = {"system": self.system, "n_clusters": self.n_clusters, "notes": list(self.notes)}
        report |= self.evaluation.to_dict() | {"intervals": _defined(intervals)}
        report["bins"] = {name: own.to_dict() for name, own in self.bins.items()}
        for name in ("soft", "calibration", "groups", "against"):
            value = getattr(self, name)
            report[name] = None if value is None else value.to_dict()
        return report

    def _repr_html_(self) -> str:
        """Return the scores with their intervals and, where there is one, the comparison, as tables for notebooks."""
        rows = [[name, f"{i.value:.3f}", _ends(i.low, i.high)] for name, i in self.intervals.items()]
        tables = [html_table(("score", "value", "95 % interval"), rows, f"{self.system}, {self.n_clusters:,} speakers")]
        if not rows:
            tables = [self.evaluation._repr_html_()]
        if self.against is not None:
            heads = ("score", self.against.first, self.against.second, "difference", "95 % interval", "p")
            rows = [
                [name, f"{d.first:.3f}", f"{d.second:.3f}", f"{d.value:+.3f}", _ends(d.low, d.high), f"{d.p:.3f}"]
                for name, d in self.against.differences.items()
            ]
            tables.append(html_table(heads, rows, "paired differences"))
        tables += [html_table((), [[note] for note in self.notes], "notes")] if self.notes else []
        return "".join(tables)


def _ends(low: float, high: float) -> str:
    return "-" if low != low else f"{low:.3f} to {high:.3f}"


@dataclass(frozen=True)
class _Judged:
    """A system's predictions for the utterances of a manifest, beside the targets."""

    system: System
    targets: Targets
    scored: Scored


def assess(
    system: System,
    manifest: Manifest,
    scoring: ScoringOptions | None = None,
    *,
    folds: str | None = None,
    against: System | None = None,
    held_out: HeldOut | None = None,
) -> Assessment:
    """Return the scores of a system on every utterance of `manifest`.

    folds: the column of the folds for spreads. scoring.n_resamples: intervals by speaker (0: none); scoring.by: a
    column (gender, speaker, ...) whose groups are set side by side; scoring.calibration: ECE before and after
    temperature scaling, fitted on `held_out`, else on the other folds, else on other speakers. against: a second
    system, compared on the same utterances. Soft-target scores need votes and probabilities, binned attributes need
    attributes. AlignmentError names the utterances that a system does not predict; ManifestError when nothing is known
    that could be scored; CalibrationError when the calibration that is asked for can't be computed.
    """
    scoring = scoring or ScoringOptions()
    judged = _judge(system, manifest, common_attributes(manifest, system))
    scored, targets = judged.scored, judged.targets
    evaluation = evaluate(
        scored.predicted, scored.labels, scored.classes, scored.values, scored.targets, scored.attributes,
        None if folds is None else fold_names(manifest, folds),
    )  # fmt: skip
    n_clusters = scored.n_clusters
    options = {"n_resamples": scoring.n_resamples, "seed": scoring.seed}
    soft = None
    if manifest.votes is not None and scored.predicted is not None and judged.system.probabilities is not None:
        soft = probabilities.soft_scores(judged.system.probabilities, soft_targets(manifest.votes))
    differences = {
        name: binned(scored.values[:, a], scored.targets[:, a], targets.attribute_ranges[a])
        for a, name in enumerate(scored.attributes)
    }
    groups = None
    if scoring.by == "speaker":
        groups = by_speaker(scored, named(manifest, "speaker"), **options)
    elif scoring.by is not None:
        groups = by_group(scored, named(manifest, scoring.by), scoring.by, **options)
    compared, assumed = (None, ()) if against is None else _compared(judged, against, manifest, options)
    return Assessment(
        system=system.name,
        evaluation=evaluation,
        n_clusters=n_clusters,
        intervals=bootstrap(scored.sums(), **options) if scoring.n_resamples else {},
        soft=soft,
        bins={name: bins for name, bins in differences.items() if bins is not None},
        calibration=_calibrated(judged, manifest, folds, held_out, system) if scoring.calibration else None,
        groups=groups,
        against=compared,
        notes=(
            *scored.notes,
            *assumed,
            *scale_notes(scored),
            *_confidence(judged, manifest, folds),
            *((*speaker_notes(manifest, n_clusters), *rare_class_notes(scored)) if scoring.n_resamples else ()),
        ),
    )


def scored(system: System, manifest: Manifest, attributes: tuple[str, ...]) -> Scored:
    """Return a system's predictions of classes and these attributes beside the targets, for all of `manifest`."""
    return _judge(system, manifest, attributes).scored


def common_attributes(manifest: Manifest, *systems: System) -> tuple[str, ...]:
    """Return the scheme's attributes, in its order, that all the systems predict."""
    return tuple(a for a in manifest.scheme.attributes if all(a in system.attributes for system in systems))


def _judge(system: System, manifest: Manifest, attributes: tuple[str, ...]) -> _Judged:
    chosen = system.of(manifest.keys)
    targets = targets_of(manifest, attributes)
    if chosen.predicted is not None and targets.classes and scores_classes(targets):
        chosen = chosen.among(targets.classes)
        predicted = chosen.predicted
    else:
        predicted = None
    if predicted is None and np.isnan(targets.attribute_values).all():
        raise ManifestError(
            f"Nothing that {system.name!r} predicts ({', '.join((*system.classes, *system.attributes))}) is known of "
            f"the utterances of manifest {manifest.name}; give a manifest with labels or attributes."
        )
    means = {}
    if predicted is not None and chosen.probabilities is not None and manifest.votes is not None:
        votes = soft_targets(manifest.votes)  # not the targets' shares, which are of a label where nobody voted
        means["cross_entropy"] = probabilities.cross_entropies(chosen.probabilities, votes)
        means["jensen_shannon"] = probabilities.jensen_shannons(chosen.probabilities, votes)
    values = chosen.values[:, [chosen.attributes.index(name) for name in attributes]]
    clusters = group_names(manifest)
    scored = Scored(
        targets.classes, targets.labels, predicted, attributes, targets.attribute_values, values, clusters, means,
        chosen.notes,
    )  # fmt: skip
    return _Judged(chosen, targets, scored)


def _compared(
    judged: _Judged, against: System, manifest: Manifest, options: dict[str, int]
) -> tuple[Comparison, list[str]]:
    """Compare two systems on what both predict: classes, attributes, and means of probabilities.

    Returns the notes on the second one's predictions as well.
    """
    attributes = common_attributes(manifest, judged.system, against)
    with_classes = judged.scored.predicted is not None and against.predicted is not None
    if not with_classes and not attributes:
        raise ConfigError(f"{judged.system.name!r} and {against.name!r} predict nothing in common that is known here.")
    pair = [_judge(system, manifest, attributes).scored for system in (judged.system, against)]
    common = set(pair[0].means) & set(pair[1].means)
    sums = [
        replace(
            scored,
            predicted=scored.predicted if with_classes else None,
            means={name: values for name, values in scored.means.items() if name in common},
        ).sums()
        for scored in pair
    ]
    notes = [f"{against.name}: {note}" for note in pair[1].notes]
    return compare(sums[0], sums[1], (judged.system.name, against.name), **options), notes


def _calibrated(
    judged: _Judged, manifest: Manifest, folds: str | None, held_out: HeldOut | None, system: System
) -> Calibrated:
    unscaled, labels = judged.system.probabilities, judged.targets.labels
    if unscaled is None or judged.scored.predicted is None:
        why = "no utterance has a label" if unscaled is not None else f"{system.name!r} predicts no probabilities"
        raise CalibrationError(f"Calibration of {system.name!r} can't be computed on {manifest.name}: {why}.")
    if held_out is not None:
        elsewhere = _judge(system, held_out.manifest, ())
        other_probabilities = elsewhere.system.probabilities
        assert other_probabilities is not None  # the same system has them here
        fitted_on = held_out.name
        temperature = probabilities.fit_temperature(other_probabilities, elsewhere.targets.labels)
        scaled, temperatures = probabilities.scale(unscaled, temperature), {held_out.name: temperature}
    else:
        fitted_on, names = _cross_folds(manifest, folds)
        labelled_parts = {name for name, label in zip(names, labels.tolist(), strict=True) if label >= 0}
        if len(labelled_parts) < 2:
            raise CalibrationError(
                f"Calibration of {system.name!r} can't be computed on {manifest.name}: all labels are in one part, so "
                f"that {fitted_on} have none to fit a temperature on."
            )
        scaled, temperatures = probabilities.cross_scaled(unscaled, labels, names)
    before, after = (probabilities.calibration(p, labels) for p in (unscaled, scaled))
    return Calibrated(before, after, fitted_on, temperatures)


def _cross_folds(manifest: Manifest, folds: str | None) -> tuple[str, list[str]]:
    """Return the data of a temperature, in words, and the part of each utterance that it is not fitted on."""
    if folds is not None:
        return f"the other folds of column {folds!r}", fold_names(manifest, folds)
    groups = group_names(manifest).tolist()
    n_parts = min(N_PARTS, len(set(groups)))
    if n_parts < 2:
        raise CalibrationError(
            f"All utterances of manifest {manifest.name} are of one speaker, so no others are left to fit a "
            "temperature on; give a manifest with a development split."
        )
    return f"other speakers, {n_parts} parts", [str(part + 1) for part in group_folds(groups, n_parts)]


def speaker_notes(manifest: Manifest, n_clusters: int) -> list[str]:
    """Return notes on what is resampled: utterances without a speaker, and speakers that are few."""
    unknown = sum(name is None for name in named(manifest, "speaker")) if manifest.has("speaker") else len(manifest)
    notes = []
    if unknown:
        notes.append(f"{unknown:,} utterances have no known speaker and are resampled one by one")
    if n_clusters == 1:
        notes.append("all utterances are of one speaker, so that there are no intervals by speaker")
    elif n_clusters < FEW_SPEAKERS:
        notes.append(f"{n_clusters} speakers are few: intervals by speaker tend to be too narrow")
    return notes


def rare_class_notes(rows: Scored) -> list[str]:
    """Return a note on classes of so few speakers that more than a tail of the resamples has no utterance of them.

    Such a class counts as 0 in a resample's macro-F1, which then lies below what any model of it would have.
    """
    if rows.predicted is None or rows.n_clusters < 2:
        return []
    rare = []
    for c, name in enumerate(rows.classes):
        n = len(set(rows.clusters[rows.labels == c].tolist()))
        share = (1 - n / rows.n_clusters) ** rows.n_clusters
        if n and share > (1 - LEVEL) / 2:
            rare.append(f"{share:.0%} have no {name} ({counted(n, 'speaker')})")
    if not rare:
        return []
    return [
        f"of the resamples {', '.join(rare)}, which then counts as 0 in macro-F1, so that the interval of macro-F1 "
        "reaches too low; that of UAR leaves the class out"
    ]


def scale_notes(rows: Scored) -> list[str]:
    """Return a note for each attribute that follows the truth better than its CCC says, by its scale or a shift.

    The correlation is Pearson's, which no change of scale alters. Predictions that merely shrink to the truth's mean,
    as those of models that minimise squared errors, are on its scale.
    """
    notes = []
    for a, name in enumerate(rows.attributes):
        has_target = ~np.isnan(rows.targets[:, a])
        predicted, truth = rows.values[has_target, a].astype(np.float64), rows.targets[has_target, a].astype(np.float64)
        if len(predicted) < 2 or np.ptp(predicted) == 0 or np.ptp(truth) == 0:
            continue
        correlation, value = float(np.corrcoef(predicted, truth)[0, 1]), ccc(predicted, truth)
        shifted = abs(predicted.mean() - truth.mean()) > SHIFT * truth.std()
        if correlation - value > OTHER_SCALE and (shifted or predicted.std() > WIDER * truth.std()):
            notes.append(
                f"{name} correlates with the truth by {correlation:.3f} and has a CCC of {value:.3f}: predictions of "
                f"{predicted.min():.2f} to {predicted.max():.2f} for a truth of {truth.min():.2f} to {truth.max():.2f} "
                "seem to be on another scale, or shifted, which CCC counts"
            )
    return notes


def _confidence(judged: _Judged, manifest: Manifest, folds: str | None) -> list[str]:
    if folds is None or judged.system.probabilities is None:
        return []
    return confidence_notes(judged.system.probabilities, fold_names(manifest, folds))


def _defined(intervals: dict[str, list[float]]) -> dict[str, list[float | None]]:
    return {name: [None if np.isnan(v) else v for v in values] for name, values in intervals.items()}
