"""Files that a thread writes while the next rows are computed, and that the disk takes as they come.

An fsync at the end alone leaves the disk idle until then.
"""

import contextlib
import ctypes
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from featurestore.rows.aligned import aligned_empty

BLOCK_BYTES = 4 << 20
# Of all files of a segment together: what is staged, and what the thread has yet to write.
STAGED_BYTES = 64 << 20
_START_WRITING = 2  # SYNC_FILE_RANGE_WRITE


class WriteBehind:
    """Writes blocks of files in one thread, in their order; what writing a block raised is raised by a later call.

    The thread begins with the first block, so that a small segment has none; where memory is too short for a thread,
    blocks are written at once. Any call may be interrupted and made again.
    """

    def __init__(self, n_files: int, lasting: bool = True) -> None:
        """lasting: whether the files stay as they are written, so that the disk may begin with them."""
        self.lasting = lasting
        self.block_bytes = max(1 << 16, min(BLOCK_BYTES, STAGED_BYTES // 2 // max(1, n_files)))
        self._pool: ThreadPoolExecutor | None = None
        self._writing: deque[Future[None]] = deque()
        # Blocks to be used again once they are written: memory that was never touched costs half the speed.
        self._used: deque[tuple[np.ndarray, Future[None] | None]] = deque()

    def block(self) -> np.ndarray:
        """Return memory for a block, uint8 (block_bytes,), of undefined values."""
        if self._used and ((written := self._used[0][1]) is None or written.done()):
            return self._used.popleft()[0]
        return aligned_empty(self.block_bytes, "uint8")

    def reuse(self, block: np.ndarray, written: Future[None] | None) -> None:
        """Take memory back that nothing refers to but the writing that `put` returned."""
        self._used.append((block, written))

    def put(self, write: Callable[[], None]) -> Future[None] | None:
        """Have a block written by the thread; waits while many are to be written. None: it is written by now."""
        self._pool = self._pool or _one_thread()
        if self._pool is None:
            write()
            return None
        written = self._pool.submit(write)
        self._writing.append(written)
        while len(self._writing) * self.block_bytes > STAGED_BYTES // 2:
            self._wait()
        return written

    def finish(self) -> None:
        """Wait until all is written; raises what writing a block raised."""
        while self._writing:
            self._wait()

    def close(self) -> None:
        """End the thread; blocks that were not begun are left out."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
        self._writing.clear()
        self._used.clear()

    def _wait(self) -> None:
        self._writing[0].result()
        self._writing.popleft()


def _one_thread() -> ThreadPoolExecutor | None:
    pool = ThreadPoolExecutor(1, "write")
    try:
        pool.submit(int)  # the thread begins with the first task
    except RuntimeError:  # "can't start new thread": no address space for its stack
        return None
    return pool


class StagedFile:
    """A new file of rows; what is written is on its way to the disk before an fsync asks for it."""

    def __init__(self, path: Path, behind: WriteBehind, first_byte: int = 0) -> None:
        """first_byte: where in the file the bytes of position 0 lie; those before it are left unwritten."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._behind = behind
        self._first_byte = first_byte
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        # The block, where it begins in the file, and its bytes so far: replaced at once, so that an interrupt between
        # two instructions leaves the one or the other; then a block is written twice at most.
        self._staged = self._block(0)

    def write_at(self, position: int, values: np.ndarray) -> None:
        """Write an array's bytes; positions rise, but for those of a write that was interrupted.

        The array may be changed afterwards. Raises OSError, also for what was written before.
        """
        block, start, filled = self._staged
        if not start <= position <= start + filled:
            self._behind.finish()
            block, start, filled = self._block(position)
        filled = position - start
        data = values.reshape(-1).view(np.uint8)
        while True:
            part = data[: block.size - filled]
            block[filled : filled + part.size] = part
            filled += part.size
            data = data[part.size :]
            self._staged = block, start, filled
            if filled < block.size:
                return
            full, write = block, partial(_write, self._handle, self._first_byte + start, block, self._behind.lasting)
            written = self._behind.put(write)
            block, start, filled = self._staged = self._block(start + filled)
            self._behind.reuse(full, written)  # an interrupt before leaves it staged, and out of use

    def finish(self) -> None:
        """Write what is staged, once the thread has written what was before it."""
        block, start, filled = self._staged
        if filled:
            _write(self._handle, self._first_byte + start, block[:filled], self._behind.lasting)
        self._staged = self._block(start + filled)

    def close(self) -> None:
        """Close the file; what is staged is lost."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _block(self, start: int) -> tuple[np.ndarray, int, int]:
        return self._behind.block(), start, 0


def _write(handle: int, start: int, data: np.ndarray, lasting: bool) -> None:
    """Write the bytes, and if they last have the disk begin with them; returns when they are in the page cache."""
    view, position = data.data, start
    while view:
        n = os.pwrite(handle, view, position)
        view, position = view[n:], position + n
    if lasting:
        start_writing(handle, start, data.size)


def start_writing(handle: int, start: int, n_bytes: int) -> None:
    """Have the disk begin with these bytes of a file, where the system can be asked; doesn't wait for them."""
    if _SYNC_FILE_RANGE is not None:
        _SYNC_FILE_RANGE(handle, start, n_bytes, _START_WRITING)


def _sync_file_range() -> Callable[..., int] | None:
    with contextlib.suppress(AttributeError):  # Linux alone has it
        function = ctypes.CDLL(None).sync_file_range
        function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
        return function
    return None


_SYNC_FILE_RANGE = _sync_file_range()
