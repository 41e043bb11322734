"""What a run would do, before it does it: utterances, audio, rows, bytes, and time from a short trial."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from featurestore.audio import SAMPLE_RATE_HZ, Clip
from featurestore.augment.mixing import viewed_part
from featurestore.encoders.base import Encoder
from featurestore.errors import AudioError
from featurestore.featurize.decode_ahead import decoding_threads
from featurestore.featurize.items import Failures, Item, Texts, items_of, size_of
from featurestore.featurize.present import Again, to_encode
from featurestore.featurize.sharding import Shard
from featurestore.featurize.trial import seconds_for

if TYPE_CHECKING:
    from featurestore.augment.views import View
    from featurestore.corpus.manifest import Manifest
    from featurestore.store.feature_store import FeatureStore


@dataclass(frozen=True)
class FeaturizePlan:
    """What a run would do: utterances to encode and those already there, audio, rows, bytes on disk, and failures.

    wall_s: seconds it will take, from a trial; NaN without one.
    """

    n_utterances: int
    n_skipped: int
    audio_s: float
    n_rows: int
    n_bytes: int
    failed: Failures
    wall_s: float = math.nan


def plan(
    manifest: Manifest,
    encoder: Encoder,
    store: FeatureStore | None = None,
    name: str = "",
    workers: int | None = None,
    *,
    shard: Shard | None = None,
    transcripts: Texts | None = None,
    view: View | None = None,
    trial_s: float = 0.0,
    verify_audio: bool = False,
    again: Again | None = None,
) -> FeaturizePlan:
    """Count utterances, audio, rows and bytes of a run from the files' headers.

    workers, transcripts, view, verify_audio, again: see `featurize`. trial_s: also encode some utterances for at least
    this long, to learn how long the run will take.
    """
    workers = workers or decoding_threads(encoder)
    part = None if view is None else viewed_part(manifest, view, store, write=False)
    items, failed = items_of(manifest, encoder, shard, workers, transcripts, part)
    items, present = to_encode(items, store, name, verify_audio=verify_audio, again=again, workers=workers, write=False)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        sizes = list(pool.map(lambda item: _size(encoder, item), items))
    failed += [(item.key, size) for item, size in zip(items, sizes, strict=True) if isinstance(size, str)]
    good = [(item, size) for item, size in zip(items, sizes, strict=True) if not isinstance(size, str)]
    spec = encoder.spec
    audio = spec.kind == "audio"
    if spec.pool != "none":
        n_rows = len(good)
    elif audio:
        n_rows = sum(encoder.n_frames(size) for _, size in good)
    else:
        n_rows = sum(size for _, size in good)
    wall_s = math.nan
    if trial_s:
        costs = [encoder.cost(size) if audio else size for _, size in good]
        wall_s = seconds_for(encoder, [item for item, _ in good], costs, at_least_s=trial_s, workers=workers)
    return FeaturizePlan(
        n_utterances=len(good),
        n_skipped=present.n,
        audio_s=sum(size for _, size in good) / SAMPLE_RATE_HZ if audio else 0.0,
        n_rows=n_rows,
        n_bytes=n_rows * spec.row_type.row_bytes(spec.dim) * len(spec.layers),
        failed=failed,
        wall_s=wall_s,
    )


def _size(encoder: Encoder, item: Item) -> int | str:
    """Return `size_of`, or the reason for a piece beyond its recording, which a run would only find later."""
    if isinstance(item.source, Clip):
        try:
            item.source.check_ends()
        except AudioError as error:
            return str(error)
    return size_of(encoder, item, exactly=True)
