"""The file that libhdf5 writes a segment into.

libhdf5 ends the process with a segmentation fault when the disk is full while it closes a file. So it never hears of
errors: the first one is kept, nothing is written after it, and who made the file raises it.
"""

import errno
import os
from io import FileIO


class Hdf5Sink:
    """A file for `h5py.File(sink, "w")`; `error` is the first that writing it met, None when all is written.

    kept: bytes (start, stop) that the file holds already; writing over them, or cutting them off, is an error, and
    `overwrites` is true then.
    """

    def __init__(self, file: FileIO, kept: tuple[int, int] = (0, 0)) -> None:
        self.error: OSError | None = None
        self.overwrites = False
        self._file = file
        self._kept = kept
        self._position = self._size = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, n_bytes: int = -1) -> bytes:
        n_bytes = max(0, self._size - self._position if n_bytes < 0 else n_bytes)
        data = os.pread(self._file.fileno(), n_bytes, self._position)
        self._position += len(data)
        return data

    def readinto(self, buffer: memoryview) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def write(self, data: bytes) -> int:
        view, start = memoryview(data).cast("B"), self._position
        if start < self._kept[1] and start + len(view) > self._kept[0]:
            self._refuse("libhdf5 would write over the rows")
        try:
            while view and self.error is None:
                n = os.pwrite(self._file.fileno(), view, start)
                view, start = view[n:], start + n
        except OSError as error:
            self.error = error
        self._position += len(data)
        self._size = max(self._size, self._position)
        return len(data)

    def truncate(self, size: int) -> int:
        if size < self._kept[1]:
            self._refuse("libhdf5 would cut rows off")
        else:
            try:
                os.ftruncate(self._file.fileno(), size)
            except OSError as error:
                self.error = self.error or error
        self._size = size
        return size

    def _refuse(self, what: str) -> None:
        self.overwrites = True
        self.error = self.error or OSError(errno.EINVAL, what)

    def flush(self) -> None:
        pass
