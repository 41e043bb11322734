"""Audio files to mono 16 kHz float32 samples, with a reason whenever a file can't be that."""

import math
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain, groupby
from pathlib import Path
from typing import Protocol

import numpy as np
import soxr

from featurestore.audio import ffmpeg, sndfile
from featurestore.audio.layout import KEPT, layout_of
from featurestore.audio.parts import SNDFILE, Layout, Part
from featurestore.audio.sndfile import Block
from featurestore.audio.tracks import tracks_of
from featurestore.errors import AudioError

SAMPLE_RATE_HZ = 16_000
LEAST_RATE_HZ = 1000  # a header that says less is damaged
LARGEST = 64.0  # full scale is 1; more is no loud recording but 16-bit integers stored as floats
MAX_HOURS = 12  # of a file that is decoded whole: 2.8 GB; pieces of longer ones are read through a window


class Recording(Protocol):
    """Audio that is not a file as it lies there, such as an augmented one; see `decode` and `duration_s`."""

    def decode(self) -> np.ndarray: ...

    def duration_s(self) -> float: ...


def decode(path: Path | str | Recording) -> np.ndarray:
    """Decode one file: (n_samples,) float32, mono (mean of the channels), 16 kHz (soxr, high quality).

    Integer formats are scaled to [-1, 1); float files keep their values, also beyond 1. n_samples >= 1. Of a video it
    is the first sound track. Raises AudioError for a missing, empty, truncated, unreadable or non-audio file, for one
    of more than MAX_HOURS, and for samples that are NaN, infinite or larger than LARGEST.
    """
    if not isinstance(path, Path | str):
        return path.decode()
    path = path if isinstance(path, Path) else Path(path)
    layout = layout_of(path)
    if layout.truncated:
        raise _truncated(path, layout)
    runs = []
    n_read = 0.0
    for rate_hz, group in groupby(_blocks(path, layout, most_s=MAX_HOURS * 3600), key=lambda block: block[0]):
        blocks = []
        for _, block in group:
            blocks.append(block)
            n_read += len(block) / rate_hz
            if n_read > MAX_HOURS * 3600:
                raise sndfile.too_long(path, MAX_HOURS * 3600)
        samples = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        runs.append(resampled(path, samples, rate_hz, finite=layout.finite))
    mono = runs[0] if len(runs) == 1 else np.concatenate(runs) if runs else np.zeros(0, np.float32)
    if not len(mono):
        raise _no_samples(path)
    return np.ascontiguousarray(mono, dtype=np.float32)


def duration_s(path: Path | str | Recording) -> float:
    """Return the seconds of audio, without decoding where the header states them; AudioError as in `decode`."""
    if not isinstance(path, Path | str):
        return path.duration_s()
    path = Path(path)
    layout = layout_of(path)
    if layout.truncated:
        raise _truncated(path, layout)
    return present_s(path)


def present_s(path: Path) -> float:
    """Return the seconds that are there, also of a truncated file, whose first pieces can be read."""
    layout, stat = layout_of(path), path.stat()
    seconds = _duration_s(path, layout, stat.st_size, stat.st_mtime_ns)
    if not seconds:
        raise _no_samples(path)
    return seconds


def stated_duration_s(path: Path | str) -> float | None:
    """Return the seconds that the file itself states, None where it has to be decoded for them; AudioError as usual."""
    path = Path(path)
    sizes = [
        sndfile.size(path, part) if part.decoder == SNDFILE else ffmpeg.stated_size(path, part)
        for part in layout_of(path).parts
    ]
    return None if None in sizes else sum(n / rate_hz for n, rate_hz in filter(None, sizes))


def decoder_of(path: Path | str) -> str:
    """Return which decoder reads a file, its version, and which of several sound tracks; AudioError for no audio."""
    decoders = [part.decoder for part in layout_of(Path(path)).parts]
    tracks = tracks_of(path)
    track = f", sound track 1 of {len(tracks)} ({tracks[0]})" if len(tracks) > 1 else ""
    return (
        " and ".join(
            sndfile.version() if decoder == SNDFILE else ffmpeg.version() for decoder in dict.fromkeys(decoders)
        )
        + track
    )


def native_blocks(path: Path | str, first: int = 0) -> Iterator[Block]:
    """Yield (rate in Hz, (n,) float32 mono) from native sample `first` of the file on; AudioError as in `decode`."""
    path = Path(path)
    yield from _blocks(path, layout_of(path), first)


def _blocks(path: Path, layout: Layout, first: int = 0, most_s: float = math.inf) -> Iterator[Block]:
    """See `native_blocks`; most_s: refuse a file that is longer by its header."""
    parts = layout.parts
    while first and len(parts) > 1 and first >= (n := part_size(path, parts[0])[0]):
        first, parts = first - n, parts[1:]
    offsets = chain([first], (0 for _ in parts[1:]))
    for part, offset in zip(parts, offsets, strict=True):
        reader = sndfile.blocks(path, part, offset, most_s) if part.decoder == SNDFILE else None
        for rate_hz, block in reader or ffmpeg.blocks(path, part, offset):
            if rate_hz < LEAST_RATE_HZ:
                raise AudioError(
                    f"{path}: the header says {rate_hz} Hz, expected {LEAST_RATE_HZ} or more. Export it again."
                )
            yield rate_hz, block
    if layout.truncated:
        raise _truncated(path, layout)


def _no_samples(path: Path) -> AudioError:
    return AudioError(f"{path}: holds no samples. Remove it from the manifest or record it again.")


def _truncated(path: Path, layout: Layout) -> AudioError:
    return AudioError(f"{path}: truncated, {layout.truncated}. Copy the file again.")


def part_size(path: Path, part: Part) -> tuple[int, int]:
    """Return (native samples, rate in Hz) of one part of a file."""
    return sndfile.size(path, part) if part.decoder == SNDFILE else ffmpeg.size(path, part)


def resampled(path: object, mono: np.ndarray, rate_hz: int, *, finite: bool = False) -> np.ndarray:
    """Return (n,) float32 at 16 kHz of native samples; AudioError for NaN or huge ones, or less than one sample.

    finite: the samples come from integers, and are not looked at.
    """
    checked = not finite
    if checked:
        with np.errstate(over="ignore", invalid="ignore"):
            finite = bool(np.isfinite(np.sum(mono)))  # of very large samples the sum may overflow, so it is no proof
    n_bad = 0 if finite else len(mono) - int(np.count_nonzero(np.isfinite(mono)))
    if n_bad:
        first = int(np.flatnonzero(~np.isfinite(mono))[0])
        raise AudioError(
            f"{path}: {n_bad} of {len(mono)} samples are NaN or infinite (the first at {first / rate_hz:.3f} s), "
            "expected finite ones. Export the file again."
        )
    if checked and len(mono) and (peak := float(max(mono.max(), -mono.min()))) > LARGEST:
        raise AudioError(
            f"{path}: samples reach {peak:g}, expected -1 to 1: these are integers stored as floats. Divide them by "
            "32768 (of 16 bits) and export the file again."
        )
    if rate_hz == SAMPLE_RATE_HZ or not len(mono):
        return mono
    at_16k: np.ndarray = soxr.resample(mono, rate_hz, SAMPLE_RATE_HZ, quality="HQ")
    if not len(at_16k):
        raise AudioError(
            f"{path}: {len(mono)} samples at {rate_hz} Hz are less than one sample at {SAMPLE_RATE_HZ} Hz. "
            "Remove it from the manifest or record it again."
        )
    return at_16k


@lru_cache(KEPT)
def _duration_s(path: Path, layout: Layout, n_bytes: int, mtime_ns: int) -> float:
    """In the cache, since some files have to be decoded for it."""
    return sum(n / rate_hz for n, rate_hz in (part_size(path, part) for part in layout.parts))
