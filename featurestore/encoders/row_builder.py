"""The rows of one utterance, joined from its windows and pooled over time when asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.encoders.device import to_host
from featurestore.encoders.windows import Window, batches
from featurestore.runtime.stage_clock import stage

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Piece:
    """One window of an input: what one row of a padded batch is made of. `index` is the input's place in its batch."""

    index: int
    data: Any  # samples, or token ids
    window: Window

    @property
    def n_frames(self) -> int:
        """Frames that the window computes."""
        return self.window.stop - self.window.start

    @property
    def kept(self) -> slice:
        """Which of the window's own frames are kept."""
        return slice(self.window.keep_start - self.window.start, self.window.keep_stop - self.window.start)


def run_windows(
    pieces: Sequence[Piece],
    costs: Sequence[int],
    forward: Callable[[Sequence[Piece]], torch.Tensor],
    keep: Callable[[Piece], slice],
    *,
    n_inputs: int,
    max_frames: int,
    pool: str,
    device: torch.device,
) -> Callable[[], list[np.ndarray]]:
    """Run all pieces of `n_inputs` inputs in padded batches, and return a function that waits for each input's rows.

    costs: padded frames of each piece; a batch has at most `max_frames` of them. forward: pieces -> (B, L, T, D)
    float32 on the device. keep: which of a piece's T rows are kept. The function returns (L, T, D) float32 per input.
    """
    builders = [RowsBuilder(pool) for _ in range(n_inputs)]
    for run in batches(costs, max_frames):
        batch = [pieces[i] for i in run]
        states = forward(batch)
        for states_of_piece, piece in zip(states, batch, strict=True):
            builders[piece.index].add(states_of_piece[:, keep(piece)])
    return collect(builders, device)


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


def pooled_dim(dim: int, pool: str) -> int:
    """Columns of a stored row."""
    return 2 * dim if pool == "mean+std" else dim
