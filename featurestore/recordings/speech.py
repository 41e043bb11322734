"""Where somebody speaks in a recording, by silero-vad (https://github.com/snakers4/silero-vad), read in one pass."""

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.audio import SAMPLE_RATE_HZ, duration_s
from featurestore.audio.streaming import stream
from featurestore.errors import ConfigError
from featurestore.recordings.windows import LEAST_S, Ends, Progress, on_the_grid
from featurestore.runtime.device import one_thread

FRAME = 512  # samples that the model judges at a time, 32 ms
LONGEST_S = 11.0  # of a segment where none is asked for: MSP-Podcast's longest
SHORTEST_S = 1.0  # that the longest may be: silero-vad leaves out speech of less than 0.25 s


@dataclass(frozen=True)
class Speech:
    """Segments of speech of at most `longest_s` seconds, by silero-vad's own thresholds.

    Those are: speech from a probability of 0.5 on and until it falls below 0.35 for 0.1 s, 30 ms more on either side,
    nothing of less than 0.25 s; what is too long is cut at its longest pause, or where there is none, at the limit.
    """

    longest_s: float = LONGEST_S

    def __post_init__(self) -> None:
        if not self.longest_s >= SHORTEST_S:
            raise ConfigError(f"--span {self.longest_s:g}: expected {SHORTEST_S:g} s or more of a segment of speech.")
        if importlib.util.find_spec("silero_vad") is None:
            raise ConfigError("--segments vad needs silero-vad: pip install 'medusa-ser[vad]'.")

    def of_file(self, path: Path, progress: Progress | None = None) -> list[Ends]:
        """Return start and end of each segment; AudioError for a recording that can't be decoded.

        progress: is called with the share of the recording that was read.
        """
        length_s = duration_s(path)
        probabilities, n_samples = _probabilities(path, lambda n: progress and progress(n / SAMPLE_RATE_HZ / length_s))
        timestamps = _silero().get_speech_timestamps_from_probs
        spans = timestamps(probabilities, max_speech_duration_s=self.longest_s, audio_length_samples=n_samples)
        last = on_the_grid(length_s)
        ends = [
            (
                float(on_the_grid(each["start"] / SAMPLE_RATE_HZ)),
                float(min(last, on_the_grid(each["end"] / SAMPLE_RATE_HZ))),
            )
            for each in spans
        ]
        return [(start, end) for start, end in ends if end - start >= LEAST_S]


def _probabilities(path: Path, progress: Callable[[int], object]) -> tuple[list[float], int]:
    """Return the probability of speech in each frame, and the number of samples at 16 kHz."""
    import torch

    model = _model()
    model.reset_states()
    remainder = np.zeros(0, np.float32)
    probabilities: list[float] = []
    n_samples = 0
    with torch.no_grad(), one_thread():  # a frame is too little work for several
        for block in stream(path):
            n_samples += len(block)
            samples = np.concatenate([remainder, block])
            n_whole = len(samples) // FRAME * FRAME
            probabilities += [
                model(torch.from_numpy(frame), SAMPLE_RATE_HZ).item() for frame in samples[:n_whole].reshape(-1, FRAME)
            ]
            remainder = samples[n_whole:]
            progress(n_samples)
        if len(remainder):
            padded = np.pad(remainder, (0, FRAME - len(remainder)))
            probabilities.append(model(torch.from_numpy(padded), SAMPLE_RATE_HZ).item())
    return probabilities, n_samples


@cache
def _silero() -> Any:
    with one_thread():  # the import sets one thread for the whole process
        import silero_vad
    return silero_vad


@cache
def _model() -> Any:
    """Return the model that lies in the package."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit, in which the model is kept
        return _silero().load_silero_vad()
