"""Whether a feature set's rows are of the utterances that a manifest means, as far as that shows without decoding."""

import numpy as np

from featurestore.corpus.manifest import Manifest
from featurestore.sets.feature_set import FeatureSet
from featurestore.sets.sources import Source, compare_headers, refuse

REMEDY = (
    "The set was made from another corpus whose ids are the same, or the files have changed. Read the store that was "
    "made of this manifest, or encode what differs again: medusa featurize ... --again mismatched."
)


def check_sources(manifest: Manifest, features: FeatureSet) -> None:
    """Raise IdentityMismatch where durations, or lengths by the headers of files that changed, are not the recorded.

    Views of audio are left out, since a clip mixed with another is longer than its file.
    """
    spec = features.spec
    if any(name.startswith("view") for name, _ in spec.extra):
        return
    sources: dict[str, Source | None] = dict.fromkeys(manifest.keys)
    durations_s = None
    if spec.kind == "text":
        if spec.source != "text" or not manifest.has("text"):
            return
        sources = dict(zip(manifest.keys, manifest.texts, strict=True))
    else:
        if manifest.has("path"):
            sources = dict(zip(manifest.keys, manifest.audios, strict=True))
        if manifest.has("duration_s"):
            durations_s = np.asarray(manifest.column("duration_s"), np.float64)
    refuse(features, compare_headers(sources, features, durations_s), REMEDY)
