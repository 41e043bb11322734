"""Every score of several systems, part by part: with intervals, differences to one of them, and by groups."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np

from ensemble.evaluation.assess import Assessment, CalibrationError, ScoringOptions, scored
from ensemble.evaluation.bootstrap import Interval, Scored
from ensemble.evaluation.groups import GroupRow, GroupTable, by_group, by_speaker
from ensemble.evaluation.multiple import corrected_comparisons
from ensemble.evaluation.parts import Part, assess_parts, parts_of
from ensemble.evaluation.posteriors import named
from ensemble.evaluation.system import System
from featurestore.corpus.manifest import Manifest

Z_95 = NormalDist().inv_cdf(0.975)
MOST_GROUPS = 60  # of a column that is no speaker: more are names, not groups
GROUP_COLUMNS = ("gender", "split", "corpus")


@dataclass(frozen=True)
class Scoring:
    """How systems are scored; see `ensemble.evaluation.assess.ScoringOptions`.

    by: further columns whose groups are scored.
    """

    n_resamples: int = 1000
    seed: int = 0
    cv: str | None = None
    split: str | None = None
    by: tuple[str, ...] = ()


def reference_of(systems: Sequence[System]) -> System:
    """Return the system that the others are compared with: the last, which is an ensemble where there is one."""
    return systems[-1]


def score_systems(
    systems: Sequence[System],
    manifest: Manifest,
    scoring: Scoring,
    progress: Callable[[str], None] = lambda text: None,
) -> list[dict[str, Any]]:
    """Return {"name", "parts": {part: {"assessment", "groups", "notes"}}} of each system, as JSON values.

    "assessment": `Assessment.to_dict`, compared with the reference where both predict its utterances. Raises what
    `assess_parts` raises: no system is dropped because it can't be scored.
    """
    reference = reference_of(systems)
    scored_parts: list[dict[str, Part]] = []
    assessed: list[dict[str, Assessment]] = []
    reasons: list[str] = []
    for system in systems:
        progress(f"scoring {system.name}")
        cv = scoring.cv or (system.fold_column if manifest.has(system.fold_column) else None)
        parts = parts_of(manifest, system.name, [set(system.keys)], cv=cv, split=scoring.split)
        against = reference if system is not reference and _covers(reference, parts) and scoring.n_resamples else None
        assessments, reason = _assessed(system, manifest, scoring, against)
        scored_parts.append(parts)
        assessed.append(assessments)
        reasons.append(reason)
    _correct(assessed)
    rows = []
    for system, parts, assessments, reason in zip(systems, scored_parts, assessed, reasons, strict=True):
        progress(f"groups of {system.name}")
        rows.append({
            "name": system.name,
            "parts": {
                name: {
                    "assessment": assessments[name].to_dict(),
                    "groups": _groups(system, part, scoring),
                    "notes": [reason] if reason else [],
                }
                for name, part in parts.items()
            },
        })  # fmt: skip
    return rows


def _correct(assessed: Sequence[dict[str, Assessment]]) -> None:
    """Correct the p-values of each part for the number of systems that are compared with the reference there."""
    for part in dict.fromkeys(part for own in assessed for part in own):
        against = {str(n): own[part].against for n, own in enumerate(assessed) if part in own}
        for n, comparison in corrected_comparisons(against).items():
            assessed[int(n)][part] = replace(assessed[int(n)][part], against=comparison)


def _covers(system: System, parts: dict[str, Part]) -> bool:
    keys = set(system.keys)
    return all(key in keys for part in parts.values() for key in part.manifest.keys)


def _assessed(
    system: System, manifest: Manifest, scoring: Scoring, against: System | None
) -> tuple[dict[str, Assessment], str]:
    """Return the assessments, and why calibration is not among them ("" where it is)."""
    options: dict[str, Any] = {"against": against, "cv": scoring.cv, "split": scoring.split}
    plain = ScoringOptions(scoring.n_resamples, scoring.seed)
    if system.probabilities is None:
        reason = "" if system.predicted is None else "no probabilities, so no calibration"
        return assess_parts(system, manifest, plain, **options), reason
    try:
        return assess_parts(system, manifest, replace(plain, calibration=True), **options), ""
    except CalibrationError as error:
        return assess_parts(system, manifest, plain, **options), f"no calibration: {error}"


def _groups(system: System, part: Part, scoring: Scoring) -> dict[str, Any]:
    """Return the table of each column of groups that has scores, by its name."""
    manifest = part.manifest
    attributes = tuple(name for name in manifest.scheme.attributes if name in system.attributes)
    outputs = scored(system, manifest, attributes)
    options = {"n_resamples": scoring.n_resamples, "seed": scoring.seed}
    columns = [name for name in dict.fromkeys((part.folds, *GROUP_COLUMNS, *scoring.by)) if name and manifest.has(name)]
    groups = {}
    for column in columns:
        names = named(manifest, column)
        n_groups = len({name for name in names.tolist() if name is not None})
        if column != "speaker" and (1 < n_groups <= MOST_GROUPS or (n_groups and column in scoring.by)):
            groups[column] = by_group(outputs, names, column, **options)
    if manifest.has("speaker"):
        names = named(manifest, "speaker")
        if any(name is not None for name in names.tolist()):
            groups["speaker"] = _with_wilson(by_speaker(outputs, names, **options), outputs, names)
    return {name: table.to_dict() for name, table in groups.items()}


def _with_wilson(table: GroupTable, outputs: Scored, names: np.ndarray) -> GroupTable:
    """Return the table with Wilson's interval of each speaker's accuracy.

    Speakers can't be resampled within one speaker; this interval takes that speaker's utterances as independent.
    """
    if outputs.predicted is None:
        return table
    labelled = outputs.labels >= 0
    counts = Counter(names[labelled].tolist())
    n_correct = Counter(names[labelled & (outputs.labels == outputs.predicted)].tolist())
    rows: list[GroupRow] = []
    for row in table.rows:
        if counts[row.name] and "accuracy" in row.scores:
            accuracy = Interval(row.scores["accuracy"].value, *wilson(n_correct[row.name], counts[row.name]))
            row = replace(row, scores=row.scores | {"accuracy": accuracy})
        rows.append(row)
    return replace(table, rows=tuple(rows))


def wilson(n_right: int, n: int) -> tuple[float, float]:
    """Return the 95 % score interval of a proportion (Wilson 1927), n > 0.

    Its closed form: `scipy.stats.binomtest` has the same ends, but first finds a p-value that nobody reads, 3 ms for
    each of 2,000 speakers and system.
    """
    share, z2 = n_right / n, Z_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)
