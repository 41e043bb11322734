"""One immutable segment of a feature set, open for reading, whichever container it lies in.

Its name is a hash of everything but the rows, which the checksums stand for: the same commit twice is one segment, and
altered keys, offsets or checksums are found when it is opened.
"""

import fnmatch
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import google_crc32c
import numpy as np

from featurestore.errors import StoreError
from featurestore.format.compression import CODECS
from featurestore.format.files import LOCAL, Extent, Files
from featurestore.format.hdf5_segment import SUFFIX, Hdf5Container
from featurestore.format.identity import IDENTITY_ARRAYS
from featurestore.format.rowfile import ChunkedRows, MappedRows, RowFile
from featurestore.format.segment_info import (
    SCALE_DTYPE,
    SegmentInfo,
    content_name,
    hash_keys,
    index_problems,
)
from featurestore.format.spec import FeatureSpec
from featurestore.format.zarr_segment import ZarrContainer

# Rows that are read at a time where many utterances' are; one utterance may have more.
BLOCK_BYTES = 32 << 20
BLOCK_UTTERANCES = 1 << 16
# The small arrays that lead to rows; the others are read once and let go when a segment is opened.
INDEX_ARRAYS = ("offsets", "keys", "key_offsets", "key_hashes", "_source_files", "_source_decoders")
PATTERNS = ("seg-" + "[0-9a-f]" * 16, "seg-" + "[0-9a-f]" * 16 + SUFFIX)


def is_segment_name(name: str) -> bool:
    """Whether an entry of a feature set is a segment, by its name."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in PATTERNS)


class Segment:
    """A committed segment; its layers are mapped when first asked for.

    Raises SegmentGone when it was removed meanwhile, and StoreError when its metadata is damaged or of another feature
    set, or a file is missing or has another size than the metadata records.
    """

    def __init__(self, path: Path, spec: FeatureSpec, files: Files = LOCAL) -> None:
        self.path = path
        self.name = path.name
        self.spec = spec
        self._files = files
        self._container = Hdf5Container(path, files) if path.suffix == SUFFIX else ZarrContainer(path, files)
        self.info = SegmentInfo.from_attributes(self._container.attributes, spec, path)
        self.n_utterances, self.key_bytes = self.info.n_utterances, self.info.key_bytes
        self.n_rows = self.info.layout.n_rows
        self._shapes = self.info.shapes()
        self._layers: dict[str, RowFile] = {}
        self._scales: dict[str, MappedRows] = {}
        self._checksums: MappedRows | None = None
        for layer in spec.layers:
            if not self.info.compress:
                self._container.rows(layer, self.info)  # is it there, and whole

    @property
    def format(self) -> str:
        """ "zarr" or "hdf5"."""
        return "hdf5" if isinstance(self._container, Hdf5Container) else "zarr"

    @property
    def remote(self) -> bool:
        """Whether its rows may have to be fetched first."""
        return self._files.remote

    def small(self, name: str) -> np.ndarray:
        """Return a small array as a new array."""
        shape, dtype = self._shapes[name]
        values = np.frombuffer(self._small_extent(name).read(), dtype)
        return values.reshape(shape).astype(np.dtype(dtype).newbyteorder("="), copy=False)

    def _small_extent(self, name: str) -> Extent:
        shape, dtype = self._shapes[name]
        return self._container.place(name, shape, int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize)

    def check_counts(self) -> None:
        """Raise StoreError unless the numbers of keys and of their bytes are as stated; call it before allocating."""
        for name in ("key_hashes", "keys"):
            self._small_extent(name)

    def load_index(self) -> dict[str, np.ndarray]:
        """Return `INDEX_ARRAYS` after checking that all small arrays are as committed; StoreError when they aren't."""
        reading = _Reading(self)
        if content_name(self.spec.fingerprint, reading) != self.path.stem:
            raise StoreError(
                f"{self.path}: keys, offsets, checksums or durations were altered, or the segment was renamed; restore "
                "it from a copy, or remove it (`medusa store rm SET --damaged`) and encode its utterances again."
            )
        for problem in index_problems(reading.kept, self.n_rows):
            raise StoreError(f"{self.path}: {problem} Restore the segment from a copy, or remove it.")
        return reading.kept

    def identities(self) -> dict[str, np.ndarray] | int:
        """Return the arrays of its utterances' identities, or their number where it records none; see `identity`."""
        if self.info.decoder_bytes is None:
            return self.n_utterances
        return {name: self.small(name) for name in IDENTITY_ARRAYS}

    def layer(self, layer: str) -> RowFile:
        """Return a layer's rows, in the stored dtype."""
        if layer not in self._layers:
            stored, layout = self.spec.row_type.stored, self.info.layout
            if self.info.compress:
                path, size, places = self._container.chunks(layer, self.info)
                codec = CODECS[self.info.compress]
                opened: RowFile = ChunkedRows(path, size, places, layout, stored, codec, self._files)
            else:
                extent = self._container.rows(layer, self.info)
                opened = MappedRows(extent, stored, (layout.n_rows, layout.dim), self._files)
            # Of two threads the first one's counts: addresses in its map are kept, and must not be unmapped.
            self._layers.setdefault(layer, opened)
        return self._layers[layer]

    def scales(self, layer: str) -> MappedRows:
        """Return the scales (n_rows,) of a layer of int8 rows."""
        if layer not in self._scales:
            self._scales.setdefault(layer, self._mapped(self.info.scales()[layer], SCALE_DTYPE, (self.n_rows,)))
        return self._scales[layer]

    def checksums(self) -> np.ndarray:
        """Return CRC-32C of every utterance's stored rows, uint32 (n, L): a view of the file."""
        if self._checksums is None:
            shape, dtype = self._shapes["checksums"]
            self._checksums = self._mapped("checksums", dtype, shape)
        self._checksums.fetch([])
        return self._checksums.array

    def _mapped(self, name: str, dtype: str, shape: tuple[int, ...]) -> MappedRows:
        return MappedRows(self._small_extent(name), dtype, shape, self._files)

    def verify(self) -> list[str]:
        """Each thing that is wrong with the segment's files, as a sentence; empty when all is right."""
        try:
            small = self.load_index()
            problems = list(self._container.problems(self.info))
        except StoreError as error:
            return [str(error)]
        problems += self._wrong_keys(small)
        for layer in self.spec.layers:
            try:
                problems += self._altered_rows(layer, small)
            except StoreError as error:
                problems.append(str(error))
        return problems

    def _wrong_keys(self, small: dict[str, np.ndarray]) -> list[str]:
        problems = []
        bounds, hashes = small["key_offsets"], np.empty(self.n_utterances, np.uint64)
        for first in range(0, self.n_utterances, BLOCK_UTTERANCES):
            block = slice(first, first + BLOCK_UTTERANCES)
            keys = _keys(small, bounds[first : block.stop + 1])
            hashes[block] = hash_keys(keys)
            for i in np.flatnonzero(hashes[block] != small["key_hashes"][block]).tolist():
                problems.append(f"{self.path}: the hash of key {keys[i].decode(errors='replace')!r} is wrong.")
        order = np.argsort(hashes)
        equal = hashes[order[1:]] == hashes[order[:-1]]
        suspects = np.union1d(order[1:][equal], order[:-1][equal])
        if len({key for i in suspects.tolist() for key in _keys(small, bounds[i : i + 2])}) < len(suspects):
            problems.insert(0, f"{self.path}: a key stands in it twice.")
        return problems

    def blocks(self, offsets: np.ndarray) -> Iterator[tuple[int, int]]:
        """Yield the first of the utterances, and the end, of blocks whose rows of all layers fit into `BLOCK_BYTES`.

        offsets: int64 (n + 1,) of their rows. An utterance of more rows is a block of its own.
        """
        row_bytes = self.spec.row_type.row_bytes(self.spec.dim) * len(self.spec.layers)
        first, n = 0, len(offsets) - 1
        while first < n:
            fitting = int(np.searchsorted(offsets, offsets[first] + BLOCK_BYTES // row_bytes, side="right")) - 1
            last = min(max(fitting, first + 1), first + BLOCK_UTTERANCES, n)
            yield first, last
            first = last

    def _altered_rows(self, layer: str, small: dict[str, np.ndarray]) -> list[str]:
        problems = []
        rows, offsets = self.layer(layer), small["offsets"]
        checksums = self.checksums()[:, self.spec.layers.index(layer)]
        for first, last in self.blocks(offsets):
            start, n = int(offsets[first]), int(offsets[last] - offsets[first])
            rows.fetch([(start, n)])
            scales = self.scales(layer).slice(start, n) if self.spec.row_type.scaled else None
            crcs = row_checksums(rows.slice(start, n), scales, offsets[first : last + 1] - start)
            for i in np.flatnonzero(crcs != checksums[first:last]).tolist():
                key = _keys(small, small["key_offsets"][first + i : first + i + 2])[0].decode(errors="replace")
                problems.append(f"{self.path}: rows of {key!r}, layer {layer}, were altered: wrong checksum.")
        return problems


class _Reading(Mapping[str, np.ndarray]):
    """A segment's small arrays, each read when it is asked for; those of `INDEX_ARRAYS` are kept."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._names = segment.info.small_arrays()
        self.kept: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        values = self._segment.small(name)
        if name in INDEX_ARRAYS:
            self.kept[name] = values
        return values

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names


def _keys(small: dict[str, np.ndarray], bounds: np.ndarray) -> list[bytes]:
    """Return the keys between bounds, int64 (n + 1,), in the bytes of all keys."""
    data, ends = small["keys"][bounds[0] : bounds[-1]].tobytes(), (bounds - bounds[0]).tolist()
    return [data[start:stop] for start, stop in pairwise(ends)]


def row_checksum(rows: np.ndarray, scales: np.ndarray | None) -> int:
    """Return CRC-32C of an utterance's stored rows, and of their scales where it has some."""
    crc = int(google_crc32c.value(rows))
    return crc if scales is None else int(google_crc32c.extend(crc, scales.tobytes()))


def row_checksums(rows: np.ndarray, scales: np.ndarray | None, offsets: np.ndarray) -> np.ndarray:
    """Return `row_checksum` of each of n utterances, uint32 (n,); offsets: int64 (n + 1,) of their rows."""
    bounds = offsets.tolist()
    pairs = pairwise(bounds)
    if scales is None:
        crcs = [google_crc32c.value(rows[start:stop]) for start, stop in pairs]
    else:
        crcs = [row_checksum(rows[start:stop], scales[start:stop]) for start, stop in pairs]
    return np.array(crcs, np.uint32)
