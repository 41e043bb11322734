"""What every network has in common: inputs of stored layers, a body that makes one vector of a clip, and the head."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from deepser.config import NetworkConfig
from deepser.networks.attention import Dropout, Masked
from deepser.networks.baseline import Baseline
from deepser.networks.cross_attention import CrossAttention
from deepser.networks.deepser import DeepSER
from deepser.networks.late_fusion import LateFusion
from deepser.networks.srpol import Srpol
from deepser.networks.timing import Timing
from deepser.networks.unimodal import Unimodal
from featurestore.errors import ConfigError
from featurestore.runtime.transfer import to_device

Rows = Sequence[tuple[Tensor, Tensor]]  # per modality: values (L, sum T, D), offsets (B + 1,) int64, best on the host

# On a CPU a batch goes through the body in groups of clips of like length, of about so many frames in all modalities.
# What a layer makes then stays in the cache, glibc reuses its memory (above 32 MiB each result is fresh pages from the
# kernel), and little is padding. Half as many, twice or four times as many were slower on an Intel Xeon of 2023.
GROUP_FRAMES = 1536

# A body maps (B, T, D) sequences and their masks to x (B, body.width); body.relu: the head takes ReLU(x).
Body = DeepSER | Unimodal | LateFusion | CrossAttention | Srpol | Baseline
BODIES: dict[str, Callable[[Sequence[int], NetworkConfig], Body]] = {
    "deepser": DeepSER,
    "unimodal": Unimodal,
    "late-fusion": LateFusion,
    "cross-attention": CrossAttention,
    "srpol": Srpol,
    "baseline": Baseline,
}
OF_BODY = ("unimodal.", "fusion.", "merge.")  # parameters that stood beside the head before there were other bodies


class FeatureInput(nn.Module):
    """Stored rows of one feature set -> one sequence: dims standardised, layers summed by learned weights (SUPERB)."""

    mean: Tensor
    inverse_std: Tensor

    def __init__(self, n_layers: int, dim: int) -> None:
        super().__init__()
        self.layer_logits = nn.Parameter(torch.zeros(n_layers))
        self.register_buffer("mean", torch.zeros(n_layers, 1, dim))
        self.register_buffer("inverse_std", torch.ones(n_layers, 1, dim))

    def forward(self, values: Tensor) -> Tensor:
        """Map (L, sum T, D) -> (sum T, D)."""
        weights = self.layer_logits.softmax(0)
        return torch.einsum("l,ltd->td", weights, (values - self.mean) * self.inverse_std)


class Head(nn.Module):
    """Class logits and attributes of x or ReLU(x); attributes are low + (high - low) * sigmoid, as 1 + 6 * sigmoid."""

    low: Tensor
    span: Tensor

    def __init__(
        self,
        width: int,
        n_classes: int,
        attribute_ranges: Sequence[tuple[float, float]],
        dropout: float,
        relu: bool = True,
    ) -> None:
        super().__init__()
        ranges = torch.tensor(attribute_ranges, dtype=torch.float32).reshape(-1, 2)
        self.relu = relu
        self.dropout = Dropout(dropout)
        self.classes = nn.Linear(width, n_classes)
        self.attributes = nn.Linear(width, len(ranges)) if len(ranges) else None
        self.register_buffer("low", ranges[:, 0])
        self.register_buffer("span", ranges[:, 1] - ranges[:, 0])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, width) -> (B, C) logits and (B, A) attributes on their own scales."""
        x = self.dropout(F.relu(x) if self.relu else x)
        if self.attributes is None:
            return self.classes(x), x.new_zeros((len(x), 0))
        return self.classes(x), self.low + self.span * torch.sigmoid(self.attributes(x))


class Network(nn.Module):
    """Inputs, a body and the head. `embed` gives x, which Manifold MixUp mixes; the head does the rest."""

    def __init__(
        self,
        inputs: Sequence[tuple[int, int]],
        n_classes: int,
        attribute_ranges: Sequence[tuple[float, float]],
        config: NetworkConfig,
        timing: Timing | None = None,
    ) -> None:
        """Take the shape of each feature set and the range of each attribute.

        inputs: (number of stored layers, dim) per feature set. attribute_ranges: (low, high) per attribute. timing: of
        rows that are aligned in time; some inputs then hold times and are no modality.
        """
        super().__init__()
        self.timing = timing
        modalities = range(len(inputs)) if timing is None else timing.modalities
        config.check_inputs(len(modalities))
        self.standardises = config.input_norm == "standard"
        self.inputs = nn.ModuleList(FeatureInput(n_layers, dim) for n_layers, dim in inputs)
        for i in set(range(len(inputs))) - set(modalities):
            self.inputs[i].requires_grad_(False)  # read as they are
        self.body: Body = BODIES[config.kind]([inputs[i][1] for i in modalities], config)
        self.head = Head(self.body.width, n_classes, attribute_ranges, config.dropout, self.body.relu)
        self.register_load_state_dict_pre_hook(_name_the_body)  # type: ignore[no-untyped-call]

    def set_statistics(self, i: int, mean: Tensor, std: Tensor) -> None:
        """Standardise input `i` with the mean and deviation (L, 1, D) of the training split's rows."""
        read = self.inputs[i]
        assert isinstance(read, FeatureInput)
        read.mean.copy_(mean)
        read.inverse_std.copy_(1 / (std + 1e-5))

    def embed(self, batch: Rows) -> Tensor:
        """Packed (values (L, sum T, D), offsets (B + 1,)) per modality -> x (B, width), before the head's ReLU."""
        if self.timing is not None:
            return self._aligned(batch, self.timing)
        rows = [read(values) for read, (values, _) in zip(self.inputs, batch, strict=True)]
        offsets = [offsets for _, offsets in batch]
        if rows[0].device.type != "cpu":
            together: Tensor = self.body([pad(of_set, own) for of_set, own in zip(rows, offsets, strict=True)])
            return together
        lengths = np.diff([own.numpy() for own in offsets])
        clips = [of_set.split(own.tolist()) for of_set, own in zip(rows, lengths, strict=True)]
        groups = like_lengths(lengths)
        outputs = []
        for group in groups:
            ends = torch.from_numpy(np.cumsum(lengths[:, group], 1))
            chosen = [torch.cat([of_set[i] for i in group]) for of_set in clips]
            outputs.append(self.body([pad(own, F.pad(end, (1, 0))) for own, end in zip(chosen, ends, strict=True)]))
        return torch.cat(outputs)[torch.from_numpy(np.argsort(np.concatenate(groups)))]

    def _aligned(self, batch: Rows, timing: Timing) -> Tensor:
        sequences = []
        for i, (read, (values, offsets)) in enumerate(zip(self.inputs, batch, strict=True)):
            holder = timing.times[i]
            if holder is not None and not torch.equal(offsets, batch[holder][1]):
                raise ConfigError("--align: a text's set and its times have other numbers of rows; make both anew.")
            sequences.append(pad(read(values) if i in timing.modalities else values[0], offsets))
        spans = timing.spans(sequences)
        output: Tensor = self.body([sequences[i] for i in timing.modalities], spans, timing.window_s)
        return output

    def forward(self, batch: Rows) -> tuple[Tensor, Tensor]:
        """Packed batch -> class logits (B, C) and attributes (B, A) on their own scales."""
        outputs: tuple[Tensor, Tensor] = self.head(self.embed(batch))
        return outputs


def like_lengths(lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return groups of clips of like length, each of GROUP_FRAMES padded frames at most or of one clip.

    lengths: (M, B) frames of each clip in every modality. Every clip is in one group. A batch that is one group keeps
    its order, by which dropout is drawn.
    """
    n_clips = lengths.shape[1]
    if n_clips * lengths.max(1).sum() <= GROUP_FRAMES:
        return [np.arange(n_clips)]
    order = np.argsort(lengths.sum(0), kind="stable")
    groups: list[NDArray[np.int64]] = []
    start = 0
    for end in range(1, len(order) + 1):
        following = order[start : end + 1]
        if end == len(order) or len(following) * lengths[:, following].max(1).sum() > GROUP_FRAMES:
            groups.append(order[start:end])
            start = end
    return groups


def pad(values: Tensor, offsets: Tensor) -> Masked:
    """Packed rows (sum T, D) and offsets (B + 1,) -> padded (B, T, D) and valid (B, T) bool, on the rows' device.

    A clip without rows gets one valid row of zeros, so that attention over it is defined. Nothing waits for the device
    where the offsets are on the host.
    """
    of_clip = np.diff(offsets.cpu().numpy())
    n_clips, n_frames = len(of_clip), max(int(of_clip.max()), 1)
    starts = np.arange(n_clips) * n_frames
    before = np.concatenate([[0], np.cumsum(of_clip)[:-1]])
    places = np.arange(len(values)) + np.repeat(starts - before, of_clip)
    lengths, targets = to_device([np.maximum(of_clip, 1), places], values.device)
    padded = values.new_zeros((n_clips * n_frames, values.shape[-1])).index_copy(0, targets, values)
    valid = torch.arange(n_frames, device=values.device) < lengths[:, None]
    return padded.view(n_clips, n_frames, -1), valid


def _name_the_body(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name in [name for name in state if name.removeprefix(prefix).startswith(OF_BODY)]:
        state[f"{prefix}body.{name.removeprefix(prefix)}"] = state.pop(name)
