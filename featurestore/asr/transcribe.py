"""openai-whisper over a manifest into a table of transcripts: decoded ahead, resumable, failures reported."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.asr.same_audio import audio_record, refuse_other_audio
from featurestore.asr.source import Transcript
from featurestore.asr.transcriber import WINDOW_S, Transcriber
from featurestore.asr.writer import TranscriptWriter
from featurestore.audio import SAMPLE_RATE_HZ, duration_s
from featurestore.errors import AudioError
from featurestore.featurize.clips import Decoder, arranged
from featurestore.featurize.decode_ahead import Pool, outcome
from featurestore.featurize.items import Item, audio_items, audio_sizes, part_of
from featurestore.featurize.sharding import Shard
from featurestore.runtime.device import describe_device
from featurestore.runtime.provenance import provenance
from featurestore.runtime.stopping import StopSignals
from featurestore.sets.sources import Digests, Recorder

if TYPE_CHECKING:
    from featurestore.corpus.manifest import Manifest

AHEAD_CHUNKS = 2  # decoded audio that waits for the model

Progress = Callable[[int, int, float], None]


@dataclass
class TranscribeReport:
    """What a run did: utterances transcribed (`empty` of them without a word), already there, and failed, and why."""

    done: int = 0
    skipped: int = 0
    empty: int = 0
    languages: Counter[str] = field(default_factory=Counter)
    failed: list[tuple[str, str]] = field(default_factory=list)
    audio_s: float = 0.0
    wall_s: float = 0.0


def transcribe(
    manifest: Manifest,
    transcriber: Transcriber,
    path: Path | str,
    *,
    shard: Shard | None = None,
    workers: int = 2,
    progress: Progress | None = None,
) -> TranscribeReport:
    """Transcribe every utterance of the manifest that the table at `path` (.csv, .parquet) lacks.

    shard: this part of the manifest alone, into a table of its own beside `path`. workers: decoding threads.
    progress(done, total, audio_s) is called after every utterance; done counts skipped and failed ones too. Raises
    TranscriptError when a table is another model's, or of other audio, and Interrupted after SIGINT or
    SIGTERM; either way the table has what was finished.
    """
    started = time.monotonic()
    items, failed = audio_items(manifest)
    if shard is not None:
        items, failed = part_of(shard, items, failed, audio_sizes(manifest, items, workers, _seconds))
    n_asked = len(items) + len(failed)
    report = TranscribeReport(failed=failed)
    made_with = {**provenance(), "device": describe_device(transcriber.model.device)}
    with StopSignals() as stop, TranscriptWriter(path, transcriber.source, made_with, shard) as writer:
        refuse_other_audio(writer.rows, manifest, writer.path, every_file=True)
        done_keys = writer.keys
        digests = Digests()
        missing = [
            replace(item, recorder=Recorder(item.source, digests)) for item in items if item.key not in done_keys
        ]
        report.skipped = len(items) - len(missing)
        stream = iter_transcribe(transcriber, missing, workers=workers)
        try:
            while True:
                with stop.raising(report):
                    result = next(stream, None)
                if result is None:
                    break
                key, row = result
                if isinstance(row, str):
                    report.failed.append((key, row))
                else:
                    writer.append(row)
                    report.done += 1
                    report.empty += not row.text
                    report.languages[row.language] += 1
                    report.audio_s += row.duration_s
                report.wall_s = time.monotonic() - started
                if progress is not None:
                    progress(report.done + report.skipped + len(report.failed), n_asked, report.audio_s)
        finally:
            stream.close()
            report.wall_s = time.monotonic() - started
    return report


def iter_transcribe(
    transcriber: Transcriber, items: Iterable[Item], *, workers: int = 2
) -> Generator[tuple[str, Transcript | str]]:
    """Yield (key, transcript or the reason for none), longest audio first (ties by key), decoded ahead in threads.

    Audio of like length is likely to have like numbers of words, so that a batch is done at about the same time.
    """
    with Pool(workers) as pool:
        items = list(items)
        work: list[tuple[float, Item]] = []
        for item, seconds in zip(items, pool.map(_seconds, items), strict=True):
            if isinstance(seconds, str):
                yield item.key, seconds
            else:
                work.append((seconds, item))
        lengths = [seconds for seconds, _ in work]
        n_samples = [round(seconds * SAMPLE_RATE_HZ) for seconds in lengths]
        work, windows = arranged(work, [item for _, item in work], lengths, n_samples)
        for part in _decoded_ahead(_chunks(work, transcriber.batch), Decoder(pool, windows)):
            good = [(item, data) for item, data in part if not isinstance(data, Exception)]
            yield from ((item.key, str(data)) for item, data in part if isinstance(data, Exception))
            for (item, data), recognised in zip(good, transcriber.transcribe([data for _, data in good]), strict=True):
                if isinstance(recognised, str):
                    yield item.key, f"{item.key}: {recognised}"
                else:
                    seconds = len(data) / SAMPLE_RATE_HZ
                    numbers = (recognised.avg_logprob, recognised.no_speech_prob, seconds)
                    audio = "" if item.recorder is None else audio_record(item.recorder.identity)
                    row = Transcript(item.key, recognised.text, recognised.language, *numbers, recognised.words, audio)
                    yield item.key, row


def _seconds(item: Item) -> float | str:
    try:
        return duration_s(item.source)
    except AudioError as error:
        return str(error)


def _chunks(work: Sequence[tuple[float, Item]], batch: int) -> Iterator[list[Item]]:
    """Yield what is decoded together: utterances of more than one window alone, the others in batches."""
    long = [item for seconds, item in work if seconds > WINDOW_S]
    short = [item for seconds, item in work if seconds <= WINDOW_S]
    yield from ([item] for item in long)
    yield from (short[i : i + batch] for i in range(0, len(short), batch))


def _decoded_ahead(chunks: Iterable[list[Item]], decoder: Decoder) -> Iterator[list[tuple[Item, Any]]]:
    """Yield the chunks of (item, waveform or AudioError), decoded while the model works on those before."""
    waiting: deque[list[tuple[Item, Future[np.ndarray]]]] = deque()
    for chunk in chunks:
        waiting.append([(item, decoder.submit(item)) for item in chunk])
        if len(waiting) > AHEAD_CHUNKS:
            yield [(item, outcome(item, future, decoder)) for item, future in waiting.popleft()]
    while waiting:
        yield [(item, outcome(item, future, decoder)) for item, future in waiting.popleft()]
