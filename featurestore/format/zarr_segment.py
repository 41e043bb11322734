"""A segment as a Zarr v3 group: `seg-<16 hex>/`, one directory per array (FORMAT.md, section 4).

<layer>/c/0/0  the only shard: rows contiguous from byte 0 where they aren't compressed, then the shard's index
<name>/c/0     every other array is one uncompressed chunk, its file the values and nothing else
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
import numpy as np

from featurestore.errors import SegmentGone, StoreError
from featurestore.format.compression import CODECS, Codec
from featurestore.format.files import Extent, Files
from featurestore.format.segment_info import SegmentInfo, axes_of, read_group
from featurestore.format.zarr3 import (
    chunk_file,
    group_metadata,
    json_bytes,
    plain_metadata,
    shard_index,
    without_axes,
    write_json,
    write_plain,
)
from featurestore.runtime.durable import sync_tree

COMPRESSED_AT_A_TIME = 64  # chunks; what is held in memory


class ZarrContainer:
    """Where a segment's arrays lie."""

    def __init__(self, path: Path, files: Files) -> None:
        self.path, self._files = path, files
        try:
            self.attributes = read_group(path, files)
        except StoreError:
            if not files.remote and not path.exists():
                raise SegmentGone(f"{path} is gone.") from None
            raise

    def place(self, name: str, shape: tuple[int, ...], n_bytes: int) -> Extent:
        """Return a plain array's bytes; StoreError when its file is missing or has another size."""
        path = chunk_file(self.path / name, len(shape))
        if n_bytes or not self._files.remote:
            self._check_size(path, n_bytes, self._fetched_size)
        return Extent(path, 0, n_bytes)

    def rows(self, layer: str, info: SegmentInfo) -> Extent:
        """Return an uncompressed layer's rows."""
        path = chunk_file(self.path / layer, 2)
        if info.layout.file_bytes or not self._files.remote:
            self._check_size(path, info.layout.file_bytes, self._files.sparse)
        return Extent(path, 0, info.layout.data_bytes)

    def chunks(self, layer: str, info: SegmentInfo) -> tuple[Path, int, np.ndarray]:
        """Return a compressed layer's file, its size, and the places of its chunks."""
        path = chunk_file(self.path / layer, 2)
        n_chunks = info.layout.n_chunks
        if not n_chunks:
            return path, 0, np.empty((0, 2), dtype="<u8")
        index_bytes = 16 * n_chunks + 4
        size = self._size(path, self._files.sparse) or 0
        if size < index_bytes:
            raise StoreError(f"{path}: {size} bytes found, {index_bytes} or more expected; {self._remedy}")
        self._files.ensure(path, [(size - index_bytes, size)])
        index = Extent(path, size - index_bytes, index_bytes).read()
        places = np.frombuffer(index[:-4], "<u8").reshape(n_chunks, 2)
        if google_crc32c.value(index[:-4]) != int.from_bytes(index[-4:], "little") or _outside(places, size):
            raise StoreError(f"{path}: the shard's index is damaged; {self._remedy}")
        return path, size, places

    def problems(self, info: SegmentInfo) -> Iterator[str]:
        """Metadata that another Zarr reader would go by but that doesn't say what the segment is; foreign files."""
        expected = {"": group_metadata(info.attributes())}
        expected |= {layer: layer_metadata(layer, info) for layer in info.spec.layers}
        own = set()
        for name, (shape, dtype) in info.shapes().items():
            expected[name] = plain_metadata(shape, np.dtype(dtype).name, axes_of(name))
            own.add(chunk_file(self.path / name, len(shape)))
        for name, metadata in expected.items():
            path = self.path / name / "zarr.json"
            own.add(path)
            try:
                self._files.file(path)
                if path.read_bytes() not in (json_bytes(metadata), json_bytes(without_axes(metadata))):
                    yield f"{path}: the metadata was altered."
            except OSError as error:
                yield f"{path} can't be read: {error.strerror}."
        for layer in info.spec.layers:
            path = chunk_file(self.path / layer, 2)
            own.add(path)
            if info.layout.n_rows and not info.compress:
                self._files.ensure(path, [(info.layout.data_bytes, info.layout.file_bytes)])
                tail = info.layout.tail()
                if Extent(path, info.layout.data_bytes, len(tail)).read() != tail:
                    yield f"{path}: the shard's index was altered."
        own.update([parent for file in own for parent in file.parents])
        for entry in sorted(self.path.rglob("*")):
            if entry not in own:
                yield f"{entry}: a file that does not belong to the segment."

    def _fetched_size(self, path: Path) -> int:
        self._files.file(path)
        return path.stat().st_size

    def _check_size(self, path: Path, expected: int, size_of: Any) -> None:
        """Raise StoreError for a file of another size; files of 0 bytes are not written (Zarr leaves them out)."""
        n_bytes = self._size(path, size_of)
        if n_bytes != (expected or None) and (expected or n_bytes):
            what = "no file" if n_bytes is None else f"{n_bytes} bytes"
            raise StoreError(f"{path}: expected {expected} bytes, found {what}; {self._remedy}")

    def _size(self, path: Path, size_of: Any) -> int | None:
        try:
            return int(size_of(path))
        except (FileNotFoundError, NotADirectoryError):
            if not self._files.remote and not self.path.exists():
                raise SegmentGone(f"{self.path} is gone.") from None
            return None
        except OSError as error:
            raise StoreError(f"{path} can't be read: {error.strerror}.") from error

    @property
    def _remedy(self) -> str:
        return "restore the segment from a copy, or remove it (`medusa store rm SET --damaged`) and encode again."


def layer_metadata(layer: str, info: SegmentInfo) -> dict[str, Any]:
    """Return the layer's zarr.json."""
    row_type = info.spec.row_type
    inner: list[dict[str, Any]] = []
    if info.compress:
        codec = CODECS[info.compress]
        if codec.zarr is None:
            raise StoreError(f"Zarr segments are not compressed with {codec.name}.")
        inner = codec.zarr(row_type.itemsize)
    return info.layout.metadata(np.dtype(row_type.stored).name, inner, **info.layer_attributes(layer))


def finish(path: Path, info: SegmentInfo, small: dict[str, np.ndarray]) -> Path:
    """Make a segment of the staged rows in `path`, durably; returns what is to be renamed."""
    for layer in info.spec.layers:
        shard = chunk_file(path / layer, 2)
        if not info.layout.n_rows:
            shard.unlink()
        elif info.compress:
            _compress(shard, info, CODECS[info.compress])
        else:
            with open(shard, "r+b") as file:
                file.truncate(info.layout.data_bytes)
                file.seek(info.layout.data_bytes)
                file.write(info.layout.tail())
        write_json(path / layer / "zarr.json", layer_metadata(layer, info))
    for name in info.scales().values():
        scales = chunk_file(path / name, 1)
        os.truncate(scales, 4 * info.layout.n_rows)
        if not info.layout.n_rows:
            scales.unlink()
        shape, dtype = info.shapes()[name]
        write_json(path / name / "zarr.json", plain_metadata(shape, np.dtype(dtype).name, axes_of(name)))
    for name, values in small.items():
        write_plain(path / name, values, axes_of(name))
    # The group's own metadata comes last: before it, no Zarr reader takes the directory for a group.
    write_json(path / "zarr.json", group_metadata(info.attributes()))
    sync_tree(path)
    return path


def _compress(shard: Path, info: SegmentInfo, codec: Codec) -> None:
    """Put the compressed shard in the place of the raw rows."""
    target = shard.with_name("compressed")
    places = np.zeros((info.layout.n_chunks, 2), dtype="<u8")
    with open(shard, "rb") as raw, open(target, "xb") as file:
        for i, data in enumerate(compressed_chunks(raw, info, codec)):
            places[i] = file.tell(), len(data)
            file.write(data)
        file.write(shard_index(places))
    target.replace(shard)


def compressed_chunks(raw: BinaryIO, info: SegmentInfo, codec: Codec) -> Iterator[bytes]:
    """Yield the chunks of the staged rows, compressed by two threads; the last one is filled up with zeros."""
    layout = info.layout

    def chunk(i: int) -> bytes:
        start = i * layout.chunk_bytes
        data = os.pread(raw.fileno(), min(layout.chunk_bytes, layout.data_bytes - start), start)
        return codec.encode(data + bytes(layout.chunk_bytes - len(data)), layout.itemsize)

    with ThreadPoolExecutor(2, "compress") as threads:
        for first in range(0, layout.n_chunks, COMPRESSED_AT_A_TIME):
            yield from threads.map(chunk, range(first, min(first + COMPRESSED_AT_A_TIME, layout.n_chunks)))


def _outside(places: np.ndarray, size: int) -> bool:
    """Whether a chunk would lie outside the file."""
    return bool(((places > size) | (places.sum(axis=1, keepdims=True) > size)).any())
