"""Cross-modal attention: each modality looks at the others, frame by frame."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepser.config import NetworkConfig
from deepser.networks.attention import Dropout, Masked, attend
from deepser.networks.enc import Enc
from deepser.networks.pooling import make_pool
from deepser.networks.timing import near


class CrossLayer(nn.Module):
    """A transformer layer whose keys and values come from another sequence; residuals, normalised first."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        d = config.d
        self.n_heads = config.n_heads
        self.norm_queries, self.norm_keys, self.norm_ff = nn.LayerNorm(d), nn.LayerNorm(d), nn.LayerNorm(d)
        self.q = nn.Linear(d, d)
        self.kv = nn.Linear(d, 2 * d)
        self.out = nn.Linear(d, d)
        self.ff_in = nn.Linear(d, config.ff_multiple * d)
        self.ff_out = nn.Linear(config.ff_multiple * d, d)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, others: Tensor, valid: Tensor) -> Tensor:
        """Map (B, T, d), others (B, S, d), which of them are seen, (B, S) or (B, T, S) bool -> (B, T, d)."""
        n_batch, n_frames, d = x.shape
        q = self.q(self.norm_queries(x)).view(n_batch, n_frames, self.n_heads, -1).transpose(1, 2)
        k, v = (
            self.kv(self.norm_keys(others)).view(n_batch, -1, 2, self.n_heads, d // self.n_heads).permute(2, 0, 3, 1, 4)
        )
        mixed = attend(q, k, v, valid)
        x = x + self.dropout(self.out(mixed.transpose(1, 2).reshape(n_batch, n_frames, d)))
        output: Tensor = x + self.dropout(self.ff_out(F.relu(self.ff_in(self.norm_ff(x)))))
        return output


class CrossAttention(nn.Module):
    """x = W (pool(c_1), ..., pool(c_N)), c_m = modality m's Enc attending over the frames of all the others' Encs.

    The challenge's teams (UNICAMP and others) built it in many ways; this is the plain one: one cross layer per
    modality, over the other modalities' last sequences concatenated along time.
    """

    relu = True

    def __init__(self, dims: Sequence[int], config: NetworkConfig) -> None:
        """dims: of each modality's rows."""
        super().__init__()
        self.width = config.d
        self.unimodal = nn.ModuleList(Enc(dim, config) for dim in dims)
        self.cross = nn.ModuleList(CrossLayer(config) for _ in dims)
        pools = [make_pool(config.pooling, config.d, config.pool_dim) for _ in dims]
        self.pools = nn.ModuleList(pools)
        self.merge = nn.Linear(sum(pool.width for pool in pools), config.d)

    def forward(
        self, sequences: Sequence[Masked], spans: Sequence[Tensor] | None = None, window_s: float = 0.0
    ) -> Tensor:
        """Per modality (B, T, D) and valid (B, T) -> x (B, d).

        spans: start and end in seconds of each modality's rows, (B or 1, T, 2); a row then sees those of the others
        that are at most window_s away. None: all of them.
        """
        ends = [(enc(x, valid)[-1], valid) for enc, (x, valid) in zip(self.unimodal, sequences, strict=True)]
        pooled = []
        for i, (cross, pool, (x, valid)) in enumerate(zip(self.cross, self.pools, ends, strict=True)):
            others = [end for j, end in enumerate(ends) if j != i]
            visible = torch.cat([of for _, of in others], 1)
            if spans is not None:
                spans_of_others = [of.expand(len(x), -1, -1) for j, of in enumerate(spans) if j != i]
                visible = near(spans[i], torch.cat(spans_of_others, 1), visible, window_s)
            attended = cross(x, torch.cat([y for y, _ in others], 1), visible)
            pooled.append(pool(attended, valid))
        output: Tensor = self.merge(torch.cat(pooled, 1))
        return output
