"""What is known of the audio of a manifest's utterances without decoding it: digests that feature sets recorded."""

from collections.abc import Iterable

import numpy as np

from ensemble.evaluation.posteriors import posteriors_name
from featurestore.corpus.division import audio_places
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.overlap import Items
from featurestore.corpus.pieces import same_or_overlapping
from featurestore.store.feature_store import FeatureStore


def known_sounds(store: FeatureStore, manifest: Manifest, names: Iterable[str]) -> Items:
    """Return (N,) names of equal sound, for `check_protocol`: by digest of the samples where it is recorded, else path.

    names: feature sets, with layers or without, or posteriors; each adds what those before it did not record. Digests
    of texts don't count. () where nothing is recorded.
    """
    digests: list[str | None] = [None] * len(manifest)
    for name in dict.fromkeys(name.partition("@")[0] for name in names):
        name = name if name in store else posteriors_name(store, name)
        if name not in store or all(digests):
            continue
        features = store[name]
        rows = np.array([i for i, digest in enumerate(digests) if digest is None], np.int64)
        absent = set(features.missing([manifest.keys[i] for i in rows]))
        rows = np.array([i for i in rows if manifest.keys[i] not in absent], np.int64)
        if not len(rows) or any(field.startswith("view") for field, _ in features.spec.extra):
            continue
        found = features.identities([manifest.keys[i] for i in rows])
        of_audio = found.digests.any(axis=1) & (found.n_bytes >= 0)
        for place in np.flatnonzero(of_audio).tolist():
            digests[rows[place]] = found.digests[place].tobytes().hex()
    if not any(digests):
        return ()
    return same_or_overlapping(digests, audio_places(manifest) or [None] * len(manifest))
