"""Read-only maps of a file's bytes that keep no file descriptor open, however many there are.

Python's own mmap keeps one for each map (before 3.13), and a set of 100 segments with 25 layers has more of them than
most systems let a process have files open.
"""

import ctypes
import mmap
import os
import weakref
from pathlib import Path

from featurestore.errors import StoreError

_FAILED = ctypes.c_void_p(-1).value


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64,
    )  # fmt: skip
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return libc


_LIBC = _libc()


class MemoryMap:
    """Bytes [start, start + n_bytes) of a file; start is a multiple of the page size, n_bytes more than 0.

    `view` is read-only, and the map lasts for as long as anything refers to the view. Raises StoreError for a file
    that ends earlier, OSError where it can't be opened or mapped.
    """

    def __init__(self, path: Path, start: int, n_bytes: int) -> None:
        handle = os.open(path, os.O_RDONLY)
        try:
            if os.fstat(handle).st_size < start + n_bytes:
                raise StoreError(f"{path} is shorter than {start + n_bytes} bytes; restore it from a copy.")
            address = _LIBC.mmap(None, n_bytes, mmap.PROT_READ, mmap.MAP_SHARED, handle, start)
            if address == _FAILED:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), str(path))
        finally:
            os.close(handle)
        self._address = address
        buffer = (ctypes.c_ubyte * n_bytes).from_address(address)
        # Not at exit: another thread may still read, and the process's end unmaps everything.
        weakref.finalize(buffer, _LIBC.munmap, address, n_bytes).atexit = False
        self.view = memoryview(buffer).toreadonly()

    def announce(self, start: int, n_bytes: int) -> None:
        """Tell the kernel that these bytes of the view will be read soon; returns at once."""
        first = start // mmap.PAGESIZE * mmap.PAGESIZE
        _LIBC.madvise(self._address + first, start + n_bytes - first, mmap.MADV_WILLNEED)

    def read_at_random(self) -> None:
        """Tell the kernel that a page of it which is missing is to be read alone, and not the device's whole window."""
        _LIBC.madvise(self._address, self.view.nbytes, mmap.MADV_RANDOM)
