"""A run that has nothing left to encode: found out without loading the encoder, which takes seconds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from featurestore.augment.views import viewed_spec
from featurestore.encoders.load import described
from featurestore.featurize.items import audio_items
from featurestore.featurize.present import to_encode
from featurestore.featurize.run import FeaturizeReport

if TYPE_CHECKING:
    from featurestore.corpus.manifest import Manifest
    from featurestore.encoders.options import EncoderOptions
    from featurestore.featurize.job import FeaturizeJob
    from featurestore.store.feature_store import FeatureStore


def finished(
    manifest: Manifest, store: FeatureStore | None, job: FeaturizeJob, encoder: EncoderOptions, device: str
) -> FeaturizeReport | None:
    """Return the report of `featurize` for a set that has every utterance; None where there is work left.

    What is there is compared with today's files as ever. None, too, where other features are asked for, and where only
    the encoder itself says what they are: whoever loads it finds out. Raises IdentityMismatch as `featurize` does.
    """
    options = job.options
    if store is None or job.view is not None or options.again is not None or options.transcripts is not None:
        return None
    started = time.monotonic()
    if job.name not in store:
        return None
    features = store[job.name]
    if features.spec.kind != "audio":
        return None
    items, failed = audio_items(manifest)
    if features.missing([item.key for item in items]):
        return None
    spec = described(encoder, device)
    if spec is None or viewed_spec(spec, None).fingerprint != features.spec.fingerprint:
        return None
    items, present = to_encode(items, store, job.name, verify_audio=options.verify_audio, write=False)
    if items:
        return None
    comparison = present.comparison
    return FeaturizeReport(
        skipped=present.n,
        failed=failed,
        wall_s=time.monotonic() - started,
        n_unrecorded=comparison.n_unrecorded,
        n_unreachable=comparison.n_unreachable,
    )
