"""A segment as one HDF5 file: `seg-<16 hex>.h5` (FORMAT.md, section 5).

h5py reads it with no help from us: every array is a dataset, the attributes are the root group's. We read it without
libhdf5: the file begins with a user block, which HDF5 leaves to applications, and a header there records where each
array lies. So opening costs one small read, works on a partly fetched remote file, and damaged metadata never
reaches a C library: a CRC-32C of everything outside the arrays stands in the header.
"""

import json
import math
import os
import re
import shutil
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from featurestore.errors import SegmentGone, StoreError
from featurestore.format.compression import CODECS
from featurestore.format.files import Extent, Files
from featurestore.format.hdf5_sink import Hdf5Sink
from featurestore.format.segment_info import SegmentInfo, parse_json
from featurestore.format.spec import FeatureSpec
from featurestore.format.write_behind import start_writing
from featurestore.format.zarr3 import chunk_file
from featurestore.format.zarr_segment import compressed_chunks
from featurestore.rows.aligned import ALIGNMENT

SUFFIX = ".h5"
FIRST_LINE_BYTES = 64
ALIGNED_BYTES = 4096  # arrays as large as this begin at a cache line
COPIED_BYTES = 16 << 20  # at a time
# Where the rows of an only layer are written before the rest of the file is known, behind a user block of half as many
# bytes; segments of fewer rows are copied, so that they have no such gap.
ROWS_AT = 1 << 16
IN_PLACE_BYTES = 4 << 20
_ALIGNED = {"alignment_threshold": ALIGNED_BYTES, "alignment_interval": ALIGNMENT}
_FIRST_LINE = re.compile(rb"medusa-segment 1 block=(\d{1,9}) json=(\d{1,9}) crc32c=([0-9a-f]{8})\n *\n")


class Hdf5Container:
    """Where a segment's arrays lie."""

    def __init__(self, path: Path, files: Files) -> None:
        self.path, self._files = path, files
        try:
            self._size = files.sparse(path)
            block, header = self._read_header()
        except (FileNotFoundError, NotADirectoryError):
            raise SegmentGone(f"{path} is gone.") from None
        except OSError as error:
            raise StoreError(f"{path} can't be read: {error.strerror}.") from error
        self._block = block
        self._header = header
        attributes = header.get("attributes")
        if not isinstance(attributes, dict) or header.get("file_bytes") != self._size:
            raise StoreError(
                f"{path}: expected {header.get('file_bytes')} bytes, found {self._size} bytes; {self._remedy}"
            )
        self.attributes: dict[str, Any] = attributes

    def _read_header(self) -> tuple[int, dict[str, Any]]:
        first = self._read(0, FIRST_LINE_BYTES)
        match = _FIRST_LINE.fullmatch(first)
        if match is None:
            raise StoreError(f"{self.path}: its first line is damaged, or it is no segment; {self._remedy}")
        block, n_json = int(match[1]), int(match[2])
        if FIRST_LINE_BYTES + n_json > block or block > self._size:
            raise StoreError(f"{self.path}: {self._size} bytes found, {block} or more expected; {self._remedy}")
        data = self._read(FIRST_LINE_BYTES, n_json)
        if google_crc32c.value(data) != int(match[3], 16):
            raise StoreError(f"{self.path}: the header is damaged; {self._remedy}")
        return block, parse_json(data, self.path)

    def _read(self, start: int, n_bytes: int) -> bytes:
        n_bytes = min(n_bytes, self._size - start)
        self._files.ensure(self.path, [(start, start + n_bytes)])
        return Extent(self.path, start, n_bytes).read()

    def place(self, name: str, shape: tuple[int, ...], n_bytes: int) -> Extent:
        """Return a plain array's bytes; StoreError when the header places it elsewhere than in the file."""
        extent = self._extent(name, n_bytes)
        self._files.ensure(self.path, [(extent.start, extent.stop)])
        return extent

    def rows(self, layer: str, info: SegmentInfo) -> Extent:
        """Return an uncompressed layer's rows."""
        return self._extent(layer, info.layout.data_bytes)

    def chunks(self, layer: str, info: SegmentInfo) -> tuple[Path, int, np.ndarray]:
        """Return a compressed layer's file, its size, and the places of its chunks."""
        table = self.place(f"{layer}.chunks", (), 16 * info.layout.n_chunks)
        places = np.frombuffer(table.read(), "<u8").reshape(-1, 2)
        if ((places > self._size) | (places.sum(axis=1, keepdims=True) > self._size)).any():
            raise StoreError(f"{self.path}: chunks of {layer} lie outside the file; {self._remedy}")
        return self.path, self._size, places

    def _extent(self, name: str, n_bytes: int) -> Extent:
        arrays = self._header.get("arrays")
        place = arrays.get(name) if isinstance(arrays, dict) else None
        if isinstance(place, list) and len(place) == 2 and all(type(n) is int and n >= 0 for n in place):
            extent = Extent(self.path, *place)
            if extent.n_bytes == n_bytes and extent.stop <= self._size:
                return extent
        raise StoreError(f"{self.path}: array {name} of {n_bytes} bytes is placed at {place}; {self._remedy}")

    def problems(self, info: SegmentInfo) -> Iterator[str]:
        """Yield HDF5's own bytes, which other readers go by, and the user block, where they are altered."""
        if self.attributes != info.attributes():
            yield f"{self.path}: the attributes were altered."
        expected = {name: math.prod(shape) * np.dtype(dtype).itemsize for name, (shape, dtype) in info.shapes().items()}
        for layer in info.spec.layers:
            if info.compress:
                expected[f"{layer}.chunks"] = 16 * info.layout.n_chunks
            if not info.compress or not info.layout.n_rows:
                expected[layer] = info.layout.data_bytes
        if set(self._header["arrays"]) != set(expected):
            yield f"{self.path}: the header doesn't describe the arrays that a segment has."
            return
        for name, n_bytes in expected.items():
            self._extent(name, n_bytes)
        self._files.ensure(self.path, [(0, self._size)])
        n_json = len(_header_json(self._header))
        padding = Extent(self.path, FIRST_LINE_BYTES + n_json, self._block - FIRST_LINE_BYTES - n_json).read()
        if padding.strip(b"\0"):
            yield f"{self.path}: there are foreign bytes after the header."
        if _crc_outside(self.path, self._block, self._header["arrays"]) != self._header.get("metadata_crc32c"):
            yield f"{self.path}: HDF5's metadata was altered."

    @property
    def _remedy(self) -> str:
        return "restore the file from a copy, or remove it (`medusa store rm SET --damaged`) and encode again."


def staged_at(spec: FeatureSpec, compress: str) -> int:
    """Return at which byte of its file a layer's rows are to be staged: where the segment has them, if it can be known.

    The rows of one uncompressed layer can stay in their file, which then becomes the segment.
    """
    return ROWS_AT if len(spec.layers) == 1 and not compress else 0


def finish(path: Path, info: SegmentInfo, small: dict[str, np.ndarray]) -> Path:
    """Make a segment of the staged rows in `path`, durably; returns what is to be renamed."""
    import h5py

    target = path / f"segment{SUFFIX}"
    n_arrays = len(small) + 2 * len(info.spec.layers)
    block = 512
    while block < 1024 + 64 * n_arrays + 2 * len(json.dumps(info.attributes())):
        block *= 2
    first_byte = staged_at(info.spec, info.compress)
    layers = {layer: chunk_file(path / layer, 2) for layer in info.spec.layers}
    scales = {name: chunk_file(path / name, 1) for name in info.scales().values()}
    if first_byte and info.layout.data_bytes >= IN_PLACE_BYTES and block <= ROWS_AT // 2:
        (rows,) = layers.values()
        rows.rename(target)
        with open(target, "r+b", buffering=0) as whole:
            sink = Hdf5Sink(whole, (ROWS_AT, ROWS_AT + info.layout.data_bytes))
            arrays = _take_over(sink, info, small, scales)
            if arrays is not None:
                _complete(whole, target, ROWS_AT // 2, info, arrays, scales, {})
                return target
        target.rename(rows)  # the rows are whole; what lies around them isn't copied
    with open(target, "x+b", buffering=0) as whole:
        sink = Hdf5Sink(whole)
        with h5py.File(sink, "w", userblock_size=block, **_ALIGNED) as file:
            arrays = _write_datasets(file, info, small, layers)
        if sink.error is not None:
            raise sink.error
        _complete(whole, target, block, info, arrays, layers | scales, dict.fromkeys(layers, first_byte))
    return target


def _take_over(
    sink: Hdf5Sink, info: SegmentInfo, small: dict[str, np.ndarray], scales: dict[str, Path]
) -> dict[str, list[int]] | None:
    """Write an HDF5 file around the rows that lie in it, which is where libhdf5 is expected to place them.

    Returns each array's (offset, bytes); None where libhdf5 places them elsewhere, as another version might.
    """
    import h5py

    (layer,) = info.spec.layers
    # The only dataset of such a size begins at a multiple of the block.
    aligned = {"alignment_threshold": IN_PLACE_BYTES, "alignment_interval": ROWS_AT // 2}
    arrays = None
    with h5py.File(sink, "w", userblock_size=ROWS_AT // 2, **aligned) as file:
        dataset = _reserve(file, layer, (info.layout.n_rows, info.layout.dim), info.spec.row_type.stored)
        is_there = dataset.id.get_offset() == ROWS_AT
    if is_there and sink.error is None:
        with h5py.File(sink, "r+", **_ALIGNED) as file:
            arrays = _write_datasets(file, info, small, scales)
    if sink.overwrites or not is_there:
        return None
    if sink.error is not None:
        raise sink.error
    return arrays


def _complete(
    whole: FileIO,
    target: Path,
    block: int,
    info: SegmentInfo,
    arrays: dict[str, list[int]],
    staged: dict[str, Path],
    firsts: dict[str, int],
) -> None:
    """Copy the staged arrays to their places in the file, write its header, and make it durable.

    block: bytes of the user block. firsts: where in its staged file an array begins, if not at byte 0.
    """
    for name, (start, n_bytes) in arrays.items():
        if name in staged and n_bytes:
            with open(staged[name], "rb") as rows:
                whole.seek(start)
                _copy(rows.fileno(), firsts.get(name, 0), whole, n_bytes)
    whole.flush()
    header: dict[str, Any] = {
        "attributes": info.attributes(),
        "arrays": arrays,
        "file_bytes": os.fstat(whole.fileno()).st_size,
        "metadata_crc32c": _crc_outside(target, block, arrays),
    }
    data = _header_json(header)
    first = f"medusa-segment 1 block={block} json={len(data)} crc32c={google_crc32c.value(data):08x}\n".encode()
    assert FIRST_LINE_BYTES + len(data) <= block
    whole.seek(0)
    whole.write(first + b" " * (FIRST_LINE_BYTES - 1 - len(first)) + b"\n" + data)
    whole.flush()
    os.fsync(whole.fileno())


def _write_datasets(
    file: Any, info: SegmentInfo, small: dict[str, np.ndarray], staged: dict[str, Path]
) -> dict[str, list[int]]:
    """Every dataset but one that is there, those of staged rows without values; return each array's (offset, bytes)."""
    for name, value in info.attributes().items():
        file.attrs[name] = value
    file.attrs["spec"] = json.dumps(info.spec.to_json(), sort_keys=True)
    tables: dict[str, np.ndarray] = {}
    layout, stored = info.layout, info.spec.row_type.stored
    for layer in info.spec.layers:
        shape = (layout.n_rows, layout.dim)
        if info.compress and layout.n_rows:
            dataset = file.create_dataset(
                layer, shape, stored, chunks=(layout.chunk_rows, layout.dim), compression="gzip", shuffle=True
            )
            with open(staged[layer], "rb") as raw:
                for i, data in enumerate(compressed_chunks(raw, info, CODECS[info.compress])):
                    dataset.id.write_direct_chunk((i * layout.chunk_rows, 0), data)
            chunks = [dataset.id.get_chunk_info_by_coord((i * layout.chunk_rows, 0)) for i in range(layout.n_chunks)]
            tables[layer] = np.array([(chunk.byte_offset, chunk.size) for chunk in chunks], dtype="<u8")
        else:
            dataset = file[layer] if layer in file else _reserve(file, layer, shape, stored)
        dataset.attrs.update(info.layer_attributes(layer))
    shapes = info.shapes()
    for name in info.scales().values():
        _reserve(file, name, *shapes[name])
    for name, values in small.items():
        file.create_dataset(name, data=values)
    for layer, places in tables.items():
        file.create_dataset(f"{layer}.chunks", data=places)
    file.flush()
    arrays = {}
    for name, dataset in sorted(file.items()):
        if name not in tables:
            arrays[name] = [int(dataset.id.get_offset() or 0), int(dataset.size * dataset.dtype.itemsize)]
    if info.compress and not layout.n_rows:
        arrays |= {f"{layer}.chunks": [0, 0] for layer in info.spec.layers}
    return arrays


def _reserve(file: Any, name: str, shape: tuple[int, ...], dtype: str) -> Any:
    """Return a contiguous dataset whose bytes have their place in the file now and are written later."""
    import h5py

    how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    how.set_layout(h5py.h5d.CONTIGUOUS)
    how.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    how.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    how.set_obj_track_times(False)
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(np.dtype(dtype), logical=True), space, how)
    return file[name]


def _copy(source: int, first: int, target: Any, n_bytes: int) -> None:
    """Copy bytes first:first + n_bytes within the kernel where it can."""
    start, done = target.tell(), 0
    if hasattr(os, "copy_file_range"):
        try:
            while done < n_bytes:
                n = min(n_bytes - done, COPIED_BYTES)
                n = os.copy_file_range(source, target.fileno(), n, first + done, start + done)
                if not n:
                    break
                start_writing(target.fileno(), start + done, n)
                done += n
        except OSError:  # not on this file system; a full disk will say so again
            pass
    if done < n_bytes:
        target.seek(start + done)
        os.lseek(source, first + done, os.SEEK_SET)
        with os.fdopen(os.dup(source), "rb") as rest:
            shutil.copyfileobj(rest, target, 1 << 20)
    target.flush()


def _crc_outside(path: Path, block: int, arrays: dict[str, list[int]]) -> int:
    """Return CRC-32C of the file's bytes outside the user block and the arrays; compressed chunks count as outside."""
    taken = [(start, start + n_bytes) for start, n_bytes in arrays.values()]
    crc, position, size = 0, block, path.stat().st_size
    for start, stop in [*sorted(taken), (size, size)]:
        if start > position:
            crc = google_crc32c.extend(crc, Extent(path, position, start - position).read())
        position = max(position, stop)
    return int(crc)


def _header_json(header: dict[str, Any]) -> bytes:
    return json.dumps(header, separators=(",", ":"), sort_keys=True).encode()
