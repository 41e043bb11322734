"""Speech written by FFmpeg's encoders, for the benchmarks that read it again."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def write_untagged_mp3(path: Path, samples: np.ndarray, rate_hz: int) -> Path:
    """Write (n,) int16 as an encoder writes to a pipe: with a variable bit rate, and without the tag for the length."""
    return encode(path, samples, rate_hz, "libmp3lame", quality=4, options={"write_xing": "0"})


def encode(
    path: Path,
    samples: np.ndarray,
    rate_hz: int,
    encoder: str,
    *,
    at_hz: int = 0,
    bit_rate: int = 0,
    quality: int = 0,
    options: dict[str, str] | None = None,
) -> Path:
    """Write (n,) int16 mono by FFmpeg, at a bit rate, or at a quality and a variable one."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(encoder, rate=at_hz or rate_hz)
        assert isinstance(stream, av.AudioStream)
        stream.layout = "mono"
        if bit_rate:
            stream.bit_rate = bit_rate
        if quality:
            stream.codec_context.qscale = True
            stream.codec_context.global_quality = quality * 118  # FF_QP2LAMBDA
        resampler = av.AudioResampler(stream.codec_context.format, "mono", at_hz or rate_hz)
        frame = av.AudioFrame.from_ndarray(samples[None], "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = rate_hz, 0, Fraction(1, rate_hz)
        fifo = av.AudioFifo()
        for resampled in [*resampler.resample(frame), *resampler.resample(None)]:
            fifo.write(resampled)
        size = stream.codec_context.frame_size or 1024
        while (piece := fifo.read(size)) is not None:
            container.mux(stream.encode(piece))
        if (piece := fifo.read(0, partial=True)) is not None:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return path
