"""RIFF/WAVE and AIFF as chunks: how the samples are coded, how many there are, and whether the header knows it."""

import struct
from dataclasses import dataclass
from typing import BinaryIO

# What recorders write for a length that they don't know yet and, writing to a pipe, never learn: FFmpeg and others
# 0xFFFFFFFF or a header less, SoX 0x7FFFF000 (WAV) and 0x7F000000 (AIFF) with the header added or taken off, arecord
# 2 GiB less a header, GStreamer and Python's wave 0.
OPEN_SIZES = ((0x7FFFE000, 0x80001000), (0xFFFFF000, 0xFFFFFFFF))
OPEN_SIZES_AIFF = (*OPEN_SIZES, (0x7F000000 - 0x1000, 0x7F000000 + 0x1000))
PCM, FLOAT, ALAW, MULAW, IMA, EXTENSIBLE = 0x0001, 0x0003, 0x0006, 0x0007, 0x0011, 0xFFFE
# libsndfile reads these, in whole blocks. FFmpeg takes the halves of the bytes of G.721 in the other order.
BLOCK_CODED = {
    0x0002: "MS ADPCM",
    IMA: "IMA ADPCM",
    0x0031: "GSM 6.10",
    0x0038: "NMS ADPCM",
    0x0040: "G.721",
}
INTEGERS = (PCM, ALAW, MULAW, *BLOCK_CODED)  # codecs whose samples are decoded from integers
MAX_CHUNKS = 1000


@dataclass(frozen=True)
class Chunks:
    """What a WAV or AIFF header says: codec tag, rate, data size as written and as the file has it, samples by `fact`.

    open_length: the size is none, the samples go on to the file's end. unknown_long: so says the size of 64 bits.
    """

    tag: int
    rate_hz: int
    size: int
    n_available: int
    n_fact: int | None
    open_length: bool
    unknown_long: bool = False

    @property
    def missing(self) -> int:
        """Bytes of samples that the header promises and the file doesn't have."""
        return 0 if self.open_length else max(0, self.size - self.n_available)


def read_wave(file: BinaryIO, n_bytes: int) -> Chunks | None:
    """Return the chunks of a RIFF, RIFX or RF64 WAVE file, None where it has no format or no data."""
    file.seek(0)
    head = file.read(12)
    order = ">" if head[:4] == b"RIFX" else "<"
    tag = rate_hz = 0
    n_fact = long_size = None
    offset = 12
    for _ in range(MAX_CHUNKS):
        file.seek(offset)
        header = file.read(8)
        if len(header) < 8:
            return None
        name, size = struct.unpack(f"{order}4sI", header)
        if name == b"data":
            if not rate_hz:
                return None
            n_available = n_bytes - offset - 8
            unknown_long = size == 0xFFFFFFFF and long_size == 0  # RF64 from a pipe
            if size == 0xFFFFFFFF and long_size:
                size = long_size
            open_length = (size > n_available and _is_open(size, OPEN_SIZES)) or (size == 0 and n_available > 0)
            return Chunks(tag, rate_hz, size, n_available, n_fact, open_length, unknown_long)
        body = file.read(min(size, 64))
        if name == b"fmt " and len(body) >= 16:
            tag, _, rate_hz = struct.unpack(f"{order}HHI", body[:8])
            if tag == EXTENSIBLE and len(body) >= 26:
                tag = struct.unpack(f"{order}H", body[24:26])[0]
        elif name == b"fact" and len(body) >= 4:
            n_fact = struct.unpack(f"{order}I", body[:4])[0]
        elif name == b"ds64" and len(body) >= 24:
            long_size = struct.unpack("<Q", body[8:16])[0]
        offset += 8 + size + (size & 1)
    return None


def read_aiff(file: BinaryIO, n_bytes: int) -> Chunks | None:
    """Return the chunks of an AIFF or AIFC file, None where it has no COMM or no SSND.

    tag: IMA of Apple's ima4, PCM of any other codec.
    """
    tag = 0
    offset = 12
    for _ in range(MAX_CHUNKS):
        file.seek(offset)
        header = file.read(8)
        if len(header) < 8:
            return None
        name, size = struct.unpack(">4sI", header)
        if name == b"SSND":
            n_available = n_bytes - offset - 8
            open_length = (size > n_available and _is_open(size, OPEN_SIZES_AIFF)) or size <= 8 < n_available
            return Chunks(tag, 0, size, n_available, None, open_length) if tag else None
        if name == b"COMM":
            tag = IMA if file.read(min(size, 22))[18:] == b"ima4" else PCM
        offset += 8 + size + (size & 1)
    return None


def _is_open(size: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(low <= size <= high for low, high in ranges)
