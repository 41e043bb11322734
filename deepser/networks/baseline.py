"""The challenge baseline's head, over frozen features."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deepser.config import NetworkConfig
from deepser.networks.attention import Masked
from deepser.networks.pooling import make_pool


class Baseline(nn.Module):
    """x = LayerNorm(W pool(rows)); the head adds ReLU, dropout and the output layers.

    The Interspeech 2025 challenge's baseline without its fine-tuning of WavLM: attentive statistics pooling (1024 to
    2048), d = 1024, dropout 0.5. Several feature sets are pooled apart and their vectors concatenated.
    """

    relu = True

    def __init__(self, dims: Sequence[int], config: NetworkConfig) -> None:
        """dims: of each modality's rows."""
        super().__init__()
        self.width = config.d
        pools = [make_pool(config.pooling, dim, config.pool_dim) for dim in dims]
        self.pools = nn.ModuleList(pools)
        self.project = nn.Linear(sum(pool.width for pool in pools), config.d)
        self.norm = nn.LayerNorm(config.d)

    def forward(self, sequences: Sequence[Masked]) -> Tensor:
        """Per modality (B, T, D) and valid (B, T) -> x (B, d)."""
        pooled = [pool(x, valid) for pool, (x, valid) in zip(self.pools, sequences, strict=True)]
        output: Tensor = self.norm(self.project(torch.cat(pooled, 1)))
        return output
