"""WavLM's attention: a gated position bias and the mask of a batch in one tensor, which fused kernels take."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def fuse_attention(model: Any) -> None:
    """Let a transformers WavLM compute its attention by `attend`.

    The stock code repeats the position bias for each utterance, and makes averaged weights that nobody reads.
    """
    for layer in model.encoder.layers:
        layer.attention.forward = partial(_attended, layer.attention)


def position_bias(model: Any, n_frames: int) -> Tensor:
    """Return the bias (1, H, T, T) that all layers and utterances share, before their gates."""
    bias: Tensor = model.encoder.layers[0].attention.compute_bias(n_frames, n_frames)
    return bias[None]


def padding_bias(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Return the bias on the logits of padded keys, (B, 1, 1, T): the lowest number; None where none is padded."""
    if mask is None:
        return None
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)[
        :, None, None
    ]


def _attended(
    attention: Any, hidden: Tensor, attention_mask: Tensor | None, position_bias: Tensor, **_: Any
) -> tuple[Tensor, None, Tensor]:
    """Map (B, T, D), `padding_bias` (B, 1, 1, T) or None, and `position_bias` (1, H, T, T) -> (B, T, D)."""
    n_batch, n_frames, dim = hidden.shape

    def heads(projection: torch.nn.Linear) -> Tensor:
        values: Tensor = projection(hidden).view(n_batch, n_frames, attention.num_heads, -1).transpose(1, 2)
        return values

    query, key, value = heads(attention.q_proj), heads(attention.k_proj), heads(attention.v_proj)
    gate, bias = _gate(attention, hidden).to(query.dtype), position_bias.to(query.dtype)
    # One pass over (B, H, T, T); its sum with the lowest number is that number, or minus infinity.
    bias = gate * bias if attention_mask is None else torch.addcmul(attention_mask, gate, bias)
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    return attention.out_proj(mixed.transpose(1, 2).reshape(n_batch, n_frames, dim)), None, position_bias


def _gate(attention: Any, hidden: Tensor) -> Tensor:
    """Return by how much each query weighs its position bias, (B, H, T, 1) (Chen et al. 2022, section 3.1)."""
    by_head = hidden.view(*hidden.shape[:2], attention.num_heads, -1).transpose(1, 2)
    projected = attention.gru_rel_pos_linear(by_head)
    gate_a, gate_b = torch.sigmoid(projected.view(*by_head.shape[:-1], 2, 4).sum(-1)).chunk(2, dim=-1)
    gate: Tensor = gate_a * (gate_b * attention.gru_rel_pos_const - 1.0) + 2.0
    return gate
