"""Where a store's bytes come from: the local file system, or a local mirror of a remote one."""

import errno
import mmap
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from featurestore.errors import SegmentGone, StoreError


class Files(Protocol):
    """What a reader asks of the place where a store lies. Paths are local; FileNotFoundError where there is nothing."""

    @property
    def remote(self) -> bool:
        """Whether bytes may have to be fetched first."""

    def names(self, directory: Path) -> list[str]:
        """Names of the entries of a directory; none where there is no such directory."""

    def file(self, path: Path) -> None:
        """Sees to it that the whole (small) file is there."""

    def sparse(self, path: Path) -> int:
        """The (large) file's size in bytes; its contents are fetched by `ensure`."""

    def ensure(self, path: Path, ranges: Sequence[tuple[int, int]]) -> None:
        """Sees to it that the bytes start:stop of every range are there."""

    def announce(self, path: Path, ranges: Sequence[tuple[int, int]]) -> None:
        """The same in the background: returns at once."""


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
    """The URL, where a store's path is one; pathlib writes s3:/bucket where s3://bucket was meant."""
    text = os.fspath(path)
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", text, re.DOTALL)
    if found is None or ("://" not in text and os.path.exists(text)):
        return None
    return text if "://" in text else f"{found[1]}://{found[2]}"


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
        """The bytes; SegmentGone when the file is, StoreError when it is too short or can't be read."""
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
    """An array in a run of a file, memory-mapped: `array` is a read-only view of it."""

    def __init__(self, extent: Extent, dtype: str, shape: tuple[int, ...]) -> None:
        self._extent = extent
        self._row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * np.dtype(dtype).itemsize
        # mmap starts at multiples of the page size only.
        self._lead = extent.start % mmap.ALLOCATIONGRANULARITY
        self._map = _map_file(extent, self._lead) if extent.n_bytes else None
        if self._map is None:
            self.array = np.empty(shape, dtype=dtype)
            self.array.flags.writeable = False
        else:
            n_values = extent.n_bytes // np.dtype(dtype).itemsize
            self.array = np.frombuffer(self._map, dtype, n_values, self._lead).reshape(shape)

    def look(self) -> None:
        """StoreError when the file has become shorter than what is mapped: touching it would kill the process."""
        if self._map is None:
            return
        try:
            size = self._map.size()
        except OSError as error:
            raise StoreError(f"{self._extent.path} can't be read: {error.strerror}.") from error
        if size < self._extent.stop:
            raise StoreError(
                f"{self._extent.path} was truncated while it was in use: {size} bytes are left of {self._extent.stop} "
                "or more; restore it from a copy, or remove its segment and encode again."
            )

    def announce(self, first: int, n: int) -> None:
        """Tell the kernel that these rows will be read soon (MADV_WILLNEED); returns at once."""
        if self._map is None or not n or not hasattr(mmap, "MADV_WILLNEED"):
            return
        start = (self._lead + first * self._row_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
        self._map.madvise(mmap.MADV_WILLNEED, start, self._lead + (first + n) * self._row_bytes - start)

    def byte_range(self, first: int, n: int) -> tuple[int, int]:
        """Where rows first:first + n lie in the file."""
        start = self._extent.start + first * self._row_bytes
        return start, start + n * self._row_bytes


def _map_file(extent: Extent, lead: int) -> mmap.mmap:
    try:
        return _map_once(extent, lead)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SegmentGone(f"{extent.path} is gone.") from error
    except OSError as error:
        # mmap keeps a file descriptor per map (before Python 3.13), and the usual soft limit is 1024.
        if error.errno != errno.EMFILE or not _raise_file_limit():
            raise StoreError(f"{extent.path} can't be mapped: {error.strerror}.") from error
    try:
        return _map_once(extent, lead)
    except OSError as error:
        remedy = "raise the limit of open files (ulimit -n)"
        raise StoreError(f"{extent.path} can't be mapped: {error.strerror}; {remedy}.") from error


def _map_once(extent: Extent, lead: int) -> mmap.mmap:
    handle = os.open(extent.path, os.O_RDONLY)
    try:
        return mmap.mmap(handle, extent.n_bytes + lead, access=mmap.ACCESS_READ, offset=extent.start - lead)
    except ValueError as error:  # shorter than what is to be mapped
        raise StoreError(f"{extent.path} is shorter than {extent.stop} bytes; restore it from a copy.") from error
    finally:
        os.close(handle)


def _raise_file_limit() -> bool:
    """Lift this process's soft limit of open files to the hard one; False where it is there already."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return False
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return True
