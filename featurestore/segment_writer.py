"""Writing one segment: rows go straight to the layers' shard files, the rest when it is committed."""

import contextlib
import fcntl
import os
import secrets
import shutil
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import google_crc32c
import numpy as np

from featurestore.errors import StoreError
from featurestore.segment import content_name, hash_key, segment_attributes
from featurestore.spec import FeatureSpec
from featurestore.zarr3 import (
    ShardLayout,
    chunk_file,
    group_metadata,
    sync_directories,
    sync_directory,
    write_json,
    write_plain,
)

TEMPORARY_PREFIX = ".tmp-"
# A temporary directory is left alone for this long after its last write: younger ones may be between mkdir and lock.
STALE_AFTER_S = 3600.0
# Where the file system can't tell whether the owner lives (no flock), wait far longer.
STALE_WITHOUT_LOCK_S = 7 * 86400.0


class SegmentWriter:
    """A segment in the making, in `directory`/.tmp-...; memory holds keys and offsets only.

    An utterance counts once `append` has returned: whatever interrupts it, `commit` leaves its half-written rows out.
    """

    def __init__(self, directory: Path, spec: FeatureSpec) -> None:
        self.directory = directory
        self.spec = spec
        self.path = directory / f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(6)}"
        self.n_utterances = 0
        self._row_bytes = spec.dim * np.dtype(spec.dtype).itemsize
        self._keys: list[bytes] = []
        self._offsets = array("q", [0])
        self._checksums = array("I")
        self._durations_s = array("d")
        self._files: list[BinaryIO] = []
        self._lock = -1
        try:
            self.path.mkdir()
            self._lock = os.open(self.path, os.O_RDONLY)
            with contextlib.suppress(OSError):  # the lock only tells other writers that this one lives
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for layer in spec.layers:
                shard = chunk_file(self.path / layer, 2)
                shard.parent.mkdir(parents=True)
                self._files.append(open(shard, "xb", buffering=1 << 20))  # noqa: SIM115 (closed by commit or discard)
        except OSError as error:
            self.discard()
            raise _refused(self.path, error) from error

    @property
    def n_bytes(self) -> int:
        """Bytes of rows so far, all layers together."""
        return self._offsets[self.n_utterances] * self._row_bytes * len(self.spec.layers)

    def append(self, key: bytes, layers: Sequence[np.ndarray], duration_s: float) -> None:
        """Add one utterance: per layer a C-contiguous (T, dim) array of the stored dtype, T the same in all."""
        n, start = self.n_utterances, self._offsets[self.n_utterances]
        # An interrupted append may have left parts behind.
        del self._keys[n:], self._offsets[n + 1 :], self._durations_s[n:], self._checksums[n * len(layers) :]
        try:
            for file, rows in zip(self._files, layers, strict=True):
                if file.tell() != start * self._row_bytes:
                    file.seek(start * self._row_bytes)
                if rows.size:
                    file.write(rows.data)
        except OSError as error:
            raise _refused(self.path, error) from error
        self._keys.append(key)
        self._offsets.append(start + len(layers[0]))
        self._durations_s.append(duration_s)
        self._checksums.extend(google_crc32c.value(rows) for rows in layers)
        self.n_utterances = n + 1

    def commit(self) -> Path:
        """Make the segment durable and visible; returns its directory, which may exist already with the same content.

        Raises StoreError naming the path when the disk refuses; the temporary directory is removed then.
        """
        n = self.n_utterances
        offsets = np.array(self._offsets[: n + 1], dtype="<i8")
        keys = self._keys[:n]
        small = {
            "offsets": offsets,
            "keys": np.frombuffer(b"".join(keys), dtype="|u1"),
            "key_offsets": np.concatenate([[0], np.cumsum([len(key) for key in keys])]).astype("<i8"),
            "key_hashes": np.array([hash_key(key) for key in keys], dtype="<u8"),
            "checksums": np.array(self._checksums[: n * len(self._files)], dtype="<u4").reshape(n, len(self._files)),
            "durations_s": np.array(self._durations_s[:n], dtype="<f8"),
        }
        layout = ShardLayout.balanced(int(offsets[-1]), self.spec.dim, np.dtype(self.spec.dtype).itemsize)
        final = self.directory / content_name(self.spec.fingerprint, small)
        try:
            for layer, file in zip(self.spec.layers, self._files, strict=True):
                self._finish_layer(self.path / layer, file, layout)
            for name, values in small.items():
                write_plain(self.path / name, values)
            # The group's own metadata comes last: before it, no Zarr reader takes the directory for a group.
            attributes = segment_attributes(self.spec, n, small["keys"].size, layout)
            write_json(self.path / "zarr.json", group_metadata(attributes))
            sync_directory(self.path)
            try:
                os.rename(self.path, final)
            except OSError:
                if not (final / "zarr.json").exists():
                    raise
                # The same content was committed before (names are content-derived), so that ours is superfluous.
                self.discard()
            sync_directory(self.directory)
        except OSError as error:
            self.discard()
            raise _refused(final, error) from error
        self._release()
        return final

    def _finish_layer(self, path: Path, file: BinaryIO, layout: ShardLayout) -> None:
        shard = chunk_file(path, 2)
        file.flush()
        if layout.n_rows:
            file.truncate(layout.data_bytes)
            file.seek(layout.data_bytes)
            file.write(layout.tail())
            file.flush()
            os.fsync(file.fileno())
            sync_directories(path, shard.parent)
        else:
            shard.unlink()
        file.close()
        write_json(path / "zarr.json", layout.metadata(self.spec.dtype))
        sync_directory(path)

    def discard(self) -> None:
        """Give the segment up and remove its temporary directory."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._release()

    def _release(self) -> None:
        for file in self._files:
            with contextlib.suppress(OSError):  # a full disk refuses the flush too; that was reported already
                file.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def remove_stale(directory: Path) -> None:
    """Remove temporary directories whose writer is dead: long untouched and not locked."""
    for path in directory.glob(TEMPORARY_PREFIX + "*"):
        with contextlib.suppress(OSError):
            age_s = time.time() - max(entry.stat().st_mtime for entry in (path, *path.rglob("*")))
            if age_s > STALE_AFTER_S and _owner_is_dead(path, age_s):
                shutil.rmtree(path, ignore_errors=True)


def _owner_is_dead(path: Path, age_s: float) -> bool:
    """True when nobody holds the lock, or the file system has no locks and the directory is very old."""
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return age_s > STALE_WITHOUT_LOCK_S
    finally:
        os.close(handle)
    return True


def _refused(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{path} can't be written: {error.strerror or error}. What was committed before is intact; make room "
        "or permit writing, then run the same command again: it goes on with what is missing."
    )
