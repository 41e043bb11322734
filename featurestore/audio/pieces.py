"""Pieces of recordings: one by itself, and many of one recording in a single pass through a bounded window."""

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featurestore.audio import sndfile
from featurestore.audio.decoding import MAX_HOURS, Recording, decode, duration_s, native_blocks, present_s, resampled
from featurestore.audio.layout import layout_of
from featurestore.audio.sndfile import Block
from featurestore.errors import AudioError

FAR_S = 60.0  # between two clips, from which on a file that can be sought is
SLACK_S = 0.05  # by which an end may lie beyond the recording's, since tables are rounded and codecs pad


@dataclass(frozen=True)
class Clip:
    """The seconds [start_s, end_s) of a recording, to its end where end_s is None; decoded like a file.

    The piece is cut at the recording's own rate, at the samples next to its ends, and resampled by itself: what comes
    out is equal to what the piece would give as a file of its own.
    """

    path: Path
    start_s: float = 0.0
    end_s: float | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The recording; what a feature set records of the piece."""
        return (self.path,)

    @property
    def piece_s(self) -> tuple[float, float]:
        """Start and end of the piece, NaN for the recording's end."""
        return self.start_s, math.nan if self.end_s is None else self.end_s

    def __str__(self) -> str:
        return f"{self.path}, {self.start_s:g} to {'its end' if self.end_s is None else f'{self.end_s:g} s'}"

    def duration_s(self) -> float:
        """Return the seconds of the piece by its ends; AudioError where it has to be looked up, and can't be."""
        end_s = self.end_s if self.end_s is not None else duration_s(self.path)
        if end_s <= self.start_s:
            raise self.beyond(end_s)
        return end_s - self.start_s

    def check_ends(self) -> None:
        """Raise AudioError as `decode` where the piece lies beyond the recording, whose length is by its header."""
        seconds = present_s(self.path)
        if self.start_s >= seconds or (self.end_s is not None and self.end_s - seconds > SLACK_S):
            raise self.beyond(seconds)

    def decode(self) -> np.ndarray:
        """Return (n,) float32 at 16 kHz; AudioError as of a file, and for a piece that lies beyond the recording."""
        with OnePass(self.path) as recording:
            return recording.read(self)

    def beyond(self, seconds: float) -> AudioError:
        """Return the error for a piece that isn't in a recording of so many seconds."""
        return AudioError(f"{self}: the piece lies beyond the recording, which has {seconds:.3f} s. Mend its ends.")


class OnePass:
    """A recording that is decoded once from beginning to end while its clips are read in the order of their starts.

    It holds the samples from the last clip's start on, never the whole. A clip that starts before that begins a new
    pass; the first clip of a file that can be sought is sought. Safe to use from several threads.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._blocks: Iterator[Block] | None = None
        self._held: list[np.ndarray] = []
        self._first = 0  # native sample that the held ones begin with
        self._rate_hz = 0
        self._ended = self._seeks = False

    def __enter__(self) -> "OnePass":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._close()

    def read(self, clip: Clip) -> np.ndarray:
        """Return a clip's samples, (n,) float32 at 16 kHz; AudioError as `Clip.decode`."""
        with self._lock:
            try:
                return self._read(clip)
            except AudioError:
                self._close()
                raise

    def _read(self, clip: Clip) -> np.ndarray:
        if clip.end_s is not None and clip.end_s - clip.start_s > MAX_HOURS * 3600:
            raise sndfile.too_long(self.path, MAX_HOURS * 3600)
        start = round(clip.start_s * self._rate_hz)
        far = self._seeks and start - self._end > FAR_S * self._rate_hz
        if self._blocks is None or start < self._first or far:
            self._open(clip.start_s)
        start = round(clip.start_s * self._rate_hz)
        stop = None if clip.end_s is None else round(clip.end_s * self._rate_hz)
        if stop is not None and stop <= start:
            raise AudioError(f"{clip}: the piece is shorter than a sample. Mend its ends.")
        while not self._ended and (stop is None or self._end < stop):
            self._advance(start)
        self._forget(start)
        blocks = self._held or [np.zeros(0, np.float32)]
        joined = (blocks[0] if len(blocks) == 1 else np.concatenate(blocks))[max(0, start - self._first) :]
        if self._held and start > self._first:
            self._held, self._first = [joined], start
        samples = joined[: None if stop is None else stop - start]
        late = 0 if stop is None else stop - self._end
        if not len(samples) or late > SLACK_S * self._rate_hz:
            raise clip.beyond(self._end / self._rate_hz)
        at_16k = resampled(clip, samples, self._rate_hz)
        return np.array(at_16k, np.float32) if at_16k.base is not None else at_16k

    @property
    def _end(self) -> int:
        return self._first + sum(len(block) for block in self._held)

    def _open(self, start_s: float) -> None:
        """Begin a pass at or before a time."""
        self._close()
        self._rate_hz, first = seekable_to(self.path, start_s)
        self._seeks = self._rate_hz > 0
        self._blocks, self._first, self._ended = native_blocks(self.path, first), first, False
        if not self._rate_hz:
            self._advance(0)

    def _advance(self, keep_from: int) -> None:
        """Decode one block more, and let go of what lies before a sample."""
        assert self._blocks is not None
        block = next(self._blocks, None)
        if block is None:
            self._ended = True
            return
        if self._rate_hz and block[0] != self._rate_hz:
            raise AudioError(
                f"{self.path}: changes from {self._rate_hz} to {block[0]} Hz, so that a place in it is ambiguous. "
                "Convert it to one rate first."
            )
        self._rate_hz = block[0]
        self._held.append(block[1])
        self._forget(keep_from)

    def _forget(self, keep_from: int) -> None:
        while self._held and self._first + len(self._held[0]) <= keep_from:
            self._first += len(self._held.pop(0))

    def _close(self) -> None:
        blocks, self._blocks, self._held, self._first = self._blocks, None, [], 0
        if blocks is not None:
            with suppress(AudioError):
                blocks.close()  # type: ignore[attr-defined]


def seekable_to(path: Path, start_s: float) -> tuple[int, int]:
    """Return (rate in Hz, native sample next to a time) where a decoder gets there exactly without decoding; (0, 0)."""
    parts = layout_of(path).parts
    if len(parts) != 1 or not parts[0].seeks:
        return 0, 0
    n, rate_hz = sndfile.size(path, parts[0])
    return rate_hz, min(n, round(start_s * rate_hz))


def in_passes(sources: Sequence[object]) -> list[list[int]]:
    """Return the positions of sources in groups that are decoded together: clips of one recording by their starts.

    Everything else is a group of its own; groups stand where their first source does.
    """
    groups: dict[object, list[int]] = {}
    for i, source in enumerate(sources):
        groups.setdefault(source.path if isinstance(source, Clip) else i, []).append(i)
    return [sorted(group, key=lambda i: _start_s(sources[i])) for group in groups.values()]


def decode_pass(sources: Sequence[Path | str | Recording]) -> Iterator[np.ndarray | AudioError]:
    """Yield the samples, or the reason, of one group of `in_passes`, in order."""
    recordings: dict[Path, OnePass] = {}
    try:
        for source in sources:
            try:
                if isinstance(source, Clip):
                    yield recordings.setdefault(source.path, OnePass(source.path)).read(source)
                else:
                    yield decode(source)
            except AudioError as error:
                yield error
    finally:
        for recording in recordings.values():
            recording.close()


def _start_s(source: object) -> float:
    return source.start_s if isinstance(source, Clip) else 0.0
