"""Late fusion: modalities meet only as pooled vectors."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deepser.config import NetworkConfig
from deepser.networks.attention import Masked
from deepser.networks.enc import Enc
from deepser.networks.pooling import make_pool


class LateFusion(nn.Module):
    """x = W (pool(1_L), ..., pool(N_L)): DeepSER without its fusion Encs (the ablation of MEDUSA's Table 2)."""

    relu = True

    def __init__(self, dims: Sequence[int], config: NetworkConfig) -> None:
        """dims: of each modality's rows."""
        super().__init__()
        self.width = config.d
        self.unimodal = nn.ModuleList(Enc(dim, config) for dim in dims)
        pools = [make_pool(config.pooling, config.d, config.pool_dim) for _ in dims]
        self.pools = nn.ModuleList(pools)
        self.merge = nn.Linear(sum(pool.width for pool in pools), config.d)

    def forward(self, sequences: Sequence[Masked]) -> Tensor:
        """Per modality (B, T, D) and valid (B, T) -> x (B, d)."""
        pooled = [
            pool(enc(x, valid)[-1], valid)
            for enc, pool, (x, valid) in zip(self.unimodal, self.pools, sequences, strict=True)
        ]
        output: Tensor = self.merge(torch.cat(pooled, 1))
        return output
