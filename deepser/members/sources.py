"""Whether a feature set's rows are of the utterances that a manifest means, as far as that shows without decoding."""

import hashlib
from collections.abc import Sequence
from dataclasses import astuple

import numpy as np

from deepser.training.views import is_mixed
from featurestore.corpus.manifest import Manifest
from featurestore.errors import ConfigError
from featurestore.sets.feature_set import FeatureSet
from featurestore.sets.sources import Source, compare_headers, compare_view, refuse

REMEDY = (
    "The set was made from another corpus whose ids are the same, or the files have changed. Read the store that was "
    "made of this manifest, or encode what differs again: medusa featurize ... --again mismatched."
)

POSTERIORS_REMEDY = (
    "These predictions were made from other audio: of another corpus whose ids are the same, or of files that changed "
    "since. Read the store that was made of this manifest, or encode what changed (medusa featurize ... --again "
    "mismatched) and fit again what predicted it (fit-deepser --overwrite, probe, fit-meta)."
)

VIEW_REMEDY = (
    "Its clips were made from other files than the rows of the clean set. Make the view of today's files again: medusa "
    "featurize --augment ... --again mismatched, or, where the files were only converted, medusa store rm and then "
    "featurize --augment."
)


def check_all_sources(manifest: Manifest, sets: Sequence[FeatureSet]) -> None:
    """Raise as `check_sources` of any of these sets, which hold all of the manifest's utterances.

    Sets that recorded the same, as the posteriors of members of one corpus do, are checked once; see
    `check_sources_once`.
    """
    checked: set[bytes] = set()
    for features in sets:
        check_sources_once(manifest, features, checked)


def check_sources_once(manifest: Manifest, features: FeatureSet, checked: set[bytes]) -> None:
    """Call `check_sources` unless a set with the same record was checked; checked: digests of those records, added to.

    The set may lack utterances of the manifest.
    """
    record = _record(features, manifest.keys)
    if record not in checked:
        check_sources(manifest, features)
        checked.add(record)


def _record(features: FeatureSet, keys: Sequence[str]) -> bytes:
    """Return a digest of all that `check_sources` compares with: what the rows were made from, and of which kind."""
    spec, digest = features.spec, hashlib.blake2b(digest_size=16)
    absent = features.missing(keys)
    if absent:
        digest.update(repr(absent).encode("utf-8", "backslashreplace"))
        without = set(absent)
        keys = [key for key in keys if key not in without]
    *arrays, decoders = astuple(features.identities(keys))
    digest.update(repr((spec.kind, spec.source, bool(spec.view), decoders)).encode())
    for array in (*arrays, features.durations_s(keys)):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()


def check_sources(manifest: Manifest, features: FeatureSet) -> None:
    """Raise IdentityMismatch where durations, or lengths by the headers of files that changed, are not the recorded.

    Views of audio are left out, since a clip mixed with another is longer than its file.
    """
    spec = features.spec
    if spec.view:
        return
    durations_s = None
    if spec.kind == "text":
        if spec.source != "text" or not manifest.has("text"):
            return
        texts = manifest.texts

        def source_of(i: int) -> Source | None:
            return texts[i]
    else:

        def source_of(i: int) -> Source | None:
            return manifest.audios[i] if manifest.has("path") else None

        if manifest.has("duration_s"):
            durations_s = np.asarray(manifest.column("duration_s"), np.float64)
    remedy = POSTERIORS_REMEDY if spec.kind == "posteriors" else REMEDY
    refuse(features, compare_headers(manifest.keys, source_of, features, durations_s), remedy)


def check_view_sources(
    manifest: Manifest, clean: FeatureSet, view: FeatureSet, keys: Sequence[str], at: np.ndarray, partner: np.ndarray
) -> None:
    """Raise IdentityMismatch where a view's clips are not of the audio that the clean set's rows are of.

    keys: (N,) of the clean set. at: (n,) the places among them of those that the view has. partner: (N,) the place of
    the utterance that is mixed in, -1 for none.
    """
    sources: dict[str, Source | None] = {}
    if manifest.has("path"):
        sources = dict(zip(manifest.keys, manifest.audios, strict=True))
    refuse(view, compare_view(keys, at, partner, clean, view, sources), VIEW_REMEDY)


def refuse_mixed(features: FeatureSet) -> None:
    """Raise ConfigError for a view whose clips are mixed: the label of an utterance is not that of its mixed clip."""
    if is_mixed(features.spec.view):
        clean, _, label = features.name.rpartition("+")
        raise ConfigError(
            f"{features.name} holds clips that are mixed of two utterances, so one's label would stand for both, and "
            f"nothing can be judged on it. Read the clean set ({clean}), and draw training clips from the view with "
            f"fit-deepser --views {label}."
        )
