"""Rows of several utterances as floats, the chosen layers of one feature set at once: what loaders read."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from featurestore.errors import StoreError
from featurestore.rows.aligned import aligned_empty
from featurestore.rows.packed import Packed
from featurestore.sets.feature_set import FeatureSet
from featurestore.sets.selection import Selection

DTYPES = ("float32", "float16")

# Allocates a one-dimensional array: (number of values, dtype). Such as aligned_empty, or pinned memory for a GPU.
Memory = Callable[[int, str], np.ndarray]


class Buffer:
    """Memory that is used again for each batch and grows when one needs more: fresh pages cost half the speed."""

    def __init__(self, memory: Memory = aligned_empty) -> None:
        self._memory = memory
        self._held: dict[str, np.ndarray] = {}

    def take(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """Return an array of this shape, of undefined values.

        It takes the place of the one of this dtype taken before.
        """
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
    infinite where stored rows are too large for it. With a selection of the set's keys, a batch is places in it.
    beside_bytes: what the rows of other sets take that the same loop reads (`beside_each_other`).
    """

    features: FeatureSet
    layers: tuple[str, ...]
    stride: int = 1
    dtype: str = "float32"
    selection: Selection | None = None
    beside_bytes: int = 0

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise StoreError(f"stride is {self.stride}; it must be 1 or more.")
        if self.dtype not in DTYPES:
            raise StoreError(f"Rows can be read as {' or '.join(DTYPES)}, not as {self.dtype!r}.")

    def n_bytes(self, keys: Sequence[Any]) -> int:
        """Return what these utterances' rows take on disk (before compression)."""
        row_bytes = self.features.spec.row_type.row_bytes(self.features.dim)
        return int(self.features.lengths(self._keys(keys)).sum()) * row_bytes * len(self.layers)

    def announce(self, keys: Sequence[Any]) -> None:
        """Tell that these will be read soon; returns at once."""
        for layer in self.layers:
            self.features.announce(self._keys(keys), layer, n_layers=len(self.layers), beside_bytes=self.beside_bytes)

    def read(self, keys: Sequence[Any], buffer: Buffer) -> Packed:
        """Rows in `buffer`, until it is given for the next read. StoreError names keys that are missing."""
        return self.features.read_layers(
            self._keys(keys), self.layers, self.dtype, stride=self.stride, memory=buffer.take,
            beside_bytes=self.beside_bytes,
        )  # fmt: skip

    def _keys(self, batch: Sequence[Any]) -> Sequence[str]:
        """Return the keys of a batch: of places in the selection, where there is one."""
        return batch if self.selection is None else self.selection.of(batch)


def beside_each_other(readers: Sequence[RowReader]) -> list[RowReader]:
    """Return readers that one loop reads with, each told what the rows of the others take: memory has to hold all."""
    if len(readers) < 2:
        return list(readers)
    sizes = {(reader.features.path, layer): reader.features.n_bytes() for reader in readers for layer in reader.layers}
    total = sum(sizes.values())
    return [
        replace(reader, beside_bytes=total - sum(sizes[reader.features.path, layer] for layer in set(reader.layers)))
        for reader in readers
    ]
