"""Speech models in which padding would reach a valid frame: they run without any, as transformers runs one clip.

Convolutions over time inside the layers (Conformer, w2v-BERT 2.0, Parakeet), pooling over time (SEW) and norms over
time (Moonshine) carry padding into an utterance's frames. Windows of equal length go through together, others alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from featurestore.audio import SAMPLE_RATE_HZ
from featurestore.encoders.convolutions import Convolutions
from featurestore.encoders.device import ONE_AT_A_TIME, arithmetic, default_batch_frames
from featurestore.encoders.families import WAVEFORM_TYPES
from featurestore.encoders.layers import LayerChoice, chosen
from featurestore.encoders.model_encoder import WindowedEncoder
from featurestore.encoders.preprocessor import FILE, check_rate, do_normalize, read_preprocessor
from featurestore.encoders.row_builder import Batch, Piece
from featurestore.encoders.speech import normalized, parse_window
from featurestore.encoders.weights import load_model
from featurestore.encoders.windows import windows
from featurestore.errors import ConfigError, EncoderError
from featurestore.format.spec import FeatureSpec
from featurestore.runtime.stage_clock import padded_batch, stage
from featurestore.runtime.transfer import to_device

MOONSHINE_CONVS = Convolutions(((127, 64), (7, 3), (3, 2)))
FBANK_HOP = 160  # samples between two frames of the filter bank that w2v-BERT and Parakeet read


@dataclass(frozen=True)
class Loaded:
    """A model with what makes its input. hop, field: samples between two frames, and that the first one needs."""

    model: Any
    normalize: bool  # the waveform, over the utterance
    prepare: Callable[[np.ndarray], np.ndarray]  # samples of one window -> the model's input, without a batch axis
    hop: int
    field: int
    n_layers: int
    dim: int
    argument: str  # by which the model takes its input
    least_frames: int = 1

    @property
    def least_samples(self) -> int:
        """Shorter audio is zero-padded to this."""
        return self.field + (self.least_frames - 1) * self.hop


def load(directory: Path, kind: str, label: str, adapter: Path | None = None) -> Loaded:
    """Load a model of one of families.UNPADDED_TYPES, float32 on the CPU; EncoderError as in `load_model`."""
    if kind == "moonshine":
        model = load_model(directory, label, needed="encoder.", adapter=adapter).encoder
        n_layers, normalize = model.config.encoder_num_hidden_layers, do_normalize(directory, label)
        dim = model.config.hidden_size
        return Loaded(
            model, normalize, np.asarray, MOONSHINE_CONVS.hop, MOONSHINE_CONVS.field, n_layers, dim, "input_values"
        )
    if kind in WAVEFORM_TYPES:
        model = load_model(directory, label, adapter=adapter)
        config = model.config
        model.adapter = None
        convs = Convolutions.of(config)
        return Loaded(
            model, do_normalize(directory, label), np.asarray, convs.hop, convs.field, config.num_hidden_layers,
            config.hidden_size, "input_values", getattr(config, "squeeze_factor", 1),
        )  # fmt: skip
    model = load_model(directory, label, adapter=adapter)
    prepare = _features(directory, label)
    if kind == "wav2vec2-bert":
        model.adapter = model.intermediate_ffn = None  # of fine-tuned models; they change the frame rate
        hop, field = 2 * FBANK_HOP, 2 * FBANK_HOP + 240
    else:
        model = getattr(model, "encoder", model)
        factor = model.config.subsampling_factor
        hop, field = factor * FBANK_HOP, factor * FBANK_HOP
    config = model.config
    return Loaded(model, False, prepare, hop, field, config.num_hidden_layers, config.hidden_size, "input_features")


def of_emotion2vec(model: Any) -> Loaded:
    """Return emotion2vec's encoder: normalised waveforms, frames as of wav2vec 2.0."""
    from featurestore.encoders.emotion2vec import CONVS

    config, convs = model.config, Convolutions(CONVS)
    return Loaded(
        model, True, np.asarray, convs.hop, convs.field, config.num_hidden_layers, config.hidden_size,
        "input_values",
    )  # fmt: skip


def _features(directory: Path, label: str) -> Callable[[np.ndarray], np.ndarray]:
    import transformers

    try:
        check_rate(read_preprocessor(directory), directory, label)
        extractor = transformers.AutoFeatureExtractor.from_pretrained(directory, local_files_only=True)
    except EncoderError:
        raise
    except Exception as error:  # as in load_model
        raise EncoderError(
            f"{label}: {directory / FILE} can't be read ({type(error).__name__}), and without it "
            "the model's input is unknown. Copy it from the model's hub page."
        ) from None

    def prepare(samples: np.ndarray) -> np.ndarray:
        inputs = extractor(samples, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt", return_attention_mask=True)
        features, mask = inputs["input_features"][0], inputs["attention_mask"][0]
        return np.asarray(features[: int(mask.sum())], np.float32)  # the rest is the extractor's own padding

    return prepare


class UnpaddedEncoder(WindowedEncoder):
    """A transformers speech model of families.UNPADDED_TYPES, run as on single clips.

    Frame counts: floor((n - field) / hop) + 1 of n samples: hop 320 and field 400 of the families with wav2vec 2.0's
    front end, 320 and 560 of w2v-BERT 2.0, 1,280 and 1,280 of Parakeet (12.5 Hz), 384 and 895 of Moonshine (41.7 Hz).
    Shorter audio is zero-padded to one frame, for SEW to two. A window ("30s+1s") is an input of its own: norms over
    time, in the model and in its filter bank, are the window's.

    Layers: 0 is what the first layer reads, k what layer k gives, and the last one transformers' last_hidden_state,
    final norm included. SEW squeezes time by two inside and stretches it after its last layer, so that it gives the
    last one only, whose odd last frame is zero (as in transformers).
    """

    kind = "audio"

    def __init__(
        self, loaded: Loaded, *, spec: FeatureSpec, choice: LayerChoice, device: torch.device, compute: torch.dtype
    ) -> None:
        super().__init__(loaded.model, spec=spec, choice=choice, device=device, compute=compute)
        self._loaded = loaded
        self.layers_available = loaded.n_layers
        self.window_frames, self._margin = parse_window(spec.window, SAMPLE_RATE_HZ / loaded.hop)
        self.default_batch_frames = default_batch_frames(device, ONE_AT_A_TIME, spec, self.window_frames)
        squeezes = getattr(self.model.config, "squeeze_factor", 1) > 1
        if squeezes and choice.numbers != (loaded.n_layers,):
            raise ConfigError(
                f"--layers: the inner layers of {self.name} have half the frame rate of its output; choose last."
            )

    def n_frames(self, n_samples: int) -> int:
        """Return the number of rows for this many samples, by the formula above."""
        loaded = self._loaded
        return (max(n_samples, loaded.least_samples) - loaded.field) // loaded.hop + 1

    def cost(self, item: int | str) -> int:
        return self.n_frames(int(item))

    def prepare(self, item: np.ndarray) -> np.ndarray:
        """Return the samples (n_samples,) float32 as the model was trained on them."""
        return normalized(item) if self._loaded.normalize else np.asarray(item, np.float32)

    def _pieces(self, batch: Sequence[np.ndarray]) -> Iterator[Piece]:
        """Yield the windows of each waveform with the model's input."""
        hop, field = self._loaded.hop, self._loaded.field
        for index, samples in enumerate(batch):
            if len(samples) < self._loaded.least_samples:
                samples = np.pad(samples, (0, self._loaded.least_samples - len(samples)))
            plan = windows(self.n_frames(len(samples)), self.window_frames, self._margin)
            for window in plan:
                # An utterance of one window goes in whole, with the samples after its last frame.
                stop = None if len(plan) == 1 else (window.stop - 1) * hop + field
                with stage("mel", self._device):
                    yield Piece(index, self._loaded.prepare(samples[window.start * hop : stop]), window)

    @torch.inference_mode()
    def _forward(self, batch: Batch, dtype: torch.dtype) -> list[Tensor]:
        """Encode the inputs of each window, and return what `Batch.take` returns."""
        frames = [piece.n_frames for piece in batch.pieces]
        n_longest = max(frames)
        padded_batch(frames, n_longest)
        equal: dict[int, list[int]] = defaultdict(list)
        for place, piece in enumerate(batch.pieces):
            equal[len(piece.data)].append(place)
        data = [np.stack([batch.pieces[i].data for i in places]) for places in equal.values()]
        selection, *inputs = to_device([batch.selection(n_longest), *data], self._device)
        rows: list[list[Tensor]] = [[] for _ in batch.pieces]  # of each window: (T, D) of each layer
        with stage("encode", self._device), arithmetic(self.compute, self._device):
            for places, group in zip(equal.values(), inputs, strict=True):
                states = list(chosen(self._states(group), self.choice))
                for b, place in enumerate(places):
                    rows[place] = [F.pad(state[b], (0, 0, 0, n_longest - state.shape[1])) for state in states]
            layers = (torch.stack(of_layer) for of_layer in zip(*rows, strict=True))
            return batch.take(layers, selection, dtype)

    def _states(self, inputs: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield number and (B, T, D) of each layer."""
        inner = any(number < self.layers_available for number in self.choice.numbers)
        output = self.model(**{self._loaded.argument: inputs}, output_hidden_states=inner)
        if inner:
            yield from enumerate(output.hidden_states[: self.layers_available])
        yield self.layers_available, output.last_hidden_state
