"""Opus' pre-skip (RFC 7845, section 4.2): what OpusHead says comes before the first sample, wherever the stream lies.

FFmpeg drops what the container says instead. For Opus that was encoded at another rate than 48 kHz, its own MP4 and its
former Matroska files say it in units of that rate, and too little is dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.audio.codeccontext import AudioCodecContext
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.packet import Packet

# Samples of a frame at 48 kHz by the configuration in a packet's first byte (RFC 6716, table 2).
FRAME_SAMPLES = (480, 960, 1920, 2880) * 3 + (480, 960) * 2 + (120, 240, 480, 960) * 4


def packet_samples(data: bytes) -> int:
    """Return the samples of an Opus packet at 48 kHz."""
    n_frames = (1, 2, 2, data[1] & 63 if len(data) > 1 else 0)[data[0] & 3]
    return FRAME_SAMPLES[data[0] >> 3] * n_frames


class OpusLead:
    """Drops the samples before the first one that FFmpeg left."""

    def __init__(self, context: AudioCodecContext) -> None:
        head = context.extradata or b""
        self._left = int.from_bytes(head[10:12], "little") if head.startswith(b"OpusHead") else 0

    def dropped(self, packet: Packet[AudioStream], frames: list[AudioFrame]) -> list[AudioFrame]:
        """Return the frames of a packet without what is still to be dropped of them."""
        if not self._left or not packet.size:
            return frames
        self._left = max(0, self._left - max(0, packet_samples(bytes(packet)) - sum(frame.samples for frame in frames)))
        remaining: list[AudioFrame] = []
        for frame in frames:
            n = min(self._left, frame.samples)
            self._left -= n
            if n < frame.samples:
                remaining.append(frame if not n else _without(frame, n))
        return remaining


def _without(frame: AudioFrame, n: int) -> AudioFrame:
    """Return a frame without its first n samples."""
    samples = frame.to_ndarray()
    width = 1 if frame.format.is_planar else frame.layout.nb_channels
    shorter = type(frame).from_ndarray(samples[:, n * width :].copy(), frame.format.name, frame.layout.name)
    shorter.sample_rate = frame.sample_rate
    return shorter
