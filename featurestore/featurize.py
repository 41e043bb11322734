"""From a manifest to a feature set: decode ahead, encode in length-sorted batches, append, and survive anything.

What is in the set already is skipped, a file that fails is reported and tried again by the next run, and an interrupt
commits what is finished. The order of the work depends on the inputs alone, never on the number of workers.
"""

from __future__ import annotations

import math
import platform
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.audio import SAMPLE_RATE_HZ, decode, duration_s
from featurestore.encoders.base import Encoder
from featurestore.encoders.windows import batches
from featurestore.errors import AudioError, ManifestError, StoreError

if TYPE_CHECKING:
    from featurestore.manifest import Manifest
    from featurestore.store import FeatureStore

FRAMES_PER_S = 50  # of batch budgets; every audio encoder here gives 50 frames/s
AHEAD_SAMPLES = 120 * SAMPLE_RATE_HZ  # decoded audio that waits for the encoder, beside the next batch
Progress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Item:
    """One input: its key, and a Path to an audio file or a str of text."""

    key: str
    source: Path | str


@dataclass(frozen=True)
class Encoded:
    """One result: rows (L, T, D) float32, or None and the reason. duration_s is NaN for text."""

    key: str
    rows: np.ndarray | None
    duration_s: float = math.nan
    error: str = ""
    empty: bool = False


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
    """What a run would do: utterances to encode and those already there, audio, rows, bytes on disk, and failures."""

    n_utterances: int
    n_skipped: int
    audio_s: float
    n_rows: int
    n_bytes: int
    failed: list[tuple[str, str]]


class Interrupted(KeyboardInterrupt):
    """A run stopped by SIGINT or SIGTERM after committing what it had finished; carries the signal and the report."""

    def __init__(self, signum: int, report: FeaturizeReport) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum
        self.report = report


def featurize(
    manifest: Manifest,
    encoder: Encoder,
    store: FeatureStore,
    name: str,
    *,
    batch_s: float | None = None,
    workers: int = 2,
    progress: Progress | None = None,
) -> FeaturizeReport:
    """Encode every utterance of the manifest that the set `name` lacks, and append it to the set.

    batch_s: padded audio per forward pass (None: the encoder's default for its device). workers: decoding threads.
    progress(done, total, audio_s) is called after every utterance; done counts skipped and failed ones too.
    Raises SpecMismatch when the set holds other features, and Interrupted after SIGINT or SIGTERM.
    """
    started = time.monotonic()
    report = FeaturizeReport()
    with _StopSignals() as stop, store.writer(name, encoder.spec, provenance=provenance()) as writer:
        items, report.failed = _items(manifest, encoder)
        items, report.skipped = _missing(items, store, name)
        total = len(manifest)
        stream = iter_encode(encoder, items, batch_s=batch_s, workers=workers)
        try:
            while True:
                with stop.raising(report):
                    encoded = next(stream, None)
                if encoded is None:
                    break
                _store_one(writer, encoder, encoded, report)
                report.wall_s = time.monotonic() - started
                if progress is not None:
                    progress(report.done + report.skipped + len(report.failed), total, report.audio_s)
        finally:
            stream.close()
            report.wall_s = time.monotonic() - started
    return report


def plan(
    manifest: Manifest, encoder: Encoder, store: FeatureStore | None = None, name: str = "", workers: int = 2
) -> FeaturizePlan:
    """Count utterances, audio, rows and bytes of a run from the files' headers, without decoding or encoding."""
    items, failed = _items(manifest, encoder)
    items, n_skipped = _missing(items, store, name)
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
    return FeaturizePlan(
        n_utterances=len(good),
        n_skipped=n_skipped,
        audio_s=sum(size for _, size in good) / SAMPLE_RATE_HZ if audio else 0.0,
        n_rows=n_rows,
        n_bytes=n_rows * spec.dim * len(spec.layers) * np.dtype(spec.dtype).itemsize,
        failed=failed,
    )


def iter_encode(
    encoder: Encoder, items: Iterable[Item], *, batch_s: float | None = None, workers: int = 2
) -> Generator[Encoded, None, None]:
    """Encode inputs longest first (ties by key), decoding ahead in threads; failures come as results, never raised.

    The order of the results and the batches depend only on the items and batch_s. Memory is bounded by one batch in
    the encoder, one more and two minutes of decoded audio waiting. Out of memory halves the batches from then on.
    """
    max_frames = encoder.default_batch_frames if batch_s is None else max(1, round(batch_s * FRAMES_PER_S))
    with _Pool(workers) as pool:
        items = list(items)
        sized = zip(items, pool.map(lambda item: _size(encoder, item), items), strict=True)
        work: list[tuple[int, Item, int]] = []
        for item, size in sized:
            if isinstance(size, str):
                yield Encoded(item.key, None, error=size)
            else:
                work.append((encoder.cost(size) if encoder.kind == "audio" else size, item, size))
        work.sort(key=lambda entry: (-entry[0], entry[1].key))
        for part in _decoded_ahead(encoder, work, max_frames, pool):
            good = [(item, data) for item, data in part if not isinstance(data, Exception)]
            for item, data in part:
                if isinstance(data, Exception):
                    yield Encoded(item.key, None, error=str(data))
            rows, max_frames = _encode(encoder, [data for _, data in good], max_frames)
            for (item, data), result in zip(good, rows, strict=True):
                yield _result(encoder, item, data, result)


def provenance() -> dict[str, str]:
    """Versions of what computes features, for the set's record; they are not part of its fingerprint."""
    record = {"python": platform.python_version()}
    for package in ("medusa-ser", "torch", "transformers", "numpy", "soundfile", "soxr"):
        try:
            record[package] = version(package)
        except PackageNotFoundError:
            continue
    return record


def _items(manifest: Manifest, encoder: Encoder) -> tuple[list[Item], list[tuple[str, str]]]:
    """The inputs, and (key, reason) of utterances that have no audio path where others do."""
    if encoder.kind == "text":
        return [Item(key, text) for key, text in zip(manifest.keys, manifest.texts, strict=True)], []
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


def _size(encoder: Encoder, item: Item) -> int | str:
    """Samples of an audio file by its header, or padded tokens of a text; the reason when it can't be told."""
    if encoder.kind == "text":
        return encoder.cost(str(item.source))
    try:
        return round(duration_s(item.source) * SAMPLE_RATE_HZ)
    except AudioError as error:
        return str(error)


def _decoded_ahead(
    encoder: Encoder, work: Sequence[tuple[int, Item, int]], max_frames: int, pool: _Pool
) -> Iterator[list[tuple[Item, Any]]]:
    """Batches of (item, waveform, text or AudioError), decoded while the encoder works on those before."""
    runs = iter(list(batches([cost for cost, _, _ in work], max_frames)))
    waiting: deque[tuple[int, list[tuple[Item, Any]]]] = deque()
    n_waiting = 0
    while True:
        while len(waiting) < 2 or n_waiting < AHEAD_SAMPLES:
            run = next(runs, None)
            if run is None:
                break
            entries = [work[i] for i in run]
            n_samples = sum(size for _, _, size in entries)
            n_waiting += n_samples
            if encoder.kind == "text":
                waiting.append((n_samples, [(item, item.source) for _, item, _ in entries]))
            else:
                waiting.append((n_samples, [(item, pool.submit(decode, item.source)) for _, item, _ in entries]))
        if not waiting:
            return
        n_samples, part = waiting.popleft()
        n_waiting -= n_samples
        yield [(item, _outcome(data)) for item, data in part]


def _outcome(data: Any) -> Any:
    if not isinstance(data, Future):
        return data
    try:
        return data.result()
    except (AudioError, MemoryError) as error:
        return error if isinstance(error, AudioError) else AudioError("out of memory while decoding; split the file.")


def _encode(encoder: Encoder, inputs: list[Any], max_frames: int) -> tuple[list[np.ndarray | str], int]:
    """Rows of each input, or a reason, and the batch size that went through."""
    while inputs:
        try:
            return list(encoder.encode(inputs, max_frames)), max_frames
        except (RuntimeError, MemoryError) as error:
            if not _out_of_memory(error):
                raise
        # Out of the except block: the traceback no longer holds the failed pass's tensors.
        _free_device_memory()
        if max_frames > 1:
            longest = max(encoder.cost(x if isinstance(x, str) else len(x)) for x in inputs)
            max_frames = max(1, min(max_frames, longest * len(inputs)) // 2)
        elif len(inputs) > 1:
            return [_encode(encoder, [x], 1)[0][0] for x in inputs], 1
        else:
            return ["out of memory on a single window; use a smaller encoder, another device or a shorter --window."], 1
    return [], max_frames


def _out_of_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(
        phrase in text for phrase in ("out of memory", "not enough memory", "can't allocate memory")
    )


def _free_device_memory() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _result(encoder: Encoder, item: Item, data: Any, result: np.ndarray | str) -> Encoded:
    if isinstance(result, str):
        return Encoded(item.key, None, error=f"{item.key}: {result}")
    if encoder.kind == "text":
        is_empty = getattr(encoder, "is_empty", None)
        return Encoded(item.key, result, empty=bool(is_empty and is_empty(data)))
    return Encoded(item.key, result, duration_s=len(data) / SAMPLE_RATE_HZ)


def _store_one(writer: Any, encoder: Encoder, encoded: Encoded, report: FeaturizeReport) -> None:
    if encoded.rows is None:
        report.failed.append((encoded.key, encoded.error))
        return
    try:
        rows = dict(zip(encoder.spec.layers, encoded.rows, strict=True))
        writer.append(encoded.key, rows, duration_s=encoded.duration_s)
    except StoreError as error:  # a row that overflows the store's dtype, or is NaN
        if isinstance(error.__cause__, OSError):  # the disk's fault, and the next utterance's too
            raise
        report.failed.append((encoded.key, str(error)))
        return
    report.done += 1
    report.empty_texts += encoded.empty
    if not math.isnan(encoded.duration_s):
        report.audio_s += encoded.duration_s


class _Pool(ThreadPoolExecutor):
    """Threads that drop what is queued when the caller stops early."""

    def __init__(self, workers: int) -> None:
        super().__init__(max(1, workers), thread_name_prefix="decode")

    def __exit__(self, *exc: object) -> None:
        self.shutdown(wait=True, cancel_futures=True)


class _StopSignals:
    """SIGINT and SIGTERM stop the run at once while it encodes, and after the current utterance while it writes."""

    def __init__(self) -> None:
        self.signum = 0
        self._report: FeaturizeReport | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> _StopSignals:
        if threading.current_thread() is threading.main_thread():  # only there may handlers be set
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._previous[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(self, *exc: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        if self._report is not None:
            raise Interrupted(signum, self._report)

    @contextmanager
    def raising(self, report: FeaturizeReport) -> Iterator[None]:
        """Inside, a signal raises Interrupted at once; one that came before raises on entry."""
        self._report = report
        try:
            if self.signum:
                raise Interrupted(self.signum, report)
            yield
        finally:
            self._report = None
