"""emotion2vec (Ma et al., 2024): data2vec 2.0's audio encoder, as its published checkpoints hold it.

Their files are pickles of tensors alone (the hub lists their imports: OrderedDict, storages, the rebuilding of a
tensor), so that torch reads them with weights_only=True, which runs no code; a file with anything else is refused.

Structure: wav2vec 2.0's convolutions with layer norm, a projection, five positional convolutions, ten extra tokens
before the frames, then post-norm transformer blocks, of which the first are the "context encoder". Attention is biased
by distance (ALiBi) with a learned scale for each head.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from featurestore.errors import EncoderError

CONVS = ((10, 5), *[(3, 2)] * 4, (2, 2), (2, 2))  # kernel, stride
CONV_DIM, N_POSITION_CONVS, POSITION_KERNEL, POSITION_GROUPS = 512, 5, 19, 16
AUDIO = "modality_encoders.AUDIO."
HEAD_DIM = 64


@dataclass(frozen=True)
class Emotion2VecConfig:
    """Sizes of a checkpoint, from its tensors."""

    hidden_size: int
    n_heads: int
    n_context: int
    n_blocks: int
    n_extra: int
    n_scales: int  # 1, or one for each layer
    n_scale_heads: int  # 1, or one for each head
    conv_dim: int = CONV_DIM

    @property
    def num_hidden_layers(self) -> int:
        """Blocks of the context encoder and the main ones."""
        return self.n_context + self.n_blocks


@dataclass(frozen=True)
class Output:
    """hidden_states: of 0 to the last layer, where they are asked for; (B, T, D) each."""

    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...]


class Attention(nn.Module):
    """Self-attention with a bias (1, H, T, T) added to the logits."""

    def __init__(self, dim: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Map (B, T, D) -> (B, T, D)."""
        n_batch, n_frames, dim = x.shape
        shape = (n_batch, n_frames, 3, self.n_heads, dim // self.n_heads)
        query, key, value = self.qkv(x).view(shape).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
        output: Tensor = self.proj(mixed.transpose(1, 2).reshape(n_batch, n_frames, dim))
        return output


class FeedForward(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, D) -> (B, T, D)."""
        output: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return output


class Block(nn.Module):
    """A post-norm transformer block."""

    def __init__(self, dim: int, n_heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn, self.mlp = Attention(dim, n_heads), FeedForward(dim)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Map (B, T, D) -> (B, T, D)."""
        x = self.norm1(x + self.attn(x, bias))
        output: Tensor = self.norm2(x + self.mlp(x))
        return output


class Emotion2Vec(nn.Module):
    """The encoder without its decoder and its teacher; parameters are named as in the checkpoints."""

    def __init__(self, config: Emotion2VecConfig) -> None:
        super().__init__()
        self.config = config
        dim, heads = config.hidden_size, config.n_heads
        audio = nn.Module()
        audio.local_encoder = nn.Module()
        audio.local_encoder.conv_layers = nn.ModuleList(
            nn.ModuleList([
                nn.Conv1d(1 if i == 0 else config.conv_dim, config.conv_dim, kernel, stride, bias=False),
                nn.Identity(),
                nn.ModuleList([nn.Identity(), nn.LayerNorm(config.conv_dim)]),
            ])
            for i, (kernel, stride) in enumerate(CONVS)
        )  # fmt: skip
        audio.project_features = nn.ModuleList(
            [nn.Identity(), nn.LayerNorm(config.conv_dim), nn.Linear(config.conv_dim, dim)]
        )
        audio.relative_positional_encoder = nn.ModuleList([
            nn.Identity(),
            *(nn.ModuleList([nn.Conv1d(dim, dim, POSITION_KERNEL, padding=POSITION_KERNEL // 2,
                                       groups=POSITION_GROUPS)]) for _ in range(N_POSITION_CONVS)),
        ])  # fmt: skip
        audio.extra_tokens = nn.Parameter(torch.zeros(1, config.n_extra, dim))
        audio.alibi_scale = nn.Parameter(torch.ones(config.n_scales, 1, config.n_scale_heads, 1, 1))
        audio.context_encoder = nn.Module()
        audio.context_encoder.blocks = nn.ModuleList(Block(dim, heads) for _ in range(config.n_context))
        audio.context_encoder.norm = nn.LayerNorm(dim)
        self.modality_encoders = nn.ModuleDict({"AUDIO": audio})
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(config.n_blocks))

    def forward(self, input_values: Tensor, output_hidden_states: bool = False) -> Output:
        """Map (B, n_samples) of normalised audio of one length -> frames at 50 Hz, without the extra tokens."""
        audio: Any = self.modality_encoders["AUDIO"]
        x = self._positioned(self._local(input_values))
        n_extra = self.config.n_extra
        bias = F.pad(distance_bias(x.shape[1], self.config.n_heads).to(x.device), (n_extra, 0, n_extra, 0))
        x = torch.cat([audio.extra_tokens.expand(len(x), -1, -1), x], dim=1)
        x = audio.context_encoder.norm(x)
        scales = audio.alibi_scale.clamp_min(0)
        states = [x]
        for number, block in enumerate([*audio.context_encoder.blocks, *self.blocks]):
            scale = scales[number if len(scales) > 1 else 0]
            x = block(x, bias * scale)
            if output_hidden_states:
                states.append(x)
        frames_of_layers = tuple(state[:, n_extra:] for state in states) if output_hidden_states else ()
        return Output(x[:, n_extra:], frames_of_layers)

    def _local(self, samples: Tensor) -> Tensor:
        """Map (B, n_samples) -> (B, T, D): convolutions and projection."""
        audio: Any = self.modality_encoders["AUDIO"]
        x = samples[:, None]
        for conv, _, (_, norm) in audio.local_encoder.conv_layers:
            x = F.gelu(norm(conv(x).transpose(1, 2)).transpose(1, 2))
        _, norm, linear = audio.project_features
        projected: Tensor = linear(norm(x.transpose(1, 2)))
        return projected

    def _positioned(self, x: Tensor) -> Tensor:
        """Return (B, T, D) with the output of the positional convolutions added."""
        audio: Any = self.modality_encoders["AUDIO"]
        positions = x.transpose(1, 2)
        for (conv,) in list(audio.relative_positional_encoder)[1:]:
            positions = conv(positions)
            positions = F.gelu(F.layer_norm(positions.transpose(1, 2), (x.shape[2],)).transpose(1, 2))
        return x + positions.transpose(1, 2)


def distance_bias(n_frames: int, n_heads: int) -> Tensor:
    """Return -slope |i - j| of every head, (1, H, T, T) float32 (ALiBi, Press et al., 2022, to both sides)."""
    places = torch.arange(n_frames, dtype=torch.float32)
    slopes = torch.tensor(head_slopes(n_heads))
    return (-(places[None] - places[:, None]).abs() * slopes[:, None, None])[None]


def head_slopes(n_heads: int) -> list[float]:
    """Return ALiBi's slopes: 2^(-8 k / n) for a power of two, else the lower one's, and every second of the next."""
    lower = 2 ** math.floor(math.log2(n_heads))
    slopes = [2.0 ** (-8.0 * (k + 1) / lower) for k in range(lower)]
    return slopes if lower == n_heads else [*slopes, *head_slopes(2 * lower)[0::2][: n_heads - lower]]


def find_checkpoint(path: Path) -> Path | None:
    """Return the checkpoint that a path is or holds (`emotion2vec_base.pt`, `model.pt`); None where it is none."""
    if path.is_file():
        return path if path.suffix == ".pt" else None
    checkpoints = sorted(path.glob("emotion2vec*.pt")) or sorted(path.glob("model.pt")) if path.is_dir() else []
    return checkpoints[0] if checkpoints else None


def load(path: Path, label: str) -> Emotion2Vec:
    """Read a checkpoint (weights only, no code runs), float32 on the CPU; EncoderError where it is another model's."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        state = _encoder_state(checkpoint)
        config = config_of(state)
        model = Emotion2Vec(config)
        model.load_state_dict({key: state[key].float().view_as(value) for key, value in model.state_dict().items()})
    except Exception as error:  # torch raises many kinds for a bad file; all mean the same to a user
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise EncoderError(
            f"{label}: {path} is no emotion2vec checkpoint of the known form ({type(error).__name__}: {first[:160]}). "
            "Pass emotion2vec_base.pt, or a model.pt of emotion2vec+, with --weights; or encode with its authors' "
            "program and take the rows in with `medusa store import emotion2vec`."
        ) from None
    return model.eval()


def _encoder_state(checkpoint: Any) -> Mapping[str, Tensor]:
    """Return the encoder's tensors by the names here, whatever stands before them in the file."""
    state = checkpoint
    for key in ("model", "state_dict"):
        state = state[key] if isinstance(state, Mapping) and isinstance(state.get(key), Mapping) else state
    mark = f"{AUDIO}project_features.2.weight"
    prefix = next(key[: -len(mark)] for key in state if key.endswith(mark))
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}


def config_of(state: Mapping[str, Tensor]) -> Emotion2VecConfig:
    """Read the sizes from the tensors' shapes; KeyError for a model of another structure (pre-norm, no ALiBi)."""

    def n_blocks(prefix: str) -> int:
        numbers = [int(m[1]) for key in state if (m := re.match(re.escape(prefix) + r"(\d+)\.", key))]
        return 1 + max(numbers, default=-1)

    if f"{AUDIO}context_encoder.norm.weight" not in state:
        raise KeyError("context_encoder.norm, which models with norms before each block lack")
    dim, conv_dim = state[f"{AUDIO}project_features.2.weight"].shape
    *layers, n_scale_heads, _, _ = state[f"{AUDIO}alibi_scale"].shape
    return Emotion2VecConfig(
        dim,
        n_scale_heads if n_scale_heads > 1 else dim // HEAD_DIM,
        n_blocks(f"{AUDIO}context_encoder.blocks."),
        n_blocks("blocks."),
        state[f"{AUDIO}extra_tokens"].shape[1],
        layers[0] if len(layers) == 2 else 1,
        n_scale_heads,
        conv_dim,
    )
