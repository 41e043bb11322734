"""Is a system worth its time? It must beat knowing nothing but the classes, and a probe on the same folds."""

from collections.abc import Mapping, Sequence

import numpy as np

from deepser.probes.posteriors import MADE_BY
from deepser.scores.metrics import Evaluation
from ensemble.evaluation.parts import evaluate_parts
from ensemble.evaluation.posteriors import posteriors_name
from ensemble.evaluation.systems import made_on, rule_of
from featurestore.corpus.division import Division, PartRecord
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.protocol import compare_record
from featurestore.errors import MedusaError
from featurestore.store.feature_store import FeatureStore

TRAINED = "Train it longer, or at another rate."


def shortcomings(
    store: FeatureStore,
    manifest: Manifest,
    name: str,
    parts: Mapping[str, Evaluation],
    cv: str | None = None,
    remedy: str = TRAINED,
) -> list[str]:
    """Return a sentence for each part where a system does no better than the largest class, or worse than a probe.

    parts: its scores by part, as `evaluate_parts` gives them. Probes are those in the store whose folds and labels are
    the system's own; a speaker-adapted one counts beside another adapted system only. remedy: what may help a system
    that is no better than the largest class.
    """
    reasons = []
    for part, evaluation in parts.items():
        scores = evaluation.classification
        if scores is None:
            continue
        counts = np.array([scores.per_class[each].support for each in scores.classes])
        largest = scores.classes[int(counts.argmax())]
        if scores.accuracy <= counts.max() / scores.n or scores.uar <= 1 / int((counts > 0).sum()):
            reasons.append(
                f"{name} ({part}) is no better than always {largest!r}: accuracy {scores.accuracy:.3f} against "
                f"{counts.max() / scores.n:.3f}, UAR {scores.uar:.3f} against {1 / int((counts > 0).sum()):.3f}. "
                + remedy
            )
    for probe in _probes(store, name, manifest):
        try:
            probe_evaluations = evaluate_parts(store, manifest, probe, cv=cv)
        except MedusaError:
            continue  # it judged other utterances, audio that changed since, or another scale
        for part, evaluation in parts.items():
            scores, of_probe = (
                evaluation.classification,
                probe_evaluations[part].classification if part in probe_evaluations else None,
            )
            if scores is not None and of_probe is not None and scores.uar < of_probe.uar:
                reasons.append(
                    f"{name} ({part}) has UAR {scores.uar:.3f}, less than the {of_probe.uar:.3f} of {probe}, a closed "
                    "form on the same folds."
                )
    return reasons


def _probes(store: FeatureStore, name: str, manifest: Manifest) -> list[str]:
    """Return the probes in the store over a system's own folds, that are adapted to speakers if and only if it is.

    Folds of one column's name are told apart by what is recorded of them, as far as they are of the manifest's keys.
    """

    def made(posteriors: str) -> tuple[str | None, ...]:
        extra = dict(store[posteriors].spec.extra)
        return extra.get("oof"), rule_of(store, posteriors), extra.get("adapted")

    prefixed = posteriors_name(store, name)
    probes = [each for each in store.names() if store[each].provenance.get("made_by") == MADE_BY and each != prefixed]
    probes = [each for each in probes if made(each) == made(prefixed)]
    own = made_on(store, prefixed) if probes else None
    return [each for each in probes if own is None or _alike(own, made_on(store, each), manifest.keys)]


def _alike(own: PartRecord, other: PartRecord | None, keys: Sequence[str]) -> bool:
    """Whether two records have these utterances in the same parts and under the same labels, or one is unknown."""
    if other is None:
        return True
    row = {key: i for i, key in enumerate(own.keys)}
    rows = [row[key] for key in keys if key in row]
    labels = [own.labels[i] for i in rows] if len(own.labels) else []
    return not compare_record(Division([own.keys[i] for i in rows], [own.parts[i] for i in rows], labels=labels), other)
