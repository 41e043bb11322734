"""Several corpora as one manifest: one label scheme, ids and speakers that stay apart, and a column that says which."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featurestore.corpus import arrow
from featurestore.corpus.division import real_paths
from featurestore.corpus.label_scheme import LabelScheme
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.ratings import Ratings
from featurestore.corpus.splits import UNKNOWN_SPEAKERS, label_names
from featurestore.errors import ManifestError

CORPUS = "corpus"
SEPARATOR = ":"
Ends = tuple[float, float]  # of an attribute's scale


def join_manifests(
    manifests: Mapping[str, Manifest],
    *,
    common_classes: bool = False,
    rescale_attributes: bool = False,
    name: str = "joined",
) -> Manifest:
    """Return one manifest of all utterances, with a column `corpus` that holds the keys of `manifests`.

    Ids stay where no two corpora share one, so that stored features are found; else all become `<corpus>:<id>`.
    Speakers always become `<corpus>:<speaker>`, unknown ones (missing or "Unknown") none. Classes are all that
    occur in a scheme, by name, in the order of their first corpus; common_classes leaves out those that some corpus
    lacks, with their utterances. Votes and ratings stay where all corpora have them. rescale_attributes: move each
    attribute linearly to the range of the first corpus that has it. What was changed or left out is noted.
    ManifestError: fewer than two corpora, attributes of different ranges without rescale_attributes, no common
    class.
    """
    if len(manifests) < 2:
        raise ManifestError(f"Joining needs two manifests or more, found {len(manifests)}.")
    notes = [f"{corpus}: {note}" for corpus, manifest in manifests.items() for note in manifest.notes]
    keys = Counter(key for manifest in manifests.values() for key in manifest.keys)
    repeated = [key for key, n in keys.items() if n > 1]
    if repeated:
        notes.append(
            f"{len(repeated):,} ids occur in several corpora, such as {repeated[0]}, so all became "
            f"<corpus>{SEPARATOR}<id>: encode this manifest's features anew"
        )
    classes = list(dict.fromkeys(name for manifest in manifests.values() for name in manifest.scheme.classes))
    all_classes, classes = classes, _common(manifests, classes, notes) if common_classes else classes
    _note_classes(manifests, classes, notes)
    ranges = _ranges(manifests, rescale_attributes, notes)
    with_votes = all(manifest.votes is not None for manifest in manifests.values())
    with_labels = len(classes) < len(all_classes) or any(manifest.has("label") for manifest in manifests.values())
    with_ratings = with_votes and all(manifest.ratings is not None for manifest in manifests.values())
    for kind, in_all in (("votes", with_votes), ("ratings", with_ratings)):
        if not in_all and any(getattr(manifest, kind) is not None for manifest in manifests.values()):
            lacking = [corpus for corpus, manifest in manifests.items() if getattr(manifest, kind) is None]
            notes.append(f"{kind} left out, since {', '.join(lacking) or 'not every corpus'} has none")
    root = os.path.commonpath([os.path.abspath(manifest.root) for manifest in manifests.values()])
    tables, ratings = [], []
    for corpus, manifest in manifests.items():
        labels = label_names(manifest)
        if common_classes and labels is not None:
            in_common = np.array([label is None or label in classes for label in labels])
            manifest, labels = manifest.rows(in_common), [labels[i] for i in np.flatnonzero(in_common).tolist()]
        if manifest.has("label") or (with_votes and not with_labels):
            labels = None
        elif labels is not None:
            notes.append(f"{corpus} has votes and no labels, so its labels are the votes' plurality")
        new_keys = [f"{corpus}{SEPARATOR}{key}" if repeated else key for key in manifest.keys]
        columns = _columns(corpus, manifest, new_keys, classes if with_votes else [], ranges, root)
        tables.append(columns if labels is None else columns.append_column("label", pa.array(labels, pa.string())))
        if with_ratings and manifest.ratings is not None:
            ratings.append(_ratings(corpus, manifest, new_keys, ranges))
    try:
        table = pa.concat_tables(arrow.alike(tables), promote_options="permissive")
    except pa.ArrowException as error:
        raise ManifestError(f"The manifests differ in a column's type ({error}). Make it one.") from None
    scheme = LabelScheme(tuple(classes), ranges)
    joined_ratings = None
    if ratings:
        joined_ratings = Ratings.of_table(pa.concat_tables(ratings, promote_options="permissive"), "joined ratings")
    joined = Manifest(table, scheme, root, name, joined_ratings)
    joined.notes += [*notes, *_shared_files(joined)]
    return joined


def _shared_files(joined: Manifest) -> list[str]:
    """Return a note on audio files that several corpora have, whose speakers would count as different people."""
    if not joined.has("path"):
        return []
    corpora: dict[str, set[str]] = {}
    for path, corpus in zip(real_paths(joined), joined.column(CORPUS).tolist(), strict=True):
        if path is not None:
            corpora.setdefault(path, set()).add(corpus)
    shared = [path for path, of in corpora.items() if len(of) > 1]
    if not shared:
        return []
    return [
        f"{len(shared):,} audio files are in several corpora, such as {shared[0]}; their speakers count as different "
        "people, who may be in training and test at once: join each corpus once"
    ]


def _common(manifests: Mapping[str, Manifest], classes: Sequence[str], notes: list[str]) -> list[str]:
    common = [name for name in classes if all(name in manifest.scheme.classes for manifest in manifests.values())]
    if not common:
        classes_text = "; ".join(f"{corpus}: {', '.join(m.scheme.classes)}" for corpus, m in manifests.items())
        raise ManifestError(
            f"The corpora have no class in common ({classes_text}). Give classes one name with --merge."
        )
    dropped = [name for name in classes if name not in common]
    if dropped:
        n = sum(label in dropped for manifest in manifests.values() for label in label_names(manifest) or ())
        notes.append(f"left out {n:,} utterances of {', '.join(dropped)}, which not every corpus has")
    return common


def _note_classes(manifests: Mapping[str, Manifest], classes: Sequence[str], notes: list[str]) -> None:
    """Note classes that a corpus lacks, and those that differ in letter case alone."""
    for corpus, manifest in manifests.items():
        lacking = [name for name in classes if name not in manifest.scheme.classes]
        if lacking:
            notes.append(f"{corpus} has no class {', '.join(lacking)}; --merge gives classes one name")
    by_lower: dict[str, list[str]] = {}
    for name in classes:
        by_lower.setdefault(name.lower(), []).append(name)
    for names in by_lower.values():
        if len(names) > 1:
            notes.append(f"classes {' and '.join(names)} differ in letter case alone: --merge {names[1]}={names[0]}")


def _ranges(manifests: Mapping[str, Manifest], rescale: bool, notes: list[str]) -> dict[str, tuple[float, float]]:
    """Return the range of each attribute; ManifestError where corpora differ and nothing is to be rescaled."""
    ranges: dict[str, tuple[float, float]] = {}
    for corpus, manifest in manifests.items():
        for attribute, ends in manifest.scheme.attributes.items():
            first = ranges.setdefault(attribute, ends)
            if ends != first and not rescale:
                raise ManifestError(
                    f"{attribute} ranges from {ends[0]:g} to {ends[1]:g} in {corpus}, but from {first[0]:g} to "
                    f"{first[1]:g} before. Use --rescale-attributes, or prepare one without the attribute."
                )
            if ends != first:
                notes.append(
                    f"{corpus}: {attribute} rescaled from {ends[0]:g}-{ends[1]:g} to {first[0]:g}-{first[1]:g}"
                )
    return ranges


def _columns(
    corpus: str,
    manifest: Manifest,
    keys: Sequence[str],
    vote_classes: Sequence[str],
    ranges: Mapping[str, Ends],
    root: str,
) -> pa.Table:
    """Return a corpus's table under the joined names."""
    table = manifest.to_arrow().replace_schema_metadata()
    columns: dict[str, Any] = {
        name: table.column(name) for name in table.column_names if not name.startswith(("vote_", "attr_"))
    }
    if CORPUS in columns:
        columns[f"{CORPUS}_was"] = columns.pop(CORPUS)
    columns = {"utterance_id": pa.array(keys, pa.string()), CORPUS: pa.array([corpus] * len(keys)), **columns}
    columns["utterance_id"] = pa.array(keys, pa.string())
    if "speaker" in columns:
        speakers = columns["speaker"].to_pylist()
        named = [None if who in UNKNOWN_SPEAKERS else f"{corpus}{SEPARATOR}{who}" for who in speakers]
        columns["speaker"] = pa.array(named, pa.string())
    if "path" in columns:
        before = os.path.relpath(os.path.abspath(manifest.root), root)
        paths = columns["path"].to_pylist()
        columns["path"] = pa.array(
            [None if path is None else os.path.normpath(os.path.join(before, path)) for path in paths], pa.string()
        )
    for name in vote_classes:
        has_votes = f"vote_{name}" in table.column_names
        columns[f"vote_{name}"] = table.column(f"vote_{name}") if has_votes else pa.array([0.0] * len(keys))
    for attribute, (low, high) in ranges.items():
        if attribute in manifest.scheme.attributes:
            values = _rescaled(manifest.column(f"attr_{attribute}"), manifest.scheme.attributes[attribute], (low, high))
            columns[f"attr_{attribute}"] = pa.array(values, from_pandas=True)
        else:
            columns[f"attr_{attribute}"] = pa.nulls(len(keys), pa.float64())
    return pa.table(columns)


def _rescaled(values: NDArray[np.float64], old: Ends, new: Ends) -> NDArray[np.float64]:
    """Return numbers (...) of one scale on another."""
    if old == new:
        return values
    (old_low, old_high), (low, high) = old, new
    return low + (values - old_low) * (high - low) / (old_high - old_low)


def _ratings(corpus: str, manifest: Manifest, keys: Sequence[str], ranges: Mapping[str, Ends]) -> pa.Table:
    """Return a corpus's ratings in the classes' names, their attributes on the scales of `ranges`.

    Annotators of two corpora are different people.
    """
    assert manifest.ratings is not None
    renamed = manifest.ratings.renamed(manifest.scheme.corpus_labels)
    own = manifest.scheme.attributes
    values = renamed.values.copy()
    for a, name in enumerate(renamed.attributes):
        if name in own:
            values[:, a] = _rescaled(values[:, a], own[name], ranges[name])
    table = replace(renamed, values=values).to_table()
    new = dict(zip(manifest.keys, keys, strict=True))
    ids = pa.array([new[key] for key in table.column("utterance_id").to_pylist()], pa.string())
    annotators = pa.array([f"{corpus}{SEPARATOR}{name}" for name in table.column("annotator").to_pylist()], pa.string())
    table = table.set_column(table.column_names.index("utterance_id"), "utterance_id", ids)
    return table.set_column(table.column_names.index("annotator"), "annotator", annotators)
