"""Where a store's bytes come from: the local file system, or a local mirror of a remote one."""

import mmap
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from featurestore.errors import SegmentGone, StoreError
from featurestore.format.memory_map import MemoryMap


class Files(Protocol):
    """What a reader asks of the place where a store lies. Paths are local; FileNotFoundError where there is nothing."""

    @property
    def remote(self) -> bool:
        """Whether bytes may have to be fetched first."""

    def names(self, directory: Path) -> list[str]:
        """Return the names of the entries of a directory; none where there is no such directory."""

    def file(self, path: Path) -> None:
        """Ensure that the whole (small) file is local."""

    def sparse(self, path: Path) -> int:
        """Return the (large) file's size in bytes; its contents are fetched by `ensure`."""

    def ensure(self, path: Path, ranges: Sequence[tuple[int, int]]) -> None:
        """Ensure that the bytes start:stop of every range are local."""

    def announce(self, path: Path, ranges: Sequence[tuple[int, int]]) -> None:
        """Ask for the same in the background, and return at once."""


class LocalFiles:
    """Files that are there."""

    remote = False

    def names(self, directory: Path) -> list[str]:
        try:
            return os.listdir(directory)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise StoreError(f"{directory} can't be read: {error.strerror}.") from error

    def file(self, path: Path) -> None:
        pass

    def sparse(self, path: Path) -> int:
        return path.stat().st_size

    def ensure(self, path: Path, ranges: Sequence[tuple[int, int]]) -> None:
        pass

    def announce(self, path: Path, ranges: Sequence[tuple[int, int]]) -> None:
        pass


LOCAL = LocalFiles()


def url_of(path: str | os.PathLike[str]) -> str | None:
    """Return the URL, where a store's path is one; pathlib writes s3:/bucket where s3://bucket was meant."""
    text = os.fspath(path)
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", text, re.DOTALL)
    if match is None or ("://" not in text and os.path.exists(text)):
        return None
    return text if "://" in text else f"{match[1]}://{match[2]}"


@dataclass(frozen=True)
class Extent:
    """A run of bytes in a file."""

    path: Path
    start: int
    n_bytes: int

    @property
    def stop(self) -> int:
        return self.start + self.n_bytes

    def read(self) -> bytes:
        """Return the bytes; SegmentGone when the file is, StoreError when it is too short or can't be read."""
        if not self.n_bytes:
            return b""
        try:
            with open(self.path, "rb", buffering=0) as file:
                file.seek(self.start)
                data = file.read(self.n_bytes)
                while len(data) < self.n_bytes and (more := file.read(self.n_bytes - len(data))):
                    data += more
        except (FileNotFoundError, NotADirectoryError) as error:
            raise SegmentGone(f"{self.path} is gone.") from error
        except OSError as error:
            raise StoreError(f"{self.path} can't be read: {error.strerror}.") from error
        if len(data) < self.n_bytes:
            raise StoreError(f"{self.path} became shorter while it was read; restore it and try again.")
        return data


class MappedArray:
    """An array in a run of a file, memory-mapped: `array` is a read-only view of it. It holds no file open."""

    def __init__(self, extent: Extent, dtype: str, shape: tuple[int, ...]) -> None:
        self._extent = extent
        self._path = os.fspath(extent.path)
        self._row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * np.dtype(dtype).itemsize
        # A map starts at multiples of the page size only.
        self._lead = extent.start % mmap.ALLOCATIONGRANULARITY
        self._map = _map_file(extent, self._lead) if extent.n_bytes else None
        if self._map is None:
            self.array = np.empty(shape, dtype=dtype)
            self.array.flags.writeable = False
        else:
            n_values = extent.n_bytes // np.dtype(dtype).itemsize
            self.array = np.frombuffer(self._map.view, dtype, n_values, self._lead).reshape(shape)

    def look(self) -> None:
        """Raise StoreError when the file has become shorter than what is mapped: touching it would kill the process."""
        if self._map is None:
            return
        try:
            size = os.stat(self._path).st_size
        except (FileNotFoundError, NotADirectoryError):
            return  # compacted away; what is mapped stays, and nobody can cut it any more
        except OSError as error:
            raise StoreError(f"{self._extent.path} can't be read: {error.strerror}.") from error
        if size < self._extent.stop:
            raise StoreError(
                f"{self._extent.path} was truncated while it was in use: {size} bytes are left of {self._extent.stop} "
                "or more; restore it from a copy, or remove its segment and encode again."
            )

    def announce(self, first: int, n: int) -> None:
        """Tell the kernel that these rows will be read soon (MADV_WILLNEED); returns at once."""
        if self._map is not None and n:
            self._map.announce(self._lead + first * self._row_bytes, n * self._row_bytes)

    def read_at_random(self) -> None:
        """Tell the kernel that what isn't announced is to be read page by page (MADV_RANDOM)."""
        if self._map is not None:
            self._map.read_at_random()

    def byte_range(self, first: int, n: int) -> tuple[int, int]:
        """Where rows first:first + n lie in the file."""
        start = self._extent.start + first * self._row_bytes
        return start, start + n * self._row_bytes


def _map_file(extent: Extent, lead: int) -> MemoryMap:
    try:
        return MemoryMap(extent.path, extent.start - lead, extent.n_bytes + lead)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SegmentGone(f"{extent.path} is gone.") from error
    except OSError as error:
        raise StoreError(f"{extent.path} can't be mapped: {error.strerror}.") from error
