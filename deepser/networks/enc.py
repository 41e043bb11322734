"""Enc, DeepSER's building block: a small masked transformer that returns every layer's sequence."""

from torch import Tensor, nn

from deepser.config import NetworkConfig
from deepser.networks.attention import TransformerLayer


class Enc(nn.Module):
    """Linear, ReLU, linear, then transformer layers (MEDUSA, Algorithm 1).

    The pool of the last layer, the algorithm's third output, is left to the caller: some fusions have no use for it.
    """

    def __init__(self, in_dim: int, config: NetworkConfig) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Linear(in_dim, config.d), nn.ReLU(), nn.Linear(config.d, config.d))
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.n_layers))

    def forward(self, x: Tensor, valid: Tensor) -> list[Tensor]:
        """Map (B, T, in_dim), valid (B, T) bool -> the sequence after each layer, (B, T, d) each."""
        x = self.project(x)
        sequences = []
        for layer in self.layers:
            x = layer(x, valid)
            sequences.append(x)
        return sequences
