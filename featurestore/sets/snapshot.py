"""The segments that a feature set had at one moment, and reading rows from them by position."""

import itertools
import mmap
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import StoreError
from featurestore.format.identity import DECODERS, Identities, from_arrays
from featurestore.format.pieces import Piece, read_pieces
from featurestore.format.rowfile import MappedRows, RowFile
from featurestore.format.segment import Segment, row_checksum
from featurestore.format.spec import FeatureSpec
from featurestore.rows.aligned import address_of, aligned_empty
from featurestore.runtime.memory import available_bytes
from featurestore.sets.key_index import KeyIndex

if TYPE_CHECKING:
    from featurestore.rows.runs import Runs


# A set whose rows take more than this share of the memory available is read call by call and not through maps. Once
# more than twice the memory was read of it, rows are dropped behind, since few would be there in the next epoch.
HELD_SHARE, DROPPED_TIMES = 0.8, 2.0

_SCRATCH = threading.local()


class Snapshot:
    """Segments sorted by name, the index of their keys, and which utterances' rows were compared with their checksums.

    Positions are those of the index. Every utterance is compared the first time its rows are read (of each layer);
    afterwards reading costs a copy at most.
    """

    def __init__(self, segments: Sequence[Segment], spec: FeatureSpec, before: "Snapshot | None" = None) -> None:
        """before: what of it is here again needs not be read, nor compared, a second time."""
        self.segments = list(segments)
        self.spec = spec
        self._columns = {layer: k for k, layer in enumerate(spec.layers)}
        self._bases: dict[tuple[str, ...], np.ndarray] = {}
        self._opened: dict[tuple[tuple[str, ...], int], list[RowFile]] = {}
        self.index: KeyIndex = (
            KeyIndex(segments) if before is None else KeyIndex(segments, before.index, before.segments)
        )
        self._memory_bytes = available_bytes()
        self._is_remote = any(segment.remote for segment in self.segments)
        self._n_rows = sum(segment.n_rows for segment in self.segments)
        self._is_compressed = any(segment.info.compress for segment in self.segments)
        self._was_checked = np.zeros((len(spec.layers), len(self.index.segment)), dtype=bool)
        places = {} if before is None else {id(segment): i for i, segment in enumerate(before.segments)}
        for i, segment in enumerate(self.segments):
            if before is not None and id(segment) in places:
                here = slice(*self.index.segment_starts[i : i + 2].tolist())
                known_positions = slice(*before.index.segment_starts[places[id(segment)] :][:2].tolist())
                self._was_checked[:, here] = before._was_checked[:, known_positions]
        self._n_rows_read: int = 0 if before is None else before._n_rows_read

    def stored(
        self, positions: np.ndarray, layer: str, check: bool = True
    ) -> tuple[list[np.ndarray], list[np.ndarray] | None]:
        """Return the rows of each found position as they are stored, (T, D); and the scales (T,) of int8 rows.

        check=False: the caller reads them and then calls `check`, when their pages are in memory.
        """
        numbers, firsts, counts = self._where(positions)
        layers = {n: self.segments[n].layer(layer) for n in set(numbers)}
        rows = self._slices(layers, numbers, firsts, counts)
        scales = None
        if self.spec.row_type.scaled:
            files: dict[int, RowFile] = {n: self.segments[n].scales(layer) for n in layers}
            scales = self._slices(files, numbers, firsts, counts)
        if check:
            for i, expected in self.unchecked(positions, layer).items():
                _touch(rows[i])
                self.check(int(positions[i]), layer, rows[i], None if scales is None else scales[i], expected)
        return rows, scales

    def n_bytes(self, n_layers: int = 1) -> int:
        """Return what the rows of all utterances take in so many layers (before compression)."""
        return self._n_rows * n_layers * self.spec.row_type.row_bytes(self.spec.dim)

    def exceeds_memory(self, n_layers: int, beside_bytes: int = 0) -> bool:
        """Return whether so many layers' rows of all utterances are more than memory holds, and lie in local files.

        beside_bytes: of other rows that are read in the same loop. Compressed rows are left to their maps.
        """
        is_mapped_alone = self._is_remote or self._is_compressed
        return self._times_memory(self.n_bytes(n_layers) + beside_bytes) > HELD_SHARE and not is_mapped_alone

    def _times_memory(self, n_bytes: float) -> float:
        return 0.0 if self._memory_bytes is None else n_bytes / max(self._memory_bytes, 1)

    def read(
        self, positions: np.ndarray, layer: str, values: np.ndarray, beside: float = 0.0
    ) -> tuple[list[np.ndarray], list[np.ndarray] | None]:
        """Return `stored`, unchecked, read into `values` (sum T, D), of the stored dtype, and not through the maps.

        What is read of a set may fit into memory where the set doesn't, so that the page cache keeps it until too much
        was read. beside: how many times the bytes of this set's rows the others take that the same loop reads.
        """
        n_bytes_read = self._n_rows_read * self.spec.row_type.row_bytes(self.spec.dim) * (1 + beside)
        numbers, firsts, counts = self._where(positions)
        bounds = np.cumsum([0, *counts]).tolist()
        parts = [values[bounds[i] : bounds[i + 1]] for i in range(len(counts))]
        pieces = self._pieces({n: self.segments[n].layer(layer) for n in set(numbers)}, numbers, firsts, parts)
        scales = None
        if self.spec.row_type.scaled:
            scales = [np.empty(n, np.float32) for n in counts]
            pieces += self._pieces({n: self.segments[n].scales(layer) for n in set(numbers)}, numbers, firsts, scales)
        read_pieces(pieces, drop=self._times_memory(n_bytes_read) > DROPPED_TIMES)
        return parts, scales

    def _pieces(
        self, files: Mapping[int, RowFile], numbers: list[int], firsts: list[int], parts: list[np.ndarray]
    ) -> list[Piece]:
        pieces = []
        for number, first, part in zip(numbers, firsts, parts, strict=True):
            file = files[number]
            assert isinstance(file, MappedRows)
            pieces.append(file.piece(first, len(part), part))
        return pieces

    def scratch(self, n_rows: int) -> np.ndarray:
        """Return memory for stored rows, (n_rows, D), which this thread's next call gives out again."""
        shape, dtype = (n_rows, self.spec.dim), np.dtype(self.spec.row_type.stored)
        n_bytes = n_rows * self.spec.dim * dtype.itemsize
        held: np.ndarray | None = getattr(_SCRATCH, "held", None)
        if held is None or held.size < n_bytes:
            held = _SCRATCH.held = aligned_empty(n_bytes + n_bytes // 4, "uint8")
        return held[:n_bytes].view(dtype).reshape(shape)

    def all_checked(self, positions: np.ndarray, layers: Sequence[str]) -> bool:
        """Whether the rows of all found positions were compared before, in each of the layers."""
        if len(layers) == 1:
            return bool(self._was_checked[self._columns[layers[0]]].take(positions).all())
        columns = np.array([self._columns[layer] for layer in layers])
        return bool(self._was_checked[columns[:, None], positions].all())

    def unchecked(self, positions: np.ndarray, layer: str) -> dict[int, int]:
        """Which of the found positions' rows were not compared yet, and the checksums that they should have."""
        checked = self._was_checked[self._columns[layer]].take(positions)
        if checked.all():
            return {}
        fresh = np.flatnonzero(~checked)
        expected = self.checksums(positions[fresh], [layer])[:, 0]
        return dict(zip(fresh.tolist(), expected.tolist(), strict=True))

    def checksums(self, positions: np.ndarray, layers: Sequence[str]) -> np.ndarray:
        """Return the recorded checksum of each found position's rows in each layer, uint32 (n, L)."""
        columns = [self.spec.layers.index(layer) for layer in layers]
        numbers = self.index.segment[positions]
        local = positions - self.index.segment_starts[numbers]
        recorded = np.empty((len(positions), len(columns)), dtype=np.uint32)
        for n in np.unique(numbers).tolist():
            in_segment = numbers == n
            recorded[in_segment] = self.segments[n].checksums()[np.ix_(local[in_segment], columns)]
        return recorded

    def check(self, position: int, layer: str, rows: np.ndarray, scales: np.ndarray | None, expected: int) -> None:
        """Compare an utterance's stored rows with their checksum; StoreError when they were altered."""
        if row_checksum(rows, scales) != expected:
            segment = self.segments[int(self.index.segment[position])]
            raise StoreError(
                f"{segment.path}: rows of {self.index.key_bytes(position).decode()!r}, layer {layer}, were altered "
                "since they were written (wrong checksum). `medusa store verify` lists all that is damaged; "
                "restore it from a copy, or remove its segment (`medusa store rm SET --damaged`) and encode again."
            )
        column = self._columns[layer]
        if not self._was_checked[column, position]:
            self._n_rows_read += int(self.index.n_rows[position])  # roughly, with several threads
        self._was_checked[column, position] = True

    def take(self, positions: np.ndarray, layer: str, values: np.ndarray, offsets: np.ndarray) -> bool:
        """Gather plain rows with one vectorised take per segment: for utterances of a few rows, such as posteriors.

        False where that is impossible (compressed rows); values: (offsets[-1], D) in the stored dtype.
        """
        layers = {n: self.segments[n].layer(layer) for n in np.unique(self.index.segment[positions]).tolist()}
        files = {n: file for n, file in layers.items() if isinstance(file, MappedRows)}
        if len(files) < len(layers):
            return False
        if self.unchecked(positions, layer) or any(self.segments[n].remote for n in files):
            self.stored(positions, layer)
        n_rows = np.diff(offsets)
        source = np.repeat(self.index.first_row[positions] - offsets[:-1], n_rows) + np.arange(len(values))
        row_segment = np.repeat(self.index.segment[positions], n_rows)
        for n, file in files.items():
            file.fetch([])
            targets = np.flatnonzero(row_segment == n)
            values[targets] = file.array[source[targets]]
        return True

    def runs(self, positions: np.ndarray, layers: Sequence[str]) -> "Runs":
        """Where the found positions' rows of each layer lie in memory; they aren't compared with their checksums."""
        from featurestore.rows.runs import Runs  # numba loads where it is first needed

        numbers, lengths = self.index.segment[positions], self.index.n_rows[positions]
        used = sorted(set(numbers.tolist()))
        row_type = self.spec.row_type
        keeps: list[Any] = [self]
        row_bytes = self.spec.dim * row_type.itemsize
        rows, scales = self._addresses(("rows", *layers), positions, numbers, used, row_bytes, keeps), None
        if row_type.scaled:
            scales = self._addresses(("scales", *layers), positions, numbers, used, 4, keeps)
        return Runs(rows, scales, lengths, np.dtype(row_type.stored), keeps)

    def _addresses(
        self,
        names: tuple[str, ...],
        positions: np.ndarray,
        numbers: np.ndarray,
        used: list[int],
        row_bytes: int,
        keeps: list[Any],
    ) -> np.ndarray:
        """Return the address of each found position's first row in each layer, int64 (L, n).

        names: "rows" or "scales", and the layers. used: the segments in `numbers`. What is decoded goes to `keeps`.
        """
        bases = self._bases.setdefault(names, np.zeros((len(names) - 1, len(self.segments)), np.int64))
        for n in used:
            files = self._files(names, n)
            if self.segments[n].remote or not all(isinstance(file, MappedRows) for file in files):
                return self._decoded_addresses({n: self._files(names, n) for n in used}, positions, keeps)
            for file in files:
                file.fetch(())
            if not bases[0, n]:
                bases[:, n] = [file.address for file in files if isinstance(file, MappedRows)]
        addresses: np.ndarray = bases[:, numbers] + self.index.first_row[positions] * row_bytes
        return addresses

    def _files(self, names: tuple[str, ...], n: int) -> Sequence[RowFile]:
        """Return the files of a segment that `names` tells, looked up once: of 25 layers that is a part of a batch."""
        if (names, n) not in self._opened:
            segment = self.segments[n]
            opened: Callable[[str], RowFile] = segment.layer if names[0] == "rows" else segment.scales
            self._opened[names, n] = [opened(layer) for layer in names[1:]]
        return self._opened[names, n]

    def _decoded_addresses(
        self, files: Mapping[int, Sequence[RowFile]], positions: np.ndarray, keeps: list[Any]
    ) -> np.ndarray:
        by_layer = [dict(zip(files, of_layer, strict=True)) for of_layer in zip(*files.values(), strict=True)]
        arrays = [self._slices(of_layer, *self._where(positions)) for of_layer in by_layer]
        keeps.append(arrays)
        return np.array([[address_of(array) for array in of_layer] for of_layer in arrays], np.int64)

    def announce(self, positions: np.ndarray, layer: str, n_layers: int, beside_bytes: int = 0) -> None:
        """Tell that these positions' rows will be read soon, in that many layers, beside that many bytes of others."""
        if self._times_memory(self.n_bytes(n_layers) + beside_bytes) > HELD_SHARE and not self._is_remote:
            return  # much of it would be dropped before its turn
        numbers, firsts, counts = self._where(positions)
        for number, runs in _runs(numbers, firsts, counts).items():
            self.segments[number].layer(layer).announce(runs)

    def durations_s(self, positions: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return float64 (n,)."""
        durations: NDArray[np.float64] = np.concatenate(
            [segment.small("durations_s") for segment in self.segments] or [np.empty(0)]
        )
        return np.take(durations, positions)

    def identities(self, positions: np.ndarray) -> Identities:
        """Return what each found position was made from."""
        numbers = self.index.segment[positions]
        order = np.argsort(numbers, kind="stable")
        sorted_numbers = numbers[order]
        bounds = np.flatnonzero(np.diff(sorted_numbers, prepend=-1, append=-1)).tolist() if len(order) else [0]
        parts: list[dict[str, np.ndarray] | int] = []
        for first, last in itertools.pairwise(bounds):
            n = int(sorted_numbers[first])
            local = positions[order[first:last]] - self.index.segment_starts[n]
            recorded = self.segments[n].identities()
            if isinstance(recorded, int):
                parts.append(last - first)
            else:
                parts.append({name: array if name == DECODERS else array[local] for name, array in recorded.items()})
        places = np.empty(len(positions), np.int64)
        places[order] = np.arange(len(positions))
        return from_arrays(parts).take(places)

    def _where(self, positions: np.ndarray) -> tuple[list[int], list[int], list[int]]:
        index = self.index
        return index.segment[positions].tolist(), index.first_row[positions].tolist(), index.n_rows[positions].tolist()

    def _slices(
        self, files: Mapping[int, RowFile], numbers: list[int], firsts: list[int], counts: list[int]
    ) -> list[np.ndarray]:
        is_large = self._times_memory(self.n_bytes()) > HELD_SHARE
        needed = is_large or any(self.segments[n].remote for n in files)
        runs = _runs(numbers, firsts, counts) if needed else {}
        for n, file in files.items():
            file.fetch(runs.get(n, ()))
            if is_large and not self.segments[n].remote:
                file.read_at_random()
                file.announce(runs[n])
        return [files[n].slice(first, count) for n, first, count in zip(numbers, firsts, counts, strict=True)]


def _touch(rows: np.ndarray) -> None:
    """Bring the rows' pages in from disk, other threads running meanwhile: the checksum would hold them all up."""
    if rows.nbytes <= mmap.PAGESIZE:
        return
    flat = rows.reshape(-1).view(np.uint8)
    flat.take(np.arange(0, flat.size, mmap.PAGESIZE))


def _runs(numbers: list[int], firsts: list[int], counts: list[int]) -> dict[int, list[tuple[int, int]]]:
    """Return the runs of rows (first, n) in each segment; what begins where the one before it ends is part of that."""
    runs: dict[int, list[tuple[int, int]]] = {}
    for number, first, count in zip(numbers, firsts, counts, strict=True):
        of_segment = runs.setdefault(number, [])
        before, n = of_segment[-1] if of_segment else (first, 0)
        if of_segment and before + n == first:
            of_segment[-1] = before, n + count
        else:
            of_segment.append((first, count))
    return runs
