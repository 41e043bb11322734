"""MPEG audio layer III as bytes: which parts a file consists of, found by walking its frame headers.

A part begins where an encoder began: at the first frame, or at one that holds a Xing, Info or VBRI tag and no sound.
The tag's frame count says where a part ends; without a tag it ends with the file. Decoders that trust a tag, or guess a
length from the first frame, are wrong for files from a pipe (no tag) and for joined files (a tag for each).
"""

import mmap
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from featurestore.errors import AudioError

MAX_JUNK_BYTES = 1 << 16  # between frames; more, and what follows is not looked for
MAX_SURPLUS = 2  # frames behind those that a tag counts, which are no part of their own
TAG_BYTES = 156  # of a Xing tag with all its fields and the extension
TAGS = (b"Xing", b"Info", b"VBRI")
LAMES = (b"LAME", b"Lavf", b"Lavc")  # FFmpeg reads the extension of these encoders, and counts without it for others
MIN_FRAMES = 3  # in a row, for bytes to be taken for MPEG audio
KBPS = {
    1: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
}
RATES_HZ = {3: (44_100, 48_000, 32_000, 0), 2: (22_050, 24_000, 16_000, 0), 0: (11_025, 12_000, 8_000, 0)}


@dataclass(frozen=True)
class MpegPart:
    """One encoder's output: bytes [start, stop), and its frames with sound.

    n_promised: frames by the tag, n_frames where it has none. n_padding: samples of these that the tag says are the
    encoder's delay and padding.
    """

    start: int
    stop: int
    n_frames: int
    frame_samples: int
    rate_hz: int
    n_promised: int
    n_padding: int

    @property
    def n_samples(self) -> int:
        """Samples that count."""
        return max(0, self.n_frames * self.frame_samples - self.n_padding)


def frame_size(data: bytes | mmap.mmap, offset: int) -> tuple[int, int, int] | None:
    """Return (bytes, samples, rate in Hz) of the layer III frame whose header is at `offset`, None if there is none."""
    if offset + 4 > len(data) or data[offset] != 0xFF:
        return None
    return _frame_by_header(data[offset + 1], data[offset + 2])


@lru_cache(None)
def _frame_by_header(b1: int, b2: int) -> tuple[int, int, int] | None:
    """Return what `frame_size` does, of the second and third byte of a header."""
    version = b1 >> 3 & 3
    if b1 & 0xE6 != 0xE2 or version == 1:  # sync and layer III
        return None
    kbps, rate_hz = KBPS[1 if version == 3 else 2][b2 >> 4], RATES_HZ[version][b2 >> 2 & 3]
    if not kbps or not rate_hz:
        return None
    samples = 1152 if version == 3 else 576
    return samples // 8 * kbps * 1000 // rate_hz + (b2 >> 1 & 1), samples, rate_hz


def tag_size(data: bytes | mmap.mmap, offset: int) -> int:
    """Return the bytes of the ID3v1, ID3v2, APE or Lyrics3 tag that begins at `offset`, 0 where none does."""
    head = bytes(data[offset : offset + 32])
    if head[:3] == b"ID3" and len(head) >= 10 and max(head[6:10]) < 128:
        size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
        return 10 + size + (10 if head[5] & 0x10 else 0)
    if head[:3] == b"TAG":
        return 128
    if head[:8] == b"APETAGEX" and len(head) == 32:
        size = int.from_bytes(head[12:16], "little")
        return size + (32 if head[23] & 0x20 else 0)
    return 0


def first_frame(data: bytes | mmap.mmap) -> int:
    """Return where the first of MIN_FRAMES layer III frames in a row begins, -1 where the file doesn't begin so."""
    offset = 0
    while size := tag_size(data, offset):
        offset += size
    limit = min(len(data), offset + MAX_JUNK_BYTES)
    while offset < limit:
        place, parameters = offset, None
        for i in range(MIN_FRAMES):
            frame = frame_size(data, place)
            if frame is None or (parameters is not None and frame[1:] != parameters):
                break
            parameters, place = frame[1:], place + frame[0]
            if place >= len(data):
                return offset if i or place == len(data) else -1
        else:
            return offset
        offset = data.find(b"\xff", offset + 1, limit)
        if offset < 0:
            return -1
    return -1


def parts_of(data: bytes | mmap.mmap, path: object) -> list[MpegPart]:
    """Return the parts of a file whose first frame `first_frame` found; AudioError where bytes between frames are lost.

    Tags of any kind between, before and after the frames are passed over; a frame that the file's end cuts is dropped.
    """
    parts: list[MpegPart] = []
    offset, end, tags = first_frame(data), len(data), _tag_places(data)
    while offset < end:
        frame = frame_size(data, offset)
        if frame is None:
            if size := tag_size(data, offset):
                offset += size
                continue
            following = _next_frame(data, offset)
            if following < 0:
                break  # what follows the last frame: padding, Lyrics3, a picture
            seconds = sum(part.n_frames * part.frame_samples / part.rate_hz for part in parts)
            raise AudioError(
                f"{path}: damaged, {following - offset} bytes after {seconds:.3f} s are no MPEG audio, but frames "
                "follow. Copy or convert it again."
            )
        part = _part(data, offset, tags, *frame)
        parts.append(part)
        offset = part.stop
    return [part for part in parts if part.n_frames]


def _tag_places(data: bytes | mmap.mmap) -> list[int]:
    """Return where the words stand by which a frame's tag is known, in order."""
    places = []
    for word in TAGS:
        offset = data.find(word)
        while offset >= 0:
            places.append(offset)
            offset = data.find(word, offset + 1)
    return sorted(places)


def _part(data: bytes | mmap.mmap, start: int, tags: Sequence[int], size: int, samples: int, rate_hz: int) -> MpegPart:
    """Return one part, from its first frame on; tags: see `_tag_places`."""
    promised = _promised(data, start, size)
    padding = _padding(data, start) if promised else 0
    offset, end, n = start + size if promised is not None else start, len(data), 0
    while offset < end and (promised is None or not promised or n < promised):
        frame = frame_size(data, offset)
        if frame is None or frame[1:] != (samples, rate_hz) or offset + frame[0] > end:
            if frame is not None and offset + frame[0] > end:
                end = offset  # cut
                return MpegPart(start, len(data), n, samples, rate_hz, promised or n, padding)
            break
        following = bisect(tags, offset) if n and tags else len(tags)
        if (
            following < len(tags)
            and tags[following] < offset + frame[0]
            and _promised(data, offset, frame[0]) is not None
        ):
            break
        n, offset = n + 1, offset + frame[0]
    if promised and n == promised:
        offset = _past_surplus(data, offset)
    return MpegPart(start, offset, n, samples, rate_hz, promised or n, padding)


def _past_surplus(data: bytes | mmap.mmap, offset: int) -> int:
    """Behind the one or two frames that some encoders leave out of their count; `offset` where more follow."""
    place, n = offset, 0
    while (frame := frame_size(data, place)) is not None and _promised(data, place, frame[0]) is None:
        n, place = n + 1, place + frame[0]
        if n > MAX_SURPLUS:
            return offset
    return min(place, len(data))


def _promised(data: bytes | mmap.mmap, offset: int, size: int) -> int | None:
    """Return the number of frames that a frame's tag gives: 0 if it gives none, None if there is no tag."""
    tag = _tag(data, offset)
    if len(tag) >= 12:
        return int.from_bytes(tag[8:12], "big") if tag[7] & 1 else 0
    tag = bytes(data[offset + 36 : offset + 36 + 18])
    if tag[:4] == b"VBRI" and len(tag) == 18:
        return int.from_bytes(tag[14:18], "big")
    return None


def _padding(data: bytes | mmap.mmap, offset: int) -> int:
    """Return the samples of delay and padding by the extension of LAME, which FFmpeg's encoder writes too; else 0."""
    tag = _tag(data, offset)
    if not tag:
        return 0
    place = 8 + 4 * (tag[7] & 1) + 4 * (tag[7] >> 1 & 1) + 100 * (tag[7] >> 2 & 1) + 4 * (tag[7] >> 3 & 1)
    if tag[place : place + 4] not in LAMES or len(tag) < place + 24:
        return 0
    delay_and_padding = int.from_bytes(tag[place + 21 : place + 24], "big")
    return (delay_and_padding >> 12) + (delay_and_padding & 0xFFF)


def _tag(data: bytes | mmap.mmap, offset: int) -> bytes:
    """Return the Xing or Info tag in the frame at a place, and what follows it, b"" where it has none."""
    mpeg1, mono = data[offset + 1] >> 3 & 3 == 3, data[offset + 3] >> 6 == 3
    side = (17 if mono else 32) if mpeg1 else (9 if mono else 17)
    for place in (offset + 4 + side, offset + 6 + side):  # behind a checksum, where there is one
        if data[place : place + 4] in (b"Xing", b"Info"):
            return bytes(data[place : place + TAG_BYTES])
    return b""


def _next_frame(data: bytes | mmap.mmap, offset: int) -> int:
    """Where the next two frames in a row begin within MAX_JUNK_BYTES, -1 where none do."""
    limit = min(len(data), offset + MAX_JUNK_BYTES)
    while 0 <= offset < limit:
        frame = frame_size(data, offset)
        if frame is not None and (following := frame_size(data, offset + frame[0])) and following[1:] == frame[1:]:
            return offset
        offset = data.find(b"\xff", offset + 1, limit)
    return -1
