"""Whisper's encoder: log-mel on the device, 30 s windows, frames beyond the audio dropped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from featurestore.encoders.device import ONE_AT_A_TIME, arithmetic, default_batch_frames
from featurestore.encoders.families import WHISPER_FRAME_SAMPLES
from featurestore.encoders.layers import LayerChoice, chosen
from featurestore.encoders.logmel import mel_filters
from featurestore.encoders.model_encoder import WindowedEncoder
from featurestore.encoders.row_builder import Batch, Piece
from featurestore.encoders.windows import windows
from featurestore.format.spec import FeatureSpec
from featurestore.runtime.stage_clock import padded_batch, stage
from featurestore.runtime.transfer import Padded, to_device

N_FFT = 400
HOP_SAMPLES = 160  # between mel frames
FRAME_SAMPLES = WHISPER_FRAME_SAMPLES
MARGIN_FRAMES = 50  # 1 s of context at the inner ends of windows


class WhisperEncoder(WindowedEncoder):
    """The encoder of a transformers Whisper model (any size; 80 or 128 mels by its configuration).

    Frame counts: ceil(n_samples / 320), at least 1. Audio of more than 1,500 frames (30 s) is encoded in full windows
    that overlap by two margins of 1 s, whose frames are computed and dropped.

    Window modes, different numbers: `pad30` is what Whisper was trained on, silence up to 30 s goes through the encoder
    and its frames are dropped afterwards. `short` encodes the audio's own frames only (its mel frames are those of
    `pad30`, cut to 2 per encoder frame; padding of a batch is masked): 5 to 10 times less work on short utterances.
    On a CPU each window runs alone, so that its rows are the same to the bit. In padded fp32 batches the rows of
    OpenAI's weights agree with those to 1e-6 on average; the final layer norm raises rounding to 3e-5 in single rows.
    """

    kind = "audio"

    def __init__(
        self,
        model: Any,
        *,
        spec: FeatureSpec,
        choice: LayerChoice,
        device: torch.device,
        compute: torch.dtype,
    ) -> None:
        super().__init__(model, spec=spec, choice=choice, device=device, compute=compute)
        self.layers_available: int = model.config.encoder_layers
        self._short = spec.window == "short"
        self.window_frames: int = model.config.max_source_positions
        self.default_batch_frames = default_batch_frames(device, ONE_AT_A_TIME, spec, self.window_frames)
        self._filters = torch.from_numpy(mel_filters(model.config.num_mel_bins)).to(device)
        self._hann = torch.hann_window(N_FFT, device=device)

    def n_frames(self, n_samples: int) -> int:
        """Return the number of rows for this many samples: ceil(n_samples / 320), at least 1."""
        return max(1, -(-n_samples // FRAME_SAMPLES))

    def cost(self, item: int | str) -> int:
        n_frames = self.n_frames(int(item))
        if self._short:
            return n_frames
        return self.window_frames * len(windows(n_frames, self.window_frames, MARGIN_FRAMES))

    def _n_frames_of(self, piece: Piece) -> int:
        return piece.n_frames if self._short else self.window_frames

    def _pieces(self, batch: Sequence[np.ndarray]) -> Iterator[Piece]:
        """Yield the windows of each waveform with their samples."""
        for index, waveform in enumerate(batch):
            for window in windows(self.n_frames(len(waveform)), self.window_frames, MARGIN_FRAMES):
                samples = waveform[window.start * FRAME_SAMPLES : window.stop * FRAME_SAMPLES]
                yield Piece(index, np.asarray(samples, np.float32), window)

    @torch.inference_mode()
    def _forward(self, batch: Batch, dtype: torch.dtype) -> list[Tensor]:
        """Encode the samples of each window, and return what `Batch.take` returns."""
        n_frames = [piece.n_frames for piece in batch.pieces]
        n_longest = max(n_frames) if self._short else self.window_frames
        padded_batch(n_frames, n_longest)
        # stft with center=True mirrors at the window's end: what Whisper does at 30 s. A short window must instead
        # hear silence after its end, or the mirror would lie where its batch mates decide.
        full = n_longest == self.window_frames
        width = n_longest * FRAME_SAMPLES + (0 if full else N_FFT)
        waveforms = Padded([piece.data for piece in batch.pieces], width)
        padded, lengths, selection = to_device(
            [waveforms, np.array(n_frames), batch.selection(n_longest)], self._device
        )
        with stage("mel", self._device):
            mel = self._log_mel(padded)[..., : 2 * n_longest]
        mask = None
        if self._short:
            valid = torch.arange(2 * n_longest, device=self._device) < 2 * lengths[:, None]
            # The first convolution zero-pads at an utterance's end; the second never looks past it.
            mel = mel * valid[:, None]
            if len(set(n_frames)) > 1:
                mask = valid[:, ::2][:, None, None, :]
        with stage("encode", self._device), arithmetic(self.compute, self._device):
            return batch.take(chosen(self._states(mel, mask), self.choice), selection, dtype)

    def _log_mel(self, padded: Tensor) -> Tensor:
        """Map (B, n) samples -> (B, mels, n // 160): log10 power, floored 8 below each row's maximum, (x + 4) / 4.

        As in transformers' WhisperFeatureExtractor and openai-whisper's log_mel_spectrogram. Silence after the audio
        can't hold a row's maximum unless all of it is silent, so padding does not move the floor.
        """
        spectrum = torch.stft(padded, N_FFT, HOP_SAMPLES, window=self._hann, return_complex=True)[..., :-1]
        log_mel = (self._filters @ spectrum.abs().square()).clamp(min=1e-10).log10()
        floor = log_mel.amax(dim=(1, 2), keepdim=True) - 8.0
        return (log_mel.maximum(floor) + 4.0) / 4.0

    def _states(self, mel: Tensor, mask: Tensor | None) -> Iterator[tuple[int, Tensor]]:
        """Yield number and hidden state (B, T, D) of each layer, from (B, mels, 2 T).

        Numbers as in transformers: 0 is what the first layer reads, k what layer k gives, and the last one includes
        the final layer norm. Layers above the deepest chosen one are not computed.
        """
        model = self.model
        hidden = F.gelu(model.conv2(F.gelu(model.conv1(mel)))).transpose(1, 2)
        hidden = hidden + model.embed_positions.weight[: hidden.shape[1]]
        yield 0, hidden
        for number, layer in enumerate(model.layers[: self.choice.deepest], start=1):
            hidden = layer(hidden, mask)
            yield number, model.layer_norm(hidden) if number == self.layers_available else hidden
