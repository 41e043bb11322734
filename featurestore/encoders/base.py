"""What every encoder offers, which layers it gives, and how rows of one utterance are joined and pooled."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from featurestore.errors import ConfigError
from featurestore.format.spec import FeatureSpec
from featurestore.runtime.stage_clock import stage

if TYPE_CHECKING:
    import torch


# On a CPU an utterance fills the cores by itself (measured: batches of 16 s gain at most 7 % on the smallest encoders,
# larger ones lose by padding), and alone its rows are the same to the last bit whatever the batch.
ONE_AT_A_TIME = 1


class Encoder(Protocol):
    """Audio or text to hidden states, one array per input, independent of what else is in the batch."""

    name: str
    kind: str  # "audio" or "text"
    spec: FeatureSpec
    layers_available: int  # the highest layer number; 0 is the input of the first transformer layer
    default_batch_frames: int

    def n_frames(self, n_samples: int) -> int:
        """Rows before pooling for this many 16 kHz samples (audio encoders)."""
        ...

    def cost(self, item: int | str) -> int:
        """Padded frames one input takes in a batch; audio is given by its number of samples, text by itself."""
        ...

    def encode(self, batch: Sequence[Any], max_frames: int | None = None) -> list[np.ndarray]:
        """Encode ragged inputs: waveforms float32 (n_samples,) or texts -> (L, T, D) float32 each, in order.

        max_frames bounds the padded frames of one forward pass; longer batches are split. An encoder whose `overlaps`
        is true also has `start`, which takes the same and gives a function that waits for the rows: the device may
        get its next batch before.
        """
        ...


@dataclass(frozen=True)
class LayerChoice:
    """Which hidden states to keep: their numbers, their arrays' names, and whether they are summed into one."""

    numbers: tuple[int, ...]
    names: tuple[str, ...]
    summed: bool = False

    @property
    def deepest(self) -> int:
        return max(self.numbers)

    @classmethod
    def parse(cls, text: str, n_layers: int, encoder: str) -> LayerChoice:
        """Read `last`, `all`, `last4`, `last4-sum` or numbers such as `6,12,24`; ConfigError with the range."""
        text = text.strip().lower()
        match = re.fullmatch(r"last(\d*)(-sum)?", text)
        if text == "all":
            numbers = tuple(range(n_layers + 1))
        elif match:
            n_last = int(match[1] or 1)
            if not 1 <= n_last <= n_layers + 1:
                raise ConfigError(
                    f"--layers {text}: {encoder} has layers 0 to {n_layers}, expected at most all of them."
                )
            numbers = tuple(range(n_layers + 1 - n_last, n_layers + 1))
            if match[2]:
                return cls(numbers, (f"last{n_last}_sum",), summed=True)
        else:
            try:
                numbers = tuple(int(part) for part in text.split(","))
            except ValueError:
                raise ConfigError(
                    f"--layers {text}: expected last, all, last4, last4-sum or numbers such as 6,12,24 "
                    f"(0 to {n_layers} for {encoder})."
                ) from None
            wrong = [k for k in numbers if not 0 <= k <= n_layers]
            if wrong:
                raise ConfigError(f"--layers {text}: {encoder} has layers 0 to {n_layers}, found {wrong[0]}.")
            if len(set(numbers)) < len(numbers):
                raise ConfigError(f"--layers {text}: a layer is named twice; name each layer once.")
            numbers = tuple(sorted(numbers))
        return cls(numbers, tuple(layer_name(k) for k in numbers))


def layer_name(number: int) -> str:
    """The store's array name of one layer: 6 -> "layer_06"."""
    return f"layer_{number:02d}"


def check_choice(option: str, value: str, allowed: Sequence[str]) -> str:
    """Return value when it is one of the allowed ones, else ConfigError naming the option and them."""
    if value not in allowed:
        raise ConfigError(f"--{option} {value}: expected one of {', '.join(allowed)}.")
    return value


def stack(states: dict[int, torch.Tensor], choice: LayerChoice) -> torch.Tensor:
    """Hidden states by layer number, each (B, T, D) -> (B, L, T, D) float32 as the layer choice asks."""
    import torch

    chosen = torch.stack([states[k].float() for k in choice.numbers], dim=1)
    return chosen.sum(dim=1, keepdim=True) if choice.summed else chosen


class RowsBuilder:
    """Collects one utterance's windows in order and gives its rows, pooled over all its frames when asked.

    Pooled sums are kept in float64 on the device, so that hours of audio need one window's memory. Numbers: mean and
    population standard deviation (0 for a single frame) over the kept frames; `mean+std` concatenates them to 2 D.
    """

    def __init__(self, pool: str) -> None:
        self.pool = pool
        self.pieces: list[torch.Tensor] = []
        self.count = 0
        self.sums: torch.Tensor | None = None
        self.squares: torch.Tensor | None = None

    def add(self, rows: torch.Tensor) -> None:
        """Append (L, T, D) rows, the window's kept frames."""
        if self.pool == "none":
            self.pieces.append(to_host(rows))
            return
        with stage("pack", rows.device):
            wide = (rows.cpu() if rows.device.type == "mps" else rows).double()  # mps has no float64
            sums = wide.sum(dim=1)
            self.count += rows.shape[1]
            self.sums = sums if self.sums is None else self.sums + sums
            if self.pool == "mean+std":
                squares = wide.square().sum(dim=1)
                self.squares = squares if self.squares is None else self.squares + squares

    def finish(self) -> None:
        """All windows are there: pooled rows start on their way to the host."""
        if self.pool == "none":
            return
        import torch

        assert self.sums is not None
        with stage("pack", self.sums.device):
            mean = self.sums / self.count
            parts = [mean]
            if self.squares is not None:
                parts.append((self.squares / self.count - mean.square()).clamp(min=0).sqrt())
            pooled = torch.cat(parts, dim=-1)[:, None].float()
        self.pieces.append(to_host(pooled))

    def rows(self) -> np.ndarray:
        """(L, T, D) float32, or (L, 1, D) / (L, 1, 2 D) when pooled; after `finish`, and what it started."""
        with stage("pack"):
            pieces = [piece.numpy() for piece in self.pieces]
            whole = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)
            return np.ascontiguousarray(whole, dtype=np.float32)


def collect(builders: Sequence[RowsBuilder], device: torch.device) -> Callable[[], list[np.ndarray]]:
    """Start the last copies to the host; the function given waits for them alone, not for later work."""
    for builder in builders:
        builder.finish()
    if device.type != "cuda":
        return lambda: [builder.rows() for builder in builders]
    import torch

    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(device))

    def wait() -> list[np.ndarray]:
        copied.synchronize()
        return [builder.rows() for builder in builders]

    return wait


def to_host(values: torch.Tensor) -> torch.Tensor:
    """The values in host memory; of a CUDA device pinned, and there once its stream has come so far."""
    with stage("copy", values.device):
        if values.device.type != "cuda":
            return values.cpu()
        import torch

        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        return host.copy_(values, non_blocking=True)


def to_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The values on the device; to a CUDA device without waiting, neither for it nor for what it does at the time."""
    with stage("copy", device):
        if device.type != "cuda":
            return values.to(device)
        return values.pin_memory().to(device, non_blocking=True)


def pooled_dim(dim: int, pool: str) -> int:
    """Columns of a stored row."""
    return 2 * dim if pool == "mean+std" else dim


def pick_compute(compute: str, device: torch.device) -> torch.dtype:
    """Arithmetic of the forward pass: `auto` is float32 on the CPU and bfloat16 (else float16) on a GPU."""
    import torch

    check_choice("compute", compute, ("auto", "float32", "bfloat16", "float16"))
    if compute != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[compute]
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def default_batch_frames(device: torch.device, on_cpu: int) -> int:
    """Padded frames per forward pass; a GPU takes about 600 s of audio to fill."""
    return 30_000 if device.type == "cuda" else on_cpu


def frozen(model: Any, device: torch.device, compute: torch.dtype) -> Any:
    """The model on the device, without dropout or gradients, to be run under autocast to `compute`.

    Weights that autocast would cast in every pass are cast once, to the same numbers: on a CPU, where a pass is one
    utterance, half the time of a large model would go into casting.
    """
    import torch

    model = model.eval().requires_grad_(False)
    if compute != torch.float32:
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                module.to(compute)
            # DeBERTa adds these to a layer's output, which autocast then leaves in float32, and its mask overflows.
            for bias in (getattr(module, name, None) for name in ("q_bias", "v_bias")):
                if isinstance(bias, torch.nn.Parameter):
                    bias.data = bias.data.to(compute)
    return model.to(device)
