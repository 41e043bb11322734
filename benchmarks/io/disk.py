"""The disk: dropping files from the page cache and making sure of it, and reading them from front to back."""

import ctypes
import mmap
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from featurestore.errors import ConfigError

from .rows import Batch
from .ways import Place

BLOCK_BYTES = 4 << 20
# A page or two may stay; more would make a cold figure a warm one.
MAX_RESIDENT = 0.01


def files_below(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def make_cold(paths: Sequence[Path]) -> None:
    """Read the files, then drop their pages from the cache, and no others; ConfigError when they stay there.

    The reading leaves memory that was just in use: see the package's docstring.
    """
    if not hasattr(os, "posix_fadvise"):
        raise ConfigError("bench io --cold needs posix_fadvise, which this system lacks; leave it out.")
    block = bytearray(BLOCK_BYTES)
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(block):
                pass
    drop(paths)
    total = sum(path.stat().st_size for path in paths)
    resident = sum(resident_bytes(path) for path in paths)
    if resident > MAX_RESIDENT * total + mmap.PAGESIZE * len(paths) * 0.5:
        raise ConfigError(
            f"bench io --cold: {resident / total:.0%} of {paths[0].parent} stay in memory after they were dropped "
            "from the page cache (tmpfs keeps its files there): give --directory on a disk, or leave --cold out."
        )


def drop(paths: Sequence[Path]) -> None:
    """Have the kernel forget the files' pages, but for those that a process has mapped and touched."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)  # pages that aren't on disk yet stay
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def resident_bytes(path: Path) -> int:
    """Bytes of a file that lie in the page cache, by mincore."""
    size = path.stat().st_size
    if not size:
        return 0
    with open(path, "rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as mapped:
        pages = np.zeros(-(-size // mmap.PAGESIZE), np.uint8)
        view = np.frombuffer(mapped, np.uint8)
        libc = ctypes.CDLL(None, use_errno=True)
        failed = libc.mincore(
            ctypes.c_void_p(view.ctypes.data), ctypes.c_size_t(size), ctypes.c_void_p(pages.ctypes.data)
        )
        del view  # or the map could not be closed
        if failed:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
    return int((pages & 1).sum()) * mmap.PAGESIZE


def bytes_from_disk(process: str = "self") -> int | None:
    """Bytes that a process (by its number, or this one) has had read from devices so far; None if nobody counts."""
    try:
        lines = Path(f"/proc/{process}/io").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("read_bytes")), None)


def memory_touch(n_bytes: int = 128 << 20) -> dict[str, float]:
    """GB/s at which new memory is first touched, and again right after it was given back.

    Where the first is far below the second, a host takes free memory back from this virtual machine.
    """

    def touch() -> float:
        started = time.perf_counter()
        with mmap.mmap(-1, n_bytes) as memory:
            memory[:: mmap.PAGESIZE] = bytes(-(-n_bytes // mmap.PAGESIZE))
        return n_bytes / (time.perf_counter() - started) / 1e9

    return {"first_gb_per_s": touch(), "again_gb_per_s": touch()}


def direct_is_possible(directory: Path) -> bool:
    """Whether files there can be read past the page cache (O_DIRECT)."""
    if not hasattr(os, "O_DIRECT"):
        return False
    probe = directory / "direct-probe"
    try:
        probe.write_bytes(bytes(mmap.PAGESIZE))
        os.close(os.open(probe, os.O_RDONLY | os.O_DIRECT))
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)
    return True


class Sequential:
    """Runs of files, each from front to back in blocks of 4 MiB, into one buffer; or past the page cache."""

    def __init__(self, blocks: Sequence[tuple[Path, int, int]], direct: bool) -> None:
        self.blocks = blocks
        flags = os.O_RDONLY | (os.O_DIRECT if direct else 0)
        self.handles = {path: os.open(path, flags) for path in dict.fromkeys(path for path, _, _ in blocks)}
        self.memory = mmap.mmap(-1, BLOCK_BYTES)  # begins at a page, as O_DIRECT asks
        self.memory[:: mmap.PAGESIZE] = bytes(BLOCK_BYTES // mmap.PAGESIZE)

    def read(self, batches: Sequence[Batch]) -> Iterator[np.ndarray]:
        view = np.frombuffer(self.memory, np.uint8)
        for path, start, n_bytes in self.blocks:
            # Whole blocks, since O_DIRECT asks for whole sectors; what follows the run is left out.
            n_read = os.preadv(self.handles[path], [self.memory], start)
            yield view[: min(n_read, n_bytes)]

    def close(self) -> None:
        for handle in self.handles.values():
            os.close(handle)


def open_sequential(place: Place, extents: Iterable[tuple[Path, int]], direct: bool) -> list[Sequential]:
    """Return a reader per thread, each for its share of the extents (a file and its first n bytes), in their order."""
    blocks = [
        (path, start, min(BLOCK_BYTES, n_bytes - start))
        for path, n_bytes in extents
        for start in range(0, n_bytes, BLOCK_BYTES)
    ]
    n = place.n_threads
    bounds = [len(blocks) * t // n for t in range(n + 1)]
    return [Sequential(blocks[bounds[t] : bounds[t + 1]], direct) for t in range(n)]
