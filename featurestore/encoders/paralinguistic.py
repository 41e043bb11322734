"""openSMILE's paralinguistic sets: 88 or 6,373 functionals of an utterance, or low-level descriptors at 100 Hz."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from featurestore.audio import SAMPLE_RATE_HZ
from featurestore.encoders.base import Encoder
from featurestore.encoders.layers import LayerChoice
from featurestore.errors import ConfigError, EncoderError
from featurestore.format.spec import FeatureSpec
from featurestore.runtime.stage_clock import stage

# Of each name: openSMILE's feature set, whether rows are frames, and how many columns they have.
SETS = {
    "egemapsv02": ("eGeMAPSv02", False, 88),
    "egemapsv02-lld": ("eGeMAPSv02", True, 25),
    "compare2016": ("ComParE_2016", False, 6373),
    "compare2016-lld": ("ComParE_2016", True, 65),
}
HOP_SAMPLES = 160
LEAST_SAMPLES = 960  # 60 ms, the longest of openSMILE's frames; of less it gives NaN alone
LICENCE = (
    "openSMILE is under audEERING's research licence: free for private, research and educational use, not for "
    "commercial products (see https://github.com/audeering/opensmile)."
)


class ParalinguisticEncoder(Encoder):
    """openSMILE's eGeMAPSv02 (Eyben et al., 2016) or ComParE 2016 (Schuller et al., 2016) by the opensmile package.

    Functionals: one row. Descriptors: floor((n - 960) / 160) + 2 rows of n samples, 100 Hz. Audio reaches openSMILE at
    16 kHz whatever its file has: its numbers depend on the rate. Clips of less than 60 ms have no values there: they
    are refused, or with short="pad" get digital silence at their end up to 60 ms.
    """

    kind = "audio"
    layers_available = 0
    device = "cpu"
    default_batch_frames = 1
    notice = LICENCE

    def __init__(self, spec: FeatureSpec, choice: LayerChoice, short: str) -> None:
        self.name = spec.encoder
        self.spec = spec
        self.choice = choice
        self.short = short
        self.window_frames = 1 << 40  # a recording goes through as a whole
        name, self.frames, dim = SETS[spec.encoder]
        package = load_package()
        level = package.FeatureLevel.LowLevelDescriptors if self.frames else package.FeatureLevel.Functionals
        self._smile = package.Smile(feature_set=getattr(package.FeatureSet, name), feature_level=level)
        self.feature_names: tuple[str, ...] = tuple(self._smile.feature_names)
        if len(self.feature_names) != dim:
            raise EncoderError(f"{self.name}: opensmile gives {len(self.feature_names)} columns, expected {dim}.")

    def n_frames(self, n_samples: int) -> int:
        """Rows for this many samples: 1 of functionals, by the formula above of descriptors."""
        if not self.frames:
            return 1
        return (max(n_samples, LEAST_SAMPLES) - LEAST_SAMPLES) // HOP_SAMPLES + 2

    def cost(self, item: int | str) -> int:
        return max(1, int(item) // HOP_SAMPLES)

    def refusal(self, item: int | str) -> str:
        """Return why a clip has no values: it is shorter than openSMILE's longest frame, and isn't to be padded."""
        if self.short == "pad" or int(item) >= LEAST_SAMPLES:
            return ""
        return (
            f"{int(item) / SAMPLE_RATE_HZ * 1000:.1f} ms of audio, expected at least "
            f"{LEAST_SAMPLES / SAMPLE_RATE_HZ * 1000:.0f} ms by openSMILE; --short pad appends silence up to that."
        )

    def start(self, batch: Sequence[np.ndarray], max_frames: int | None = None) -> Callable[[], list[np.ndarray]]:
        """Waveforms (n_samples,) float32 at 16 kHz -> (1, T, D) float32 each; computed at once."""
        rows = [self._rows(waveform) for waveform in batch]
        return lambda: rows

    def _rows(self, waveform: np.ndarray) -> np.ndarray:
        samples = np.asarray(waveform, np.float32)
        if len(samples) < LEAST_SAMPLES:
            if self.short != "pad":
                raise EncoderError(f"{self.name}: {self.refusal(len(samples))}")
            samples = np.pad(samples, (0, LEAST_SAMPLES - len(samples)))
        with stage("encode"):
            values = self._smile(samples, SAMPLE_RATE_HZ)  # (1, D, T)
        return np.ascontiguousarray(values.transpose(0, 2, 1), np.float32)


def load_package() -> Any:
    """Import opensmile; ConfigError where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its dependencies, at import
            import opensmile
    except ImportError as error:
        raise ConfigError(
            f"openSMILE's sets need the opensmile package: pip install 'medusa-ser[opensmile]' ({error}). {LICENCE}"
        ) from None
    return opensmile


def package_version() -> str:
    """Return the version of opensmile; its numbers may change with it."""
    return str(load_package().__version__)
