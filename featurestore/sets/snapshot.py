"""The segments that a feature set had at one moment, and reading rows from them by position."""

import mmap
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import StoreError
from featurestore.format.identity import Identities, from_arrays
from featurestore.format.rowfile import MappedRows, RowFile
from featurestore.format.segment import Segment, row_checksum
from featurestore.format.spec import FeatureSpec
from featurestore.sets.key_index import KeyIndex


class Snapshot:
    """Segments sorted by name, the index of their keys, and which utterances' rows were compared with their checksums.

    Positions are those of the index. Every utterance is compared the first time its rows are read (of each layer);
    afterwards reading costs a copy at most.
    """

    def __init__(self, segments: Sequence[Segment], spec: FeatureSpec) -> None:
        self.segments = list(segments)
        self.spec = spec
        self.index = KeyIndex(segments)
        self._was_checked: dict[str, np.ndarray] = {}

    def stored(
        self, found: np.ndarray, layer: str, check: bool = True
    ) -> tuple[list[np.ndarray], list[np.ndarray] | None]:
        """Rows of each found position as they are stored, (T, D); and the scales (T,) of int8 rows.

        check=False: the caller reads them and then calls `check`, when their pages are in memory.
        """
        numbers, firsts, counts = self._where(found)
        layers = {n: self.segments[n].layer(layer) for n in set(numbers)}
        rows = self._slices(layers, numbers, firsts, counts)
        scales = None
        if self.spec.row_type.scaled:
            files: dict[int, RowFile] = {n: self.segments[n].scales(layer) for n in layers}
            scales = self._slices(files, numbers, firsts, counts)
        if check:
            for i, expected in self.unchecked(found, layer).items():
                _touch(rows[i])
                self.check(int(found[i]), layer, rows[i], None if scales is None else scales[i], expected)
        return rows, scales

    def unchecked(self, found: np.ndarray, layer: str) -> dict[int, int]:
        """Which of the found positions' rows were not compared yet, and the checksums that they should have."""
        fresh = np.flatnonzero(~self._checked(layer)[found])
        if not len(fresh):
            return {}
        positions, column = found[fresh], self.spec.layers.index(layer)
        numbers = self.index.segment[positions]
        local = positions - self.index.segment_starts[numbers]
        expected = np.empty(len(fresh), dtype=np.uint32)
        for n in np.unique(numbers).tolist():
            there = numbers == n
            expected[there] = self.segments[n].checksums()[local[there], column]
        return dict(zip(fresh.tolist(), expected.tolist(), strict=True))

    def check(self, position: int, layer: str, rows: np.ndarray, scales: np.ndarray | None, expected: int) -> None:
        """Compare an utterance's stored rows with their checksum; StoreError when they were altered."""
        if row_checksum(rows, scales) != expected:
            segment = self.segments[int(self.index.segment[position])]
            raise StoreError(
                f"{segment.path}: rows of {self.index.key_bytes(position).decode()!r}, layer {layer}, were altered "
                "since they were written (wrong checksum). `medusa store verify` lists all that is damaged; "
                "restore it from a copy, or remove its segment (`medusa store rm SET --damaged`) and encode again."
            )
        self._checked(layer)[position] = True

    def take(self, found: np.ndarray, layer: str, values: np.ndarray, offsets: np.ndarray) -> bool:
        """Gather plain rows with one vectorised take per segment: for utterances of a few rows, such as posteriors.

        False where that is impossible (compressed rows); values: (offsets[-1], D) in the stored dtype.
        """
        layers = {n: self.segments[n].layer(layer) for n in np.unique(self.index.segment[found]).tolist()}
        files = {n: file for n, file in layers.items() if isinstance(file, MappedRows)}
        if len(files) < len(layers):
            return False
        if self.unchecked(found, layer) or any(self.segments[n].remote for n in files):
            self.stored(found, layer)
        n_rows = np.diff(offsets)
        source = np.repeat(self.index.first_row[found] - offsets[:-1], n_rows) + np.arange(len(values))
        row_segment = np.repeat(self.index.segment[found], n_rows)
        for n, file in files.items():
            file.fetch([])
            targets = np.flatnonzero(row_segment == n)
            values[targets] = file.array[source[targets]]
        return True

    def announce(self, found: np.ndarray, layer: str) -> None:
        """Tell that these positions' rows will be read soon."""
        numbers, firsts, counts = self._where(found)
        for number, runs in _runs(numbers, firsts, counts).items():
            self.segments[number].layer(layer).announce(runs)

    def durations_s(self, found: NDArray[np.int64]) -> NDArray[np.float64]:
        """float64 (n,)."""
        durations: NDArray[np.float64] = np.concatenate(
            [segment.small("durations_s") for segment in self.segments] or [np.empty(0)]
        )
        return np.take(durations, found)

    def identities(self, found: np.ndarray) -> Identities:
        """What each found position was made from."""
        return from_arrays([segment.identities() for segment in self.segments]).take(found)

    def _where(self, found: np.ndarray) -> tuple[list[int], list[int], list[int]]:
        index = self.index
        return index.segment[found].tolist(), index.first_row[found].tolist(), index.n_rows[found].tolist()

    def _checked(self, layer: str) -> np.ndarray:
        if layer not in self._was_checked:
            self._was_checked[layer] = np.zeros(len(self.index.segment), dtype=bool)
        return self._was_checked[layer]

    def _slices(
        self, files: Mapping[int, RowFile], numbers: list[int], firsts: list[int], counts: list[int]
    ) -> list[np.ndarray]:
        runs = _runs(numbers, firsts, counts) if any(self.segments[n].remote for n in files) else {}
        for n, file in files.items():
            file.fetch(runs.get(n, ()))
        return [files[n].slice(first, count) for n, first, count in zip(numbers, firsts, counts, strict=True)]


def _touch(rows: np.ndarray) -> None:
    """Bring the rows' pages in from disk, other threads running meanwhile: the checksum would hold them all up."""
    if rows.nbytes <= mmap.PAGESIZE:
        return
    flat = rows.reshape(-1).view(np.uint8)
    flat.take(np.arange(0, flat.size, mmap.PAGESIZE))


def _runs(numbers: list[int], firsts: list[int], counts: list[int]) -> dict[int, list[tuple[int, int]]]:
    """The runs of rows (first, n) in each segment."""
    runs: dict[int, list[tuple[int, int]]] = {}
    for number, first, count in zip(numbers, firsts, counts, strict=True):
        runs.setdefault(number, []).append((first, count))
    return runs
