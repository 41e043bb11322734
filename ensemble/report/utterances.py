"""The utterances of a report by column: labels, votes, transcripts, and what each system predicts."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from deepser.members.folds import outside_folds
from ensemble.evaluation.parts import ALL
from ensemble.evaluation.posteriors import scores_classes, targets_of
from ensemble.evaluation.system import System
from ensemble.report.packing import pack, pack_names, pack_probabilities
from featurestore.corpus.manifest import Manifest

PART = "part"
GROUP_COLUMNS = ("speaker", "gender", "split", "fold", "corpus")


def judged_rows(manifest: Manifest, systems: Sequence[System]) -> Manifest:
    """Return the utterances that some system predicts, in the manifest's order."""
    keys = set().union(*(system.keys for system in systems))
    return manifest.rows(np.array([key in keys for key in manifest.keys], bool))


def utterance_columns(
    rows: Manifest, systems: Sequence[System], further: Sequence[str] = (), cv: str | None = None
) -> dict[str, Any]:
    """Return N utterances as packed columns; further: names of manifest columns that group them; cv: of their folds.

    Where some are outside the folds, a group "part" says which: else all folds are all of them.
    predicted is -1, probabilities are 0 and attributes NaN where a system does not predict an utterance.
    """
    attributes = tuple(rows.scheme.attributes)
    targets = targets_of(rows, attributes)
    with_classes = bool(targets.classes) and scores_classes(targets)
    groups = [name for name in dict.fromkeys((*GROUP_COLUMNS, *further)) if rows.has(name)]
    votes = rows.votes
    return {
        "n": len(rows),
        "ids": rows.keys,
        "classes": list(targets.classes),
        "labels": pack(targets.labels, "i2"),
        "votes": None if votes is None else pack(votes, "f4"),
        "texts": rows.texts if rows.has("text") else None,
        "durations": pack(_durations(rows), "f4"),
        "groups": {name: pack_names(_names(rows, name)) for name in groups} | _part_group(rows, cv),
        "attributes": {name: pack(targets.attribute_values[:, a], "f4") for a, name in enumerate(attributes)},
        "ranges": {name: list(ends) for name, ends in rows.scheme.attributes.items()},
        "systems": [_system(system, rows, with_classes) for system in systems],
    }


def _part_group(rows: Manifest, cv: str | None) -> dict[str, Any]:
    outside = np.zeros(len(rows), bool) if cv is None else outside_folds(rows, cv)
    if not outside.any() or outside.all():
        return {}
    splits = _names(rows, "split")
    return {PART: pack_names([split if out else ALL for split, out in zip(splits, outside.tolist(), strict=True)])}


def _system(system: System, rows: Manifest, with_classes: bool) -> dict[str, Any]:
    keys = set(system.keys)
    is_predicted = np.array([key in keys for key in rows.keys], bool)
    outputs = system.of([key for key, known in zip(rows.keys, is_predicted.tolist(), strict=True) if known])
    classes = tuple(rows.scheme.classes)
    predicted = probabilities = None
    if outputs.predicted is not None and with_classes:
        outputs = outputs.among(classes)
        assert outputs.predicted is not None
        predicted = np.full(len(rows), -1, np.int64)
        predicted[is_predicted] = outputs.predicted
        if outputs.probabilities is not None:
            probabilities = np.zeros((len(rows), len(classes)))
            probabilities[is_predicted] = outputs.probabilities
    values = {}
    for a, name in enumerate(outputs.attributes):
        if name in rows.scheme.attributes:
            column = np.full(len(rows), np.nan)
            column[is_predicted] = outputs.values[:, a]
            values[name] = pack(column, "f4")
    return {
        "name": system.name,
        "predicted": None if predicted is None else pack(predicted, "i2"),
        "probabilities": None if probabilities is None else pack_probabilities(probabilities),
        "attributes": values,
    }


def _durations(rows: Manifest) -> np.ndarray:
    """Return (N,) seconds, NaN where the manifest does not say."""
    durations = np.full(len(rows), np.nan)
    if rows.has("duration_s"):
        durations[:] = rows.column("duration_s")
    elif rows.has("start_s") and rows.has("end_s"):
        durations[:] = rows.column("end_s") - np.nan_to_num(rows.column("start_s"))
    return durations


def _names(rows: Manifest, column: str) -> list[str | None]:
    names: list[str | None] = []
    for value in rows.column(column).tolist():
        if value is None or value == "" or value != value:
            names.append(None)
        else:
            names.append(str(int(value)) if isinstance(value, float) and value.is_integer() else str(value))
    return names
