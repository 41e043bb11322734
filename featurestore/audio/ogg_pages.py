"""Ogg as pages (RFC 3533): the links of a chained file, which streams each holds, and how long they are.

Decoders drop a page that is damaged or missing without a word, and what follows moves forward by as much.
"""

import mmap
import zlib
from dataclasses import dataclass

from featurestore.errors import AudioError

MAX_JUNK_BYTES = 1 << 16
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))  # each byte with its bits in the other order
# What the first packet of a stream begins with.
CODECS = {
    b"\x01vorbis": "vorbis", b"OpusHead": "opus", b"\x7fFLAC": "flac", b"Speex   ": "speex", b"\x80theora": "video",
    b"\x01video": "video", b"BBCD": "video", b"fishead": "skeleton",
}  # fmt: skip


@dataclass(frozen=True)
class Link:
    """One link of a chain: bytes [start, stop), codec by stream, last granule position and end mark by stream."""

    start: int
    stop: int
    codecs: tuple[str, ...]
    granule: int  # of the first stream with sound
    ended: bool  # whether that stream's last page says so

    @property
    def sound(self) -> list[str]:
        """The codecs of its streams of sound."""
        return [codec for codec in self.codecs if codec not in ("video", "skeleton", "")]


def links_of(data: bytes | mmap.mmap, path: object) -> list[Link]:
    """Return the links of a file that begins with an Ogg page: pages that begin streams, in a row, open one.

    AudioError for a page in the middle whose checksum is not its own, and where pages are missing.
    """
    links: list[Link] = []
    start, offset, opening = 0, 0, False
    codecs: dict[int, str] = {}
    granules: dict[int, tuple[int, bool]] = {}
    sequence: dict[int, int] = {}
    behind = 0
    while (offset := _page(data, offset)) >= 0:
        if offset != behind:
            raise _damaged(path, behind, offset - behind)
        flags, serial = data[offset + 5], int.from_bytes(data[offset + 14 : offset + 18], "little")
        n_segments = data[offset + 26]
        body = offset + 27 + n_segments
        size = sum(data[offset + 27 : body])
        number = int.from_bytes(data[offset + 18 : offset + 22], "little")
        begins = bool(flags & 2)
        is_complete = body + size <= len(data)
        if is_complete and (
            not _sound(data, offset, body + size) or (not begins and sequence.get(serial, number - 1) + 1 != number)
        ):
            raise _damaged(path, offset, size)
        sequence[serial] = number
        if begins and not opening and codecs:
            links.append(_link(start, offset, codecs, granules))
            start, codecs, granules = offset, {}, {}
        if begins:
            head = bytes(data[body : body + 16])
            codecs[serial] = next((name for magic, name in CODECS.items() if head.startswith(magic)), "")
        opening = begins
        granule = int.from_bytes(data[offset + 6 : offset + 14], "little", signed=True)
        if serial in codecs and is_complete:
            before = granules.get(serial, (0, False))[0]
            granules[serial] = (before if granule < 0 else granule, bool(flags & 4))
        offset = behind = body + size
    if codecs:
        links.append(_link(start, len(data), codecs, granules))
    return links


def _damaged(path: object, offset: int, n_bytes: int) -> AudioError:
    return AudioError(
        f"{path}: damaged, {n_bytes} bytes from byte {offset} on are not the Ogg page that was there. Copy it again."
    )


def _sound(data: bytes | mmap.mmap, offset: int, stop: int) -> bool:
    """Whether a page has its own checksum: CRC-32 as zlib's, but from the highest bit on, and from zero."""
    page = data[offset : offset + 22] + bytes(4) + data[offset + 26 : stop]
    crc = zlib.crc32(page.translate(REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{crc:032b}"[::-1], 2) == int.from_bytes(data[offset + 22 : offset + 26], "little")


def _link(start: int, stop: int, codecs: dict[int, str], granules: dict[int, tuple[int, bool]]) -> Link:
    first = next((s for s, codec in codecs.items() if codec not in ("video", "skeleton", "")), None)
    granule, ended = granules.get(first, (0, False)) if first is not None else (0, True)
    return Link(start, stop, tuple(codecs.values()), granule, ended)


def _page(data: bytes | mmap.mmap, offset: int) -> int:
    """Where the page at or shortly behind `offset` begins, -1 where none does."""
    if data[offset : offset + 4] != b"OggS":
        offset = data.find(b"OggS", offset, offset + MAX_JUNK_BYTES)
    return offset if offset >= 0 and offset + 27 <= len(data) and offset + 27 + data[offset + 26] <= len(data) else -1
