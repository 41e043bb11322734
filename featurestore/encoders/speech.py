"""HuBERT, WavLM, wav2vec 2.0 and data2vec-audio: waveforms to hidden states that no batch mate can change.

Padding reaches a valid frame in four ways in the stock models, and each is closed here: group norm over time in the
convolutional front end (its statistics are an utterance's own), the positional convolution (its input is masked before
every layer that mixes frames), attention (masked keys), and normalisation of the waveform (per utterance, before
padding).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from featurestore.audio import SAMPLE_RATE_HZ
from featurestore.encoders.convolutions import Convolutions
from featurestore.encoders.device import ONE_AT_A_TIME, arithmetic, default_batch_frames
from featurestore.encoders.families import SPEECH_WINDOW
from featurestore.encoders.frontend import PaddedFrontEnd, RowFrontEnd
from featurestore.encoders.layers import LayerChoice, chosen
from featurestore.encoders.model_encoder import WindowedEncoder
from featurestore.encoders.row_builder import Batch, Piece
from featurestore.encoders.wavlm import fuse_attention, padding_bias, position_bias
from featurestore.encoders.windows import windows
from featurestore.errors import ConfigError
from featurestore.format.spec import FeatureSpec
from featurestore.runtime.stage_clock import padded_batch, stage
from featurestore.runtime.transfer import Padded, to_device

FRAMES_OF_A_TILE = 16  # fused attention copies a bias whose rows aren't a multiple of this


class SpeechEncoder(WindowedEncoder):
    """A transformers speech model with a convolutional front end.

    Frame counts: n -> floor((n - kernel) / stride) + 1 through the front end's layers; for the usual front end (400
    samples seen, 320 between frames) that is floor((n - 400) / 320) + 1. Shorter audio is zero-padded to 400 samples,
    after normalisation, and gives one row. Audio of more frames than a window ("30s+1s": 1,500 frames, of which 50 at
    either inner end are context and dropped) is encoded window by window; the total still follows the formula.
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
        self._stride, self._field = self._convs.hop, self._convs.field
        self.window_frames, self._margin = parse_window(spec.window, SAMPLE_RATE_HZ / self._stride)
        self.default_batch_frames = default_batch_frames(device, ONE_AT_A_TIME, spec, self.window_frames)
        # data2vec-audio has neither field: its front end has layer norm, its layers are post-norm.
        group_norm = getattr(config, "feat_extract_norm", "layer") == "group"
        extractor = self.model.feature_extractor
        self._padded_front_end = PaddedFrontEnd(extractor) if device.type != "cpu" else None
        # With group norm in float32 the stock modules are as fast.
        by_rows = device.type == "cpu" and (compute != torch.float32 or not group_norm)
        self._row_front_end = RowFrontEnd(extractor) if by_rows else None
        self._stable = getattr(config, "do_stable_layer_norm", False)
        self._wavlm = config.model_type == "wavlm"
        if self._wavlm:
            fuse_attention(self.model)

    def n_frames(self, n_samples: int) -> int:
        """Return the number of rows for this many samples, by the formula above."""
        return self._convs.n_frames(n_samples)

    def cost(self, item: int | str) -> int:
        return self.n_frames(int(item))

    def prepare(self, item: np.ndarray) -> np.ndarray:
        """Return the samples (n_samples,) float32 as the model was trained on them."""
        return normalized(item) if self.normalize else np.asarray(item, np.float32)

    def _pieces(self, batch: Sequence[np.ndarray]) -> Iterator[Piece]:
        """Yield the windows of each waveform with their samples."""
        for index, samples in enumerate(batch):
            if len(samples) < self._field:
                samples = np.pad(samples, (0, self._field - len(samples)))
            for window in windows(self.n_frames(len(samples)), self.window_frames, self._margin):
                start = window.start * self._stride
                stop = (window.stop - 1) * self._stride + self._field
                # Samples after the last whole frame stay with an unwindowed utterance: group norm uses them too.
                whole = window.start == 0 and window.stop == window.keep_stop
                yield Piece(index, samples[start : None if whole else stop], window)

    @torch.inference_mode()
    def _forward(self, batch: Batch, dtype: torch.dtype) -> list[Tensor]:
        """Encode the samples of each window, and return what `Batch.take` returns."""
        frames = [piece.n_frames for piece in batch.pieces]
        if self._padded_front_end is None:
            return self._forward_by_rows(batch, frames, dtype)
        n_padded = self._n_padded(frames)
        padded_batch(frames, n_padded)
        n_samples = [len(piece.data) for piece in batch.pieces]
        width = max(*n_samples, (n_padded - 1) * self._stride + self._field)
        waveforms = Padded([piece.data for piece in batch.pieces], width)
        numbers = [np.array(frames), np.array(n_samples), batch.selection(n_padded)]
        padded, lengths, lengths_in_samples, selection = to_device([waveforms, *numbers], self._device)
        with stage("encode", self._device), arithmetic(self.compute, self._device):
            hidden = self._projected(self._padded_front_end(padded, lengths_in_samples))
            mask = None
            if min(frames) < n_padded:
                mask = torch.arange(n_padded, device=self._device) < lengths[:, None]
            return batch.take(chosen(self._states(hidden, mask), self.choice), selection, dtype)

    def _n_padded(self, frames: Sequence[int]) -> int:
        """Return to how many frames a batch is padded; more than the longest has where attention has a bias anyway."""
        longest = max(frames)
        if not self._wavlm and min(frames) == longest:
            return longest
        return -(-longest // FRAMES_OF_A_TILE) * FRAMES_OF_A_TILE

    def _forward_by_rows(self, batch: Batch, frames: list[int], dtype: torch.dtype) -> list[Tensor]:
        """Encode as above on a CPU, where each window goes through the front end alone."""
        n_padded = max(frames)
        padded_batch(frames, n_padded)
        data = [np.array(frames), batch.selection(n_padded), *(piece.data for piece in batch.pieces)]
        lengths, selection, *waveforms = to_device(data, self._device)
        with stage("encode", self._device), arithmetic(self.compute, self._device):
            hidden = self._projected(torch.cat([self._rows(samples) for samples in waveforms]))
            hidden = pad_sequence(list(hidden.split(frames)), batch_first=True)
            mask = torch.arange(n_padded) < lengths[:, None] if len(set(frames)) > 1 else None
            return batch.take(chosen(self._states(hidden, mask), self.choice), selection, dtype)

    def _rows(self, samples: Tensor) -> Tensor:
        """Map (n_samples,) -> (T, C)."""
        if self._row_front_end is not None:
            return self._row_front_end(samples)
        rows: Tensor = self.model.feature_extractor(samples[None])[0].T
        return rows

    def _projected(self, features: Tensor) -> Tensor:
        """Map (..., C) -> (..., D) float32, so that sums from layer to layer are not rounded to 16 bits."""
        projected = self.model.feature_projection(features)
        # HuBERT's projection returns the hidden states alone, the others' also the normalised features.
        hidden: Tensor = projected[0] if isinstance(projected, tuple) else projected
        return hidden.float()

    def _states(self, hidden: Tensor, mask: Tensor | None) -> Iterator[tuple[int, Tensor]]:
        """Yield number and hidden state (B, T, D) of each layer, from (B, T, D) and a mask (B, T), True where valid.

        0 is what the first layer reads, k what layer k gives. The last one of a pre-norm ("stable") model includes the
        final layer norm: transformers' last_hidden_state, which version 4 also gave as hidden_states[-1] and version 5
        no longer does. Layers above the deepest chosen one are not computed.
        """
        encoder = self.model.encoder
        hidden = hidden + self._positions(hidden, mask)
        if not self._stable:
            hidden = encoder.layer_norm(hidden)
        attended = None if mask is None else mask[:, None, None, :]
        bias = None
        if self._wavlm:
            attended = padding_bias(mask, self.compute)
            bias = position_bias(self.model, hidden.shape[1]).to(self.compute)
        yield 0, hidden
        for number, layer in enumerate(encoder.layers[: self.choice.deepest], start=1):
            if self._wavlm:
                hidden, _ = layer(hidden, attention_mask=attended, position_bias=bias)
            else:
                hidden = layer(hidden, attention_mask=attended)
            final = self._stable and number == self.layers_available
            yield number, encoder.layer_norm(hidden) if final else hidden

    def _positions(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """Positional convolution, with padding zero before each layer, as the convolution's own border is."""
        module = self.model.encoder.pos_conv_embed
        if mask is None:
            positions: Tensor = module(hidden)
            return positions
        valid = mask[:, None]
        x = hidden.transpose(1, 2) * valid
        if hasattr(module, "layers"):  # data2vec-audio: five convolutions; each would carry padding one kernel further
            for layer in module.layers:
                x = layer(x) * valid
        else:
            if getattr(module, "batch_norm", None) is not None:
                x = module.batch_norm(x) * valid
            x = module.activation(module.padding(module.conv(x)))
        return x.transpose(1, 2)


def normalized(waveform: np.ndarray) -> np.ndarray:
    """Zero mean and unit variance over the utterance (transformers' Wav2Vec2FeatureExtractor); silence stays zero."""
    wide = np.asarray(waveform, np.float64)
    if not len(wide):
        return np.zeros(0, np.float32)
    mean, deviation = wide.mean(), np.sqrt(wide.var() + 1e-7)
    wide = wide - mean if wide is waveform else np.subtract(wide, mean, out=wide)  # an hour is 0.5 GB of float64
    wide /= deviation
    scaled: np.ndarray = wide.astype(np.float32)
    return scaled


def parse_window(window: str, frame_rate_hz: float) -> tuple[int, int]:
    """Parse `30s+1s` into (1500, 50) frames at 50 Hz: the window, and the context dropped at each inner end."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)s\+(\d+(?:\.\d+)?)s", window)
    size, margin = (round(float(part) * frame_rate_hz) for part in match.groups()) if match else (0, 0)
    if not match or size < 2 * margin + 1:
        raise ConfigError(
            f"--window {window}: expected SECONDSs+SECONDSs, window and context, such as {SPEECH_WINDOW}."
        )
    return size, margin
