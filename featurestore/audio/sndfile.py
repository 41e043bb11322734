"""Blocks of samples by soundfile (libsndfile), at the file's own rate, channels averaged."""

import errno
import io
import math
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import soundfile

from featurestore.audio.parts import SNDFILE, Part
from featurestore.errors import AudioError, ShortOfMemory

BLOCK_FRAMES = 1 << 18  # channels are averaged block by block, so that a long file never exists in all its channels

Block = tuple[int, np.ndarray]


class Bytes(io.RawIOBase):
    """Bytes [start, stop) of a file, as a file of their own, the first ones replaced by a part's `head`."""

    def __init__(self, path: Path, part: Part) -> None:
        self._file = io.BufferedReader(io.FileIO(path), 1 << 16)
        self._start, self._head = part.start, part.head
        self._size = (os.fstat(self._file.fileno()).st_size if part.stop is None else part.stop) - part.start
        self._file.seek(part.start)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell() - self._start

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: self._size}[whence]
        return self._file.seek(self._start + max(0, base + offset)) - self._start

    def readinto(self, buffer: memoryview | bytearray) -> int:  # type: ignore[override]
        view = memoryview(buffer).cast("B")
        position = self.tell()
        n = self._file.readinto(view[: max(0, min(len(view), self._size - position))])
        if position < len(self._head):
            instead = self._head[position : position + n]
            view[: len(instead)] = instead
        return n

    def close(self) -> None:
        self._file.close()
        super().close()


def blocks(path: Path, part: Part, first: int = 0, most_s: float = math.inf) -> Iterator[Block]:
    """Yield (rate in Hz, (n,) float32) from native sample `first` on; AudioError for what is cut or not decodable.

    most_s: a part of more seconds by its header is refused before it is read, see `too_long`.
    """
    with _opened(path, part) as file:
        rate_hz, end = file.samplerate, _n_frames(file, part)
        n_read = first
        if end / rate_hz > most_s:
            raise too_long(path, most_s)
        try:
            if first:
                file.seek(first)
            # Not file.blocks: where a file ends early, it pads the last block with whatever was in memory.
            while n_read < end and len(
                block := file.read(min(BLOCK_FRAMES, end - n_read), dtype="float32", always_2d=True)
            ):
                n_read += len(block)
                yield rate_hz, block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)
        except (soundfile.SoundFileError, RuntimeError) as error:
            raise not_read(
                error,
                f"{path}: decoding failed after {n_read} of {file.frames} frames ({reason(error)}); the file is "
                "truncated or damaged. Copy or convert it again.",
            ) from None
        if n_read < end or not part.ended:
            problem = f"the header promises {end} frames, {n_read} are there"
            raise AudioError(
                f"{path}: truncated, {problem if n_read < end else 'the last page lacks its end-of-stream mark'}. "
                "Copy the file again."
            )


def size(path: Path, part: Part) -> tuple[int, int]:
    """Return (samples, rate in Hz) by the header."""
    with _opened(path, part) as file:
        return _n_frames(file, part), file.samplerate


def too_long(path: Path, most_s: float) -> AudioError:
    """Return the error for a file that is too long to be decoded whole."""
    return AudioError(
        f"{path}: longer than {most_s / 3600:g} hours, too long to be decoded whole. Cut it into segments: a manifest "
        "with start_s and end_s."
    )


def opens(path: Path | str) -> bool:
    """Return whether libsndfile knows the codec of a file as well as its container."""
    try:
        with _opened(Path(path), Part(SNDFILE)):
            return True
    except AudioError:
        return False


def version() -> str:
    """Return the versions of the decoder, for records."""
    return f"soundfile {soundfile.__version__} ({soundfile.__libsndfile_version__})"


def _n_frames(file: soundfile.SoundFile, part: Part) -> int:
    """Return the number of frames: whole blocks where a codec has blocks, less where the `fact` chunk says so."""
    n = int(file.frames)
    return part.n_samples if part.n_samples is not None and part.n_samples < n else n


@contextmanager
def _opened(path: Path, part: Part) -> Iterator[soundfile.SoundFile]:
    with ExitStack() as stack:
        yield _open(path, part, stack)


def _open(path: Path, part: Part, stack: ExitStack) -> soundfile.SoundFile:
    # By descriptor: given a name, libsndfile takes any bytes in a .au, .snd or .vox for raw samples.
    try:
        if part.whole:
            return stack.enter_context(
                soundfile.SoundFile(stack.enter_context(io.FileIO(path)).fileno(), closefd=False)
            )
        return stack.enter_context(soundfile.SoundFile(stack.enter_context(Bytes(path, part))))
    except PermissionError as error:
        raise AudioError(f"{path}: not readable ({error.strerror}). Change its permissions.") from None
    except (soundfile.SoundFileError, RuntimeError, TypeError, OSError) as error:
        raise not_read(
            error,
            f"{path}: not audio that can be decoded ({reason(error)}). Convert it, for example with "
            "`ffmpeg -i FILE FILE.wav`.",
        ) from None


def not_read(error: Exception, message: str) -> AudioError:
    """Return an AudioError with this message, or ShortOfMemory where that is what a decoder's exception says."""
    short = isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM
    text = str(error)
    kind = ShortOfMemory if short or os.strerror(errno.ENOMEM) in text or "malloc" in text else AudioError
    return kind(message)


def reason(error: Exception) -> str:
    """Return the message of a decoder's exception, without a full stop."""
    text = getattr(error, "error_string", "") or str(error)
    return text.strip().rstrip(".") or type(error).__name__
