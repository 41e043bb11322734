"""A file of JSON lines that is only added to: what a long run has done so far, safe against its end at any moment."""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from featurestore.errors import MedusaError
from featurestore.runtime.json_text import read_json

SYNC_S = 2.0  # a crash of the machine costs at most what was added in so many seconds; one of the process, nothing


class Journal:
    """A journal that this process alone may add to; what a crash tore off its end is cut off on opening.

    lines: the records that were there, in their order.
    """

    def __init__(self, path: Path, error: type[MedusaError]) -> None:
        """Open or create `path`; `error` says that another run holds it, or that it can't be written."""
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _locked(path, error)
        except OSError as reason:
            raise error(f"{path} can't be written: {reason.strerror or reason}. Choose another output path.") from None
        try:
            self.lines, n_bytes = read_lines(path) or ([], 0)
            os.ftruncate(self._file, n_bytes)
            os.lseek(self._file, 0, os.SEEK_END)
        except BaseException:
            self.close()
            raise
        self._synced_at = time.monotonic()

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Append records. They survive a crash of the process at once, and one of the machine after `SYNC_S`."""
        data = b"".join(json.dumps(record).encode() + b"\n" for record in records)
        while data:
            data = data[os.write(self._file, data) :]
        if time.monotonic() - self._synced_at > SYNC_S:
            self.sync()

    def sync(self) -> None:
        """Wait until the disk has everything."""
        os.fsync(self._file)
        self._synced_at = time.monotonic()

    def remove(self) -> None:
        """Delete the file, whose content is now elsewhere; still to be closed."""
        self.path.unlink()

    def close(self) -> None:
        """Let other runs have it."""
        os.close(self._file)


def read_lines(path: Path) -> tuple[list[dict[str, Any]], int] | None:
    """Return the records up to the first torn line, and the bytes up to there; None where there is no such file."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return None
    records, n_bytes = [], 0
    for line in lines:
        try:
            record = read_json(line) if line.endswith(b"\n") else None
        except ValueError:
            record = None
        if not isinstance(record, dict):
            break  # torn by a crash; what follows is done again
        records.append(record)
        n_bytes += len(line)
    return records, n_bytes


def _locked(path: Path, error: type[MedusaError]) -> int:
    """Return the file's descriptor, held by this process alone until it is closed."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise error(f"{path} is in use: another run writes it. Wait until it ends.") from None
        except OSError:  # a file system without locks
            return file
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), os.stat(path)):
                return file
        os.close(file)  # the run that held it removed it between our opening and locking it
