"""AMR, the phone's speech, as frames of 20 ms (RFC 4867, section 5): which hold speech, and which a pause.

With discontinuous transmission a phone sends comfort noise now and then and nothing in between. FFmpeg's decoder raises
at such frames, its program drops them and shortens the recording.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from featurestore.errors import AudioError


@dataclass(frozen=True)
class AmrCodec:
    """One of the two codecs: bytes of a frame by type, its header byte included (0: no such type); first pause type."""

    name: str  # FFmpeg's decoder
    magic: bytes
    rate_hz: int
    frame_bytes: tuple[int, ...]
    first_pause: int

    @property
    def frame_samples(self) -> int:
        return self.rate_hz // 50


NARROW = AmrCodec("amrnb", b"#!AMR\n", 8_000, (13, 14, 16, 18, 20, 21, 27, 32, 6, 0, 0, 0, 0, 0, 0, 1), 8)
WIDE = AmrCodec("amrwb", b"#!AMR-WB\n", 16_000, (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 0, 0, 0, 0, 1, 1), 9)
LAYOUTS = {codec.name: codec for codec in (NARROW, WIDE)}


def file_frames(path: Path) -> tuple[AmrCodec, Iterator[bytes | None]]:
    """Return the codec of an .amr or .awb file, and its frames as `frames_of`, read little by little."""
    with path.open("rb") as file:
        head = file.read(max(len(WIDE.magic), len(NARROW.magic)))
    for codec in (NARROW, WIDE):
        if head.startswith(codec.magic):
            return codec, _from_file(path, codec)
    raise AudioError(f"{path}: AMR of several channels can't be decoded. Convert it, one channel a file.")


def _from_file(path: Path, codec: AmrCodec) -> Iterator[bytes | None]:
    with path.open("rb") as file:
        file.seek(len(codec.magic))
        yield from _frames(file, codec, path)


def frames_of(data: bytes, codec: AmrCodec, path: object) -> Iterator[bytes | None]:
    """Yield each frame with its header byte, None for one without speech; AudioError for what is cut or no frame."""
    return _frames(io.BytesIO(data), codec, path)


def _frames(file: BinaryIO, codec: AmrCodec, path: object) -> Iterator[bytes | None]:
    n = 0
    while header := file.read(1):
        kind = header[0] >> 3 & 15
        size = codec.frame_bytes[kind]
        if not size or header[0] & 0x83:
            raise AudioError(f"{path}: damaged, no AMR frame at {n / 50:.2f} s. Copy it again.")
        body = file.read(size - 1)
        if len(body) < size - 1:
            raise AudioError(f"{path}: truncated in the frame at {n / 50:.2f} s. Copy the file again.")
        yield None if kind >= codec.first_pause else header + body
        n += 1
