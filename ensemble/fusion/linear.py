"""The linear meta-classifier and its soup (MEDUSA, stages 3 and 4)."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ensemble.fusion.state import MetaState, Prediction


@dataclass(frozen=True)
class LinearSeeds:
    """Linear maps that were trained from several seeds. in_soup: the seeds that a greedy soup chose, none for all."""

    state: MetaState
    in_soup: tuple[int, ...] = ()

    def soup(self) -> MetaState:
        """Return the average of the seeds' weights, or of those in `in_soup`, as one map (MEDUSA)."""
        which = list(self.in_soup) or slice(None)
        means = {name: tensor[which].mean(0, keepdim=True) for name, tensor in self.state.tensors.items()}
        return dataclasses.replace(self.state, tensors=means)


def predict_linear(meta: MetaState, values: np.ndarray, which: int = 0) -> Prediction:
    """Predict with map number `which` (a soup has one) from (M, N, C + A) columns.

    tensors: weight (S, M * (C + A), C + A) float32, bias (S, C + A), over inputs as `prepare` makes them. Nothing
    non-linear follows but the sigmoid that keeps an attribute within its range.
    """
    weight, bias = meta.tensors["weight"], meta.tensors["bias"]
    outputs = prepare(values, len(meta.classes), meta.ranges) @ weight[which] + bias[which]
    logits, z = outputs[:, : len(meta.classes)], outputs[:, len(meta.classes) :]
    return Prediction(logits.numpy(), logits.softmax(1).numpy(), to_scale(z, meta.ranges).numpy())


def prepare(
    values: np.ndarray, n_classes: int, ranges: tuple[tuple[float, float], ...], constant: bool = False
) -> Tensor:
    """Map members' (M, N, C + A) columns -> (N, M * (C + A)) float32: classes centred per row, attributes on -1..1.

    constant: with one more column, of ones.
    """
    n_members, n, n_columns = values.shape
    x = torch.empty(n, n_members * n_columns + constant)
    x[:, n_members * n_columns :] = 1
    inputs = x[:, : n_members * n_columns].view(n, n_members, n_columns)
    inputs.copy_(torch.from_numpy(np.ascontiguousarray(values, np.float32)).transpose(0, 1))
    inputs[..., :n_classes] -= inputs[..., :n_classes].mean(2, keepdim=True)
    for a, (low, high) in enumerate(ranges, n_classes):
        inputs[..., a] = (inputs[..., a] - (low + high) / 2) / ((high - low) / 2)
    return x


def to_scale(z: Tensor, ranges: tuple[tuple[float, float], ...]) -> Tensor:
    """Map (..., A) -> low + (high - low) * sigmoid(z), each attribute on its own scale (1 + 6 * sigmoid on 1..7)."""
    low, high = z.new_tensor(ranges).reshape(-1, 2).T
    scaled: Tensor = low + (high - low) * z.sigmoid()
    return scaled
