"""SRPOL's multi-expert network: pooled encoders as a short sequence, read by an LSTM."""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from deepser.config import NetworkConfig
from deepser.networks.attention import Dropout, Masked
from deepser.networks.pooling import make_pool

# Autocast casts cuDNN's recurrent layers to float16 whatever its own type is, and nothing here scales the loss for it.
WITHOUT_AUTOCAST = ("cuda",)


class Srpol(nn.Module):
    """Each modality pooled and projected to d; these N vectors in their order, LayerNorm, LSTM; its last output is x.

    The paper's: attentive statistics pooling, d = 1028, two LSTM layers of 2048, N = 3 (Whisper, WavLM, RoBERTa). One
    linear layer follows it, without a ReLU. It gives about 60 M parameters: 58.8 M in the LSTM, 6.8 M in the three
    projections, and the pools', whose hidden width it leaves open (128: 0.4 M; as wide as the input: 3.7 M).
    """

    relu = False

    def __init__(self, dims: Sequence[int], config: NetworkConfig) -> None:
        """dims: of each modality's rows."""
        super().__init__()
        self.width = config.lstm_dim
        pools = [make_pool(config.pooling, dim, config.pool_dim) for dim in dims]
        self.pools = nn.ModuleList(pools)
        self.project = nn.ModuleList(nn.Linear(pool.width, config.d) for pool in pools)
        self.norm = nn.LayerNorm(config.d)
        self.dropout = Dropout(config.dropout)
        self.lstm = nn.LSTM(config.d, config.lstm_dim, config.n_layers, batch_first=True)

    def forward(self, sequences: Sequence[Masked]) -> Tensor:
        """Per modality (B, T, D) and valid (B, T) -> x (B, lstm_dim)."""
        experts = [
            project(pool(x, valid))
            for pool, project, (x, valid) in zip(self.pools, self.project, sequences, strict=True)
        ]
        read = self.dropout(self.norm(torch.stack(experts, 1)))
        in_float32 = read.device.type in WITHOUT_AUTOCAST
        with torch.autocast(read.device.type, enabled=False) if in_float32 else nullcontext():
            outputs, _ = self.lstm(read.float() if in_float32 else read)
        output: Tensor = outputs[:, -1]
        return output
