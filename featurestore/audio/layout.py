"""Which decoder reads a file, and which bytes of it: the file's own structure decides, never what a decoder claims.

libsndfile reads WAV, AIFF, FLAC and Ogg fast and exactly, but guesses where a length is not in the header, reads the
first link of a chain alone, and knows neither the phone's nor the video's containers. FFmpeg (PyAV) reads the rest, and
MP3: of that libsndfile guesses the length, and read block by block, as soundfile does it, gives other samples for some
60 ms at the beginning of each block, since it loses what a frame takes from the frames before.
"""

import io
import mmap
import os
import stat
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from featurestore.audio import chunks, mpeg_frames, ogg_pages, sndfile
from featurestore.audio.parts import AMR, FFMPEG, SNDFILE, Layout, Part
from featurestore.errors import AudioError

GSM_FRAME_BYTES = 33
LFS_POINTER = b"version https://git-lfs"
# Containers that libsndfile knows by their first bytes and that tell their length.
SNDFILE_MAGIC = (b".snd", b"dns.", b"NIST_1A", b"caff", b"riff\x2e\x91\xcf\x11")
# Matroska and WebM, ASF, MPEG program streams, FLV, NUT, RealMedia, WavPack, TTA, VOC (of whose blocks libsndfile takes
# the later headers for samples). MP4 has its first box's name behind the size, MPEG-TS a mark every 188 bytes.
FFMPEG_MAGIC = (
    b"\x1aE\xdf\xa3",
    b"0&\xb2u\x8ef\xcf\x11",
    b"\x00\x00\x01\xba",
    b"FLV\x01",
    b"nut/multimedia container",
    b".RMF",
    b"wvpk",
    b"TTA1",
    b"Creative Voice File",
)
MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
TS_BYTES = 188
HEAD_BYTES = 1024  # of a file, looked at first
HOLLOW_BYTES, HOLLOW_SHARE = 1 << 28, 0.1  # from which size on, and of which less must be written
KEPT = 4096  # layouts that stay in memory


def layout_of(path: Path) -> Layout:
    """Return how a file is to be decoded; AudioError for one that is missing, empty, no file, or no audio."""
    try:
        status = os.stat(path)
    except PermissionError as error:
        raise AudioError(f"{path}: not readable ({error.strerror}). Change its permissions.") from None
    except (OSError, ValueError):
        raise AudioError(
            f"{path}: no such file. Check the path; in a manifest, its column path and the corpus root."
        ) from None
    if not stat.S_ISREG(status.st_mode):
        raise AudioError(f"{path}: is not a regular file, expected an audio file.")
    if status.st_size == 0:
        raise AudioError(f"{path}: the file is empty (0 bytes). Copy it again.")
    return _layout(os.fspath(path), status.st_size, status.st_mtime_ns)


def forget() -> None:
    """Drop the layouts in memory, so that every file is looked at again."""
    _layout.cache_clear()


@lru_cache(KEPT)
def _layout(name: str, n_bytes: int, mtime_ns: int) -> Layout:
    try:
        with io.FileIO(name) as file:
            if n_bytes > HOLLOW_BYTES:
                _refuse_hollow(name, file)
            layout = _of_head(name, file, n_bytes)
            if layout is not None:
                return layout
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _of_bytes(name, data)
    except PermissionError as error:
        raise AudioError(f"{name}: not readable ({error.strerror}). Change its permissions.") from None
    except OSError as error:
        raise sndfile.not_read(error, f"{name}: not readable ({error.strerror or error}).") from None


def _of_head(name: str, file: io.FileIO, n_bytes: int) -> Layout | None:
    """Return a file's layout by its first bytes and its chunks; None where more of it has to be read."""
    head = file.read(HEAD_BYTES)
    if head.startswith(LFS_POINTER):
        raise AudioError(f"{name}: is a Git LFS pointer, not audio. Run `git lfs pull` in the corpus's repository.")
    if head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE":
        return _wave(name, _read(chunks.read_wave, name, head, n_bytes))
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        header = _read(chunks.read_aiff, name, head, n_bytes)
        # libsndfile decodes IMA4 with errors, also what it wrote itself.
        return _chunked(header, FFMPEG if header is not None and header.tag == chunks.IMA else SNDFILE, name)
    if head.startswith(b"#!AMR"):
        return Layout((Part(AMR),))
    if head.startswith(SNDFILE_MAGIC):
        return Layout((Part(SNDFILE if sndfile.opens(name) else FFMPEG),))
    return _flac(head) if head.startswith(b"fLaC") else None


def _refuse_hollow(name: str, file: io.FileIO) -> None:
    """Raise AudioError for a file of which hardly anything was ever written; decoders would look through all of it."""
    status = os.fstat(file.fileno())
    written = getattr(status, "st_blocks", status.st_size) * 512
    if written < status.st_size * HOLLOW_SHARE:
        raise AudioError(
            f"{name}: of its {status.st_size:,} bytes {written:,} were written, the rest is a hole. Copy it again."
        )


def _read(
    read: Callable[[BinaryIO, int], chunks.Chunks | None], name: str, head: bytes, n_bytes: int
) -> chunks.Chunks | None:
    """Return a file's chunks by its first bytes, or by more where notes or pictures precede the samples."""
    header = read(io.BytesIO(head), n_bytes)
    if header is None and n_bytes > len(head):
        with open(name, "rb") as file:
            return read(file, n_bytes)
    return header


def _of_bytes(name: str, data: mmap.mmap) -> Layout:
    head = bytes(data[:HEAD_BYTES])
    if head.startswith(b"OggS"):
        return _ogg(name, data)
    if _is_container(head):  # which may hold frames of MP3, too
        return Layout((Part(FFMPEG),))
    offset = 0
    while offset < len(data) and data[offset : offset + 3] == b"ID3" and (size := mpeg_frames.tag_size(data, offset)):
        offset += size
    if data[offset : offset + 4] == b"fLaC":
        return _flac(data[offset : offset + 64])
    first = mpeg_frames.first_frame(data)
    if first >= 0:
        return _mpeg(name, data)
    if name.lower().endswith(".gsm") and _is_raw_gsm(data):
        return Layout((Part(FFMPEG, format="gsm", rate_hz=8000),))
    return Layout((Part(FFMPEG, nameless=not head.startswith(b"RIFF")),))


def _is_container(head: bytes) -> bool:
    """Whether FFmpeg knows a file by its first bytes."""
    is_mpeg_ts = len(head) > 3 * TS_BYTES and all(head[i * TS_BYTES] == 0x47 for i in range(4))
    is_avi = head[:4] == b"RIFF" and head[8:12] == b"AVI "
    return head.startswith(FFMPEG_MAGIC) or head[4:8] in MP4_BOXES or is_mpeg_ts or is_avi


def _flac(stream: bytes) -> Layout:
    # STREAMINFO: 36 bits of total samples, 0 where the writer never knew (RFC 9639).
    total = int.from_bytes(stream[21:26], "big") & 0xFFFFFFFFF
    return Layout((Part(SNDFILE, seeks=True, finite=True) if total else Part(FFMPEG),))


def _wave(name: str, header: chunks.Chunks | None) -> Layout:
    if header is None:
        return _chunked(header, SNDFILE, name)
    is_plain = header.tag in (*chunks.INTEGERS, chunks.FLOAT)
    # libsndfile takes a size of 0 at its word.
    decoder = SNDFILE if is_plain and header.size else FFMPEG
    return _chunked(header, decoder, name, finite=header.tag in chunks.INTEGERS)


def _chunked(header: chunks.Chunks | None, decoder: str, name: str, *, finite: bool = False) -> Layout:
    if header is None:
        raise AudioError(
            f"{name}: not audio that can be decoded (a WAV or AIFF header without format or samples). Export it again."
        )
    truncated = ""
    if header.missing:
        truncated = f"the header promises {header.size} bytes of samples, {header.n_available} are there"
    n_samples = header.n_fact if header.tag in chunks.BLOCK_CODED and not header.open_length else None
    # RF64 from a pipe, which says 0 samples in 64 bits: as plain WAV it goes on to the file's end.
    head = b"RIFF" if header.unknown_long else b""
    return Layout(
        (
            Part(
                decoder,
                n_samples=n_samples or None,
                head=head,
                seeks=decoder == SNDFILE and header.tag not in chunks.BLOCK_CODED,
                finite=finite,
            ),
        ),
        truncated,
    )


def _ogg(name: str, data: mmap.mmap) -> Layout:
    """Each link by itself, since decoders take the first link's rate and delay for the others', or end there."""
    links = ogg_pages.links_of(data, name)
    parts = []
    for link in links:
        is_single = len(links) == 1
        start, stop = (0, None) if is_single else (link.start, link.stop)
        sound = link.sound
        # The end of a recorded radio stream is where the recorder was stopped, so only a single link must have an end.
        if len(link.codecs) == 1 and sound in (["vorbis"], ["opus"]):
            parts.append(Part(SNDFILE, start, stop, ended=link.ended or not is_single))
        elif len(link.codecs) == 1 and sound == ["speex"]:
            parts.append(Part(FFMPEG, start, stop, n_samples=link.granule or None, ended=link.ended or not is_single))
        else:
            parts.append(Part(FFMPEG, start, stop, ended=link.ended or not is_single))
    return Layout(tuple(parts) or (Part(FFMPEG),))


def _mpeg(name: str, data: mmap.mmap) -> Layout:
    mpeg_parts = mpeg_frames.parts_of(data, name)
    parts, truncated = [], ""
    for part in mpeg_parts:
        if part.n_frames + 1 < part.n_promised:
            truncated = f"the header promises {part.n_promised} frames, {part.n_frames} are there"
        # The decoder gives a frame less where a tag counts one too many, or less padding than the decoder's delay.
        least = part.n_samples - part.frame_samples * (part.n_padding > 0 or part.n_promised > part.n_frames)
        parts.append(Part(FFMPEG, part.start, part.stop, part.n_samples, least, part.rate_hz, "mp3"))
    return Layout(tuple(parts), truncated)


def _is_raw_gsm(data: mmap.mmap) -> bool:
    """Whether every frame of headerless GSM 06.10 has its mark, the nibble 0xD."""
    return len(data) % GSM_FRAME_BYTES == 0 and all(
        data[at] >> 4 == 0xD for at in range(0, min(len(data), 1000 * GSM_FRAME_BYTES), GSM_FRAME_BYTES)
    )
