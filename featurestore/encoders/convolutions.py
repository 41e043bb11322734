"""The convolutions in front of a speech model: how many frames they make of how many samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Convolutions:
    """Kernel and stride, in inputs, of each convolution, the first one over samples."""

    layers: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, config: Any) -> Convolutions:
        """Read conv_kernel and conv_stride of a transformers configuration."""
        return cls(tuple(zip(config.conv_kernel, config.conv_stride, strict=True)))

    @property
    def hop(self) -> int:
        """Samples between two frames."""
        return math.prod(stride for _, stride in self.layers)

    @property
    def field(self) -> int:
        """Samples that one frame sees."""
        return receptive_field(self.layers)

    def n_frames(self, n_samples: int) -> int:
        """Return the number of frames of this many samples; 1 for fewer than one frame's field."""
        n = max(n_samples, self.field)
        for kernel, stride in self.layers:
            n = (n - kernel) // stride + 1
        return n


def receptive_field(convs: Sequence[tuple[int, int]]) -> int:
    """Return the number of samples that one frame sees, from (kernel, stride) of each convolution."""
    field = 1
    for kernel, stride in reversed(convs):
        field = (field - 1) * stride + kernel
    return field
