"""A layer's rows within one segment: mapped where they are uncompressed, decoded chunk by chunk where not."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from featurestore.format.compression import Codec
from featurestore.format.files import Extent, Files, MappedArray
from featurestore.format.pieces import Piece
from featurestore.format.zarr3 import ShardLayout
from featurestore.rows.aligned import address_of


class RowFile(Protocol):
    """Runs of rows (first, n) of one layer, in the stored dtype."""

    def fetch(self, runs: Sequence[tuple[int, int]]) -> None:
        """Call before `slice`: makes sure that reading is safe, and that a remote store's bytes are there."""

    def slice(self, first: int, n: int) -> np.ndarray:
        """Return rows first:first + n, read-only (n, ...)."""

    def announce(self, runs: Sequence[tuple[int, int]]) -> None:
        """Tell that these runs will be read soon; returns at once."""

    def read_at_random(self) -> None:
        """Have the kernel read what is announced or touched, and nothing around it."""


class MappedRows:
    """Rows that lie in one run of a file: slices are views of its map. Also for scales, (n,).

    address: of the first row in memory, for as long as this lives. row_bytes: from one to the next.
    """

    def __init__(self, extent: Extent, dtype: str, shape: tuple[int, ...], files: Files) -> None:
        self._path = extent.path
        self._files = files
        self._mapped = MappedArray(extent, dtype, shape)
        self.array = self._mapped.array
        self.address = address_of(self.array)
        self.row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * self.array.itemsize

    def fetch(self, runs: Sequence[tuple[int, int]]) -> None:
        self._mapped.look()
        if self._files.remote:
            self._files.ensure(self._path, self._ranges(runs))

    def slice(self, first: int, n: int) -> np.ndarray:
        return self.array[first : first + n]

    def piece(self, first: int, n: int, target: np.ndarray) -> Piece:
        """Return where rows first:first + n lie in the file, to be read into `target`, contiguous and of their size."""
        return Piece(self._path, self._mapped.byte_range(first, n)[0], target.reshape(-1).view(np.uint8))

    def announce(self, runs: Sequence[tuple[int, int]]) -> None:
        if self._files.remote:
            self._files.announce(self._path, self._ranges(runs))
            return
        for first, n in runs:
            self._mapped.announce(first, n)

    def read_at_random(self) -> None:
        if not self._files.remote:
            self._mapped.read_at_random()

    def _ranges(self, runs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        return [self._mapped.byte_range(first, n) for first, n in runs if n]


class ChunkedRows:
    """Rows in compressed chunks of `layout.chunk_rows`; places: uint64 (n_chunks, 2), byte offset and size of each."""

    def __init__(
        self, path: Path, size: int, places: np.ndarray, layout: ShardLayout, dtype: str, codec: Codec, files: Files
    ) -> None:
        self._path, self._files, self._layout, self._codec = path, files, layout, codec
        self._places = places
        self._dtype = np.dtype(dtype)
        self._mapped = MappedArray(Extent(path, 0, size), "|u1", (size,))

    def fetch(self, runs: Sequence[tuple[int, int]]) -> None:
        self._mapped.look()
        if self._files.remote:
            self._files.ensure(self._path, self._ranges(runs))

    def slice(self, first: int, n: int) -> np.ndarray:
        rows = np.empty((n, self._layout.dim), dtype=self._dtype)
        chunk_rows = self._layout.chunk_rows
        for chunk in self._chunks(first, n):
            start = chunk * chunk_rows
            low, high = max(first, start), min(first + n, start + chunk_rows)
            rows[low - first : high - first] = self._decoded(chunk)[low - start : high - start]
        rows.flags.writeable = False
        return rows

    def announce(self, runs: Sequence[tuple[int, int]]) -> None:
        if self._files.remote:
            self._files.announce(self._path, self._ranges(runs))
            return
        for start, stop in self._ranges(runs):
            self._mapped.announce(start, stop - start)

    def read_at_random(self) -> None:
        if not self._files.remote:
            self._mapped.read_at_random()

    def _decoded(self, chunk: int) -> np.ndarray:
        offset, size = self._places[chunk].tolist()
        data = self._mapped.array[offset : offset + size].tobytes()
        where = f"{self._path}, rows from {chunk * self._layout.chunk_rows}"
        decoded = self._codec.decoded(data, self._layout.chunk_bytes, self._dtype.itemsize, where)
        return np.frombuffer(decoded, self._dtype).reshape(-1, self._layout.dim)

    def _chunks(self, first: int, n: int) -> range:
        chunk_rows = self._layout.chunk_rows
        return range(first // chunk_rows, -(-(first + n) // chunk_rows) if n else first // chunk_rows)

    def _ranges(self, runs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        ranges = []
        for first, n in runs:
            for offset, size in self._places[self._chunks(first, n)].tolist():
                ranges.append((offset, offset + size))
        return ranges
