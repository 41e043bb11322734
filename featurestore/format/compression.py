"""Compressed chunks of rows: each codec is two inverse functions on bytes and its description for other readers."""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np

from featurestore.errors import StoreError

ZSTD_LEVEL, BLOSC_LEVEL, GZIP_LEVEL = 3, 5, 4


@dataclass(frozen=True)
class Codec:
    """encode(bytes, itemsize) -> bytes; decode(bytes, n_bytes, itemsize) -> bytes, raises ValueError or RuntimeError.

    zarr(itemsize): the inner codecs after "bytes" in a Zarr v3 shard; None for a codec of HDF5 files.
    """

    name: str
    encode: Callable[[bytes, int], bytes]
    decode: Callable[[bytes, int, int], bytes]
    zarr: Callable[[int], list[dict[str, Any]]] | None

    def decoded(self, data: bytes, n_bytes: int, itemsize: int, where: str) -> bytes:
        """Return the chunk's `n_bytes`; StoreError naming `where` when the data is damaged."""
        try:
            chunk = self.decode(data, n_bytes, itemsize)
        except (ValueError, RuntimeError, zlib.error) as error:
            raise StoreError(f"{where}: a chunk can't be decoded with {self.name} ({error}): it is damaged.") from error
        if len(chunk) != n_bytes:
            raise StoreError(f"{where}: a chunk has {len(chunk)} bytes, {n_bytes} expected: it is damaged.")
        return chunk


def _with_crc(data: bytes) -> bytes:
    return data + int(google_crc32c.value(data)).to_bytes(4, "little")


def _checked(data: bytes) -> bytes:
    """Without its CRC-32C, which is compared first: decompressors in C never see damaged data."""
    if len(data) < 4 or google_crc32c.value(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise ValueError("wrong checksum")
    return data[:-4]


def _zstd_encode(data: bytes, itemsize: int) -> bytes:
    from numcodecs import zstd

    return _with_crc(zstd.compress(data, ZSTD_LEVEL))


def _zstd_decode(data: bytes, n_bytes: int, itemsize: int) -> bytes:
    from numcodecs import zstd

    return bytes(zstd.decompress(_checked(data), np.zeros(n_bytes, np.uint8)))


def _blosc_encode(data: bytes, itemsize: int) -> bytes:
    from numcodecs import blosc

    return _with_crc(blosc.compress(data, b"zstd", BLOSC_LEVEL, _blosc_shuffle(itemsize), 0, itemsize))


def _blosc_decode(data: bytes, n_bytes: int, itemsize: int) -> bytes:
    from numcodecs import blosc

    data = _checked(data)
    # Blosc's header: the sizes of what comes out, of a block, and of all this.
    if len(data) < 16 or struct.unpack_from("<4xI4xI", data) != (n_bytes, len(data)):
        raise ValueError("wrong sizes in its header")
    return bytes(blosc.decompress(data))


def _blosc_shuffle(itemsize: int) -> int:
    return 1 if itemsize > 1 else 2  # bytes; bits where values are single bytes


def _zstd_zarr(itemsize: int) -> list[dict[str, Any]]:
    return [{"name": "zstd", "configuration": {"level": ZSTD_LEVEL, "checksum": False}}, {"name": "crc32c"}]


def _blosc_zarr(itemsize: int) -> list[dict[str, Any]]:
    shuffle = {1: "shuffle", 2: "bitshuffle"}[_blosc_shuffle(itemsize)]
    settings = {"typesize": itemsize, "cname": "zstd", "clevel": BLOSC_LEVEL, "shuffle": shuffle, "blocksize": 0}
    return [{"name": "blosc", "configuration": settings}, {"name": "crc32c"}]


def _gzip_encode(data: bytes, itemsize: int) -> bytes:
    """Apply HDF5's filters shuffle and deflate: first bytes of all values, then the second ones, as a zlib stream."""
    shuffled = np.frombuffer(data, np.uint8).reshape(-1, itemsize).T.tobytes()
    return zlib.compress(shuffled, GZIP_LEVEL)


def _gzip_decode(data: bytes, n_bytes: int, itemsize: int) -> bytes:
    inflate = zlib.decompressobj()
    shuffled = inflate.decompress(data, n_bytes + 1)
    if len(shuffled) != n_bytes or not inflate.eof or inflate.unused_data:
        raise ValueError(f"{len(shuffled)} bytes in it")
    return np.frombuffer(shuffled, np.uint8).reshape(itemsize, -1).T.tobytes()


CODECS = {
    "zstd": Codec("zstd", _zstd_encode, _zstd_decode, _zstd_zarr),
    "blosc": Codec("blosc", _blosc_encode, _blosc_decode, _blosc_zarr),
    "gzip": Codec("gzip", _gzip_encode, _gzip_decode, None),
}
# What each format's other readers decode without a plugin.
COMPRESSIONS = {"zarr": ("zstd", "blosc"), "hdf5": ("gzip",)}


def check_storage(format: str, compress: str) -> None:
    """Raise StoreError unless a segment of that format ("zarr", "hdf5") can be compressed so ("": not at all)."""
    if format not in COMPRESSIONS:
        raise StoreError(f"Format {format!r} is unknown; use {' or '.join(COMPRESSIONS)}.")
    if compress and compress not in COMPRESSIONS[format]:
        raise StoreError(
            f"Compression {compress!r} with format {format}: use {' or '.join(COMPRESSIONS[format])}, which every "
            f"{format} reader decodes without a plugin, or none."
        )
