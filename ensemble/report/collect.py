"""Everything that a page shows, collected from runs, a store and a manifest as one JSON object."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from deepser.scores.probabilities import entropy
from ensemble.evaluation.markdown import machine
from ensemble.evaluation.posteriors import targets_of
from ensemble.evaluation.protocol import check_systems
from ensemble.evaluation.system import System
from ensemble.evaluation.systems import open_systems
from ensemble.report import made
from ensemble.report.agreement import annotator_agreement
from ensemble.report.probes import probe_tables
from ensemble.report.projection import can_be_mapped, maps, methods_of
from ensemble.report.runs import Runs
from ensemble.report.scores import Scoring, reference_of, score_systems
from ensemble.report.utterances import judged_rows, utterance_columns
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.protocol import ProtocolReport

FORMAT = 1


@dataclass(frozen=True)
class PageOptions:
    """What a page is to hold besides what is always there.

    maps: feature sets or systems that are projected; empty: the reference's posteriors. projections: see
    `projection.methods_of`. probes: JSON files of `medusa probe`, besides those in run directories. title: by default
    the manifest's name. divide: gives the manifest the parts that the systems were made over, where its own columns do
    not say.
    """

    scoring: Scoring = field(default_factory=Scoring)
    columns: dict[str, str] = field(default_factory=dict)
    maps: tuple[str, ...] = ()
    projections: tuple[str, ...] | None = None
    probes: tuple[Path, ...] = ()
    title: str = ""
    strict: bool = False
    divide: Callable[[Manifest, Runs], Manifest] = lambda manifest, runs: manifest


@dataclass(frozen=True)
class Collected:
    """What a page shows, the utterances in its order, and the rows that are the hardest, these first."""

    payload: dict[str, Any]
    rows: Manifest
    hardest: list[int]

    @property
    def warnings(self) -> list[str]:
        """Why figures of the page may be too good, or not of what the store holds; one line each."""
        warnings: list[str] = self.payload["warnings"]
        return warnings


def collect(runs: Runs, options: PageOptions, progress: Callable[[str], None] = lambda text: None) -> Collected:
    """Read, check and score the systems of `runs`.

    ProtocolError where predictions were made on other labels or folds than the manifest's (with `strict` also where the
    division leaks); whatever the evaluation raises where a system can't be scored.
    """
    manifest = options.divide(Manifest.read(runs.manifest), runs)
    scoring = options.scoring
    progress("reading predictions")
    systems, store = open_systems(runs.systems, manifest, runs.store, options.columns, scoring.split)
    protocol = check_systems(manifest, systems, scoring.cv, split=scoring.split, store=store)
    protocol.refuse(options.strict)
    rows = judged_rows(manifest, systems)
    reference = reference_of(systems)
    names = list(options.maps) or ([reference.name] if can_be_mapped(reference) and len(rows) > 2 else [])
    fold_columns = (system.fold_column for system in systems if manifest.has(system.fold_column))
    cv = scoring.cv or next(fold_columns, None)
    covered = len(reference.keys) == len(rows)
    features, members = made.feature_rows(store, runs), made.system_rows(store, runs, systems)
    payload = {
        "format": FORMAT,
        "title": options.title or manifest.name,
        "made": {
            "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "version": version("medusa-ser"),
            "machine": machine(),
        },
        "protocol": protocol.to_dict(),
        "notes": _notes(runs, manifest, rows, systems),
        "corpus": made.corpus_lines(manifest, runs.manifest),
        "features": features,
        "members": members,
        "warnings": _warnings(protocol, features, members),
        "reference": reference.name,
        "scores": score_systems(systems, manifest, scoring, progress),
        "resamples": scoring.n_resamples,
        "utterances": utterance_columns(rows, systems, scoring.by, cv),
        "maps": maps(
            store, rows.keys, systems, names if covered or options.maps else [],
            methods_of(options.projections, len(rows)), seed=scoring.seed, progress=progress,
        ),
        "curves": made.training_curves(runs),
        "ensembles": made.ensemble_reports(runs),
        "agreement": annotator_agreement(rows, systems),
        "probes": probe_tables(options.probes, runs.directories, store),
        "steps": made.step_rows(runs, store),
    }  # fmt: skip
    return Collected(payload, rows, hardest_first(rows, reference))


def hardest_first(rows: Manifest, system: System) -> list[int]:
    """Return the rows that a system gets wrong, the most confident first, then those whose annotators disagree most.

    Where there are no classes: those whose attributes are predicted, the furthest from the annotators' first.
    """
    targets = targets_of(rows, ())
    labels = targets.labels
    order: list[int] = []
    row_of = {key: i for i, key in enumerate(system.keys)}
    if system.probabilities is not None and targets.classes:
        indices = np.array([i for i, key in enumerate(rows.keys) if key in row_of and labels[i] >= 0], np.int64)
        if len(indices):
            of_rows = system.of([rows.keys[i] for i in indices.tolist()]).among(targets.classes)
            assert of_rows.probabilities is not None
            margin = of_rows.probabilities.max(1) - of_rows.probabilities[np.arange(len(indices)), labels[indices]]
            wrong = np.flatnonzero(margin > 0)
            order += indices[wrong[np.argsort(-margin[wrong], kind="stable")]].tolist()
    if not targets.classes:
        order += _furthest(rows, system)
    if targets.soft.any():
        disagreement = entropy(targets.soft.astype(np.float64))
        order += np.argsort(-disagreement, kind="stable")[: int((disagreement > 0).sum())].tolist()
    return list(dict.fromkeys(order))


def _furthest(rows: Manifest, system: System) -> list[int]:
    """Return the rows whose attributes a system predicts, the furthest off first, in shares of a scale."""
    row_of = {key: i for i, key in enumerate(system.keys)}
    indices = [i for i, key in enumerate(rows.keys) if key in row_of]
    names = [name for name in rows.scheme.attributes if name in system.attributes]
    if not indices or not names:
        return []
    columns = [list(rows.scheme.attributes).index(name) for name in names]
    widths = np.array([high - low for low, high in (rows.scheme.attributes[name] for name in names)])
    values = system.of([rows.keys[i] for i in indices]).values[:, [system.attributes.index(name) for name in names]]
    errors = np.abs(values - rows.attributes[indices][:, columns]) / widths
    has_scores = np.flatnonzero(~np.isnan(errors).all(1))
    order = has_scores[np.argsort(-np.nanmean(errors[has_scores], 1), kind="stable")]
    return [indices[i] for i in order.tolist()]


def _warnings(protocol: ProtocolReport, features: list[dict[str, Any]], members: list[dict[str, Any]]) -> list[str]:
    """Return the findings on the division, then systems that learned from what is scored, and replaced features."""
    lines = protocol.lines(notes=False)
    in_sample = [each["name"] for each in members if each.get("out_of_fold") == "in-sample"]
    if in_sample:
        lines.append(
            f"warning: {', '.join(in_sample)} may have learned from the utterances that are scored: the predictions "
            "are not recorded as out of fold"
        )
    replaced = [each["name"] for each in features if each["other"]]
    if replaced:
        lines.append(f"warning: the store now holds other features than members read: {', '.join(replaced)}")
    return lines


def _notes(runs: Runs, manifest: Manifest, rows: Manifest, systems: Sequence[System]) -> list[str]:
    notes = []
    if len({frozenset(system.attributes) for system in systems if system.attributes}) > 1:
        notes.append("systems predict different attributes, so that their mean CCC are not of the same ones")
    if runs.unfinished:
        notes.append(f"left out, their posteriors are not in the store: {', '.join(runs.unfinished)}")
    if len(rows) < len(manifest):
        notes.append(f"{len(rows):,} of {len(manifest):,} utterances are predicted by a system and shown here")
    return notes
