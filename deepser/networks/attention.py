"""Masked attention and the transformer layer that the networks are made of."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepser.config import NetworkConfig

Masked = tuple[Tensor, Tensor]  # a padded sequence (B, T, D) and which of its frames are valid (B, T) bool


class Dropout(nn.Module):
    """Zeroes each value with probability `p` (on CPUs rounded to 1/256) and scales the others up, in training only."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        # torch draws a 64-bit number per value there, a fifth of a training step; eight masks fit into each.
        dropped = round(256 * self.p)
        words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
        keep = words.view(torch.uint8)[: x.numel()].view(x.shape) >= dropped
        return x * (keep.to(x.dtype) * (256 / (256 - dropped)))


class TransformerLayer(nn.Module):
    """Self-attention and feed-forward with residuals, normalised first; padding is never attended to."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        d = config.d
        self.n_heads = config.n_heads
        self.norm_attention = nn.LayerNorm(d)
        self.qkv = nn.Linear(d, 3 * d)
        self.out = nn.Linear(d, d)
        self.norm_ff = nn.LayerNorm(d)
        self.ff_in = nn.Linear(d, config.ff_multiple * d)
        self.ff_out = nn.Linear(config.ff_multiple * d, d)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Map (B, T, d), valid (B, T) bool -> (B, T, d)."""
        n_batch, n_frames, d = x.shape
        qkv = self.qkv(self.norm_attention(x)).view(n_batch, n_frames, 3, self.n_heads, d // self.n_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = attend(q, k, v, valid)
        x = x + self.dropout(self.out(mixed.transpose(1, 2).reshape(n_batch, n_frames, d)))
        output: Tensor = x + self.dropout(self.ff_out(F.relu(self.ff_in(self.norm_ff(x)))))
        return output


def attend(q: Tensor, k: Tensor, v: Tensor, valid: Tensor) -> Tensor:
    """Softmax attention of queries (B, heads, T, d_head) over the keys and values (B, heads, S, d_head) that are valid.

    valid: (B, S) bool, at least one key of each clip, or (B, T, S), at least one of each query.
    """
    mask = valid[:, None, None, :] if valid.ndim == 2 else valid[:, None]
    if q.device.type != "cpu" or q.dtype == torch.float32:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    # On CPUs with bf16 matrix units the plain product is 3-5x faster than torch's fused
    # kernel (benchmarks/attention.py).
    with torch.autocast("cpu", enabled=False):
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        output: Tensor = scores.masked_fill(~mask, float("-inf")).softmax(-1) @ v
        return output
