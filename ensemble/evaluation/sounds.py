"""What is known of the audio of a manifest's utterances without decoding it: digests that feature sets recorded."""

from collections.abc import Iterable

import numpy as np

from ensemble.evaluation.align import PREFIX
from ensemble.evaluation.posteriors import posteriors_name
from featurestore.corpus.division import audio_places
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.overlap import Items
from featurestore.corpus.pieces import same_or_overlapping
from featurestore.errors import StoreError
from featurestore.sets.feature_set import FeatureSet
from featurestore.store.feature_store import FeatureStore


def known_sounds(store: FeatureStore, manifest: Manifest, names: Iterable[str]) -> Items:
    """Return (N,) names of equal sound, for `check_protocol`: by digest of the samples where it is recorded, else path.

    names: feature sets, with layers or without, or posteriors; each adds what those before it did not record. Digests
    of texts don't count. The store's other sets come last, as far as they can be read: posteriors hold what is tested,
    and only features what was learned from. () where nothing is recorded.
    """
    digests: list[str | None] = [None] * len(manifest)
    named = [name.partition("@")[0] for name in names]
    named = [name if name in store else posteriors_name(store, name) for name in named]
    others = [name for name in store.names() if not name.startswith(PREFIX)]
    for name in dict.fromkeys((*named, *others)):
        if name not in store or all(digests):
            continue
        try:
            _add(digests, store[name], manifest)
        except StoreError:
            if name in named:
                raise
    if not any(digests):
        return ()
    return same_or_overlapping(digests, audio_places(manifest) or [None] * len(manifest))


def _add(digests: list[str | None], features: FeatureSet, manifest: Manifest) -> None:
    """Put what a set recorded where no digest is known yet."""
    if features.spec.view:
        return
    rows = [i for i, digest in enumerate(digests) if digest is None]
    absent = set(features.missing([manifest.keys[i] for i in rows]))
    if absent:
        rows = [i for i in rows if manifest.keys[i] not in absent]
    if not rows:
        return
    identities = features.identities([manifest.keys[i] for i in rows])
    of_audio = identities.digests.any(axis=1) & (identities.n_bytes >= 0)
    for place in np.flatnonzero(of_audio).tolist():
        digests[rows[place]] = identities.digests[place].tobytes().hex()
