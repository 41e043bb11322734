"""What a segment holds apart from its values: enough to know each array's shape and each file's size.

Every segment holds, whatever its container (FORMAT.md describes how they lie in it):

    <layer>        (n_rows, dim) rows in the stored dtype; one array per layer
    <layer>.scale  float32 (n_rows,): of int8 rows only
    offsets        int64 (n + 1,): utterance i has rows offsets[i]:offsets[i + 1] of every layer
    keys           uint8: the keys' utf-8 bytes, one after the other
    key_offsets    int64 (n + 1,): where each key begins
    key_hashes     uint64 (n,): 8-byte BLAKE2b of each key, so that opening hashes nothing
    checksums      uint32 (n, L): CRC-32C of the utterance's stored row bytes (then scales) in each layer
    durations_s    float64 (n,): NaN where not recorded

and, where it records what its utterances were made from, the arrays of `identity`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.errors import StoreError
from featurestore.format import identity
from featurestore.format.compression import CODECS
from featurestore.format.files import LOCAL, Files
from featurestore.format.identity import IDENTITY_ARRAYS
from featurestore.format.spec import FeatureSpec
from featurestore.format.zarr3 import CHUNK_BYTES, COMPRESSED_CHUNK_BYTES, ShardLayout
from featurestore.runtime.json_text import read_json

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
SCALE_DTYPE = "<f4"
# Names of each array's axes, for readers that join arrays by them (xarray).
_AXES = {
    "offsets": ("boundary",),
    "keys": ("key_byte",),
    "key_offsets": ("boundary",),
    "key_hashes": ("utterance",),
    "checksums": ("utterance", "layer"),
    "durations_s": ("utterance",),
    "_source_digests": ("utterance", "digest_byte"),
    "_source_files": ("utterance", "file_field"),
    "_source_times_s": ("utterance", "time_field"),
    "_source_decoders": ("decoder_byte",),
}


@dataclass(frozen=True)
class SegmentInfo:
    """One segment's counts, and how its rows are laid out.

    compress: a codec's name, "" for none. decoder_bytes: of its identities' decoders, None where it records none.
    """

    spec: FeatureSpec
    n_utterances: int
    key_bytes: int
    layout: ShardLayout
    compress: str = ""
    decoder_bytes: int | None = None

    @classmethod
    def of(
        cls,
        spec: FeatureSpec,
        n_utterances: int,
        n_rows: int,
        key_bytes: int,
        compress: str,
        decoder_bytes: int | None = None,
    ) -> "SegmentInfo":
        """Return the layout that follows from the counts."""
        chunk_bytes = COMPRESSED_CHUNK_BYTES if compress else CHUNK_BYTES
        layout = ShardLayout.balanced(n_rows, spec.dim, spec.row_type.itemsize, chunk_bytes)
        return cls(spec, n_utterances, key_bytes, layout, compress, decoder_bytes)

    @classmethod
    def from_attributes(cls, attributes: dict[str, Any], spec: FeatureSpec, path: Path) -> "SegmentInfo":
        """Read what `attributes` recorded; StoreError when it is damaged, or of another version or feature set."""
        if attributes.get("medusa_segment") != SEGMENT_VERSION:
            raise StoreError(
                f"{path}: segment version {attributes.get('medusa_segment')!r} found, {SEGMENT_VERSION} expected; the "
                "segment is damaged, or a newer version of medusa-ser wrote it."
            )
        fingerprint = attributes.get("fingerprint")
        if fingerprint != spec.fingerprint or attributes.get("layers") != list(spec.layers):
            raise StoreError(
                f"{path}: this segment belongs to another feature set (fingerprint {fingerprint!r}, expected "
                f"{spec.fingerprint!r}); move it out of this directory."
            )
        counts = [attributes.get(name) for name in ("n_utterances", "n_rows", "key_bytes", "chunk_rows")]
        if not all(type(count) is int and 0 <= count < 1 << 50 for count in counts) or counts[3] == 0:
            raise StoreError(f"{path}: damaged counts {counts}; run `medusa store verify`.")
        n_utterances, n_rows, key_bytes, chunk_rows = (int(count or 0) for count in counts)
        compress = attributes.get("compress", "")
        if not isinstance(compress, str) or (compress and compress not in CODECS):
            raise StoreError(f"{path}: compressed with {compress!r}, which this version of medusa-ser does not know.")
        decoder_bytes = attributes.get("identity_decoder_bytes")
        if decoder_bytes is not None and not (type(decoder_bytes) is int and 0 <= decoder_bytes < 1 << 30):
            raise StoreError(
                f"{path}: a damaged count, {decoder_bytes!r} bytes of decoders; run `medusa store verify`."
            )
        info = cls.of(spec, n_utterances, n_rows, key_bytes, compress, decoder_bytes)
        if info.layout.chunk_rows != chunk_rows:
            # Rows in chunks of any size might take any memory to decode.
            raise StoreError(
                f"{path}: chunks of {chunk_rows} rows found, {info.layout.chunk_rows} expected: it is damaged; run "
                "`medusa store verify`."
            )
        return info

    def attributes(self) -> dict[str, Any]:
        """Return the segment's attributes, enough to open it without reading its arrays' metadata."""
        return {
            "medusa_segment": SEGMENT_VERSION,
            "fingerprint": self.spec.fingerprint,
            "layers": list(self.spec.layers),
            "n_utterances": self.n_utterances,
            "n_rows": self.layout.n_rows,
            "key_bytes": self.key_bytes,
            "chunk_rows": self.layout.chunk_rows,
            **({"compress": self.compress} if self.compress else {}),
            **({} if self.decoder_bytes is None else {"identity_decoder_bytes": self.decoder_bytes}),
        }

    def shapes(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return shape and dtype of every array but the layers."""
        n = self.n_utterances
        shapes: dict[str, tuple[int, ...]] = {
            "offsets": (n + 1,),
            "keys": (self.key_bytes,),
            "key_offsets": (n + 1,),
            "key_hashes": (n,),
            "checksums": (n, len(self.spec.layers)),
            "durations_s": (n,),
        }
        arrays = {name: (shape, SMALL_ARRAYS[name]) for name, shape in shapes.items()}
        if self.decoder_bytes is not None:
            identities = identity.shapes(n, self.decoder_bytes)
            arrays |= {name: (shape, IDENTITY_ARRAYS[name]) for name, shape in identities.items()}
        return arrays | dict.fromkeys(self.scales().values(), ((self.layout.n_rows,), SCALE_DTYPE))

    def small_arrays(self) -> dict[str, str]:
        """Return the dtype of each array that the segment's name hashes, in that order."""
        return SMALL_ARRAYS if self.decoder_bytes is None else SMALL_ARRAYS | IDENTITY_ARRAYS

    def scales(self) -> dict[str, str]:
        """Return the array of each layer's scales, for int8 rows; else nothing."""
        return {layer: f"{layer}.scale" for layer in self.spec.layers} if self.spec.row_type.scaled else {}

    def layer_attributes(self, layer: str) -> dict[str, str]:
        """Return what a reader of the layer's array has to know: nothing where its values are the rows'."""
        row_type = self.spec.row_type
        if row_type.is_plain:
            return {}
        return {"medusa_dtype": row_type.name} | ({"scale": f"{layer}.scale"} if row_type.scaled else {})


def axes_of(name: str) -> tuple[str, ...]:
    """Return the names of an array's axes; what is not among the small arrays holds a layer's scales."""
    return _AXES.get(name, ("row",))


def hash_key(key: bytes) -> int:
    """Return the 64-bit hash by which a key is found: BLAKE2b with an 8-byte digest, read as little-endian."""
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")


def hash_keys(keys: Sequence[bytes]) -> np.ndarray:
    """Return `hash_key` of several keys, uint64 (n,)."""
    digests = b"".join([hashlib.blake2b(key, digest_size=8).digest() for key in keys])
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def content_name(fingerprint: str, small: Mapping[str, np.ndarray]) -> str:
    """Return the segment's name: "seg-" and 16 hex digits of a digest of what it holds.

    The digest is of the fingerprint, the small arrays, and identities if any.
    """
    digest = hashlib.blake2b(fingerprint.encode(), digest_size=8)
    for name, dtype in (SMALL_ARRAYS | IDENTITY_ARRAYS).items():
        if name in IDENTITY_ARRAYS and name not in small:
            continue
        values = np.ascontiguousarray(small[name], dtype=dtype)
        digest.update(f"\n{name} {values.size}\n".encode())
        digest.update(values.data if values.size else b"")
    return "seg-" + digest.hexdigest()


def needed_files(group: Path) -> dict[str, int]:
    """Return the arrays of a Zarr segment that opening it reads, with their axes; `group`: its zarr.json.

    Those of no values, which have no file, are left out where that can be known.
    """
    n_dims = {name: 2 if name == "checksums" else 1 for name in SMALL_ARRAYS}
    try:
        attributes = parse_json(group.read_bytes(), group).get("attributes")
    except (OSError, StoreError):
        return n_dims  # who opens it says what is wrong
    decoder_bytes = attributes.get("identity_decoder_bytes") if isinstance(attributes, dict) else None
    if type(decoder_bytes) is int:
        n_dims |= {name: len(shape) for name, shape in identity.shapes(1, decoder_bytes).items() if 0 not in shape}
    return n_dims


def index_problems(small: dict[str, np.ndarray], n_rows: int) -> list[str]:
    """Return the offsets that would lead a reader outside the rows or keys."""
    problems = []
    for name, last in (("offsets", n_rows), ("key_offsets", small["keys"].size)):
        values = small[name]
        if values[0] != 0 or values[-1] != last or (np.diff(values) < 0).any():
            problems.append(f"{name} must rise from 0 to {last}; they don't: the file is damaged.")
    if "_source_files" in small:
        problems += identity.problems(small)
    return problems


def parse_json(data: bytes, where: Path) -> dict[str, Any]:
    """Return a JSON object; StoreError when it is none."""
    try:
        value = read_json(data)
    except ValueError as error:
        raise StoreError(f"{where} can't be read: {error}.") from error
    if not isinstance(value, dict):
        raise StoreError(f"{where} holds no JSON object.")
    return value


def read_group(path: Path, files: Files = LOCAL) -> dict[str, Any]:
    """Return the attributes of the Zarr v3 group at `path`.

    StoreError when there is none or its metadata is damaged.
    """
    where = path / "zarr.json"
    try:
        files.file(where)
        metadata = parse_json(where.read_bytes(), where)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreError(f"{path} is not a Zarr group: it has no zarr.json.") from error
    except OSError as error:
        raise StoreError(f"{where} can't be read: {error.strerror}.") from error
    attributes = metadata.get("attributes", {})
    if not isinstance(attributes, dict) or metadata.get("zarr_format") != 3 or metadata.get("node_type") != "group":
        raise StoreError(f"{where} is not the metadata of a Zarr v3 group.")
    return attributes
