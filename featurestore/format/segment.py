"""One immutable segment of a feature set, open for reading, whichever container it lies in.

Its name is a hash of everything but the rows, which the checksums stand for: the same commit twice is one segment, and
altered keys, offsets or checksums are found when it is opened.
"""

import fnmatch
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
    hash_key,
    index_problems,
)
from featurestore.format.spec import FeatureSpec
from featurestore.format.zarr_segment import ZarrContainer

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
        shape, dtype = self.info.shapes()[name]
        values = np.frombuffer(self._small_extent(name).read(), dtype)
        return values.reshape(shape).astype(np.dtype(dtype).newbyteorder("="), copy=False)

    def _small_extent(self, name: str) -> Extent:
        shape, dtype = self.info.shapes()[name]
        return self._container.place(name, shape, int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize)

    def check_counts(self) -> None:
        """StoreError unless there are as many keys and bytes of keys as the attributes tell: ask before allocating."""
        for name in ("key_hashes", "keys"):
            self._small_extent(name)

    def load_index(self) -> dict[str, np.ndarray]:
        """Every small array, once it is sure that they are what was committed; StoreError when they are not."""
        small = {name: self.small(name) for name in self.info.small_arrays()}
        if content_name(self.spec.fingerprint, small) != self.path.stem:
            raise StoreError(
                f"{self.path}: keys, offsets, checksums or durations were altered, or the segment was renamed; restore "
                "it from a copy, or remove it (`medusa store rm SET --damaged`) and encode its utterances again."
            )
        for problem in index_problems(small, self.n_rows):
            raise StoreError(f"{self.path}: {problem} Restore the segment from a copy, or remove it.")
        return small

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
                self._layers[layer] = ChunkedRows(path, size, places, layout, stored, codec, self._files)
            else:
                extent = self._container.rows(layer, self.info)
                self._layers[layer] = MappedRows(extent, stored, (layout.n_rows, layout.dim), self._files)
        return self._layers[layer]

    def scales(self, layer: str) -> MappedRows:
        """Return the scales (n_rows,) of a layer of int8 rows."""
        if layer not in self._scales:
            self._scales[layer] = self._mapped(self.info.scales()[layer], SCALE_DTYPE, (self.n_rows,))
        return self._scales[layer]

    def checksums(self) -> np.ndarray:
        """CRC-32C of every utterance's stored rows, uint32 (n, L): a view of the file."""
        if self._checksums is None:
            shape, dtype = self.info.shapes()["checksums"]
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
        keys, key_offsets = small["keys"].tobytes(), small["key_offsets"].tolist()
        own_keys = [keys[key_offsets[i] : key_offsets[i + 1]] for i in range(self.n_utterances)]
        if len(set(own_keys)) != len(own_keys):
            problems.append(f"{self.path}: a key stands in it twice.")
        for i, key in enumerate(own_keys):
            if hash_key(key) != int(small["key_hashes"][i]):
                problems.append(f"{self.path}: the hash of key {key.decode(errors='replace')!r} is wrong.")
        offsets = small["offsets"].tolist()
        for layer in self.spec.layers:
            try:
                problems += self._altered_rows(layer, offsets, own_keys)
            except StoreError as error:
                problems.append(str(error))
        return problems

    def _altered_rows(self, layer: str, offsets: list[int], keys: list[bytes]) -> list[str]:
        problems = []
        rows = self.layer(layer)
        checksums = self.checksums()[:, self.spec.layers.index(layer)].tolist()
        runs = [(offsets[i], offsets[i + 1] - offsets[i]) for i in range(self.n_utterances)]
        rows.fetch(runs)
        for i, (first, n) in enumerate(runs):
            scales = self.scales(layer).slice(first, n) if self.spec.row_type.scaled else None
            if row_checksum(rows.slice(first, n), scales) != checksums[i]:
                key = keys[i].decode(errors="replace")
                problems.append(f"{self.path}: rows of {key!r}, layer {layer}, were altered: wrong checksum.")
        return problems


def row_checksum(rows: np.ndarray, scales: np.ndarray | None) -> int:
    """CRC-32C of an utterance's stored rows, and of their scales where it has some."""
    crc = int(google_crc32c.value(rows))
    return crc if scales is None else int(google_crc32c.extend(crc, scales.tobytes()))
