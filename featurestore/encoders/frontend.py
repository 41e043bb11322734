"""The convolutional front end of speech models as matrix products over frames that lie in a row.

Frames (T, C) are kept as layer norm and the transformer read them, so that nothing is transposed between layers, and a
convolution of kernel k and stride s is ceil(k / s) products: s taps of it meet s frames that follow one another, which
is a view. Group norm over time, which base models have behind their first convolution, becomes part of that one's
weights: the variance of a channel is its kernel's with the covariance of what the taps see, a few numbers.

On a CPU `RowFrontEnd` takes half the time of the stock modules in float32 with layer norm, as much with group norm,
and a fifth in bfloat16 (benchmarks/results/featurize.md). Each utterance goes through alone, without padding.

A GPU takes a padded batch at once (`PaddedFrontEnd`): a frame is valid when every sample that it sees is, so that
padding reaches none but through group norm, whose statistics are those of an utterance's own frames.
"""

from typing import Any

import torch
import torch.nn.functional as F


class RowFrontEnd:
    """What the `feature_extractor` of a HuBERT, WavLM, wav2vec 2.0 or data2vec-audio of transformers gives.

    The numbers are the stock ones but for the order of sums (float32: about 1e-6 of the largest).
    """

    def __init__(self, extractor: Any) -> None:
        self._layers = [(layer, _taps(layer.conv)) for layer in extractor.conv_layers]

    def __call__(self, samples: torch.Tensor) -> torch.Tensor:
        """Map (n_samples,) float32 -> (T, C), T by the formula of `SpeechEncoder.n_frames`."""
        rows = samples[:, None]
        for layer, taps in self._layers:
            norm = getattr(layer, "layer_norm", None)  # base models have one behind the first convolution alone
            if isinstance(norm, torch.nn.GroupNorm):
                rows = _normed_over_time(rows[:, 0], layer.conv, norm)
            else:
                rows = _convolved(rows, layer.conv, taps)
                rows = rows if norm is None else norm(rows)
            rows = layer.activation(rows)
        return rows


class PaddedFrontEnd:
    """What the `feature_extractor` of such a model gives for each utterance of a padded batch alone.

    In 16 bits the convolutions alone are: CUDA's autocast computes norms in float32, and so GELU behind them. To round
    there as well would save about 4 % of WavLM-large's time by a count of bytes, and adds 22 % to the front end's error
    (GELU) or 36 % (norm and GELU; random weights, `tests/featurestore/encoders/test_frontend.py`).
    """

    def __init__(self, extractor: Any) -> None:
        self._layers = list(extractor.conv_layers)

    def __call__(self, samples: torch.Tensor, n_samples: torch.Tensor) -> torch.Tensor:
        """Map (B, n) float32, zeros after each one's n_samples (B,) -> (B, T, C); frames that see padding undefined."""
        hidden = samples[:, None]
        for layer in self._layers:
            norm = getattr(layer, "layer_norm", None)
            if isinstance(norm, torch.nn.GroupNorm):
                scale, shift = _group_norm(samples, n_samples, layer.conv, norm)
                hidden = layer.activation(torch.addcmul(shift[..., None], layer.conv(hidden), scale[..., None]))
            else:
                hidden = layer(hidden)
        return hidden.transpose(1, 2)


def _group_norm(
    samples: torch.Tensor, n_samples: torch.Tensor, conv: torch.nn.Conv1d, norm: torch.nn.GroupNorm
) -> tuple[torch.Tensor, torch.Tensor]:
    """Map (B, n), (B,) -> scale and shift (B, C) float32: group norm over each one's own frames of conv(samples)."""
    kernel_size, stride = conv.kernel_size[0], conv.stride[0]
    windows = samples.double().unfold(1, kernel_size, stride)  # (B, T, k)
    n_frames = torch.div(n_samples - kernel_size, stride, rounding_mode="floor") + 1
    is_frame = torch.arange(windows.shape[1], device=windows.device) < n_frames[:, None]
    mean = torch.where(is_frame[..., None], windows, 0).sum(1) / n_frames[:, None]  # (B, k): of what each tap sees
    centred = torch.where(is_frame[..., None], windows - mean[:, None], 0)
    covariance = centred.transpose(1, 2) @ centred / n_frames[:, None, None]
    kernel = conv.weight[:, 0].double()
    variance = ((kernel @ covariance) * kernel).sum(-1)
    scale = norm.weight / (variance + norm.eps).sqrt()
    mean_of_channel = mean @ kernel.T + (0 if conv.bias is None else conv.bias)
    return scale.float(), (norm.bias - scale * mean_of_channel).float()


def _normed_over_time(samples: torch.Tensor, conv: torch.nn.Conv1d, norm: torch.nn.GroupNorm) -> torch.Tensor:
    """Map (n_samples,) -> (T, C): convolution, then each channel normalised over time (its bias drops out)."""
    windows = samples.unfold(0, conv.kernel_size[0], conv.stride[0]).double()  # (T, k)
    windows = windows - windows.mean(0)
    kernel = conv.weight[:, 0].double()
    variance = ((kernel @ (windows.T @ windows / len(windows))) * kernel).sum(1)
    scaled = kernel * (norm.weight / (variance + norm.eps).sqrt())[:, None]
    return F.linear(windows.float(), scaled.float(), norm.bias)


def _taps(conv: torch.nn.Conv1d) -> list[torch.Tensor]:
    """Return the kernel (C', C, k) in parts (C', taps * C), of `stride` taps each and of those left in the last one."""
    stride = conv.kernel_size[0] if conv.in_channels == 1 else conv.stride[0]  # a waveform's taps are few numbers
    return [part.flatten(1) for part in conv.weight.permute(0, 2, 1).split(stride, dim=1)]


def _convolved(rows: torch.Tensor, conv: torch.nn.Conv1d, taps: list[torch.Tensor]) -> torch.Tensor:
    """Map (T, C) contiguous -> (T', C')."""
    stride, dim = conv.stride[0], rows.shape[1]
    n_frames = (len(rows) - conv.kernel_size[0]) // stride + 1
    windows = [
        rows[number * stride :].as_strided((n_frames, part.shape[1]), (stride * dim, 1))
        for number, part in enumerate(taps)
    ]
    convolved = F.linear(windows[0], taps[0], conv.bias)
    for frames, part in zip(windows[1:], taps[1:], strict=True):
        convolved = torch.addmm(convolved, frames, part.T)
    return convolved
