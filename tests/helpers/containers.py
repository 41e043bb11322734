"""Containers and codecs as PyAV writes them, into files and through pipes; and what each codec does to a length."""

import io
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

MEAN_RATES = (8_000, 16_000, 22_050, 44_100, 48_000)


@dataclass(frozen=True)
class Kind:
    """One codec in one container: suffix, muxer, encoder; what is lost; delay and padding in samples.

    error: largest difference to the source, None for a lossy codec. delay_s: audio before the first sample that the
    container doesn't state. pad_s: by how much the end may be late or early. rates, channels: what the encoder takes.
    """

    suffix: str
    muxer: str
    encoder: str
    error: float | None = None
    delay_s: tuple[float, float] = (0.0, 0.0)
    pad_s: float = 0.0
    rates: tuple[int, ...] = MEAN_RATES
    channels: tuple[int, ...] = (1, 2)
    piped: bool = True
    options: tuple[tuple[str, str], ...] = ()
    video: str = ""

    def __str__(self) -> str:
        return f"{self.suffix}-{self.muxer}-{self.encoder}{'-video' if self.video else ''}"


class Pipe(io.RawIOBase):
    """What can be written, but not sought, as a pipe."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "wb")  # noqa: SIM115

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        return self._file.write(data)  # type: ignore[arg-type]

    def close(self) -> None:
        self._file.close()
        super().close()


def speechlike(rate_hz: int, seconds: float, seed: int = 0) -> np.ndarray:
    """(n,) float32: a gliding voice with pauses and a little noise, below 3.3 kHz; nothing in it repeats."""
    n = round(rate_hz * seconds)
    t = np.arange(n) / rate_hz
    rng = np.random.default_rng(seed)
    pitch = 120 + 60 * np.sin(2 * np.pi * 0.31 * t) + 25 * np.sin(2 * np.pi * 1.7 * t + seed)
    phase = 2 * np.pi * np.cumsum(pitch) / rate_hz
    voice = sum(np.sin(k * phase) / k for k in range(1, 9))
    loud = 0.15 + 0.85 * (np.sin(2 * np.pi * 2.3 * t + 0.7) > -0.4) * np.abs(np.sin(2 * np.pi * 1.13 * t))
    return np.asarray(0.2 * voice * loud + 0.002 * rng.standard_normal(n), np.float32)


def encode(
    path: Path, samples: np.ndarray, rate_hz: int, kind: Kind, *, pipe: bool = False, tags: bool = False
) -> Path:
    """Write (n,) or (n, C) float32 samples as `kind`; through a pipe, or with tags (among them one of UTF-8)."""
    matrix = samples[:, None] if samples.ndim == 1 else samples
    layout = {1: "mono", 2: "stereo"}[matrix.shape[1]]
    target: object = Pipe(path) if pipe else str(path)
    options = dict(kind.options)
    if pipe and kind.muxer in ("mp4", "ipod", "mov", "3gp", "3g2"):
        options["movflags"] = "frag_keyframe+empty_moov"
    with av.open(target, "w", format=kind.muxer, options=options, container_options=options) as container:
        if tags:
            container.metadata.update({"title": "Größe 語", "comment": "x" * 3000})
        video = None
        if kind.video:
            video = container.add_stream(kind.video, rate=25)
            video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        stream = container.add_stream(kind.encoder, rate=rate_hz)
        stream.layout = layout
        context = stream.codec_context
        if context.codec.audio_formats:
            context.format = _best(context.codec.audio_formats)
        if kind.encoder in ("vorbis", "opus", "dca"):
            context.options = {"strict": "experimental"}
        resampler = av.AudioResampler(context.format, layout, rate_hz)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(matrix.T), "fltp", layout)
        frame.sample_rate, frame.pts, frame.time_base = rate_hz, 0, Fraction(1, rate_hz)
        if video is not None:
            for i in range(int(len(matrix) / rate_hz * 25)):
                picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), i % 255, np.uint8), "rgb24")
                picture.pts = i
                container.mux(video.encode(picture.reformat(format="yuv420p")))
        fifo = av.AudioFifo()
        size = context.frame_size or 4096
        for out in [*resampler.resample(frame), *resampler.resample(None)]:
            fifo.write(out)
        while (piece := fifo.read(size)) is not None:
            container.mux(stream.encode(piece))
        if (piece := fifo.read(0, partial=True)) is not None:
            container.mux(stream.encode(piece))
        if video is not None:
            container.mux(video.encode(None))
        container.mux(stream.encode(None))
    if isinstance(target, Pipe):
        target.close()
    return path


def _best(formats: list[av.AudioFormat]) -> str:
    names = [item.name for item in formats]
    return next((name for name in ("fltp", "flt", "s16", "s16p", "s32", "s32p") if name in names), names[0])


def lag_of(samples: np.ndarray, source: np.ndarray) -> tuple[int, float]:
    """By how many samples `samples` is late, and the correlation there."""
    n = 1 << (len(samples) + len(source)).bit_length()
    products = np.fft.irfft(np.fft.rfft(samples, n) * np.conj(np.fft.rfft(source, n)), n)
    lag = int(np.argmax(products))
    norm = float(np.sqrt(np.square(samples).sum() * np.square(source).sum())) or 1.0
    return (lag - n if lag > n // 2 else lag), float(products[lag]) / norm
