"""From a padded sequence to one vector: over valid frames alone."""

import torch
from torch import Tensor, nn

VARIANCE_FLOOR = 1e-5  # the root of a variance of zero (a clip of one frame) has no finite slope


class MeanPool(nn.Module):
    """The mean over valid frames; zeros where a clip has none."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.width = dim

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Map (B, T, D), valid (B, T) bool -> (B, D)."""
        weight = valid.to(x.dtype).unsqueeze(-1)
        return (x * weight).sum(1) / weight.sum(1).clamp(min=1)


class StatisticsPool(nn.Module):
    """Mean and standard deviation over valid frames, side by side; the deviation of one frame is that of the floor."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.width = 2 * dim

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Map (B, T, D), valid (B, T) bool -> (B, 2 D)."""
        x = x.float()  # a variance is a small difference of large numbers: not in bf16
        weight = valid.float().unsqueeze(-1)
        n = weight.sum(1).clamp(min=1)
        mean = (x * weight).sum(1) / n
        variance = ((x - mean.unsqueeze(1)).square() * weight).sum(1) / n
        return torch.cat([mean, variance.clamp(min=VARIANCE_FLOOR).sqrt()], 1)


class AttentivePool(nn.Module):
    """Mean under attention weights softmax(v . tanh(W x + b)) and, for "asp", the standard deviation beside it.

    "asp" is attentive statistics pooling (Okabe et al. 2018). hidden: rows of W; 0 for as many as there are dims.
    """

    def __init__(self, dim: int, hidden: int = 0, *, statistics: bool) -> None:
        super().__init__()
        self.statistics = statistics
        self.width = 2 * dim if statistics else dim
        self.hidden = nn.Linear(dim, hidden or dim)
        self.score = nn.Linear(hidden or dim, 1, bias=False)  # softmax cancels a bias

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Map (B, T, D), valid (B, T) bool, one or more a clip -> (B, width)."""
        scores = self.score(torch.tanh(self.hidden(x))).squeeze(-1).float()
        weight = scores.masked_fill(~valid, float("-inf")).softmax(1).unsqueeze(-1)
        x = x.float()  # a variance is a small difference of large numbers: not in bf16
        mean: Tensor = (weight * x).sum(1)
        if not self.statistics:
            return mean
        # Two passes: E[x^2] - E[x]^2 cancels where a dim is far from zero, and then depends on the padding's order.
        variance = (weight * (x - mean.unsqueeze(1)).square()).sum(1)
        return torch.cat([mean, variance.clamp(min=VARIANCE_FLOOR).sqrt()], 1)


def make_pool(kind: str, dim: int, hidden: int = 0) -> MeanPool | StatisticsPool | AttentivePool:
    """Return the pool of a NetworkConfig's `pooling`: "mean", "mean+std", "attention" or "asp"."""
    if kind == "mean+std":
        return StatisticsPool(dim)
    return MeanPool(dim) if kind == "mean" else AttentivePool(dim, hidden, statistics=kind == "asp")
