"""Rows of several utterances as floats, the chosen layers of one feature set at once: what loaders read."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from featurestore.errors import StoreError
from featurestore.rows.packed import Packed
from featurestore.sets.feature_set import FeatureSet

DTYPES = ("float32", "float16")

# Allocates a one-dimensional array: (number of values, dtype). Such as np.empty, or pinned memory for a GPU.
Memory = Callable[[int, str], np.ndarray]


class Buffer:
    """Memory that is used again for each batch and grows when one needs more: fresh pages cost half the speed."""

    def __init__(self, memory: Memory = np.empty) -> None:
        self._memory = memory
        self._held: dict[str, np.ndarray] = {}

    def take(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """An array of this shape, of undefined values; it takes the place of the one of this dtype taken before."""
        size = math.prod(shape)
        held = self._held.get(dtype)
        if held is None:
            held = self._held[dtype] = self._memory(size, dtype)
        elif size > held.size:
            held = self._held[dtype] = self._memory(size + size // 4, dtype)
        return held[:size].reshape(shape)


class Reader(Protocol):
    """What a loader reads batches with: a batch is any sequence that the reader understands, such as keys."""

    def n_bytes(self, keys: Sequence[Any]) -> int: ...

    def announce(self, keys: Sequence[Any]) -> None: ...

    def read(self, keys: Sequence[Any], buffer: Buffer) -> Packed: ...


@dataclass(frozen=True)
class RowReader:
    """Reads (L, sum T', D) in `dtype`, "float32" or "float16": layers in the order of `layers`, T' = ceil(T / stride).

    With a stride, means over that many rows are taken in float32 and rounded to `dtype` in the end. float16 becomes
    infinite where stored rows are too large for it.
    """

    features: FeatureSet
    layers: tuple[str, ...]
    stride: int = 1
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise StoreError(f"stride is {self.stride}; it must be 1 or more.")
        if self.dtype not in DTYPES:
            raise StoreError(f"Rows can be read as {' or '.join(DTYPES)}, not as {self.dtype!r}.")

    def n_bytes(self, keys: Sequence[str]) -> int:
        """What these utterances' rows take on disk (before compression)."""
        row_bytes = self.features.spec.row_type.row_bytes(self.features.dim)
        return int(self.features.lengths(keys).sum()) * row_bytes * len(self.layers)

    def announce(self, keys: Sequence[str]) -> None:
        """Tell that these will be read soon; returns at once."""
        for layer in self.layers:
            self.features.announce(keys, layer)

    def read(self, keys: Sequence[str], buffer: Buffer) -> Packed:
        """Rows and offsets in `buffer`, until it is given for the next read. StoreError names keys that are missing."""
        lengths = self.features.lengths(keys)
        offsets = buffer.take((len(keys) + 1,), "int64")
        offsets[0] = 0
        np.cumsum(-(-lengths // self.stride), out=offsets[1:])
        values = buffer.take((len(self.layers), int(offsets[-1]), self.features.dim), self.dtype)
        for out, layer in zip(values, self.layers, strict=True):
            if self.stride > 1:
                self._pool(keys, layer, out, offsets.tolist())
            elif not np.array_equal(self.features.gather(keys, layer, out=out).offsets, offsets):
                raise StoreError(
                    f"Feature set {self.features.name!r} changed while it was read: utterances have another number of "
                    "rows than a moment ago. Read again."
                )
        return Packed(values, offsets)

    def _pool(self, keys: Sequence[str], layer: str, out: np.ndarray, bounds: list[int]) -> None:
        from featurestore.rows.kernels import decode_rows, pool_rows

        # Straight from the map: widened and pooled in one pass, without a copy of the stored rows.
        stored, scales = self.features.stored_rows(keys, layer)
        for i, rows in enumerate(stored):
            part = out[bounds[i] : bounds[i + 1]]
            row_scales = scales[i] if scales else None
            if self.dtype == "float32":
                pool_rows(rows, self.stride, part, row_scales)
            else:
                decode_rows(pool_rows(rows, self.stride, None, row_scales), None, part)
