"""openSMILE's paralinguistic sets: 88 or 6,373 functionals of an utterance, or low-level descriptors at 100 Hz."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
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
    16 kHz whatever its file has: its numbers depend on the rate. Samples beyond full scale (decoded MP3s have some) are
    clipped, which the opensmile package wraps around to the other sign. Clips of less than 60 ms have no values there:
    they are refused, or with short="pad" get digital silence at their end up to 60 ms.
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
        smile = package.Smile(feature_set=getattr(package.FeatureSet, name), feature_level=level)
        self._engine = _Engine(smile)
        self.feature_names: tuple[str, ...] = tuple(smile.feature_names)
        if len(self.feature_names) != dim:
            raise EncoderError(f"{self.name}: opensmile gives {len(self.feature_names)} columns, expected {dim}.")

    def n_frames(self, n_samples: int) -> int:
        """Return the number of rows for this many samples: 1 for functionals, by the formula above for descriptors."""
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
        """Map waveforms (n_samples,) float32 at 16 kHz -> (1, T, D) float32 each; computed at once."""
        rows = [self._rows(waveform) for waveform in batch]
        return lambda: rows

    def _rows(self, waveform: np.ndarray) -> np.ndarray:
        samples = np.asarray(waveform, np.float32)
        if len(samples) < LEAST_SAMPLES:
            if self.short != "pad":
                raise EncoderError(f"{self.name}: {self.refusal(len(samples))}")
            samples = np.pad(samples, (0, LEAST_SAMPLES - len(samples)))
        with stage("encode"):
            return self._engine(samples)[None]


class _Engine:
    """openSMILE, set up once and reset after every clip.

    The package's Smile sets it up anew for each, which takes a tenth of a clip's time, of ComParE's functionals a
    quarter; rows are the same to the bit.
    """

    def __init__(self, smile: Any) -> None:
        self._smile = smile
        self._running: Any = None

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Map (n_samples,) float32 at 16 kHz, 960 or more -> (T, D) float32."""
        from opensmile.core.config import config

        if self._running is None:
            options = self._smile._options()
            options["source"] = str(Path(self._smile.default_config_root) / config.EXTERNAL_INPUT_CONFIG)
            self._running = self._smile._smile(options=options | {"sampleRate": SAMPLE_RATE_HZ, "nBits": 16})
        engine, self._running = self._running, None  # one that fails is not used again
        rows: list[np.ndarray] = []
        engine.external_sink_set_callback_ex(
            config.EXTERNAL_OUTPUT_COMPONENT, lambda values, _: rows.append(values.astype(np.float32))
        )
        integers = np.clip(samples * 32768, -32768, 32767).astype(np.int16)
        engine.external_audio_source_write_data(config.EXTERNAL_SOURCE_COMPONENT, integers.tobytes())
        engine.external_audio_source_set_eoi(config.EXTERNAL_SOURCE_COMPONENT)
        engine.run()
        engine.reset()
        engine._callbacks.clear()  # a reset forgets them; the object would keep one for each clip
        self._running = engine
        return np.concatenate(rows)


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
