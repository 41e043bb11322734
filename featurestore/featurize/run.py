"""From a manifest to a feature set: decode ahead, encode in length-sorted batches, append, and survive anything.

What is in the set already is skipped, a file that fails is reported and tried again by the next run, and an interrupt
commits what is finished. The order of the work depends on the inputs alone, never on the number of workers.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from featurestore.augment.mixing import viewed_part
from featurestore.augment.views import View, viewed_spec
from featurestore.encoders.base import Encoder
from featurestore.encoders.device import computed_by
from featurestore.errors import StoreError
from featurestore.featurize.decode_ahead import decoding_threads
from featurestore.featurize.items import Failures, Texts, items_of
from featurestore.featurize.memory import keep_freed_memory
from featurestore.featurize.present import Again, to_encode
from featurestore.featurize.sharding import Shard
from featurestore.featurize.stream import Encoded, iter_encode
from featurestore.featurize.writer_thread import QUEUE_BYTES, WriterThread
from featurestore.runtime.provenance import provenance
from featurestore.runtime.stage_clock import Padding, counted_padding, stage
from featurestore.runtime.stopping import StopSignals
from featurestore.sets.sources import Recorder

if TYPE_CHECKING:
    from featurestore.corpus.manifest import Manifest
    from featurestore.sets.writer import FeatureWriter
    from featurestore.store.feature_store import FeatureStore

Progress = Callable[[int, int, float], None]

SHOWN_EVERY_S = 0.1  # drawing a bar takes as long as batching a clip

# What is encoded between two commits at most, where rows are few: what a killed run has to do again. Told in audio, a
# text counted as a second, since a commit by the clock would cut the same corpus into other segments in each run.
COMMIT_AUDIO_S = 3600.0
# A GPU fills 256 MB and an hour of audio in half a second. Its segments are larger, made durable while the next one is
# written, and so many rows may wait for the disk before it stands still.
GPU_SEGMENT_BYTES = 1 << 30
GPU_COMMIT_AUDIO_S = 10 * COMMIT_AUDIO_S
GPU_QUEUE_BYTES = 1 << 30


@dataclass
class FeaturizeReport:
    """What a run did: utterances stored, already there, and failed with the reason; audio encoded and time taken.

    n_again: of those stored, encoded again. Of those there already, n_unrecorded were made before identities were
    recorded, and the files of n_unreachable can't be reached: they weren't compared with today's data.
    """

    done: int = 0
    skipped: int = 0
    failed: Failures = field(default_factory=list)
    audio_s: float = 0.0
    wall_s: float = 0.0
    empty_texts: int = 0
    n_in_windows: int = 0  # of those stored, longer than a window of the encoder
    constant: list[str] = field(default_factory=list)  # stored, though all samples of the clip have one value
    without_noise: list[str] = field(default_factory=list)  # of a view, though it adds noise: the excerpt is silent
    special: list[tuple[str, str]] = field(default_factory=list)  # texts, and a special token that each spells
    n_again: int = 0
    n_unrecorded: int = 0
    n_unreachable: int = 0
    padding: Padding = field(default_factory=Padding)  # frames of the forward passes
    decoders: Counter[str] = field(default_factory=Counter)  # what decoded how many of the clips stored
    notes: list[str] = field(default_factory=list)  # on a set that is new


def featurize(
    manifest: Manifest,
    encoder: Encoder,
    store: FeatureStore,
    name: str,
    *,
    batch_s: float | None = None,
    workers: int | None = None,
    weights: Path | str | None = None,
    format: str | None = None,
    compress: str | None = None,
    shard: Shard | None = None,
    transcripts: Texts | None = None,
    view: View | None = None,
    max_memory_gib: float | None = None,
    verify_audio: bool = False,
    again: Again | None = None,
    progress: Progress | None = None,
) -> FeaturizeReport:
    """Encode every utterance of the manifest that the set `name` lacks, and append it to the set.

    batch_s: padded audio per forward pass (None: the encoder's default for its device). workers: decoding threads
    (None: `decoding_threads`).
    weights: where the encoder's weights lie, for the record of a new set, so that they are found again.
    format, compress: how new segments are stored, see `FeatureStore.writer`. shard: this part of the manifest alone.
    transcripts: texts for a text encoder of that `source`, instead of the manifest's; an utterance without one fails.
    view: encode the manifest's training part through this view; the set's specification is `view.spec(encoder.spec)`.
    max_memory_gib: of this process (CPU) or allocated on its GPU; batches are made to fit, see `plan_memory`.
    progress(done, total, audio_s) is called every 0.1 s at most, and at the end; done counts skipped and failed ones.
    What the set has already is compared with today's files (see `sources.compare`): verify_audio reads them all.
    again: what is encoded again although the set has it.
    Raises SpecMismatch when the set holds other features, IdentityMismatch when it holds an id whose rows were made
    from other data, and Interrupted after SIGINT or SIGTERM.
    """
    started = time.monotonic()
    threads = workers or decoding_threads(encoder)
    report = FeaturizeReport()
    progress = progress and paced(progress, SHOWN_EVERY_S)
    spec = viewed_spec(encoder.spec, view)
    part = None if view is None else viewed_part(manifest, view, store)
    head = {"head": encoder.head} if encoder.head else {}
    texts = {} if transcripts is None else transcripts.provenance()
    origin = provenance(weights) | computed_by(encoder) | head | texts
    opened = store.writer(name, spec, provenance=origin, format=format, compress=compress)
    if max_memory_gib is None and encoder.device == "cpu":
        keep_freed_memory()
    with StopSignals() as stop, opened as writer, counted_padding() as report.padding:
        items, report.failed = items_of(manifest, encoder, shard, threads, transcripts, part)
        total = len(items) + len(report.failed)
        items, present = to_encode(
            items, store, name, verify_audio=verify_audio, again=again, workers=threads, beside=manifest.keys
        )
        report.failed += present.failed
        if items:
            store.check_writable(name)
        writer.set.refresh()
        report.skipped, report.n_again = present.n, present.n_again
        report.n_unrecorded = present.comparison.n_unrecorded
        report.n_unreachable = present.comparison.n_unreachable
        stream = iter_encode(
            encoder, items, batch_s=batch_s, workers=workers, max_memory_gib=max_memory_gib, stored=True
        )

        def count(written: WriterThread) -> None:
            for encoded, error in written.outcomes():
                _count(report, encoded, error)
                report.wall_s = time.monotonic() - started
                if progress is not None:
                    progress(report.done + report.skipped + len(report.failed), total, report.audio_s)

        recorders = {item.key: item.recorder for item in items if item.recorder is not None}
        commit_audio_s, queue_bytes = COMMIT_AUDIO_S, QUEUE_BYTES
        if encoder.overlaps:
            commit_audio_s, queue_bytes = GPU_COMMIT_AUDIO_S, GPU_QUEUE_BYTES
            writer.segment_bytes, writer.commits_behind = GPU_SEGMENT_BYTES, True
        appending = _Appending(writer, spec.layers, recorders, commit_audio_s)
        thread = WriterThread(appending, queue_bytes)
        try:
            with thread:
                while True:
                    with stop.raising(report):
                        encoded = next(stream, None)
                    if encoded is None:
                        break
                    thread.put(encoded)
                    count(thread)
        finally:
            stream.close()
            count(thread)
            with stage("write"):
                writer.commit()
            report.decoders = appending.decoders
            report.without_noise = [] if part is None else sorted(set(part.without_noise))
            report.wall_s = time.monotonic() - started
    return report


def paced(progress: Progress, every_s: float, clock: Callable[[], float] = time.monotonic) -> Progress:
    """Return a progress that passes on the first call, the last one's, and others `every_s` apart."""
    sent_s = -math.inf

    def pass_on(done: int, total: int, audio_s: float) -> None:
        nonlocal sent_s
        now_s = clock()
        if done == total or now_s - sent_s >= every_s:
            sent_s = now_s
            progress(done, total, audio_s)

    return pass_on


class _Appending:
    """Appends utterance after utterance, and commits every `commit_audio_s`."""

    def __init__(
        self, writer: FeatureWriter, layers: tuple[str, ...], recorders: dict[str, Recorder], commit_audio_s: float
    ) -> None:
        self._commit_audio_s = commit_audio_s
        self._writer = writer
        self._recorders = recorders
        self._layers = layers
        self._since_commit_s = 0.0
        self.decoders: Counter[str] = Counter()

    def __call__(self, encoded: Encoded) -> tuple[Encoded, str]:
        """Return the utterance, and the reason when it can't be appended, "" when it is in."""
        if encoded.rows is None:
            return encoded, encoded.error
        try:
            rows = dict(zip(self._layers, encoded.rows, strict=True))
            with stage("write"):
                recorder = self._recorders.pop(encoded.key, None)
                identity = None if recorder is None else recorder.identity
                # Only the encoder's device casts to 16 bits, and only to those that the store has.
                stored = encoded.rows.dtype.itemsize == 2
                self._writer.append(encoded.key, rows, encoded.duration_s, identity, stored=stored)
                if identity is not None and identity.decoder:
                    self.decoders[identity.decoder] += 1
                self._since_commit_s += 1.0 if math.isnan(encoded.duration_s) else encoded.duration_s
                if self._since_commit_s >= self._commit_audio_s:
                    self._writer.end_segment()
                    self._since_commit_s = 0.0
        except StoreError as error:  # a row that overflows the store's dtype, or is NaN
            if isinstance(error.__cause__, OSError):  # the disk's fault, and the next utterance's too
                raise
            return encoded, str(error)
        return encoded, ""


def _count(report: FeaturizeReport, encoded: Encoded, error: str) -> None:
    if error:
        report.failed.append((encoded.key, error))
        return
    report.done += 1
    report.empty_texts += encoded.empty
    report.n_in_windows += encoded.in_windows
    report.constant += [encoded.key] if encoded.constant else []
    report.special += [(encoded.key, encoded.special)] if encoded.special else []
    if not math.isnan(encoded.duration_s):
        report.audio_s += encoded.duration_s
