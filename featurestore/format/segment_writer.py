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

import numpy as np

from featurestore.errors import StoreError
from featurestore.format import hdf5_segment, zarr_segment
from featurestore.format.identity import Identity, IdentityColumns
from featurestore.format.segment import row_checksum
from featurestore.format.segment_info import SegmentInfo, content_name, hash_keys
from featurestore.format.spec import FeatureSpec
from featurestore.format.stored import StoredUtterances
from featurestore.format.write_behind import StagedFile, WriteBehind
from featurestore.format.zarr3 import chunk_file
from featurestore.runtime.durable import TEMPORARY_PREFIX, sync_directory

# A temporary directory is left alone for this long after its last write: younger ones may be between mkdir and lock.
STALE_AFTER_S = 3600.0
# Where the file system can't tell whether the owner lives (no flock), wait far longer.
STALE_WITHOUT_LOCK_S = 7 * 86400.0


class SegmentWriter:
    """A segment in the making, in `directory`/.tmp-...; memory holds keys, offsets and some 64 MiB of rows at most.

    Rows are staged where a Zarr segment has them; the other layouts are made of them when the segment is committed. An
    utterance counts once `append` has returned: whatever interrupts it, `commit` leaves its half-written rows out.
    """

    def __init__(self, directory: Path, spec: FeatureSpec, format: str = "zarr", compress: str = "") -> None:
        self.directory = directory
        self.spec = spec
        self.format = format
        self.compress = compress
        self.path = directory / f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(6)}"
        self.n_utterances = 0
        self._row_bytes = spec.dim * spec.row_type.itemsize
        # In the order in which an utterance is added to them; an interrupt may leave the first ones longer.
        self._offsets = array("q", [0])
        self._keys = bytearray()
        self._key_offsets = array("q", [0])
        self._key_hashes = array("Q")
        self._durations_s = array("d")
        self._checksums = array("I")
        self._identities = IdentityColumns()
        n_files = len(spec.layers) * (2 if spec.row_type.scaled else 1)
        first_byte = hdf5_segment.staged_at(spec, compress) if format == "hdf5" else 0
        self._behind = WriteBehind(n_files, lasting=first_byte > 0 or (format == "zarr" and not compress))
        self._files: list[StagedFile] = []
        self._scale_files: list[StagedFile] = []
        self._lock = -1
        try:
            self.path.mkdir()
            self._lock = os.open(self.path, os.O_RDONLY)
            with contextlib.suppress(OSError):  # the lock only tells other writers that this one lives
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for layer in spec.layers:
                self._files.append(StagedFile(chunk_file(self.path / layer, 2), self._behind, first_byte))
                if spec.row_type.scaled:
                    self._scale_files.append(StagedFile(chunk_file(self.path / f"{layer}.scale", 1), self._behind))
        except OSError as error:
            self.discard()
            raise _refused(self.path, error) from error

    @property
    def n_rows(self) -> int:
        """Rows so far, of each layer."""
        return self._offsets[self.n_utterances]

    @property
    def n_bytes(self) -> int:
        """Bytes of rows so far, uncompressed, all layers together."""
        return self.n_rows * self.spec.row_type.row_bytes(self.spec.dim) * len(self.spec.layers)

    def append(
        self,
        key: bytes,
        layers: Sequence[np.ndarray],
        duration_s: float,
        scales: Sequence[np.ndarray] = (),
        identity: Identity | None = None,
    ) -> None:
        """Add one utterance: per layer a C-contiguous (T, dim) array as it is stored, T the same in all.

        scales: per layer float32 (T,), for int8 rows. identity: what it was made from, where that is known.
        """
        start = self.n_rows
        self._write(layers, scales)
        self._offsets.append(start + len(layers[0]))
        self._keys += key
        self._key_offsets.append(len(self._keys))
        self._key_hashes.append(int(hash_keys([key])[0]))
        self._durations_s.append(duration_s)
        self._checksums.extend(row_checksum(rows, scales[i] if scales else None) for i, rows in enumerate(layers))
        self._identities.append(identity)
        self.n_utterances += 1

    def extend(self, many: StoredUtterances) -> None:
        """Add several utterances of a segment of the same specification, whose rows were compared with checksums."""
        start = self.n_rows
        self._write(many.layers, many.scales)
        self._offsets.frombytes((many.offsets[1:] + start).tobytes())
        self._key_offsets.frombytes((many.key_offsets[1:] + len(self._keys)).tobytes())
        self._keys += many.keys.data
        self._key_hashes.frombytes(many.key_hashes.tobytes())
        self._durations_s.frombytes(many.durations_s.tobytes())
        self._checksums.frombytes(many.checksums.astype(np.uint32).tobytes())
        self._identities.extend(len(many) if many.identities is None else many.identities)
        self.n_utterances += len(many)

    def _write(self, layers: Sequence[np.ndarray], scales: Sequence[np.ndarray]) -> None:
        """Write the rows, and the scales, of what is added next, once what an interrupt left is forgotten."""
        n, start = self.n_utterances, self.n_rows
        del self._offsets[n + 1 :], self._key_offsets[n + 1 :], self._key_hashes[n:], self._durations_s[n:]
        del self._keys[self._key_offsets[n] :], self._checksums[n * len(layers) :]
        self._identities.cut(n)
        try:
            for file, rows in zip(self._files, layers, strict=True):
                file.write_at(start * self._row_bytes, rows)
            for file, values in zip(self._scale_files, scales, strict=True):
                file.write_at(start * 4, values)
        except OSError as error:
            raise _refused(self.path, error) from error

    def commit(self) -> Path:
        """Make the segment durable and visible; returns its path, which may exist already with the same content.

        Raises StoreError naming the path when the disk refuses; the temporary directory is removed then.
        """
        n, n_layers = self.n_utterances, len(self._files)
        small = {
            "offsets": _view(self._offsets, "<i8", n + 1),
            "keys": _view(self._keys, "|u1", self._key_offsets[n]),
            "key_offsets": _view(self._key_offsets, "<i8", n + 1),
            "key_hashes": _view(self._key_hashes, "<u8", n),
            "checksums": _view(self._checksums, "<u4", n * n_layers).reshape(n, n_layers),
            "durations_s": _view(self._durations_s, "<f8", n),
            **self._identities.arrays(n),
        }
        decoders = small.get("_source_decoders")
        decoder_bytes = None if decoders is None else decoders.size
        info = SegmentInfo.of(self.spec, n, self.n_rows, small["keys"].size, self.compress, decoder_bytes)
        container = hdf5_segment if self.format == "hdf5" else zarr_segment
        suffix = hdf5_segment.SUFFIX if self.format == "hdf5" else ""
        final = self.directory / (content_name(self.spec.fingerprint, small) + suffix)
        try:
            self._behind.finish()
            for file in (*self._files, *self._scale_files):
                file.finish()
                file.close()
            made = container.finish(self.path, info, small)
            sync_directory(self.path)
            try:
                os.rename(made, final)
            except OSError:
                # The same content was committed before (names are content-derived), so that ours is superfluous.
                if not (final / "zarr.json").exists():
                    raise
            if self.path.exists():
                self.discard()
            sync_directory(self.directory)
        except OSError as error:
            self.discard()
            raise _refused(final, error) from error
        self._release()
        return final

    def discard(self) -> None:
        """Give the segment up and remove its temporary directory."""
        self._behind.close()
        shutil.rmtree(self.path, ignore_errors=True)
        self._release()

    def _release(self) -> None:
        self._behind.close()
        for file in (*self._files, *self._scale_files):
            file.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _view(values: "array[int] | array[float] | bytearray", dtype: str, n: int) -> np.ndarray:
    """Return the first n values as an array of the dtype, which shares their memory where they are stored so."""
    native = np.frombuffer(values, np.dtype(dtype).newbyteorder("="), n) if n else np.empty(0, dtype)
    return native.astype(dtype, copy=False)


def remove_stale(directory: Path) -> None:
    """Remove temporary directories and files whose writer is dead: long untouched and not locked."""
    for path in directory.glob(TEMPORARY_PREFIX + "*"):
        with contextlib.suppress(OSError):
            age_s = time.time() - max(entry.stat().st_mtime for entry in (path, *path.rglob("*")))
            if age_s > STALE_AFTER_S and _owner_is_dead(path, age_s):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()


def _owner_is_dead(path: Path, age_s: float) -> bool:
    """Return true when nobody holds the lock, or the file system has no locks and the directory is very old."""
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
