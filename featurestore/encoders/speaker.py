"""Speaker embeddings: one row per utterance by the x-vector head of a fine-tuned speech model (`--pool model`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from featurestore.audio import SAMPLE_RATE_HZ
from featurestore.encoders.convolutions import Convolutions
from featurestore.encoders.device import ONE_AT_A_TIME, arithmetic, default_batch_frames
from featurestore.encoders.layers import LayerChoice
from featurestore.encoders.model_encoder import ModelEncoder
from featurestore.encoders.speech import normalized, parse_window
from featurestore.encoders.weights import head_of, load_model
from featurestore.errors import EncoderError
from featurestore.format.spec import FeatureSpec
from featurestore.runtime.stage_clock import padded_batch, stage
from featurestore.runtime.transfer import to_device, to_host

HEAD = "ForXVector"


def load(directory: Path, label: str) -> Any:
    """Load the model with its head; EncoderError where the directory has another head or none."""
    head = head_of(directory)
    if not head.endswith(HEAD):
        raise EncoderError(
            f"{label}: --pool model of a speech model is its x-vector, but {directory / 'config.json'} names "
            f"{head or 'no head'}, expected one such as WavLMForXVector. Use --pool mean or mean+std."
        )
    return load_model(directory, label, auto="AutoModelForAudioXVector")


def dim_of(config: Any) -> int:
    """Return the number of columns of an embedding."""
    return int(config.xvector_output_dim)


class SpeakerEncoder(ModelEncoder):
    """A transformers model ...ForXVector (WavLM, UniSpeech-SAT, wav2vec 2.0): its `embeddings`, one row per utterance.

    Utterances go through alone, without padding. One longer than the window ("30s+0s" by default) is refused, as one of
    fewer frames than the head's convolutions see.
    """

    kind = "audio"

    def __init__(
        self,
        model: Any,
        *,
        normalize: bool,
        spec: FeatureSpec,
        choice: LayerChoice,
        device: torch.device,
        compute: torch.dtype,
    ) -> None:
        super().__init__(model, spec=spec, choice=choice, device=device, compute=compute)
        self.normalize = normalize
        config = model.config
        self.layers_available: int = config.num_hidden_layers
        self._convs = Convolutions.of(config)
        # Two frames after the last of the head's convolutions: a deviation over time needs them.
        spans = zip(config.tdnn_kernel, config.tdnn_dilation, strict=True)
        self._least_frames = 2 + sum((kernel - 1) * dilation for kernel, dilation in spans)
        self.window_frames, _ = parse_window(spec.window, SAMPLE_RATE_HZ / self._convs.hop)
        self.default_batch_frames = default_batch_frames(device, ONE_AT_A_TIME, spec, self.window_frames)

    def n_frames(self, n_samples: int) -> int:
        """Return 1: the rows of any utterance."""
        return 1

    def cost(self, item: int | str) -> int:
        return self._convs.n_frames(int(item))

    def refusal(self, item: int | str) -> str:
        """Return why an utterance has no embedding: too short for the head, or longer than the window."""
        n_frames, rate_hz = self.cost(item), SAMPLE_RATE_HZ / self._convs.hop
        if n_frames < self._least_frames:
            needed = (self._least_frames - 1) * self._convs.hop + self._convs.field
            return (
                f"{int(item) / SAMPLE_RATE_HZ:.3f} s of audio, expected at least {needed / SAMPLE_RATE_HZ:.3f} s for a "
                "speaker embedding."
            )
        if n_frames > self.window_frames:
            return (
                f"{int(item) / SAMPLE_RATE_HZ:.0f} s of audio, expected at most {self.window_frames / rate_hz:.0f} s "
                "for a speaker embedding; split it, or raise --window."
            )
        return ""

    def prepare(self, item: np.ndarray) -> np.ndarray:
        """Return the samples (n_samples,) float32 as the model was trained on them."""
        return normalized(item) if self.normalize else np.asarray(item, np.float32)

    def start_prepared(
        self, batch: Sequence[np.ndarray], max_frames: int | None = None, *, stored: bool = False
    ) -> Callable[[], list[np.ndarray]]:
        """Start on waveforms that went through `prepare`: (1, 1, D) float32 each, whatever the store's type."""
        fetched = [self._row(samples) for samples in batch]
        return lambda: [each() for each in fetched]

    @torch.inference_mode()
    def _row(self, samples: np.ndarray) -> Callable[[], np.ndarray]:
        n_frames = self.cost(len(samples))
        padded_batch([n_frames], n_frames)
        (inputs,) = to_device([samples[None]], self._device)
        with stage("encode", self._device), arithmetic(self.compute, self._device):
            embedding = self.model(inputs).embeddings.float()
        return to_host(embedding[None])
