"""Scores of any posteriors in the store against a manifest."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from deepser.members.posteriors import NORMALISED_BY
from deepser.members.scales import check_scales
from deepser.scores.metrics import Evaluation, evaluate
from deepser.training.targets import Targets
from ensemble.evaluation.align import PREFIX, column_names, load_posteriors
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.splits import UNKNOWN_SPEAKERS, speaker_groups
from featurestore.errors import ManifestError
from featurestore.store.feature_store import FeatureStore


def evaluate_posteriors(
    store: FeatureStore, manifest: Manifest, name: str, folds: str | None = None, split: str | None = None
) -> Evaluation:
    """Every score of a member's or ensemble's posteriors on a manifest's utterances, or on one split of them.

    name: a feature set, with or without "posteriors/"; folds: the manifest's column to report spreads over. Attributes
    are scored where both sides have them. AlignmentError names the utterances that have no posteriors; ConfigError an
    attribute on another scale than the manifest's.
    """
    if split is not None:
        manifest = split_rows(manifest, split)
    name = posteriors_name(store, name)
    check_scales(manifest, store[name])
    attributes = shared_attributes(store, manifest, name)
    columns = column_names(manifest.scheme.classes, attributes)
    aligned = load_posteriors(store, [name], manifest.keys, columns=columns, surplus=None)
    targets = targets_of(manifest, attributes)
    n_classes = len(targets.classes)
    return evaluate(
        aligned.values[0, :, :n_classes] if scores_classes(targets) else None,
        targets.labels,
        targets.classes,
        aligned.values[0, :, n_classes:],
        targets.attribute_values,
        attributes,
        None if folds is None else fold_names(manifest, folds),
    )


def speaker_adapted(store: FeatureStore, names: Sequence[str]) -> list[str]:
    """Those posteriors whose models read rows normalised by their own speaker."""
    return [name for name in names if dict(store[name].spec.extra).get("adapted") == "speaker"]


def corpus_normalised(store: FeatureStore, names: Sequence[str]) -> list[str]:
    """Those posteriors whose models read rows normalised by all of their corpus; earlier versions didn't record it."""
    return [name for name in names if store[name].provenance.get(NORMALISED_BY) == "corpus"]


def adapted_notes(store: FeatureStore, names: Sequence[str]) -> list[str]:
    """Return a sentence where some of the members of an ensemble are speaker-adapted, so that it is, too."""
    adapted = [name.removeprefix(PREFIX) for name in speaker_adapted(store, names)]
    if not adapted:
        return []
    return [f"Speaker-adapted: {', '.join(adapted)} read each speaker's other clips; so does this ensemble."]


def posteriors_name(store: FeatureStore, name: str) -> str:
    """Return the set that "m08" or "posteriors/m08" means: the member m08, even beside a feature set of that name."""
    prefixed = PREFIX + name
    return name if name.startswith(PREFIX) or (name in store and prefixed not in store) else prefixed


def shared_attributes(store: FeatureStore, manifest: Manifest, name: str) -> tuple[str, ...]:
    """Return the scheme's attributes, in its order, that the posteriors `name` have too."""
    columns = store[name].spec.columns
    return tuple(a for a in manifest.scheme.attributes if column_names((), (a,))[0] in columns)


def targets_of(manifest: Manifest, attributes: Sequence[str]) -> Targets:
    """Return the manifest's targets with these attributes alone, in this order.

    No class target where it has no classes.
    """
    scheme = manifest.scheme
    if scheme.classes or not scheme.attributes:
        targets = Targets.from_manifest(manifest)
    else:
        nothing = Targets.unknown(tuple(manifest.keys), (), tuple(scheme.attributes), tuple(scheme.attributes.values()))
        targets = replace(nothing, attribute_values=manifest.attributes.astype(np.float32))
    columns = [targets.attributes.index(name) for name in attributes]
    return Targets(
        keys=targets.keys,
        classes=targets.classes,
        attributes=tuple(attributes),
        attribute_ranges=tuple(targets.attribute_ranges[a] for a in columns),
        labels=targets.labels,
        soft=targets.soft,
        attribute_values=targets.attribute_values[:, columns],
    )


def scores_classes(targets: Targets) -> bool:
    """Return False where attributes alone can be scored: no utterance has a label, but some have attributes."""
    return bool((targets.labels >= 0).any()) or bool(np.isnan(targets.attribute_values).all())


def split_rows(manifest: Manifest, split: str) -> Manifest:
    """Return the utterances of one split; ManifestError listing the splits there are."""
    split_of_row = manifest.column("split")
    if split not in split_of_row:
        split_names = ", ".join(sorted({str(name) for name in split_of_row if name is not None}))
        raise ManifestError(
            f"Manifest {manifest.name} has no utterance in split {split!r}; it has {split_names or 'none'}."
        )
    return manifest.rows(split_of_row == split)


def fold_names(manifest: Manifest, column: str) -> list[str]:
    """Return (N,) the fold of each utterance as text ("3" for 3.0); ManifestError where it is missing."""
    values = manifest.column(column).tolist()
    texts = {}
    for value in set(values):
        if value is None or value == "" or value != value:
            key = next(key for key, own in zip(manifest.keys, values, strict=True) if own in (None, "") or own != own)
            raise ManifestError(
                f"Manifest {manifest.name}: utterance {key!r} has no value in fold column {column!r}; fill it."
            )
        texts[value] = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    names = [texts[value] for value in values]
    if len(set(names)) < 2:
        raise ManifestError(
            f"Fold column {column!r} of manifest {manifest.name} has one value only, {names[0]!r}; folds need two."
        )
    return names


def group_names(manifest: Manifest) -> np.ndarray:
    """Return (N,) groups that a division keeps together: the speaker, or the utterance if it is unknown."""
    return speaker_groups(manifest).astype(object)


def named(manifest: Manifest, column: str) -> np.ndarray:
    """Return (N,) the values of a column as text, None where there is none or it is MSP-Podcast's "Unknown"."""
    values = np.empty(len(manifest), object)
    values[:] = [
        None if value in UNKNOWN_SPEAKERS or value != value else str(value)
        for value in manifest.column(column).tolist()
    ]
    return values
