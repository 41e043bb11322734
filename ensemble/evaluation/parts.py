"""A system's scores on each part of a corpus that it was judged on: all folds together, or split by split."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from deepser.members.folds import outside_folds
from deepser.scores.metrics import Evaluation
from ensemble.evaluation.assess import Assessment, CalibrationError, HeldOut, ScoringOptions, assess
from ensemble.evaluation.posteriors import evaluate_posteriors, posteriors_name, split_rows
from ensemble.evaluation.system import System
from ensemble.evaluation.systems import from_store
from featurestore.corpus.cross_corpus import TEST, TRAIN, CrossCorpus
from featurestore.corpus.join import CORPUS
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.splits import label_codes
from featurestore.errors import ManifestError
from featurestore.store.feature_store import FeatureStore

ALL = "all folds"
DEVELOPMENT = "development"


@dataclass(frozen=True)
class Part:
    """The utterances of one part, and the column of the folds that spreads are computed over (None: no spread)."""

    manifest: Manifest
    folds: str | None


def evaluate_parts(
    store: FeatureStore, manifest: Manifest, name: str, *, cv: str | None = None, split: str | None = None
) -> dict[str, Evaluation]:
    """Return the scores of posteriors in the store by part, see `parts_of`.

    Raises AlignmentError when utterances of a part have no posteriors, ManifestError when nothing can be scored.
    """
    name = posteriors_name(store, name)
    system = from_store(store, name, manifest)
    parts = parts_of(manifest, name, [set(system.keys)], cv=cv or system.fold_column or None, split=split)
    return {part: evaluate_posteriors(store, rows.manifest, name, rows.folds) for part, rows in parts.items()}


def assess_parts(
    system: System,
    manifest: Manifest,
    options: ScoringOptions,
    *,
    against: System | None = None,
    cv: str | None = None,
    split: str | None = None,
) -> dict[str, Assessment]:
    """Everything that is asked of a system, by part, see `parts_of`.

    Temperatures of a split are fitted on development where there is one, else (and on development itself) on other
    speakers of the same part; a part on which none can be fitted has a note instead, and where none can on any part it
    is a CalibrationError. AlignmentError when utterances of a part are not predicted.
    """
    parts = parts_of(manifest, system.name, [set(system.keys)], cv=cv or _known(system, manifest), split=split)
    held_out = _held_out(system, manifest)
    assessments: dict[str, Assessment] = {}
    uncalibrated: list[CalibrationError] = []
    for part, rows in parts.items():
        where: dict[str, Any] = {"folds": rows.folds, "against": against}
        other = held_out if part not in (ALL, "all", DEVELOPMENT) else None
        try:
            assessments[part] = assess(system, rows.manifest, options, held_out=other, **where)
        except CalibrationError as error:
            uncalibrated.append(error)
            plain = assess(system, rows.manifest, replace(options, calibration=False), **where)
            assessments[part] = replace(plain, notes=(*plain.notes, str(error).rstrip(".")))
    if len(uncalibrated) == len(parts):
        raise uncalibrated[0]
    return assessments


def parts_of(
    manifest: Manifest, name: str, judged: Sequence[Container[str]], *, cv: str | None = None, split: str | None = None
) -> dict[str, Part]:
    """Return the parts on which systems, `name` in messages, are scored: {"all folds": ...}, or one for each split.

    judged: the keys that each system predicts. cv: the fold column; utterances outside the folds (`outside_folds`) are
    parts by their split. Without it every split that has labels or attributes and of which a system predicts something;
    where there is no `split` column all utterances together, over the column `fold` if that is there. Where splits are
    corpora (`CrossCorpus`), each corpus that is tested on is a part of its name, and those to learn from are one only
    where each system predicts all of them: a system that learned from some was tested on others, see `left_out`. split:
    one split alone, without a spread where it is of one fold or none. ManifestError when nothing can be scored.
    """
    if split is not None:
        rows = split_rows(manifest, split)
        folds = set() if cv is None else {str(fold) for fold in rows.column(cv).tolist()}
        return {split: Part(rows, cv if len(folds) > 1 else None)}  # a split may be one of the folds
    if cv is None and manifest.has("split"):
        return _by_split(manifest, name, judged)
    if cv is None and manifest.has("fold"):
        cv = "fold"
    if cv is None:
        return {"all": Part(manifest, None)}
    outside = outside_folds(manifest, cv)
    if not outside.any() or outside.all():
        return {ALL: Part(manifest, cv)}
    return {ALL: Part(manifest.rows(~outside), cv), **_splits(manifest.rows(outside), judged)}


def left_out(manifest: Manifest, judged: Mapping[str, Container[str]]) -> str | None:
    """Return why corpora to learn from are not scored, None where they are or where there are none.

    judged: by system, the keys that it predicts.
    """
    if CrossCorpus.of_manifest(manifest) is None:
        return None
    rows = split_rows(manifest, TRAIN)
    counts = {name: sum(key in own for key in rows.keys) for name, own in judged.items()}
    if not any(counts.values()) or all(n == len(rows) for n in counts.values()):
        return None
    counts_text = ", ".join(
        f"{name} predicts {n:,} of {len(rows):,} utterances" for name, n in counts.items() if n < len(rows)
    )
    return f"{TRAIN} is left out: {counts_text}"


def _known(system: System, manifest: Manifest) -> str | None:
    return system.fold_column if system.fold_column and manifest.has(system.fold_column) else None


def _by_split(manifest: Manifest, name: str, judged: Sequence[Container[str]]) -> dict[str, Part]:
    parts = {}
    corpora = CrossCorpus.of_manifest(manifest)
    for corpus in corpora.test if corpora else ():
        rows = manifest.rows(np.array([each == corpus for each in manifest.column(CORPUS).tolist()]))
        if _has_targets(rows) and _any(judged, rows):
            parts[corpus] = Part(rows, None)
    for split, part in _splits(manifest, judged).items():
        if corpora and (split == TEST or not all(key in own for own in judged for key in part.manifest.keys)):
            continue
        parts[split] = part
    if not parts:
        raise ManifestError(f"No split of manifest {manifest.name} has both labels and predictions of {name!r}.")
    return parts


def _splits(manifest: Manifest, judged: Sequence[Container[str]]) -> dict[str, Part]:
    """Return the splits of which anything is known and predicted; what scores one names what is missing of it."""
    parts = {}
    for split in dict.fromkeys(value for value in manifest.column("split").tolist() if value is not None):
        rows = split_rows(manifest, split)
        if _has_targets(rows) and _any(judged, rows):
            parts[split] = Part(rows, None)
    return parts


def _any(judged: Sequence[Container[str]], rows: Manifest) -> bool:
    return any(key in own for own in judged for key in rows.keys)


def _has_targets(rows: Manifest) -> bool:
    labels = label_codes(rows)
    return (labels is not None and bool((labels >= 0).any())) or not np.isnan(rows.attributes).all()


def _held_out(system: System, manifest: Manifest) -> HeldOut | None:
    """Return the labelled and predicted part of development, on which others' temperatures may be fitted."""
    if not manifest.has("split") or DEVELOPMENT not in manifest.column("split"):
        return None
    rows, judged = split_rows(manifest, DEVELOPMENT), set(system.keys)
    labels = label_codes(rows)
    if labels is None:
        return None
    is_judged = np.array([key in judged for key in rows.keys]) & (labels >= 0)
    return HeldOut(DEVELOPMENT, rows.rows(is_judged)) if is_judged.any() else None
