"""The rows of each input: the kept frames of its windows, packed on the device, pooled over time when asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.encoders.windows import Window, batches
from featurestore.format.spec import FeatureSpec
from featurestore.runtime.stage_clock import stage

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Rows = Callable[[], list[np.ndarray]]  # waits for the rows of each input


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
    def keep(self) -> slice:
        """Which of the window's own frames are kept."""
        return slice(self.window.keep_start - self.window.start, self.window.keep_stop - self.window.start)


@dataclass(frozen=True)
class Batch:
    """The windows of one forward pass, and which frames of each are kept."""

    pieces: Sequence[Piece]
    keeps: Sequence[slice]
    pool: str

    def selection(self, n_padded: int) -> np.ndarray:
        """Return which of the (B, n_padded) frames are kept: their places, int64, in order; bool (B, n_padded) to pool.

        It goes to the device with the batch's data, and comes back to `take`.
        """
        if self.pool == "none":
            starts = range(0, len(self.pieces) * n_padded, n_padded)
            places = [np.arange(at + keep.start, at + keep.stop) for at, keep in zip(starts, self.keeps, strict=True)]
            return np.concatenate(places)
        is_kept = np.zeros((len(self.pieces), n_padded), bool)
        for row, keep in zip(is_kept, self.keeps, strict=True):
            row[keep] = True
        return is_kept

    def take(self, states: Iterable[Tensor], selection: Tensor, dtype: torch.dtype) -> list[Tensor]:
        """Take what is kept of each layer's (B, T, D): rows (sum of kept, D) of `dtype`.

        To pool: float64 sums over each window's kept frames, of values (of squares) and of ones, (B, 2 or 3, D).
        """
        if self.pool == "none":
            return [self._packed(state, selection).to(dtype) for state in states]
        return [self._sums(state, selection) for state in states]

    def _packed(self, state: Tensor, places: Tensor) -> Tensor:
        if len(self.pieces) == 1:
            return state[0, self.keeps[0]]
        return state.flatten(0, 1).index_select(0, places)

    def _sums(self, state: Tensor, is_kept: Tensor) -> Tensor:
        import torch

        if state.device.type == "mps":  # which has no float64
            state, is_kept = state.cpu(), is_kept.cpu()
        # Not a product with zeros: what stands behind an input's own frames need not be finite.
        wide = torch.where(is_kept[..., None], state.double(), 0.0)
        sums = [wide.sum(dim=1)]
        if self.pool == "mean+std":
            sums.append(wide.square().sum(dim=1))
        counts = is_kept.sum(dim=1, dtype=torch.float64)[:, None].expand_as(sums[0])
        return torch.stack([*sums, counts], dim=1)


def run_windows(
    pieces: Sequence[Piece],
    costs: Sequence[int],
    forward: Callable[[Batch, torch.dtype], list[Tensor]],
    keep: Callable[[Piece], slice],
    *,
    n_inputs: int,
    max_frames: int,
    spec: FeatureSpec,
    stored: bool,
) -> Rows:
    """Run all pieces of `n_inputs` inputs in padded batches, and return a function that waits for each input's rows.

    costs: padded frames of each piece; a batch has at most `max_frames` of them. forward: a batch -> what
    `Batch.take` returns for each layer. keep: which of a piece's T rows are kept. The function returns for each input
    (L, T, D), pooled (L, 1, D) or (L, 1, 2 D): float32, or when `stored` in the type in which the store has them
    (bfloat16 as its bits), but for int8, whose scales the store computes. Arrays may share memory within a batch.
    """
    dtype = _dtype(spec, stored)
    packed: _Packed | _Pooled = _Packed(n_inputs) if spec.pool == "none" else _Pooled(n_inputs, dtype)
    for run in batches(costs, max_frames):
        batch = Batch([pieces[i] for i in run], [keep(pieces[i]) for i in run], spec.pool)
        packed.add(batch, forward(batch, dtype))
    return packed.finish()


def _dtype(spec: FeatureSpec, stored: bool) -> torch.dtype:
    import torch

    torch_dtypes = {"float16": torch.float16, "bfloat16": torch.bfloat16}
    return torch_dtypes.get(spec.dtype, torch.float32) if stored else torch.float32


class _Packed:
    """Rows of all frames, a copy to the host for each batch."""

    def __init__(self, n_inputs: int) -> None:
        self._parts: list[list[tuple[int, int, int]]] = [[] for _ in range(n_inputs)]  # batch, first row, last row
        self._fetched: list[Callable[[], np.ndarray]] = []

    def add(self, batch: Batch, layers: list[Tensor]) -> None:
        """Start to copy a batch's rows, (sum T, D) of each layer."""
        import torch

        from featurestore.runtime.transfer import to_host

        start = 0
        for piece, keep in zip(batch.pieces, batch.keeps, strict=True):
            stop = start + keep.stop - keep.start
            self._parts[piece.index].append((len(self._fetched), start, stop))
            start = stop
        self._fetched.append(to_host(torch.stack(layers) if len(layers) > 1 else layers[0][None]))

    def finish(self) -> Rows:
        """Return the function that waits for the rows."""

        def wait() -> list[np.ndarray]:
            arrays = [fetched() for fetched in self._fetched]
            with stage("pack"):
                return [_joined([arrays[b][:, start:stop] for b, start, stop in parts]) for parts in self._parts]

        return wait


class _Pooled:
    """Sums over all frames in float64 on the device, so that hours of audio need one window's memory.

    Mean and population standard deviation (0 for a single frame); `mean+std` concatenates them to 2 D.
    """

    def __init__(self, n_inputs: int, dtype: torch.dtype) -> None:
        self._n_inputs, self._dtype = n_inputs, dtype
        self._sums: Tensor | None = None  # (n_inputs, L, 2 or 3, D)

    def add(self, batch: Batch, layers: list[Tensor]) -> None:
        """Add a batch's sums, (B, 2 or 3, D) of each layer."""
        import torch

        from featurestore.runtime.transfer import to_device

        sums = torch.stack(layers, dim=1)
        indices = [piece.index for piece in batch.pieces]
        if self._sums is None and indices == list(range(self._n_inputs)):
            self._sums = sums
            return
        if self._sums is None:
            self._sums = sums.new_zeros((self._n_inputs, *sums.shape[1:]))
        (places,) = to_device([np.array(indices)], sums.device)
        self._sums.index_add_(0, places, sums)

    def finish(self) -> Rows:
        """Start to copy the pooled rows to the host; return the function that waits for them."""
        import torch

        from featurestore.runtime.transfer import to_host

        if self._sums is None:
            return list
        with stage("pack", self._sums.device):
            means = self._sums[:, :, :-1] / self._sums[:, :, -1:]
            parts = [means[:, :, :1]]
            if means.shape[2] == 2:
                parts.append((means[:, :, 1:] - means[:, :, :1].square()).clamp(min=0).sqrt())
            pooled = torch.cat(parts, dim=-1).float().to(self._dtype)
        fetched = to_host(pooled)
        return lambda: list(fetched())


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
