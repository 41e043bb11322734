"""Log-mel rows: a baseline without weights, aligned with the 50 Hz encoders; neither torch nor a download is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from featurestore.audio import SAMPLE_RATE_HZ
from featurestore.encoders.base import Encoder
from featurestore.encoders.layers import LayerChoice
from featurestore.format.spec import FeatureSpec

WINDOW_SAMPLES = 400  # 25 ms
HOP_SAMPLES = 320  # 20 ms, so that row t covers what frame t of a 50 Hz speech encoder covers
N_MELS = 80
CHUNK_FRAMES = 6000  # two minutes at a time bound the memory; frames share no state, so the cut changes nothing


class LogMelEncoder(Encoder):
    """80-dimensional log-mel energies, 25 ms Hann window, 20 ms hop, Slaney filters over 0 to 8000 Hz.

    Value: (log10(max(power, 1e-10)) + 4) / 4, Whisper's scaling without its per-utterance floor, since loudness is a
    cue: digital silence is -1.5, speech mostly lies in -1 to 1. Frames: floor((n - 400) / 320) + 1, no padding at the
    borders, the same formula as the speech encoders; shorter audio is zero-padded to one frame.
    """

    kind = "audio"
    layers_available = 0
    device = "cpu"
    default_batch_frames = 30_000
    window_frames = default_batch_frames

    def __init__(self, spec: FeatureSpec, choice: LayerChoice) -> None:
        self.name = spec.encoder
        self.spec = spec
        self.choice = choice
        self._filters = mel_filters(N_MELS)
        self._window = hann(WINDOW_SAMPLES)

    def n_frames(self, n_samples: int) -> int:
        """Return the number of rows for this many samples, by the formula above."""
        return (max(n_samples, WINDOW_SAMPLES) - WINDOW_SAMPLES) // HOP_SAMPLES + 1

    def cost(self, item: int | str) -> int:
        return self.n_frames(int(item))

    def start(self, batch: Sequence[np.ndarray], max_frames: int | None = None) -> Callable[[], list[np.ndarray]]:
        """Map waveforms (n_samples,) float32 at 16 kHz -> (1, T, 80) float32 each, or pooled; computed at once."""
        rows = [self._pooled(self._rows(waveform))[None] for waveform in batch]
        return lambda: rows

    def _rows(self, waveform: np.ndarray) -> np.ndarray:
        samples = np.asarray(waveform, np.float32)
        if len(samples) < WINDOW_SAMPLES:
            samples = np.pad(samples, (0, WINDOW_SAMPLES - len(samples)))
        frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW_SAMPLES)[::HOP_SAMPLES]
        rows = np.empty((len(frames), N_MELS), np.float32)
        for start in range(0, len(frames), CHUNK_FRAMES):
            part = slice(start, start + CHUNK_FRAMES)
            power = np.abs(np.fft.rfft(frames[part] * self._window)) ** 2
            rows[part] = (np.log10(np.maximum(power @ self._filters.T, 1e-10)) + 4.0) / 4.0
        return rows

    def _pooled(self, rows: np.ndarray) -> np.ndarray:
        if self.spec.pool == "none":
            return rows
        wide = rows.astype(np.float64)
        parts = [wide.mean(axis=0)] + ([wide.std(axis=0)] if self.spec.pool == "mean+std" else [])
        return np.concatenate(parts)[None].astype(np.float32)


def hann(n_samples: int) -> np.ndarray:
    """Periodic Hann window (n_samples,) float32, as torch.hann_window."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_samples) / n_samples)).astype(np.float32)


def mel_filters(n_mels: int, n_fft: int = 400, rate_hz: int = SAMPLE_RATE_HZ) -> np.ndarray:
    """Triangular filters on Slaney's mel scale, each of area 1 (librosa.filters.mel's default, which Whisper uses).

    (n_mels, n_fft // 2 + 1) float32 over 0 Hz to half the rate. Slaney's scale is linear (200/3 Hz per mel) up to
    1000 Hz and logarithmic above (27 mels per factor 6.4).
    """
    linear_hz, knee_hz, step = 200.0 / 3, 1000.0, np.log(6.4) / 27
    knee_mel = knee_hz / linear_hz
    top_mel = knee_mel + np.log(rate_hz / 2 / knee_hz) / step
    mels = np.linspace(0.0, top_mel, n_mels + 2)
    edges_hz = np.where(mels < knee_mel, mels * linear_hz, knee_hz * np.exp(step * (mels - knee_mel)))
    bins_hz = np.linspace(0.0, rate_hz / 2, n_fft // 2 + 1)
    rising = (bins_hz - edges_hz[:-2, None]) / (edges_hz[1:-1] - edges_hz[:-2])[:, None]
    falling = (edges_hz[2:, None] - bins_hz) / (edges_hz[2:] - edges_hz[1:-1])[:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    filters: np.ndarray = (triangles * (2.0 / (edges_hz[2:] - edges_hz[:-2]))[:, None]).astype(np.float32)
    return filters
