"""DeepSER: an Enc per modality, and a chain of fusion Encs that reads their layers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deepser.config import NetworkConfig
from deepser.networks.attention import Masked
from deepser.networks.enc import Enc
from deepser.networks.pooling import make_pool


class DeepSER(nn.Module):
    """MEDUSA's network (arXiv 2506.09556, Algorithm 2) for N >= 2 modalities and L >= 1 layers in each Enc.

    Every Enc, of a modality or a fusion, has L layers; there are L fusions. With m_l the layer-l sequence of modality
    m, f_l the last layer's sequence of fusion l, || concatenation along time and pool() the masked pool:

        fusion 1 reads 1_1 || 2_1 || ... || N_1
        fusion l reads 1_l || 2_l || ... || N_l || f_(l-1)                 l = 2 ... L
        x = W (pool(1_L), ..., pool(N_L), pool(f_L))

    So layer l of every modality is fused once, in what the shallower fusions made of the layers below it, and only the
    last fusion's pool reaches the head. With L = 2 this is Algorithm 2 to the letter; the paper leaves any other L to
    an unpublished report, so for them it is our definition.
    """

    relu = True  # of x, before the head

    def __init__(self, dims: Sequence[int], config: NetworkConfig) -> None:
        """dims: of each modality's rows."""
        super().__init__()
        self.width = config.d
        self.unimodal = nn.ModuleList(Enc(dim, config) for dim in dims)
        self.fusion = nn.ModuleList(Enc(config.d, config) for _ in range(config.n_layers))
        pools = [make_pool(config.pooling, config.d, config.pool_dim) for _ in range(len(dims) + 1)]
        self.pools = nn.ModuleList(pools)
        self.merge = nn.Linear(sum(pool.width for pool in pools), config.d)

    def forward(self, sequences: Sequence[Masked]) -> Tensor:
        """Per modality (B, T, D) and valid (B, T) -> x (B, d)."""
        layers = [enc(x, valid) for enc, (x, valid) in zip(self.unimodal, sequences, strict=True)]
        masks = [valid for _, valid in sequences]
        ends = [(of_modality[-1], valid) for of_modality, valid in zip(layers, masks, strict=True)]
        fused: list[Masked] = []  # the previous fusion's last sequence
        for layer, enc in enumerate(self.fusion):
            x = torch.cat([*(of_modality[layer] for of_modality in layers), *(x for x, _ in fused)], 1)
            valid = torch.cat([*masks, *(valid for _, valid in fused)], 1)
            fused = [(enc(x, valid)[-1], valid)]
        pooled = [pool(x, valid) for pool, (x, valid) in zip(self.pools, [*ends, *fused], strict=True)]
        output: Tensor = self.merge(torch.cat(pooled, 1))
        return output
