"""A local file that is filled block by block: as long as the remote one, with a map of the blocks that are there.

The map is a file of its own: a header (magic, size, bytes per block, tag of the remote file) and one byte per block,
1 where the block's bytes are on disk. A block's bytes are synced before its byte is set, so that a process killed at
any moment leaves a map that is true; and since a file's contents never change, processes may fill it at the same time.
"""

import hashlib
import os
import struct
from collections.abc import Sequence
from pathlib import Path

from featurestore.errors import StoreError
from featurestore.runtime.durable import write_once

_HEADER = struct.Struct("<8sQQ16s")
_MAGIC = b"medusaB1"


class SparseFile:
    """One such file, which exists (else FileNotFoundError); StoreError when the map is damaged."""

    def __init__(self, path: Path, map_path: Path) -> None:
        self.path = path
        self._map_path = map_path
        data = map_path.read_bytes()
        self.size: int
        self.block_bytes: int
        magic, self.size, self.block_bytes, self.tag = _HEADER.unpack(data[: _HEADER.size].ljust(_HEADER.size))
        self._held = bytearray(data[_HEADER.size :])
        whole = magic == _MAGIC and self.block_bytes and len(self._held) == self.n_blocks
        if not whole or path.stat().st_size != self.size:
            raise StoreError(f"{map_path} is damaged; remove {map_path} and {path}: they are fetched again.")

    @classmethod
    def create(cls, path: Path, map_path: Path, size: int, block_bytes: int, tag: str) -> "SparseFile":
        """Make an empty one; another process may do so at the same time."""
        header = _HEADER.pack(_MAGIC, size, block_bytes, hash_tag(tag))
        for directory in (path.parent, map_path.parent):
            directory.mkdir(parents=True, exist_ok=True)
        write_once(path, b"", size)
        write_once(map_path, header + bytes(-(-size // block_bytes)))
        return cls(path, map_path)

    @property
    def n_blocks(self) -> int:
        return -(-self.size // self.block_bytes)

    def missing(self, ranges: Sequence[tuple[int, int]]) -> list[int]:
        """Return the blocks that the byte ranges start:stop touch and that aren't there, sorted."""
        blocks = self._missing(ranges)
        if blocks:  # perhaps another process fetched them
            try:
                on_file = self._map_path.read_bytes()[_HEADER.size :]
            except OSError as error:
                raise StoreError(
                    f"{self._map_path} can't be read: {error.strerror}. If the cache was removed, open the store again."
                ) from error
            fetched_by_others = [block for block in blocks if on_file[block]]
            for block in fetched_by_others:  # one by one: other threads set theirs meanwhile
                self._held[block] = 1
            blocks.difference_update(fetched_by_others)
        return sorted(blocks)

    def holds(self, block: int) -> bool:
        """Whether a block is there, as far as this process knows."""
        return bool(self._held[block])

    def _missing(self, ranges: Sequence[tuple[int, int]]) -> set[int]:
        blocks: set[int] = set()
        for start, stop in ranges:
            stop = min(stop, self.size)
            first, last = start // self.block_bytes, -(-stop // self.block_bytes)
            if start < stop and self._held.count(1, first, last) < last - first:
                blocks.update(block for block in range(first, last) if not self._held[block])
        return blocks

    def bytes_of(self, first: int, n_blocks: int) -> tuple[int, int]:
        """Return the bytes start:stop of a run of blocks."""
        return first * self.block_bytes, min((first + n_blocks) * self.block_bytes, self.size)

    def write(self, first: int, data: bytes) -> None:
        """Keep the bytes of whole blocks from block `first` on, durably."""
        n_blocks = -(-len(data) // self.block_bytes)
        _write_at(self.path, first * self.block_bytes, data, sync=True)
        held = b"\1" * n_blocks
        _write_at(self._map_path, _HEADER.size + first, held, sync=False)
        self._held[first : first + n_blocks] = held


def hash_tag(tag: str) -> bytes:
    """Return what is kept of a remote file's tag."""
    return hashlib.blake2b(tag.encode(), digest_size=16).digest()


def _write_at(path: Path, position: int, data: bytes, sync: bool) -> None:
    handle = os.open(path, os.O_WRONLY)
    try:
        view = memoryview(data)
        while view:
            n = os.pwrite(handle, view, position)
            view, position = view[n:], position + n
        if sync:
            os.fsync(handle)
    finally:
        os.close(handle)
