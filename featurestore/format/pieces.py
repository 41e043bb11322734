"""Reading pieces of files into memory, several at once: for rows that the page cache can't hold.

Through a map, a page that is missing reads as much as the device reads ahead (8 MiB on some) and a cgroup that is full
drops much of what was announced. Read calls for exactly the bytes that are wanted read each of them once.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from featurestore.errors import SegmentGone, StoreError

# Calls in flight. Of 563 KB each, from an SSD, 1 gave half of the rate that 4 gave, and 8 no more.
N_IN_FLIGHT = 4
# Neighbouring pieces are read together up to so many bytes; less than that in all needs no threads.
RUN_BYTES, SMALL_BYTES = 2 << 20, 64 << 10
MAX_BUFFERS = 1024  # IOV_MAX of Linux and macOS


@dataclass(frozen=True)
class Piece:
    """Bytes of a file from `start`, and the memory that they fill: uint8 (n,), contiguous and writeable."""

    path: Path
    start: int
    target: np.ndarray


@dataclass
class _Run:
    """Pieces that follow each other in a file."""

    path: Path
    start: int
    n_bytes: int = 0
    targets: list[np.ndarray] = field(default_factory=list)


def read_pieces(pieces: Sequence[Piece], *, drop: bool = False) -> None:
    """Fill every piece's target, neighbours in one call and several calls at once; no file stays open.

    drop: have the kernel forget the bytes afterwards, unless others have them mapped. Raises SegmentGone when a file
    is gone, StoreError when it ends earlier or can't be read.
    """
    runs = _joined(pieces)
    if len(runs) < 2 or sum(run.n_bytes for run in runs) < SMALL_BYTES:
        for run in runs:
            _read(run, drop)
        return
    # Threads of this call alone: they would not outlive a fork, and starting them takes 0.2 ms.
    with ThreadPoolExecutor(min(N_IN_FLIGHT, len(runs)), "medusa-read") as pool:
        for _ in pool.map(lambda run: _read(run, drop), runs):
            pass


def _joined(pieces: Sequence[Piece]) -> list[_Run]:
    """Return the pieces in the order in which they lie, those that follow each other joined to runs of 2 MiB."""
    runs: list[_Run] = []
    for path, start, target in sorted(
        ((piece.path, piece.start, piece.target) for piece in pieces if piece.target.size), key=lambda piece: piece[:2]
    ):
        last = runs[-1] if runs else None
        is_next = last is not None and last.path == path and last.start + last.n_bytes == start
        if last is None or not is_next or last.n_bytes >= RUN_BYTES or len(last.targets) >= MAX_BUFFERS:
            last = _Run(path, start)
            runs.append(last)
        last.targets.append(target)
        last.n_bytes += target.size
    return runs


def _read(run: _Run, drop: bool) -> None:
    try:
        handle = os.open(run.path, os.O_RDONLY)
        try:
            _advise(handle, 0, 0, "POSIX_FADV_RANDOM")  # no reading ahead: exactly what is asked for
            _fill(handle, run)
            if drop:
                _advise(handle, run.start, run.n_bytes, "POSIX_FADV_DONTNEED")
        finally:
            os.close(handle)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SegmentGone(f"{run.path} is gone.") from error
    except OSError as error:
        raise StoreError(f"{run.path} can't be read: {error.strerror}.") from error


def _fill(handle: int, run: _Run) -> None:
    targets, start = [target.data for target in run.targets], run.start
    while targets:
        n = os.preadv(handle, targets, start) if hasattr(os, "preadv") else _pread(handle, targets[0], start)
        if not n:
            raise StoreError(
                f"{run.path} was truncated while it was in use: bytes {run.start} to {run.start + run.n_bytes} are "
                "needed; restore it from a copy, or remove its segment and encode again."
            )
        start += n
        while targets and n >= len(targets[0]):
            n -= len(targets.pop(0))
        if n:
            targets[0] = targets[0][n:]


def _pread(handle: int, target: memoryview, start: int) -> int:
    data = os.pread(handle, len(target), start)
    target[: len(data)] = data
    return len(data)


def _advise(handle: int, start: int, n_bytes: int, advice: str) -> None:
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(handle, start, n_bytes, getattr(os, advice))
