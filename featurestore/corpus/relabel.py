"""Classes merged, renamed or left out, in labels, votes and scheme alike."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featurestore.corpus import arrow
from featurestore.corpus.label_scheme import LabelScheme
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.splits import label_names
from featurestore.corpus.votes import secondary_weights
from featurestore.errors import ManifestError


def relabelled(
    manifest: Manifest,
    merge: Mapping[str, str] | None = None,
    drop: Sequence[str] = (),
    labelled_only: bool = False,
) -> Manifest:
    """Return the manifest with classes merged (`{"excited": "happy"}`, which may name a new class) and others dropped.

    A merged class stands where the first of its parts stood; its votes are theirs added up, but for annotators who gave
    an utterance two of them, which then is one vote. The utterances of a dropped class are left out, and votes for it
    are no longer counted; where there are votes alone, their plurality before is the label then. labelled_only: leave
    out utterances without a label too, but not those of a split in which nobody has one (a hidden test set). All of it
    is noted.
    """
    merge = dict(merge or {})
    classes = manifest.scheme.classes
    for name in (*merge, *drop):
        if name not in classes:
            near = arrow.near_names(name, classes)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ManifestError(f"Manifest {manifest.name} has no class {name!r}, only {', '.join(classes)}.{hint}")
    target = {name: None if name in drop else merge.get(name, name) for name in classes}
    scheme = LabelScheme(
        tuple(dict.fromkeys(name for name in target.values() if name is not None)),
        manifest.scheme.attributes,
        {label: None if name is None else target[name] for label, name in manifest.scheme.corpus_labels.items()},
    )
    table, notes = manifest.to_arrow(), []
    keep = np.ones(len(manifest), bool)
    labels = label_names(manifest)
    if labels is not None:
        new_labels = [None if label is None else target[label] for label in labels]
        dropped = np.array([label is not None and new is None for label, new in zip(labels, new_labels, strict=True)])
        unlabelled = _unlabelled(manifest, labels) if labelled_only else np.zeros(len(manifest), bool)
        keep &= ~dropped & ~unlabelled
        notes += [f"left out {dropped.sum():,} utterances of {', '.join(drop)}"] if dropped.any() else []
        notes += [f"left out {unlabelled.sum():,} utterances without a label"] if unlabelled.any() else []
        column = pa.array(new_labels, pa.string())
        if manifest.has("label"):
            table = table.set_column(table.column_names.index("label"), "label", column)
        elif drop:  # else a tie with a dropped class would become a consensus
            table = table.append_column("label", column)
            notes.append("labels are the votes' plurality, dropped classes among them")
    if manifest.votes is not None:
        votes = _merged_votes(manifest, manifest.votes, target, scheme)
        table = table.drop_columns([f"vote_{name}" for name in classes])
        for name, column in zip(scheme.classes, votes.T, strict=True):
            table = table.append_column(f"vote_{name}", pa.array(column))
    if not keep.any():
        raise ManifestError(
            f"Manifest {manifest.name}: nothing is left of {len(manifest):,} utterances; drop fewer classes."
        )
    ratings = manifest.ratings
    if ratings is not None:
        ratings = ratings.renamed({old: new for old, new in merge.items() if old in ratings.labels})
    changed = Manifest(table.filter(pa.array(keep)), scheme, manifest.root, manifest.name, ratings)
    changed.notes += [*manifest.notes, *notes]
    return changed


def _merged_votes(
    manifest: Manifest, votes: NDArray[np.float64], target: Mapping[str, str | None], scheme: LabelScheme
) -> NDArray[np.float64]:
    """Return (N, C) votes for the classes of the new scheme, from the ratings where the votes are theirs."""
    classes, ratings = manifest.scheme.classes, manifest.ratings
    if ratings is not None:
        ratings = ratings.renamed(manifest.scheme.corpus_labels)
        weights = secondary_weights(ratings, classes, votes)
        if np.allclose(ratings.counts(classes, also=weights), votes):
            merged = ratings.renamed({label: target.get(label) for label in ratings.labels})
            return merged.counts(scheme.classes, also=weights)
    parts = [[i for i, old in enumerate(classes) if target[old] == name] for name in scheme.classes]
    return np.stack([votes[:, part].sum(1) for part in parts], 1) if parts else np.zeros((len(manifest), 0))


def _unlabelled(manifest: Manifest, labels: Sequence[str | None]) -> np.ndarray:
    """Return (N,) utterances without a label, where others of their split have one."""
    without = np.array([label is None for label in labels])
    if manifest.has("split"):
        splits = manifest.column("split")
        for split in set(splits.tolist()):
            if without[splits == split].all():
                without &= splits != split
    return without


def names_with_commas(text: str, names_known: Sequence[str]) -> list[str]:
    """Return the names in a comma-separated text; a known name may hold commas itself, such as `pain, groan`."""
    pieces = text.split(",")
    names, start = [], 0
    while start < len(pieces):
        ends = range(len(pieces), start + 1, -1)
        end = next((end for end in ends if ",".join(pieces[start:end]).strip() in names_known), start + 1)
        names.append(",".join(pieces[start:end]).strip())
        start = end
    return [name for name in names if name]
