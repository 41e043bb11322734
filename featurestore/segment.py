"""One immutable segment of a feature set: a Zarr v3 group whose layers can be memory-mapped.

    seg-<16 hex>/zarr.json            group; attributes {"medusa_segment": 1, "fingerprint", "layers", counts}
    seg-<16 hex>/<layer>/c/0/0        (n_rows, dim) rows, contiguous from byte 0; one array per layer
    seg-<16 hex>/offsets/c/0          int64 (n + 1,): utterance i has rows offsets[i]:offsets[i + 1] of every layer
    seg-<16 hex>/keys/c/0             uint8: the keys' utf-8 bytes, one after the other
    seg-<16 hex>/key_offsets/c/0      int64 (n + 1,): where each key begins
    seg-<16 hex>/key_hashes/c/0       uint64 (n,): 8-byte BLAKE2b of each key, so that opening hashes nothing
    seg-<16 hex>/checksums/c/0/0      uint32 (n, L): CRC-32C of the utterance's row bytes in each layer
    seg-<16 hex>/durations_s/c/0      float64 (n,): NaN where not told

The name is a hash of everything but the rows, which the checksums stand for: the same commit twice is one segment.
"""

import errno
import hashlib
import json
import mmap
import os
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from featurestore.errors import StoreError
from featurestore.spec import FeatureSpec
from featurestore.zarr3 import ShardLayout, chunk_file, plain_metadata

SEGMENT_VERSION = 1
# dtype of each small array, in the order in which the segment's name hashes them.
SMALL_ARRAYS = {
    "offsets": "<i8",
    "keys": "|u1",
    "key_offsets": "<i8",
    "key_hashes": "<u8",
    "checksums": "<u4",
    "durations_s": "<f8",
}


def hash_key(key: bytes) -> int:
    """The 64-bit hash by which a key is found: BLAKE2b with an 8-byte digest, read as little-endian."""
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")


def content_name(fingerprint: str, small: dict[str, np.ndarray]) -> str:
    """The segment's name: "seg-" and 16 hex digits over the fingerprint and the small arrays."""
    digest = hashlib.blake2b(fingerprint.encode(), digest_size=8)
    for name, dtype in SMALL_ARRAYS.items():
        values = np.ascontiguousarray(small[name], dtype=dtype)
        digest.update(f"\n{name} {values.size}\n".encode())
        digest.update(values.tobytes())
    return "seg-" + digest.hexdigest()


def segment_attributes(spec: FeatureSpec, n_utterances: int, key_bytes: int, layout: ShardLayout) -> dict[str, Any]:
    """What the segment's group says of itself; enough to open it without reading its arrays' metadata."""
    return {
        "medusa_segment": SEGMENT_VERSION,
        "fingerprint": spec.fingerprint,
        "layers": list(spec.layers),
        "n_utterances": n_utterances,
        "n_rows": layout.n_rows,
        "key_bytes": key_bytes,
        "chunk_rows": layout.chunk_rows,
    }


class Segment:
    """A committed segment, open for reading; its layers are mapped when first asked for.

    Raises StoreError when the group's metadata is damaged or of another feature set, or a file is missing or has
    another size than the metadata tells.
    """

    def __init__(self, path: Path, spec: FeatureSpec) -> None:
        self.path = path
        self.name = path.name
        self.spec = spec
        told = read_group(path)
        if told.get("medusa_segment") != SEGMENT_VERSION:
            raise StoreError(
                f"{path}: segment version {told.get('medusa_segment')!r} found, {SEGMENT_VERSION} expected; the "
                "segment is damaged, or a newer version of medusa-ser wrote it."
            )
        fingerprint = told.get("fingerprint")
        if fingerprint != spec.fingerprint or told.get("layers") != list(spec.layers):
            raise StoreError(
                f"{path}: this segment belongs to another feature set (fingerprint {fingerprint!r}, expected "
                f"{spec.fingerprint!r}); move it out of this directory."
            )
        counts = [told.get(name) for name in ("n_utterances", "n_rows", "key_bytes", "chunk_rows")]
        if not all(type(count) is int and 0 <= count < 1 << 50 for count in counts) or counts[3] == 0:
            raise StoreError(f"{path}/zarr.json: damaged counts {counts}; run `medusa store verify`.")
        self.n_utterances, self.n_rows, self.key_bytes, chunk_rows = (int(count or 0) for count in counts)
        n_chunks = -(-self.n_rows // chunk_rows)
        self.layout = ShardLayout(self.n_rows, spec.dim, np.dtype(spec.dtype).itemsize, n_chunks, chunk_rows)
        self._shapes: dict[str, tuple[int, ...]] = {
            "offsets": (self.n_utterances + 1,),
            "keys": (self.key_bytes,),
            "key_offsets": (self.n_utterances + 1,),
            "key_hashes": (self.n_utterances,),
            "checksums": (self.n_utterances, len(spec.layers)),
            "durations_s": (self.n_utterances,),
        }
        self._maps: dict[str, tuple[mmap.mmap | None, np.ndarray]] = {}
        for layer in spec.layers:
            self._check_size(chunk_file(path / layer, 2), self.layout.file_bytes)

    def read_into(self, name: str, out: np.ndarray) -> None:
        """Fill `out` (C-contiguous, right dtype and size) with a small array."""
        path = chunk_file(self.path / name, len(self._shapes[name]))
        self._check_size(path, out.nbytes)
        if out.nbytes:
            with open(path, "rb", buffering=0) as file:
                view = out.data.cast("B")
                while view:
                    n_read = file.readinto(view)
                    if not n_read:
                        raise StoreError(f"{path} became shorter while it was read; restore it and try again.")
                    view = view[n_read:]

    def small(self, name: str) -> np.ndarray:
        """A small array as a new array."""
        out = np.empty(self._shapes[name], dtype=SMALL_ARRAYS[name])
        self.read_into(name, out)
        return out

    def rows(self, layer: str) -> np.ndarray:
        """Every row of a layer, (n_rows, dim) in the stored dtype: a read-only view of the file."""
        return self._mapped(layer)[1]

    def announce(self, layer: str, first_row: int, n_rows: int) -> None:
        """Tell the kernel that these rows will be read soon (MADV_WILLNEED); returns at once."""
        mapped = self._mapped(layer)[0]
        if mapped is None or not n_rows or not hasattr(mmap, "MADV_WILLNEED"):
            return
        row_bytes = self.layout.dim * self.layout.itemsize
        start = first_row * row_bytes // mmap.PAGESIZE * mmap.PAGESIZE
        mapped.madvise(mmap.MADV_WILLNEED, start, (first_row + n_rows) * row_bytes - start)

    def _mapped(self, layer: str) -> tuple[mmap.mmap | None, np.ndarray]:
        if layer not in self._maps:
            dtype = np.dtype(self.spec.dtype).newbyteorder("<")
            shape = (self.n_rows, self.spec.dim)
            if self.n_rows:
                path = chunk_file(self.path / layer, 2)
                self._check_size(path, self.layout.file_bytes)
                mapped = _map_file(path, self.layout.data_bytes)
                self._maps[layer] = mapped, np.frombuffer(mapped, dtype=dtype).reshape(shape)
            else:
                empty = np.empty(shape, dtype=dtype)
                empty.flags.writeable = False
                self._maps[layer] = None, empty
        return self._maps[layer]

    def _check_size(self, path: Path, expected: int) -> None:
        """A file of 0 bytes is not written at all (Zarr leaves empty chunks out)."""
        try:
            found: int | None = path.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            found = None
        except OSError as error:
            raise StoreError(f"{path} can't be read: {error.strerror}.") from error
        if found != (expected or None) and (expected or found):
            what = "no file" if found is None else f"{found} bytes"
            raise StoreError(
                f"{path}: expected {expected} bytes, found {what}; restore the segment from a copy, or "
                f" remove {self.path.name} and encode its utterances again."
            )

    def verify(self) -> list[str]:
        """Each thing that is wrong with the segment's files, as a sentence; empty when all is right."""
        problems: list[str] = []
        try:
            small = {name: self.small(name) for name in SMALL_ARRAYS}
        except StoreError as error:
            return [str(error)]
        name = content_name(self.spec.fingerprint, small)
        if name != self.name:
            problems.append(f"{self.path}: keys, offsets, checksums or durations were altered (content is {name}).")
        problems += [f"{self.path}: {problem}" for problem in index_problems(small, self.n_rows)]
        problems += self._metadata_problems()
        if problems:  # offsets can't be trusted
            return problems
        keys, key_offsets = small["keys"].tobytes(), small["key_offsets"].tolist()
        offsets = small["offsets"].tolist()
        for i in range(self.n_utterances):
            key = keys[key_offsets[i] : key_offsets[i + 1]]
            if hash_key(key) != int(small["key_hashes"][i]):
                problems.append(f"{self.path}: the hash of key {key.decode(errors='replace')!r} is wrong.")
        tail = self.layout.tail()
        for column, layer in enumerate(self.spec.layers):
            rows = self.rows(layer)
            for i in range(self.n_utterances):
                if google_crc32c.value(rows[offsets[i] : offsets[i + 1]]) != int(small["checksums"][i, column]):
                    told = keys[key_offsets[i] : key_offsets[i + 1]].decode(errors="replace")
                    problems.append(f"{self.path}: rows of {told!r}, layer {layer}, were altered: wrong checksum.")
            if self.n_rows:
                with open(chunk_file(self.path / layer, 2), "rb") as file:
                    file.seek(self.layout.data_bytes)
                    if file.read() != tail:
                        problems.append(f"{chunk_file(self.path / layer, 2)}: the shard index was altered.")
        return problems

    def _metadata_problems(self) -> list[str]:
        """Metadata that another Zarr reader would go by but that doesn't say what the segment is, and foreign files."""
        expected = {layer: self.layout.metadata(self.spec.dtype) for layer in self.spec.layers}
        for name, dtype in SMALL_ARRAYS.items():
            expected[name] = plain_metadata(self._shapes[name], np.dtype(dtype).name)
        problems = []
        for name, metadata in expected.items():
            path = self.path / name / "zarr.json"
            try:
                found = json.loads(path.read_bytes())
            except (OSError, ValueError) as error:
                problems.append(f"{path} can't be read: {error}.")
                continue
            if found != metadata:
                problems.append(f"{path}: the array's metadata was altered.")
        layout = self.layout
        attributes = segment_attributes(self.spec, self.n_utterances, self.key_bytes, layout)
        balanced = ShardLayout.balanced(layout.n_rows, layout.dim, layout.itemsize)
        if read_group(self.path) != attributes or layout != balanced:
            problems.append(f"{self.path}/zarr.json: the segment's attributes were altered.")
        foreign = sorted({entry.name for entry in self.path.iterdir()} - set(expected) - {"zarr.json"})
        return problems + [f"{self.path / name}: a file that does not belong to the segment." for name in foreign]


def index_problems(small: dict[str, np.ndarray], n_rows: int) -> list[str]:
    """Offsets that would lead a reader outside the rows or keys."""
    problems = []
    for name, last in (("offsets", n_rows), ("key_offsets", small["keys"].size)):
        values = small[name]
        if values[0] != 0 or values[-1] != last or (np.diff(values) < 0).any():
            problems.append(f"{name} must rise from 0 to {last}; they don't: the file is damaged.")
    return problems


def read_group(path: Path) -> dict[str, Any]:
    """The attributes of the Zarr v3 group at `path`; StoreError when there is none or its metadata is damaged."""
    try:
        metadata = json.loads((path / "zarr.json").read_bytes())
    except FileNotFoundError as error:
        raise StoreError(f"{path} is not a Zarr group: it has no zarr.json.") from error
    except (OSError, ValueError) as error:
        raise StoreError(f"{path / 'zarr.json'} can't be read: {error}.") from error
    attributes = metadata.get("attributes", {}) if isinstance(metadata, dict) else None
    if not isinstance(attributes, dict) or metadata.get("zarr_format") != 3 or metadata.get("node_type") != "group":
        raise StoreError(f"{path / 'zarr.json'} is not the metadata of a Zarr v3 group.")
    return attributes


def _map_file(path: Path, n_bytes: int) -> mmap.mmap:
    try:
        return _map_once(path, n_bytes)
    except OSError as error:
        # mmap keeps a file descriptor per map (before Python 3.13), and the usual soft limit is 1024.
        if error.errno != errno.EMFILE or not _raise_file_limit():
            raise StoreError(f"{path} can't be mapped: {error.strerror}.") from error
    try:
        return _map_once(path, n_bytes)
    except OSError as error:
        remedy = "raise the limit of open files (ulimit -n)"
        raise StoreError(f"{path} can't be mapped: {error.strerror}; {remedy}.") from error


def _map_once(path: Path, n_bytes: int) -> mmap.mmap:
    handle = os.open(path, os.O_RDONLY)
    try:
        return mmap.mmap(handle, n_bytes, access=mmap.ACCESS_READ)
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
