"""Audio files to mono 16 kHz float32 samples, with a reason whenever a file can't be that."""

import re
from pathlib import Path
from typing import Protocol

import numpy as np
import soundfile
import soxr

from featurestore.errors import AudioError

SAMPLE_RATE_HZ = 16_000
BLOCK_FRAMES = 1 << 20  # channels are averaged block by block, so that a long file never exists in all its channels
MP3_SLACK_FRAMES = 4 * 1152  # an MP3 header counts encoder delay and padding that the decoder drops
# A recorder that writes to a pipe leaves the length open: 0xFFFFFFFF or thereabouts is no promise that can be broken.
OPEN_LENGTH_BYTES = 0x7FFFFF00


class Recording(Protocol):
    """Audio that is not a file as it lies there, such as an augmented one; see `decode` and `duration_s`."""

    def decode(self) -> np.ndarray: ...

    def duration_s(self) -> float: ...


def decode(path: Path | str | Recording) -> np.ndarray:
    """Decode one file: (n_samples,) float32, mono (mean of the channels), 16 kHz (soxr, high quality).

    Integer formats are scaled to [-1, 1); float files keep their values, also beyond 1. n_samples >= 1.
    Raises AudioError for a missing, empty, truncated, unreadable or non-audio file and for NaN or infinite samples.
    """
    if not isinstance(path, Path | str):
        return path.decode()
    with _open(path) as file:
        blocks = []
        try:
            # Not file.blocks: where a file ends early, it pads the last block with whatever was in memory.
            while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
                blocks.append(block.mean(axis=1, dtype=np.float32))
        except (soundfile.SoundFileError, RuntimeError) as error:
            n_read = sum(len(block) for block in blocks)
            raise AudioError(
                f"{path}: decoding failed after {n_read} of {file.frames} frames ({_reason(error)}); the file is "
                "truncated or damaged. Copy or convert it again."
            ) from None
        rate_hz = file.samplerate
        mono = blocks[0] if len(blocks) == 1 else np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
        _refuse_truncated(path, file, len(mono))
    if not len(mono):
        raise AudioError(f"{path}: holds no samples. Remove it from the manifest or record it again.")
    n_bad = len(mono) - int(np.count_nonzero(np.isfinite(mono)))
    if n_bad:
        first = int(np.flatnonzero(~np.isfinite(mono))[0])
        raise AudioError(
            f"{path}: {n_bad} of {len(mono)} samples are NaN or infinite (the first at {first / rate_hz:.3f} s), "
            "expected finite ones. Export the file again."
        )
    if rate_hz != SAMPLE_RATE_HZ:
        n_native = len(mono)
        mono = soxr.resample(mono, rate_hz, SAMPLE_RATE_HZ, quality="HQ")
        if not len(mono):
            raise AudioError(
                f"{path}: {n_native} samples at {rate_hz} Hz are less than one sample at {SAMPLE_RATE_HZ} Hz. "
                "Remove it from the manifest or record it again."
            )
    return np.ascontiguousarray(mono, dtype=np.float32)


def duration_s(path: Path | str | Recording) -> float:
    """Seconds of audio by the file's header, without decoding; AudioError as in `decode` for what a header can tell."""
    if not isinstance(path, Path | str):
        return path.duration_s()
    with _open(path) as file:
        return float(file.frames / file.samplerate)


def _open(path: Path | str) -> soundfile.SoundFile:
    path = Path(path)
    if not path.exists():
        raise AudioError(f"{path}: no such file. Check the manifest's path column and the corpus root.")
    if not path.is_file():
        raise AudioError(f"{path}: is not a regular file, expected an audio file.")
    if path.stat().st_size == 0:
        raise AudioError(f"{path}: the file is empty (0 bytes). Copy it again.")
    try:
        return soundfile.SoundFile(path)
    except PermissionError as error:
        raise AudioError(f"{path}: not readable ({error.strerror}). Change its permissions.") from None
    except (soundfile.SoundFileError, RuntimeError, TypeError, OSError) as error:
        raise AudioError(
            f"{path}: not audio that can be decoded ({_reason(error)}); expected wav, flac, ogg, mp3, aiff or another "
            "libsndfile format. Convert it, for example with `ffmpeg -i FILE FILE.wav`."
        ) from None


def _refuse_truncated(path: Path | str, file: soundfile.SoundFile, n_read: int) -> None:
    """libsndfile silently shortens a cut wav, aiff or ogg; its log and the header still tell."""
    lost = ""
    slack = MP3_SLACK_FRAMES if file.format == "MP3" else 0
    if n_read + slack < file.frames:
        lost = f"the header promises {file.frames} frames, {n_read} are there"
    log = file.extra_info
    match = re.search(r"\b(?:data|SSND) : (\d+) \(should be (\d+)\)", log)
    if match and int(match[2]) < int(match[1]) < OPEN_LENGTH_BYTES:
        lost = f"the header promises {match[1]} bytes of samples, {match[2]} are there"
    if "lacks an end-of-stream bit" in log:
        lost = "the last page lacks its end-of-stream mark"
    if lost:
        raise AudioError(f"{path}: truncated, {lost}. Copy the file again.")


def _reason(error: Exception) -> str:
    text = getattr(error, "error_string", "") or str(error)
    return text.strip().rstrip(".") or type(error).__name__
