"""What encoders by a torch model share: the frozen model on its device, and windows of inputs going through it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from featurestore.encoders.base import Encoder
from featurestore.encoders.device import frozen
from featurestore.encoders.layers import LayerChoice
from featurestore.encoders.row_builder import Batch, Piece, run_windows
from featurestore.format.spec import FeatureSpec
from featurestore.runtime.transfer import is_queued


class ModelEncoder(Encoder):
    """An encoder by a torch model, frozen and on its device."""

    def __init__(
        self, model: Any, *, spec: FeatureSpec, choice: LayerChoice, device: torch.device, compute: torch.dtype
    ) -> None:
        self.model = frozen(model, device, compute)
        self.name = spec.encoder
        self.spec = spec
        self.choice = choice
        self.device = str(device)
        self._device = device
        self.compute = compute
        self.overlaps = is_queued(device)

    def start(self, batch: Sequence[Any], max_frames: int | None = None) -> Callable[[], list[np.ndarray]]:
        """Start on inputs as they are; see `Encoder.start`."""
        return self.start_prepared([self.prepare(item) for item in batch], max_frames)


class WindowedEncoder(ModelEncoder):
    """A `ModelEncoder` through which inputs go in windows: it writes `_pieces` and `_forward`."""

    def in_windows(self, item: int | str) -> bool:
        """Return whether an input is longer than a window; see `Encoder.in_windows`."""
        return self.cost(item) > self.window_frames

    def start_prepared(
        self, batch: Sequence[Any], max_frames: int | None = None, *, stored: bool = False
    ) -> Callable[[], list[np.ndarray]]:
        """Start on prepared inputs; see `Encoder.start_prepared`."""
        return self._run(batch, max_frames, self.spec, stored)

    def _run(
        self, batch: Sequence[Any], max_frames: int | None, spec: FeatureSpec, stored: bool
    ) -> Callable[[], list[np.ndarray]]:
        """Start on prepared inputs, with rows of `spec`."""
        pieces = list(self._pieces(batch))
        return run_windows(
            pieces,
            [self._n_frames_of(piece) for piece in pieces],
            self._forward,
            self._kept_of,
            n_inputs=len(batch),
            max_frames=max_frames or self.default_batch_frames,
            spec=spec,
            stored=stored,
        )

    @abstractmethod
    def _pieces(self, batch: Sequence[Any]) -> Iterator[Piece]:
        """Yield the windows of each prepared input with what the model reads of it."""

    @abstractmethod
    def _forward(self, batch: Batch, dtype: torch.dtype) -> list[Tensor]:
        """Run the model on windows and return what `Batch.take` does."""

    def _n_frames_of(self, piece: Piece) -> int:
        """Return the frames that a window takes in a batch."""
        return piece.n_frames

    def _kept_of(self, piece: Piece) -> slice:
        """Return the frames of a window that are kept."""
        return piece.keep
