"""The few byte rules of Zarr v3 that the store writes by hand, so that rows lie contiguous from byte 0 of one file.

zarr-python reached 0.4-1.9 GB/s writing the same files, and its reader must decode what we could map; a test holds
that it reads every array back bit for bit. Rules: https://zarr-specs.readthedocs.io (core v3, sharding_indexed).
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

# Inner chunks of about 2 MiB: what another reader fetches at a time. Our own reader ignores them.
CHUNK_BYTES = 2 << 20
# Compressed ones are small: an utterance's first and last chunk are decoded whole.
COMPRESSED_CHUNK_BYTES = 1 << 17


@dataclass(frozen=True)
class ShardLayout:
    """How (n_rows, dim) values lie in one shard file: whole chunks of rows, the index, the index's CRC-32C."""

    n_rows: int
    dim: int
    itemsize: int
    n_chunks: int
    chunk_rows: int

    @classmethod
    def balanced(cls, n_rows: int, dim: int, itemsize: int, chunk_bytes: int = CHUNK_BYTES) -> "ShardLayout":
        """Return chunks of equal size, so that fewer zero rows than there are chunks fill up the last one."""
        target_rows = max(1, chunk_bytes // (dim * itemsize))
        chunk_rows = max(1, math.ceil(n_rows / max(1, math.ceil(n_rows / target_rows))))
        return cls(n_rows, dim, itemsize, math.ceil(n_rows / chunk_rows), chunk_rows)

    @property
    def data_bytes(self) -> int:
        return self.n_rows * self.dim * self.itemsize

    @property
    def padding_bytes(self) -> int:
        return (self.n_chunks * self.chunk_rows - self.n_rows) * self.dim * self.itemsize

    @property
    def chunk_bytes(self) -> int:
        return self.chunk_rows * self.dim * self.itemsize

    @property
    def file_bytes(self) -> int:
        """Size of the uncompressed shard file; 0 rows have no file."""
        return self.data_bytes + self.padding_bytes + 16 * self.n_chunks + 4 if self.n_rows else 0

    def tail(self) -> bytes:
        """Return the bytes after the uncompressed rows in the file: zero rows, and the shard's index."""
        places = np.full((self.n_chunks, 2), self.chunk_bytes, dtype="<u8")
        places[:, 0] = np.arange(self.n_chunks, dtype="<u8") * self.chunk_bytes
        return bytes(self.padding_bytes) + shard_index(places)

    def metadata(self, dtype: str, inner: Sequence[dict[str, Any]] = (), **attributes: str) -> dict[str, Any]:
        """Return the array's zarr.json for rows of the numpy `dtype`.

        Inner: the codecs that compress a chunk's bytes.
        """
        little = {"name": "bytes", "configuration": {"endian": "little"}}
        sharding = {
            "chunk_shape": [self.chunk_rows, self.dim],
            "codecs": [_bytes_codec(dtype), *inner],
            "index_codecs": [little, {"name": "crc32c"}],
            "index_location": "end",
        }
        shard_rows = max(1, self.n_chunks) * self.chunk_rows
        codec = {"name": "sharding_indexed", "configuration": sharding}
        axes = ("row", "dim")
        metadata = _array_metadata((self.n_rows, self.dim), dtype, (shard_rows, self.dim), codec, axes)
        return {**metadata, "attributes": attributes}


def shard_index(places: np.ndarray) -> bytes:
    """Return the end of a shard file: (offset, size) of each chunk, uint64 (n, 2), and the CRC-32C of those bytes."""
    index = places.astype("<u8", copy=False).tobytes()
    return index + int(google_crc32c.value(index)).to_bytes(4, "little")


def _bytes_codec(dtype: str) -> dict[str, Any]:
    if np.dtype(dtype).itemsize == 1:
        return {"name": "bytes"}
    return {"name": "bytes", "configuration": {"endian": "little"}}


def plain_metadata(shape: tuple[int, ...], dtype: str, axes: tuple[str, ...]) -> dict[str, Any]:
    """Return the zarr.json of an array that is one uncompressed chunk: its file holds the values and nothing else."""
    return _array_metadata(shape, dtype, tuple(max(1, size) for size in shape), _bytes_codec(dtype), axes)


def without_axes(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return an array's zarr.json as the first stores have it, which named no axes."""
    return {name: value for name, value in metadata.items() if name != "dimension_names"}


def _array_metadata(
    shape: tuple[int, ...], dtype: str, chunk_shape: tuple[int, ...], codec: dict[str, Any], axes: tuple[str, ...]
) -> dict[str, Any]:
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk_shape)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0.0 if np.dtype(dtype).kind == "f" else 0,
        "codecs": [codec],
        "attributes": {},
        "storage_transformers": [],
        "dimension_names": list(axes),
    }


def group_metadata(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return the zarr.json of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def chunk_file(array: Path, n_dims: int) -> Path:
    """Return the file of the only chunk (or shard) of an array with `n_dims` axes."""
    return array / ("c" + "/0" * n_dims)


def json_bytes(value: dict[str, Any]) -> bytes:
    """Return a zarr.json as we write it, byte for byte."""
    return json.dumps(value, indent=1).encode() + b"\n"


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a new zarr.json; whoever makes the segment has all of its files made durable at once."""
    path.write_bytes(json_bytes(value))


def write_plain(array: Path, values: np.ndarray, axes: tuple[str, ...]) -> None:
    """Write one small array; see `write_json`."""
    values = np.ascontiguousarray(values)
    array.mkdir()
    if values.size:
        path = chunk_file(array, values.ndim)
        path.parent.mkdir(parents=True)
        path.write_bytes(values.astype(values.dtype.newbyteorder("<"), copy=False).data)
    write_json(array / "zarr.json", plain_metadata(values.shape, values.dtype.name, axes))
