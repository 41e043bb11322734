"""Systems by name: posteriors in a store, or a file of predictions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepser.members.scales import check_scales, ranges_of
from deepser.members.sources import check_sources_once
from ensemble.evaluation.align import ATTRIBUTE_PREFIX, PREFIX, load_posteriors
from ensemble.evaluation.posteriors import corpus_normalised, posteriors_name, speaker_adapted, split_rows
from ensemble.evaluation.prediction_files import SUFFIXES, read_predictions
from ensemble.evaluation.system import ADAPTED_NOTE, CORPUS_NOTE, System
from featurestore.corpus.cross_corpus import CrossCorpus
from featurestore.corpus.division import PartRecord
from featurestore.corpus.made_on import MADE_ON, unpack
from featurestore.corpus.manifest import Manifest
from featurestore.errors import AlignmentError, PredictionsError
from featurestore.store.feature_store import FeatureStore

ADAPTED = "speaker-adapted"

NORMALISED, REFINED = "rows are normalised", "scores are refined"  # ways in which a model reads a speaker's other clips

MEMBER_WEIGHTS = "member_weights"  # in an ensemble's provenance: its members' weights, by their names in the store


def adapted_scores(ways: Sequence[str]) -> str:
    """Return a sentence on scores that a speaker's other clips had a part in. ways: NORMALISED, REFINED or both."""
    return (
        f"These scores are speaker-adapted: each speaker's {' and '.join(ways)} by that speaker's other, unlabelled "
        "clips, those of the judged part included."
    )


def from_store(store: FeatureStore, name: str, manifest: Manifest, checked: set[bytes] | None = None) -> System:
    """Return the posteriors `name` (or "posteriors/name") of those utterances of the manifest that have some.

    checked: records of audio that were compared already, see `deepser.members.sources.check_sources_once`.
    IdentityMismatch where the audio is not what the posteriors were made of, although the ids are; ConfigError where an
    attribute is on another scale than the manifest's.
    """
    name = posteriors_name(store, name)
    features = store[name]
    absent = set(features.missing(manifest.keys))
    keys = [key for key in manifest.keys if key not in absent] if absent else list(manifest.keys)
    if not keys:
        held_keys = sorted(features)
        raise AlignmentError(
            f"{name!r} misses every utterance of manifest {manifest.name}, such as {manifest.keys[0]!r}. Predict them, "
            "or give the manifest that it was made of.",
            {name: list(manifest.keys)},
            {name: held_keys} if held_keys else {},
        )
    check_sources_once(manifest, features, set() if checked is None else checked)
    check_scales(manifest, features)
    aligned = load_posteriors(store, [name], keys)
    values, classes = aligned.values[0], aligned.classes
    attribute_columns = [aligned.columns.index(ATTRIBUTE_PREFIX + attribute) for attribute in aligned.attributes]
    probabilities = values[:, [aligned.columns.index(each) for each in classes]]
    return System(
        name=name,
        keys=aligned.keys,
        classes=classes,
        predicted=probabilities.argmax(1) if classes else None,
        probabilities=probabilities if classes else None,
        attributes=aligned.attributes,
        values=values[:, attribute_columns],
        fold_column=fold_column(store, name),
        notes=(
            *([ADAPTED_NOTE] if speaker_adapted(store, [name]) else []),
            *([CORPUS_NOTE] if corpus_normalised(store, [name]) else []),
            *_outdated(store, name),
        ),
        made_on=made_on(store, name),
        corpora=corpora_of(store, name),
        stored=True,
        attribute_ranges=ranges_of(features),
    )


def _outdated(store: FeatureStore, name: str) -> list[str]:
    """Return a note where an ensemble was made of other predictions of its members than the store holds now."""
    recorded = store[name].provenance.get(MEMBER_WEIGHTS)
    if not isinstance(recorded, dict):
        return []
    others = [each for each, weights in recorded.items() if each in store and store[each].spec.weights != weights]
    if not others:
        return []
    names = ", ".join(each.removeprefix(PREFIX) for each in others)
    return [f"made before {names} {'was' if len(others) == 1 else 'were'} fitted again; run `medusa fit-meta` again"]


def fold_column(store: FeatureStore, name: str) -> str:
    """Return the manifest's column of the folds that posteriors were made over, "" where there is none."""
    rule = rule_of(store, name)
    return rule.removeprefix("cv:") if rule.startswith("cv:") else ""


def corpora_of(store: FeatureStore, name: str) -> CrossCorpus | None:
    """Return the corpora that posteriors were trained and tested on; None where a rule of another kind made them."""
    name = posteriors_name(store, name)
    return CrossCorpus.of_rule(rule_of(store, name)) if name in store else None


def rule_of(store: FeatureStore, name: str) -> str:
    """Return the division of posteriors' utterances, such as "cv:fold" or "split"; "" where it is not recorded."""
    return str(dict(store[name].spec.extra).get("folds") or _recorded(store, name).get("column") or "")


def made_on(store: FeatureStore, name: str) -> PartRecord | None:
    """Return the fold and label that each utterance had when posteriors were made; None where that is not recorded."""
    packed = _recorded(store, name)
    return unpack(packed, store[name], name) if packed else None


def _recorded(store: FeatureStore, name: str) -> Mapping[str, Any]:
    packed = store[name].provenance.get(MADE_ON)
    return packed if isinstance(packed, dict) else {}


def open_system(
    name: str, manifest: Manifest, store: Path, columns: Mapping[str, str] | None = None, split: str | None = None
) -> System:
    """Return the system that a user names: a file of predictions (by its suffix), or posteriors in the store.

    columns: of a file, what its columns hold, see `read_predictions`. split: where a file's ids are not those of the
    whole manifest, such as file names that repeat in every split, they are looked for in this split.
    """
    if Path(name).suffix.lower() in SUFFIXES:
        try:
            return read_predictions(Path(name), manifest, columns)
        except AlignmentError:
            if split is None:
                raise
            return read_predictions(Path(name), split_rows(manifest, split), columns)
    if Path(name).is_file():
        raise PredictionsError(f"{name} is no file of predictions that is read: expected {', '.join(SUFFIXES)}.")
    return from_store(FeatureStore.open(store), name, manifest)


def open_systems(
    names: Sequence[str],
    manifest: Manifest,
    store: Path,
    columns: Mapping[str, str] | None = None,
    split: str | None = None,
) -> tuple[list[System], FeatureStore | None]:
    """Return `open_system` of each name, and the store of those that are no files (None where all are).

    The store is opened once, and the audio of systems that recorded the same of it is compared once.
    """
    stored = [name for name in names if Path(name).suffix.lower() not in SUFFIXES and not Path(name).is_file()]
    opened = FeatureStore.open(store).keeping_sets() if stored else None
    checked: set[bytes] = set()
    systems = []
    for name in names:
        if opened is not None and name in stored:
            systems.append(from_store(opened, name, manifest, checked))
        else:
            systems.append(open_system(name, manifest, store, columns, split))
    return systems, opened
