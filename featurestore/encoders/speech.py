"""HuBERT, WavLM, wav2vec 2.0 and data2vec-audio: waveforms to hidden states that no batch mate can change.

Padding reaches a valid frame in four ways in the stock models, and each is closed here: group norm over time in the
convolutional front end (run per utterance instead), the positional convolution (its input is masked before every
layer that mixes frames), attention (masked keys), and normalisation of the waveform (per utterance, before padding).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from featurestore.audio import SAMPLE_RATE_HZ
from featurestore.encoders.base import Encoder
from featurestore.encoders.device import ONE_AT_A_TIME, arithmetic, default_batch_frames, frozen, to_device
from featurestore.encoders.families import SPEECH_WINDOW
from featurestore.encoders.frontend import RowFrontEnd
from featurestore.encoders.layers import LayerChoice, stack
from featurestore.encoders.row_builder import Piece, run_windows
from featurestore.encoders.windows import windows
from featurestore.errors import ConfigError
from featurestore.format.spec import FeatureSpec
from featurestore.runtime.stage_clock import padded_batch, stage


class SpeechEncoder(Encoder):
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
        self.model = frozen(model, device, compute)
        self.name = spec.encoder
        self.spec = spec
        self.choice = choice
        self.device = str(device)
        self._device = device
        self.compute = compute
        self.normalize = normalize
        config = model.config
        self.layers_available: int = config.num_hidden_layers
        self.default_batch_frames = default_batch_frames(device, ONE_AT_A_TIME)
        self._convs = list(zip(config.conv_kernel, config.conv_stride, strict=True))
        self._stride = math.prod(config.conv_stride)
        self._field = receptive_field(self._convs)
        self.overlaps = device.type == "cuda"
        self.window_frames, self._margin = parse_window(spec.window, SAMPLE_RATE_HZ / self._stride)
        # data2vec-audio has neither field: its front end has layer norm, its layers are post-norm.
        self._group_norm = getattr(config, "feat_extract_norm", "layer") == "group"
        # With group norm in float32 the stock modules are as fast.
        by_rows = device.type == "cpu" and (compute != torch.float32 or not self._group_norm)
        self._row_front_end = RowFrontEnd(self.model.feature_extractor) if by_rows else None
        self._stable = getattr(config, "do_stable_layer_norm", False)
        self._wavlm = config.model_type == "wavlm"
        if self._wavlm:
            for layer in model.encoder.layers:
                # The stock attention materialises averaged weights that nobody reads; the same numbers through SDPA.
                layer.attention.torch_multi_head_self_attention = partial(_biased_attention, layer.attention)

    def n_frames(self, n_samples: int) -> int:
        """Rows for this many samples, by the formula above."""
        n = max(n_samples, self._field)
        for kernel, stride in self._convs:
            n = (n - kernel) // stride + 1
        return n

    def cost(self, item: int | str) -> int:
        return self.n_frames(int(item))

    def start(self, batch: Sequence[np.ndarray], max_frames: int | None = None) -> Callable[[], list[np.ndarray]]:
        """Start on waveforms (n_samples,) float32 at 16 kHz; see `Encoder.start`."""
        pieces = list(self._pieces(batch))
        return run_windows(
            pieces,
            [piece.n_frames for piece in pieces],
            self._forward,
            lambda piece: piece.kept,
            n_inputs=len(batch),
            max_frames=max_frames or self.default_batch_frames,
            pool=self.spec.pool,
            device=self._device,
        )

    def _pieces(self, batch: Sequence[np.ndarray]) -> Iterator[Piece]:
        """Yield the windows of each waveform with their samples."""
        for index, waveform in enumerate(batch):
            samples = normalized(waveform) if self.normalize else np.asarray(waveform, np.float32)
            if len(samples) < self._field:
                samples = np.pad(samples, (0, self._field - len(samples)))
            for window in windows(self.n_frames(len(samples)), self.window_frames, self._margin):
                start = window.start * self._stride
                stop = (window.stop - 1) * self._stride + self._field
                # Samples after the last whole frame stay with an unwindowed utterance: group norm hears them too.
                whole = window.start == 0 and window.stop == window.keep_stop
                yield Piece(index, samples[start : None if whole else stop], window)

    @torch.inference_mode()
    def _forward(self, pieces: Sequence[Piece]) -> torch.Tensor:
        """Samples of each window -> (B, L, T, D) float32, rows after a window's own frames undefined."""
        frames = [piece.n_frames for piece in pieces]
        padded_batch(frames, max(frames))
        waveforms = [to_device(torch.from_numpy(piece.data), self._device) for piece in pieces]
        lengths = to_device(torch.tensor(frames), self._device)
        with stage("encode", self._device), arithmetic(self.compute, self._device):
            hidden = pad_sequence(self._front_end(waveforms, frames), batch_first=True)
            numbers = torch.arange(hidden.shape[1], device=self._device)
            mask = numbers < lengths[:, None] if len(set(frames)) > 1 else None
            return stack(self._transformer(hidden, mask), self.choice)

    def _front_end(self, samples: list[torch.Tensor], frames: list[int]) -> list[torch.Tensor]:
        """Convolutions and projection: one (T, D) per window, of as many frames as given."""
        if self._row_front_end is not None:
            features = [self._row_front_end(s) for s in samples]
        elif self._group_norm:
            # Group norm takes its statistics over time, so padding would be part of them: one window at a time.
            features = [self.model.feature_extractor(s[None])[0].T for s in samples]
        else:
            padded = self.model.feature_extractor(pad_sequence(samples, batch_first=True)).transpose(1, 2)
            # A frame is valid when every sample it sees is; those after it saw padding and are dropped.
            features = [padded[b, :n] for b, n in enumerate(frames)]
        projected = self.model.feature_projection(torch.cat(features))
        # HuBERT's projection returns the hidden states alone, the others' also the normalised features.
        hidden = projected[0] if isinstance(projected, tuple) else projected
        return list(hidden.split(frames))

    def _transformer(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> dict[int, torch.Tensor]:
        """(B, T, D) and a frame mask (B, T), True where valid -> hidden states of the chosen layers by number.

        0 is what the first layer reads, k what layer k gives. The last one of a pre-norm ("stable") model includes the
        final layer norm: transformers' last_hidden_state, which version 4 also gave as hidden_states[-1] and version 5
        no longer does. Layers above the deepest chosen one are not computed.
        """
        encoder = self.model.encoder
        hidden = hidden + self._positions(hidden, mask)
        if not self._stable:
            hidden = encoder.layer_norm(hidden)
        attended = mask if mask is None or self._wavlm else mask[:, None, None, :]
        position_bias = None
        states = {0: hidden}
        for number, layer in enumerate(encoder.layers[: self.choice.deepest], start=1):
            if self._wavlm:
                hidden, position_bias = layer(hidden, attention_mask=attended, position_bias=position_bias)
            else:
                hidden = layer(hidden, attention_mask=attended)
            if number in self.choice.numbers:
                final = self._stable and number == self.layers_available
                states[number] = encoder.layer_norm(hidden) if final else hidden
        return states

    def _positions(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Positional convolution, with padding zero before each layer, as the convolution's own border is."""
        module = self.model.encoder.pos_conv_embed
        if mask is None:
            positions: torch.Tensor = module(hidden)
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


def receptive_field(convs: Sequence[tuple[int, int]]) -> int:
    """Samples that one frame sees, from (kernel, stride) of each convolution."""
    field = 1
    for kernel, stride in reversed(convs):
        field = (field - 1) * stride + kernel
    return field


def parse_window(window: str, frame_rate_hz: float) -> tuple[int, int]:
    """`30s+1s` -> (1500, 50) frames at 50 Hz: the window, and the context dropped at each of its inner ends."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)s\+(\d+(?:\.\d+)?)s", window)
    size, margin = (round(float(part) * frame_rate_hz) for part in match.groups()) if match else (0, 0)
    if not match or size < 2 * margin + 1:
        raise ConfigError(
            f"--window {window}: expected SECONDSs+SECONDSs, window and context, such as {SPEECH_WINDOW}."
        )
    return size, margin


def _biased_attention(
    attention: Any, hidden: torch.Tensor, mask: torch.Tensor | None, gated_position_bias: torch.Tensor
) -> tuple[torch.Tensor, None]:
    """WavLM's attention: (B, T, D), frame mask (B, T) and bias (B H, T, T) added to the logits -> (B, T, D)."""
    n_batch, n_frames, dim = hidden.shape

    def heads(projection: torch.nn.Linear) -> torch.Tensor:
        values: torch.Tensor = (
            projection(hidden).view(n_batch, n_frames, attention.num_heads, attention.head_dim).transpose(1, 2)
        )
        return values

    query, key, value = heads(attention.q_proj), heads(attention.k_proj), heads(attention.v_proj)
    bias = gated_position_bias.view(n_batch, attention.num_heads, n_frames, n_frames).to(query.dtype)
    if mask is not None:
        bias = bias.masked_fill(~mask[:, None, None, :], torch.finfo(query.dtype).min)
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    return attention.out_proj(mixed.transpose(1, 2).reshape(n_batch, n_frames, dim)), None
