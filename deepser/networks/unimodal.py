"""One Enc over one modality: DeepSER's baseline for N = 1."""

from collections.abc import Sequence

from torch import Tensor, nn

from deepser.config import NetworkConfig
from deepser.networks.attention import Masked
from deepser.networks.enc import Enc
from deepser.networks.pooling import make_pool


class Unimodal(nn.Module):
    """x = W pool(the Enc's last sequence): what remains of DeepSER without other modalities, and so without fusions."""

    relu = True

    def __init__(self, dims: Sequence[int], config: NetworkConfig) -> None:
        """dims: of the one modality's rows."""
        super().__init__()
        (dim,) = dims
        self.width = config.d
        self.enc = Enc(dim, config)
        self.pool = make_pool(config.pooling, config.d, config.pool_dim)
        self.merge = nn.Linear(self.pool.width, config.d)

    def forward(self, sequences: Sequence[Masked]) -> Tensor:
        """Map (B, T, D) and valid (B, T), of one modality -> x (B, d)."""
        ((x, valid),) = sequences
        output: Tensor = self.merge(self.pool(self.enc(x, valid)[-1], valid))
        return output
