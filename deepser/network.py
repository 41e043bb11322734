"""DeepSER for any number of modalities: unimodal Encs, a fusion Enc per layer, one head for classes and attributes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepser.config import NetworkConfig
from deepser.enc import Dropout, Enc, pad


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
        """(L, sum T, D) -> (sum T, D)."""
        weights = self.layer_logits.softmax(0)
        return torch.einsum("l,ltd->td", weights, (values - self.mean) * self.inverse_std)


class DeepSER(nn.Module):
    """MEDUSA's network (arXiv 2506.09556, Algorithm 2), for any number N >= 2 of modalities and L >= 1 layers.

    Fusion l reads the layer-l sequences of every modality and the last sequence of fusion l - 1, concatenated along
    time; the last fusion's pool joins the modalities' own. With L = 2 this is Algorithm 2 to the letter; the paper
    leaves other L to an unpublished report, so for them it is our definition.
    """

    def __init__(
        self,
        inputs: Sequence[tuple[int, int]],
        n_classes: int,
        attribute_ranges: Sequence[tuple[float, float]],
        config: NetworkConfig,
    ) -> None:
        """`inputs`: (number of stored layers, dim) per modality; `attribute_ranges`: (low, high) per attribute."""
        super().__init__()
        self.standardises = config.input_norm == "standard"
        self.inputs = nn.ModuleList(FeatureInput(n_layers, dim) for n_layers, dim in inputs)
        self.unimodal = nn.ModuleList(Enc(dim, config) for _, dim in inputs)
        self.fusion = nn.ModuleList(Enc(config.d, config) for _ in range(config.n_layers))
        self.merge = nn.Linear((len(inputs) + 1) * config.d, config.d)
        self.head = Head(config.d, n_classes, attribute_ranges, config.dropout)

    def set_statistics(self, i: int, mean: Tensor, std: Tensor) -> None:
        """Standardise input `i` with the mean and deviation (L, 1, D) of the training split's rows."""
        read = self.inputs[i]
        assert isinstance(read, FeatureInput)
        read.mean.copy_(mean)
        read.inverse_std.copy_(1 / (std + 1e-5))

    def embed(self, batch: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Packed (values (L, sum T, D), offsets (B + 1,)) per modality -> x (B, d), before the head's ReLU."""
        sequences, masks, pools = [], [], []
        for read, enc, (values, offsets) in zip(self.inputs, self.unimodal, batch, strict=True):
            padded, valid = pad(read(values), offsets)
            output = enc(padded, valid)
            sequences.append(output.sequences)
            masks.append(valid)
            pools.append(output.pooled)
        fused: list[Tensor] = []  # the previous fusion's last sequence, and its mask below
        fused_masks: list[Tensor] = []
        for layer, enc in enumerate(self.fusion):
            valid = torch.cat([*masks, *fused_masks], 1)
            output = enc(torch.cat([*(sequence[layer] for sequence in sequences), *fused], 1), valid)
            fused, fused_masks = [output.sequences[-1]], [valid]
        return self.merge(torch.cat([*pools, output.pooled], 1))

    def forward(self, batch: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Packed batch -> class logits (B, C) and attributes (B, A) on their own scales."""
        return self.head(self.embed(batch))


class Head(nn.Module):
    """Class logits and attributes from ReLU(x); attributes are low + (high - low) * sigmoid, as 1 + 6 * sigmoid."""

    low: Tensor
    span: Tensor

    def __init__(self, d: int, n_classes: int, attribute_ranges: Sequence[tuple[float, float]], dropout: float) -> None:
        super().__init__()
        ranges = torch.tensor(attribute_ranges, dtype=torch.float32).reshape(-1, 2)
        self.dropout = Dropout(dropout)
        self.classes = nn.Linear(d, n_classes)
        self.attributes = nn.Linear(d, len(ranges)) if len(ranges) else None
        self.register_buffer("low", ranges[:, 0])
        self.register_buffer("span", ranges[:, 1] - ranges[:, 0])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, d) -> (B, C) logits and (B, A) attributes."""
        x = self.dropout(F.relu(x))
        if self.attributes is None:
            return self.classes(x), x.new_zeros((len(x), 0))
        return self.classes(x), self.low + self.span * torch.sigmoid(self.attributes(x))
