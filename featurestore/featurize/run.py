"""From a manifest to a feature set: decode ahead, encode in length-sorted batches, append, and survive anything.

What is in the set already is skipped, a file that fails is reported and tried again by the next run, and an interrupt
commits what is finished. The order of the work depends on the inputs alone, never on the number of workers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from featurestore.audio import SAMPLE_RATE_HZ
from featurestore.encoders.base import Encoder
from featurestore.errors import ConfigError, ManifestError, StoreError
from featurestore.featurize.memory import keep_freed_memory
from featurestore.featurize.sharding import Shard
from featurestore.featurize.stream import Encoded, Item, iter_encode, size_of
from featurestore.featurize.trial import seconds_for
from featurestore.featurize.writer_thread import WriterThread
from featurestore.runtime.provenance import provenance
from featurestore.runtime.stage_clock import stage
from featurestore.runtime.stopping import Interrupted, StopSignals

if TYPE_CHECKING:
    from featurestore.asr.transcripts import Transcripts
    from featurestore.corpus.manifest import Manifest
    from featurestore.sets.writer import FeatureWriter
    from featurestore.store.feature_store import FeatureStore

__all__ = ["Encoded", "FeaturizePlan", "FeaturizeReport", "Interrupted", "Item", "featurize", "iter_encode", "plan"]

Progress = Callable[[int, int, float], None]

# What is encoded between two commits at most, where rows are few: what a killed run has to do again. Told in audio, a
# text counted as a second, since a commit by the clock would cut the same corpus into other segments in each run.
COMMIT_AUDIO_S = 3600.0


@dataclass
class FeaturizeReport:
    """What a run did: utterances stored, already there, and failed with the reason; audio encoded and time taken."""

    done: int = 0
    skipped: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    audio_s: float = 0.0
    wall_s: float = 0.0
    empty_texts: int = 0


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
    failed: list[tuple[str, str]]
    wall_s: float = math.nan


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
    transcripts: Transcripts | None = None,
    max_memory_gib: float | None = None,
    progress: Progress | None = None,
) -> FeaturizeReport:
    """Encode every utterance of the manifest that the set `name` lacks, and append it to the set.

    batch_s: padded audio per forward pass (None: the encoder's default for its device). workers: decoding threads
    (None: `stream.decoding_threads`).
    weights: where the encoder's weights lie, for the record of a new set, so that they are found again.
    format, compress: how new segments are stored, see `FeatureStore.writer`. shard: this part of the manifest alone.
    transcripts: texts for a text encoder of that `source`, instead of the manifest's; an utterance without one fails.
    max_memory_gib: of this process (CPU) or allocated on its GPU; batches are made to fit, see `plan_memory`.
    progress(done, total, audio_s) is called after every utterance; done counts skipped and failed ones too.
    Raises SpecMismatch when the set holds other features, and Interrupted after SIGINT or SIGTERM.
    """
    started = time.monotonic()
    report = FeaturizeReport()
    opened = store.writer(name, encoder.spec, provenance=provenance(weights), format=format, compress=compress)
    if max_memory_gib is None and encoder.device == "cpu":
        keep_freed_memory()
    with StopSignals() as stop, opened as writer:
        items, report.failed = items_of(manifest, encoder, shard, workers or 2, transcripts)
        total = len(items) + len(report.failed)
        items, report.skipped = _missing(items, store, name)
        stream = iter_encode(encoder, items, batch_s=batch_s, workers=workers, max_memory_gib=max_memory_gib)

        def count(written: WriterThread) -> None:
            for encoded, error in written.outcomes():
                _count(report, encoded, error)
                report.wall_s = time.monotonic() - started
                if progress is not None:
                    progress(report.done + report.skipped + len(report.failed), total, report.audio_s)

        thread = WriterThread(_Appending(writer, encoder))
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
            report.wall_s = time.monotonic() - started
    return report


def plan(
    manifest: Manifest,
    encoder: Encoder,
    store: FeatureStore | None = None,
    name: str = "",
    workers: int = 2,
    *,
    shard: Shard | None = None,
    transcripts: Transcripts | None = None,
    trial_s: float = 0.0,
) -> FeaturizePlan:
    """Count utterances, audio, rows and bytes of a run from the files' headers.

    trial_s: also encode some utterances for at least this long, to tell how long the run will take.
    """
    items, failed = items_of(manifest, encoder, shard, workers, transcripts)
    items, n_skipped = _missing(items, store, name)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        sizes = list(pool.map(lambda item: size_of(encoder, item), items))
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
        n_skipped=n_skipped,
        audio_s=sum(size for _, size in good) / SAMPLE_RATE_HZ if audio else 0.0,
        n_rows=n_rows,
        n_bytes=n_rows * spec.row_type.row_bytes(spec.dim) * len(spec.layers),
        failed=failed,
        wall_s=wall_s,
    )


def items_of(
    manifest: Manifest,
    encoder: Encoder,
    shard: Shard | None = None,
    workers: int = 2,
    transcripts: Transcripts | None = None,
) -> tuple[list[Item], list[tuple[str, str]]]:
    """The inputs of one part (or all), and (key, reason) of utterances without a path or transcript."""
    items, failed = _items(manifest, encoder, transcripts)
    if shard is None:
        return items, failed
    sizes = _sizes(manifest, encoder, items, workers)
    chosen = [items[i] for i in shard.select([item.key for item in items], sizes)]
    return chosen, failed if shard.number == 1 else []


def _sizes(manifest: Manifest, encoder: Encoder, items: list[Item], workers: int) -> list[float]:
    """How long each input is, for sharing out the work: the manifest's durations, else the files' headers."""
    if encoder.kind == "text":
        return [len(str(item.source)) for item in items]
    if manifest.has("duration_s"):
        told = dict(zip(manifest.keys, manifest.column("duration_s").tolist(), strict=True))
        sizes = [told[item.key] for item in items]
        if all(isinstance(size, float) and math.isfinite(size) for size in sizes):
            return sizes
    with ThreadPoolExecutor(max(1, workers)) as pool:
        found = pool.map(lambda item: size_of(encoder, item), items)
        return [0 if isinstance(size, str) else size for size in found]


def _items(
    manifest: Manifest, encoder: Encoder, transcripts: Transcripts | None
) -> tuple[list[Item], list[tuple[str, str]]]:
    if transcripts is not None:
        if encoder.kind != "text":
            raise ConfigError(f"--transcripts: {encoder.name} encodes audio, not text; leave it out.")
        if encoder.spec.source != transcripts.source:
            raise ConfigError(
                f"{encoder.name} was loaded for {encoder.spec.source}, the texts are {transcripts.source}."
            )
        texts, failed = transcripts.of(manifest)
        return [Item(key, text) for key, text in texts], failed
    if encoder.kind == "text":
        return [Item(key, text) for key, text in zip(manifest.keys, manifest.texts, strict=True)], []
    return audio_items(manifest)


def audio_items(manifest: Manifest) -> tuple[list[Item], list[tuple[str, str]]]:
    """Every utterance's audio file, and (key, reason) of those without one where others have one."""
    manifest.column("path")  # its absence is an error of the manifest, not of each row
    items, failed = [], []
    for i, key in enumerate(manifest.keys):
        try:
            items.append(Item(key, manifest.audio_path(i)))
        except ManifestError as error:
            failed.append((key, str(error)))
    return items, failed


def _missing(items: list[Item], store: FeatureStore | None, name: str) -> tuple[list[Item], int]:
    """The items that the set lacks, and how many it has."""
    if store is None or name not in store:
        return items, 0
    stored = store[name]
    missing = [item for item in items if item.key not in stored]
    return missing, len(items) - len(missing)


class _Appending:
    """Appends utterance after utterance, and commits every `COMMIT_AUDIO_S`."""

    def __init__(self, writer: FeatureWriter, encoder: Encoder) -> None:
        self._writer = writer
        self._layers = encoder.spec.layers
        self._since_commit_s = 0.0

    def __call__(self, encoded: Encoded) -> tuple[Encoded, str]:
        """The utterance, and the reason when it can't be appended, "" when it is in."""
        if encoded.rows is None:
            return encoded, encoded.error
        try:
            rows = dict(zip(self._layers, encoded.rows, strict=True))
            with stage("write"):
                self._writer.append(encoded.key, rows, duration_s=encoded.duration_s)
                self._since_commit_s += 1.0 if math.isnan(encoded.duration_s) else encoded.duration_s
                if self._since_commit_s >= COMMIT_AUDIO_S:
                    self._writer.commit()
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
    if not math.isnan(encoded.duration_s):
        report.audio_s += encoded.duration_s
