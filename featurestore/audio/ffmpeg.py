"""Blocks of samples by PyAV (FFmpeg's libraries in its wheel), at the stream's own rate, channels averaged.

PyAV 18.1 is a wheel of 36 MB, 104 MB installed (torch's CPU build is 700), and 0.2 s to import: it is a dependency like
the others, and imported when the first file asks for it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.audio.amr import LAYOUTS, AmrCodec, file_frames, frames_of
from featurestore.audio.opus import OpusLead
from featurestore.audio.parts import AMR, Part
from featurestore.audio.sndfile import BLOCK_FRAMES, Block, Bytes, not_read
from featurestore.errors import AudioError

if TYPE_CHECKING:
    from av.audio.fifo import AudioFifo
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

AV_TIME_BASE = 1_000_000  # of a container's own times
JOINED_FRAMES = 256  # a decoder's frames are a few hundred samples; they are averaged and handed on together
BUFFER_BYTES = 1 << 17
STUCK_S = 60.0  # after which a search for the next packet is given up
# Two of the longest frames: by so much at most is decoded audio longer than what a container states.
TRIM_SAMPLES = 4096
# Only what holds sound: no playlists, which name other files, and no format that a name alone can stand for.
DEMUXERS = (
    "wav,w64,aiff,flac,ogg,mp3,aac,loas,latm,ac3,eac3,dts,dtshd,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,asf,asf_o,flv,live_flv,"
    "mpeg,mpegts,mpegvideo,caf,au,wv,tta,ape,tak,mpc,mpc8,rm,voc,gsm,nistsphere,amr,mp2,dsf,iff,nut,mxf,ircam,truehd,mlp,shn"
)
# Here the last packet is as long as what is left, and FFmpeg calls it corrupt.
RAW = (
    "wav", "w64", "aiff", "au", "caf", "voc", "mp3", "aac", "loas", "ac3", "eac3", "dts", "flac", "gsm", "nistsphere",
)  # fmt: skip
# Containers whose stated length is the sound track's own, and exact; others state that of the pictures, or an estimate.
EXACT = ("mov", "wv", "tta")
# Containers with a time for each packet, by which a gap shows; that of broadcasts may jump without one.
TIMED = ("matroska", "flac", "asf")
GAP_S = 0.1
EDIT_UNIT_S = Fraction(1, 1000)  # in which most writers of MP4 state an edit's length
SHORT_S = 0.2  # by which a sound track may be shorter than what a container says of its length
HEADER_BYTES = 4096
OPEN_RIFF = 0x7FFFF000  # from which on the size of a RIFF file is a placeholder
MATROSKA_DURATIONS = (b"\x44\x89\x84", b"\x44\x89\x88")  # the element Duration, a float of 4 or 8 bytes
# Codecs with a checksum for each frame, which FFmpeg compares when it is asked to.
CHECKED = ("flac", "wavpack")
# FFmpeg drops two frames of any WMA for a delay that its own encoder doesn't have, so that 32 ms would be lost there;
# and the end of ALAC in CAF twice: the last packet says how short it is, and so does the header.
# By codec: the container where it is so, "" for every one.
KEPT_WHOLE = {"wmav1": "", "wmav2": "", "alac": "caf"}
INTEGERS = {"u8": (128.0, 128.0), "s16": (0.0, 2.0**15), "s32": (0.0, 2.0**31)}


def blocks(path: Path, part: Part, first: int = 0) -> Iterator[Block]:
    """Yield (rate in Hz, (n,) float32) of the first sound track, from native sample `first` on; AudioError as usual."""
    if part.decoder == AMR:
        codec, frames = file_frames(path)
        yield from _from(_joined(path, _amr_frames(frames, codec)), first)
    else:
        yield from _from(_blocks(path, part), first)


def size(path: Path, part: Part) -> tuple[int, int]:
    """Return (samples, rate in Hz): by the container where it states them exactly, else by decoding."""
    if (stated := stated_size(path, part)) is not None:
        return stated
    n, rate_hz = 0, 1
    for hz, block in blocks(path, part):
        n, rate_hz = n + len(block), hz
    return n, rate_hz


def stated_size(path: Path, part: Part) -> tuple[int, int] | None:
    """Return (samples, rate in Hz) where the container states them exactly, None where it has to be decoded."""
    if part.decoder == AMR:
        codec, frames = file_frames(path)
        return sum(1 for _ in frames) * codec.frame_samples, codec.rate_hz
    if part.n_samples and part.rate_hz:
        return part.n_samples, part.rate_hz
    with _opened(path, part) as (container, stream):
        stated_s = _stated_s(path, part, container, stream)
    if stated_s and (rate_hz := _rate_hz(path, part)):
        return round(stated_s * rate_hz), rate_hz
    return None


def tracks(path: Path, part: Part) -> list[str]:
    """Return the sound tracks of a file, in order, each as `codec language title`."""
    if part.decoder == AMR:
        return [file_frames(path)[0].name]
    with _opened(path, part) as (container, _):
        return [
            " ".join(f"{s.codec_context.name} {s.metadata.get('language', '')} {s.metadata.get('title', '')}".split())
            for s in container.streams.audio
            if s.codec_context is not None
        ]


def version() -> str:
    """Return the versions of the decoder, for records."""
    av = load()
    codec = ".".join(str(number) for number in av.library_versions["libavcodec"])
    return f"PyAV {av.__version__} (libavcodec {codec})"


def load() -> Any:
    """Import PyAV; AudioError says how to install it."""
    try:
        import av
    except ImportError as error:
        raise AudioError(
            f"PyAV is needed for this file, and can't be imported ({error}). Install it: pip install av"
        ) from None
    return av


def _blocks(path: Path, part: Part) -> Iterator[Block]:
    n_decoded, rate_hz = 0, 1
    with _opened(path, part) as (container, stream):
        late_s, stated_s = _late_s(container, stream), _stated_s(path, part, container, stream)
        skip, least_s = _skip(path, part, stream), _least_s(path, container, stream)
        sound = _from(_joined(path, _frames(path, container, stream)), skip)
        for block in _trimmed(_silence_before(sound, late_s), part.n_samples, stated_s):
            n_decoded, rate_hz = n_decoded + len(block[1]), block[0]
            yield block
    promised = max(part.n_least, round(stated_s * rate_hz), round(least_s * rate_hz))
    slack = 0 if part.n_least else SHORT_S * rate_hz if least_s else TRIM_SAMPLES
    if n_decoded < promised - slack:
        raise AudioError(
            f"{path}: truncated or damaged, the container promises {promised} samples, {n_decoded} are there. Copy the "
            "file again."
        )
    if not part.ended:
        raise AudioError(f"{path}: truncated, the last page lacks its end-of-stream mark. Copy the file again.")


def _joined(path: Path, frames: Iterator[AudioFrame]) -> Iterator[Block]:
    """Yield the blocks of JOINED_FRAMES frames of one kind; AudioError where FFmpeg can't go on."""
    av = load()
    seconds, n = 0.0, 0
    kind, time_base = (0, "", 0), Fraction(0)
    joined = av.AudioFifo()
    try:
        for frame in frames:
            if n == JOINED_FRAMES or (n and _kind(frame) != kind):
                yield _mono(joined)
                joined, n = av.AudioFifo(), 0
            if not n:
                kind = _kind(frame)
                time_base = Fraction(1, frame.sample_rate)
            # Frames are joined end to end, whatever their times: a fifo refuses gaps, and times in another unit.
            frame.pts, frame.time_base = None, time_base
            joined.write(frame)
            n += 1
            seconds += frame.samples / frame.sample_rate
    except av.FFmpegError as error:
        raise not_read(
            error,
            f"{path}: decoding failed after {seconds:.3f} s ({_reason(error)}); the file is truncated or damaged. Copy "
            "or convert it again.",
        ) from None
    if n:
        yield _mono(joined)


def _frames(path: Path, container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
    """Yield the decoded frames of a stream; AMR packets are taken apart, since FFmpeg knows no pauses in them."""
    name = stream.codec_context.name
    if name in LAYOUTS:
        codec = LAYOUTS[name]
        packets = (bytes(packet) for packet in container.demux(stream) if packet.size)
        yield from _amr_frames(chain.from_iterable(frames_of(data, codec, path) for data in packets), codec)
        return
    lead = OpusLead(stream.codec_context) if name in ("opus", "libopus") else None
    corrupt_last = container.format.name in RAW
    timed = container.format.name.startswith(TIMED)
    reached = math.inf
    for packet in container.demux(stream):
        if packet.is_corrupt and not corrupt_last:
            raise AudioError(f"{path}: truncated or damaged at packet {packet.pts}. Copy or convert the file again.")
        frames = packet.decode()
        for frame in frames if timed else ():
            if frame.time is not None:
                if frame.time - reached > GAP_S:
                    raise AudioError(
                        f"{path}: damaged or with a gap, no sound from {reached:.3f} to {frame.time:.3f} s. Copy it "
                        "again, or fill the gap with silence: `ffmpeg -i FILE -af aresample=async=1 FILE.wav`."
                    )
                reached = frame.time + frame.samples / frame.sample_rate
        yield from frames if lead is None else lead.dropped(packet, frames)


def _amr_frames(frames: Iterator[bytes | None], codec: AmrCodec) -> Iterator[AudioFrame]:
    """Decode frame by frame: silence of a frame's length where there is no speech, so that the time line holds."""
    av = load()
    decoder = av.CodecContext.create(codec.name, "r")
    decoder.sample_rate, decoder.layout = codec.rate_hz, "mono"
    silence = np.zeros((1, codec.frame_samples), np.float32)
    for data in frames:
        decoded = [] if data is None else decoder.decode(av.Packet(data))
        if decoded:
            yield from decoded
        else:
            frame = av.AudioFrame.from_ndarray(silence, "fltp", "mono")
            frame.sample_rate = codec.rate_hz
            yield frame


@contextmanager
def _opened(path: Path, part: Part) -> Iterator[tuple[InputContainer, AudioStream]]:
    av = load()
    with ExitStack() as stack:
        try:
            # By name the demuxer reads without Python in between; with "file:" a colon in the name is no protocol.
            file: Any = f"file:{path}" if part.whole else stack.enter_context(Bytes(path, part))
            container = stack.enter_context(
                av.open(
                    file,
                    format=part.format or None,
                    buffer_size=BUFFER_BYTES,
                    metadata_errors="ignore",
                    timeout=STUCK_S,
                    container_options={"protocol_whitelist": "file", "format_whitelist": DEMUXERS},
                )
            )
        except PermissionError as error:
            raise AudioError(f"{path}: not readable ({error.strerror}). Change its permissions.") from None
        except (av.FFmpegError, OSError, ValueError) as error:
            raise not_read(
                error,
                f"{path}: not audio that can be decoded ({_reason(error)}). If it is audio, convert it, for example "
                "with `ffmpeg -i FILE FILE.wav`; else remove it from the manifest.",
            ) from None
        if not container.streams.audio:
            kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
            raise AudioError(f"{path}: holds no sound ({kinds} alone). Remove it from the manifest.")
        stream = container.streams.audio[0]
        if stream.codec_context is None:
            raise AudioError(f"{path}: holds sound in a codec that FFmpeg doesn't decode. Convert it.")
        if stream.codec_context.name in CHECKED:
            stream.codec_context.options = {"err_detect": "crccheck+explode"}
        if stream.codec_context.name.startswith("pcm_s64"):
            raise AudioError(f"{path}: holds integers of 64 bits, which can't be decoded. Export it with 32 or 24.")
        if container.format.name.startswith(KEPT_WHOLE.get(stream.codec_context.name, "nowhere")):
            stream.codec_context.flags2 |= av.codec.context.Flags2.skip_manual
        yield container, stream


def _stated_s(path: Path, part: Part, container: InputContainer, stream: AudioStream) -> Fraction:
    """Return the seconds that a container states exactly, 0 where it states none.

    MP4's edit lists are in milliseconds, and may have been rounded down. Its sample table is exact where the last
    packet has its true length, as AAC's has: the time at which that ends.
    """
    gapless = (stream.metadata.get("iTunSMPB") or container.metadata.get("iTunSMPB") or "").split()
    if len(gapless) > 3 and re.fullmatch("[0-9A-Fa-f]{8,16}", gapless[3]):
        return Fraction(int(gapless[3], 16), stream.rate or 1)
    if not container.format.name.startswith(EXACT) or not stream.rate or not stream.time_base:
        return Fraction(0)
    n = stream.duration or 0
    if not container.format.name.startswith("mov"):
        return n * stream.time_base
    end = 0
    with _opened(path, part) as (reopened, track):  # the container itself is still to be decoded
        for packet in reopened.demux(track):
            if packet.pts is not None and not packet.is_discard:
                end = max(end, packet.pts + (packet.duration or 0))
    # A duration is counted from the track's own beginning, the times of packets from the film's.
    end -= stream.start_time or 0
    shorter = n and (end - n) * stream.time_base * stream.rate <= TRIM_SAMPLES
    whole_s = end * stream.time_base
    return _late_s(container, stream) + (min(n * stream.time_base + EDIT_UNIT_S, whole_s) if shorter else whole_s)


def _late_s(container: InputContainer, stream: AudioStream) -> Fraction:
    """Return the seconds by which the sound track begins after the pictures, or other tracks; 0 for less than GAP_S.

    So much silence stands before it, so that times are those that a player shows.
    """
    if stream.start_time is None or container.start_time is None or len(container.streams) == 1:
        return Fraction(0)
    late_s = stream.start_time * (stream.time_base or Fraction(0)) - Fraction(container.start_time, AV_TIME_BASE)
    return late_s if late_s > GAP_S else Fraction(0)


def _least_s(path: Path, container: InputContainer, stream: AudioStream) -> float:
    """Return the seconds that a sound track should have where a container's header says it, if not exactly; else 0.

    Written to a pipe it doesn't, and FFmpeg then makes one up from the size.
    """
    name = container.format.name
    if name != "avi" and not name.startswith("matroska"):
        return 0.0
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    if name == "avi":
        is_exact = 0 < int.from_bytes(head[4:8], "little") < OPEN_RIFF
        return float((stream.duration or 0) * (stream.time_base or 0)) if is_exact else 0.0
    if text := stream.metadata.get("DURATION", ""):
        hours, minutes, seconds = [*text.split(":"), "", ""][:3]
        with suppress(ValueError):
            return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    is_exact = any(mark in head for mark in MATROSKA_DURATIONS)
    return (container.duration or 0) / 1e6 if is_exact and len(container.streams) == 1 else 0.0


def _rate_hz(path: Path, part: Part) -> int:
    """Return the rate in Hz at which the first frame is decoded, which may be twice the container's (HE-AAC)."""
    return next((rate_hz for rate_hz, _ in _blocks(path, part)), 0)


def _skip(path: Path, part: Part, stream: AudioStream) -> int:
    """Return samples before the time line's zero which FFmpeg's decoder doesn't drop: of Speex, and of AMR in MP4."""
    name, rate_hz, time_base = stream.codec_context.name, stream.rate or 0, stream.time_base or Fraction(0)
    if name == "speex" and stream.start_time is not None and stream.start_time < 0:
        # The first granule tells the encoder's delay; the decoder's own is 5 ms at every rate (speexdec drops both).
        return round(-stream.start_time * time_base * rate_hz) + rate_hz // 200
    if name in LAYOUTS:
        with _opened(path, part) as (container, track):
            first = next(container.demux(track), None)
        return 0 if first is None or first.pts is None else max(0, round(-first.pts * time_base * rate_hz))
    return 0


def _silence_before(sound: Iterator[Block], late_s: Fraction) -> Iterator[Block]:
    for i, (rate_hz, block) in enumerate(sound):
        n_left = 0 if i else round(late_s * rate_hz)
        while n_left:
            n = min(n_left, BLOCK_FRAMES)
            yield rate_hz, np.zeros(n, np.float32)
            n_left -= n
        yield rate_hz, block


def _trimmed(blocks: Iterator[Block], n_samples: int | None, seconds: Fraction) -> Iterator[Block]:
    """Yield blocks up to n_samples, or seconds (0: all): a short remainder is padding, a long one sound."""
    n_read, beyond, sound = 0, list[Block](), not n_samples and not seconds
    for rate_hz, block in blocks:
        limit = n_samples or round(seconds * rate_hz)
        if sound:
            yield rate_hz, block
            continue
        n = max(0, min(len(block), limit - n_read))
        n_read += len(block)
        if n:
            yield rate_hz, block[:n]
        if n < len(block):
            beyond.append((rate_hz, block[n:]))
        if n_read - limit > TRIM_SAMPLES:
            yield from beyond
            beyond, sound = [], True


def _kind(frame: AudioFrame) -> tuple[int, str, int]:
    return frame.sample_rate, frame.format.name, frame.layout.nb_channels


def _mono(joined: AudioFifo) -> Block:
    """Return frames of one kind, one after another, channels averaged."""
    first = joined.read(0, partial=True)
    assert first is not None
    n_channels, name = first.layout.nb_channels, first.format.name
    samples = first.to_ndarray()
    if not first.format.is_planar:
        samples = samples.reshape(-1, n_channels).T
    kind = name.removesuffix("p")
    if kind in INTEGERS:
        zero, scale = INTEGERS[kind]
        exact: Any = np.float64 if kind == "s32" else np.float32
        samples = ((samples.astype(exact) - exact(zero)) / exact(scale)).astype(np.float32)
    mono = samples[0] if n_channels == 1 else samples.mean(axis=0, dtype=np.float32)
    return first.sample_rate, np.ascontiguousarray(mono, np.float32)


def _from(decoded: Iterator[Block], first: int) -> Iterator[Block]:
    for rate_hz, block in decoded:
        if first >= len(block):
            first -= len(block)
            continue
        yield rate_hz, block[first:] if first else block
        first = 0


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", "") or str(error)
    return text.strip().rstrip(".") or type(error).__name__
