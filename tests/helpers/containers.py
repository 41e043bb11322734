"""Containers and codecs as PyAV writes them, into files and through pipes, and how each codec changes a length."""

import io
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

MEAN_RATES = (8_000, 16_000, 22_050, 44_100, 48_000)


@dataclass(frozen=True)
class Kind:
    """One codec in one container: suffix, muxer, encoder, and the changes to its samples.

    exact: samples are equal, of a source in steps of 1/`exact`; 0 for a lossy codec. delay, pad: native samples before
    the first one, and at most in all, that the container doesn't state; piped_delay, piped_pad: of one that
    was written to a pipe (None: it can't be). rates, channels: what the encoder takes. least: correlation at the delay.
    """

    suffix: str
    muxer: str
    encoder: str
    exact: int = 0
    delay: int = 0
    pad: int = 0
    piped_delay: int | None = 0
    piped_pad: int = 0
    rates: tuple[int, ...] = MEAN_RATES
    channels: tuple[int, ...] = (1, 2)
    least: float = 0.9
    bit_rate: int = 0
    options: tuple[tuple[str, str], ...] = ()
    video: str = ""

    def __str__(self) -> str:
        shown = "".join(f"-{name}={value}" for name, value in self.options)
        return f"{self.suffix[1:]}-{self.encoder}{shown}{'-video' if self.video else ''}"


class Pipe(io.RawIOBase):
    """A file that can be written, but not sought, like a pipe."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "wb")  # noqa: SIM115

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        return self._file.write(data)  # type: ignore[arg-type]

    def close(self) -> None:
        self._file.close()
        super().close()


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
        if kind.bit_rate:
            stream.bit_rate = kind.bit_rate
        context = stream.codec_context
        if context.codec.audio_formats:
            context.format = _best(context.codec.audio_formats)
        resampler = av.AudioResampler(context.format, layout, rate_hz)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(matrix.T), "fltp", layout)
        frame.sample_rate, frame.pts, frame.time_base = rate_hz, 0, Fraction(1, rate_hz)
        if video is not None:
            picture = av.VideoFrame.from_ndarray(np.full((96, 64), 128, np.uint8), "yuv420p")
            for i in range(int(len(matrix) / rate_hz * 25)):
                picture.pts = i
                container.mux(video.encode(picture))
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


LAG_S = 5.0  # of the beginning, and of the end, in which a lag is sought


def lag_of(samples: np.ndarray, source: np.ndarray, rate_hz: int) -> tuple[int, float]:
    """Return by how many samples `samples` is late, at its beginning and at its end, and its correlation at that lag.

    For a codec whose delay varies by a sample, it is the lag that fits all samples better.
    """
    n = round(LAG_S * rate_hz)
    lags = [_lag(samples[:n], source[:n])]
    if len(source) > 2 * n:
        lags.append(_lag(samples[len(source) - n : len(source)], source[-n:]))
        assert abs(lags[1] - lags[0]) <= 1, f"late by {lags[0]} samples at the beginning, by {lags[1]} at the end"
    norm = float(np.sqrt(np.square(samples).sum() * np.square(source).sum())) or 1.0
    correlation, lag = max((_product(samples, source, lag) / norm, lag) for lag in lags)
    return lag, correlation


def _product(samples: np.ndarray, source: np.ndarray, lag: int) -> float:
    late, early = samples[max(0, lag) :], source[max(0, -lag) :]
    n = min(len(late), len(early))
    return float(np.dot(late[:n], early[:n]))


def _lag(samples: np.ndarray, source: np.ndarray) -> int:
    n = 1 << (len(samples) + len(source)).bit_length()
    products = np.fft.irfft(np.fft.rfft(samples, n) * np.conj(np.fft.rfft(source, n)), n)
    lag = int(np.argmax(products))
    return lag - n if lag > n // 2 else lag
