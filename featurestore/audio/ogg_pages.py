"""Ogg as pages (RFC 3533): the links of a chained file, which streams each holds, and how long they are."""

import mmap
from dataclasses import dataclass

MAX_JUNK_BYTES = 1 << 16
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


def links_of(data: bytes | mmap.mmap) -> list[Link]:
    """Return the links of a file that begins with an Ogg page: pages that begin streams, in a row, open one."""
    links: list[Link] = []
    start, at, opening = 0, 0, False
    codecs: dict[int, str] = {}
    granules: dict[int, tuple[int, bool]] = {}
    while (at := _page(data, at)) >= 0:
        flags, serial = data[at + 5], int.from_bytes(data[at + 14 : at + 18], "little")
        n_segments = data[at + 26]
        body = at + 27 + n_segments
        size = sum(data[at + 27 : body])
        begins = bool(flags & 2)
        if begins and not opening and codecs:
            links.append(_link(start, at, codecs, granules))
            start, codecs, granules = at, {}, {}
        if begins:
            head = bytes(data[body : body + 16])
            codecs[serial] = next((name for magic, name in CODECS.items() if head.startswith(magic)), "")
        opening = begins
        granule = int.from_bytes(data[at + 6 : at + 14], "little", signed=True)
        if serial in codecs and body + size <= len(data):
            before = granules.get(serial, (0, False))[0]
            granules[serial] = (before if granule < 0 else granule, bool(flags & 4))
        at = body + size
    if codecs:
        links.append(_link(start, len(data), codecs, granules))
    return links


def _link(start: int, stop: int, codecs: dict[int, str], granules: dict[int, tuple[int, bool]]) -> Link:
    first = next((s for s, codec in codecs.items() if codec not in ("video", "skeleton", "")), None)
    granule, ended = granules.get(first, (0, False)) if first is not None else (0, True)
    return Link(start, stop, tuple(codecs.values()), granule, ended)


def _page(data: bytes | mmap.mmap, at: int) -> int:
    """Where the page at or shortly behind `at` begins, -1 where none does."""
    if data[at : at + 4] != b"OggS":
        at = data.find(b"OggS", at, at + MAX_JUNK_BYTES)
    return at if at >= 0 and at + 27 <= len(data) and at + 27 + data[at + 26] <= len(data) else -1
