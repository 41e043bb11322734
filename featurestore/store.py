"""A feature store: a directory of feature sets, each keyed rows of one specification; and writing one."""

import contextlib
import difflib
import json
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from featurestore.errors import SpecMismatch, StoreError
from featurestore.featureset import SET_VERSION, FeatureSet, Packed
from featurestore.keyindex import encode_key
from featurestore.segment import read_group
from featurestore.segment_writer import TEMPORARY_PREFIX, SegmentWriter, remove_stale
from featurestore.spec import FeatureSpec, check_set_name
from featurestore.zarr3 import group_metadata, sync_directory, write_bytes

__all__ = ["FeatureSet", "FeatureStore", "FeatureWriter", "Packed"]

STORE_VERSION = 1


class FeatureStore:
    """A directory that holds feature sets; a Zarr v3 group for every other reader."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        _check_is_store(self.path)

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> "FeatureStore":
        """Make a new, empty store; StoreError when something else is there already."""
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise StoreError(f"{path} is {_found_at(path)}: a new store needs a free path or an empty directory.")
        try:
            path.mkdir(parents=True, exist_ok=True)
            _write_once(path / "zarr.json", group_metadata({"medusa_store": STORE_VERSION}))
        except OSError as error:
            raise StoreError(f"The store {path} can't be created: {error.strerror or error}.") from error
        return cls(path)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "FeatureStore":
        """Open a store that exists; reads one small file."""
        return cls(path)

    @classmethod
    def open_or_create(cls, path: str | os.PathLike[str]) -> "FeatureStore":
        """Open the store at `path`, or create it where nothing (or an empty directory) is."""
        path = Path(path)
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            # Another process may create it at the same moment; then it is there, and we open it.
            with contextlib.suppress(StoreError):
                return cls.create(path)
        return cls(path)

    def __repr__(self) -> str:
        return f"FeatureStore({str(self.path)!r})"

    def names(self) -> list[str]:
        """Names of the feature sets, sorted."""
        return sorted(_set_names(self.path, ""))

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        with contextlib.suppress(StoreError):
            return "medusa_set" in read_group(self.path / check_set_name(name))
        return False

    def __getitem__(self, name: str) -> FeatureSet:
        """The feature set `name`; StoreError lists near names. Reads one small file, no segment."""
        path = self.path / check_set_name(name)
        if name not in self:
            if (path / "zarr.json").exists():
                read_group(path)  # names the damage where there is some
            raise StoreError(f"Store {self.path} has no feature set {name!r}; {self._near(name)}")
        return FeatureSet(path, name)

    def _near(self, name: str) -> str:
        names = self.names()
        if not names:
            return "it is empty: run `medusa featurize` first."
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        return f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(names)}."

    def writer(
        self,
        name: str,
        spec: FeatureSpec,
        *,
        provenance: Mapping[str, Any] | None = None,
        segment_bytes: int = 256 << 20,
    ) -> "FeatureWriter":
        """A writer that adds utterances to the set `name`, which is created when it is new.

        provenance: JSON values told of a new set (versions, command, date). segment_bytes: rows per commit.
        Raises SpecMismatch when the set exists with another fingerprint.
        """
        path = self.path / check_set_name(name)
        if name not in self:
            self._create_set(name, spec, dict(provenance or {}))
        stored = FeatureSet(path, name)
        if stored.spec.fingerprint != spec.fingerprint:
            listed = "; ".join(stored.spec.differences(spec))
            raise SpecMismatch(
                f"Feature set {name!r} in {self.path} holds other features ({listed}). Write under another name "
                f"(--name), remove the old one (medusa store rm {name}), or use the settings it was made with."
            )
        return FeatureWriter(stored, segment_bytes)

    def _create_set(self, name: str, spec: FeatureSpec, provenance: dict[str, Any]) -> None:
        path = self.path / name
        inside = [other for other in self.names() if other.startswith(name + "/") or name.startswith(other + "/")]
        if inside:
            raise StoreError(
                f"Feature set {name!r} can't be created in {self.path} beside {inside[0]!r}: a set can't lie inside "
                "another one; use another name."
            )
        attributes = {
            "medusa_set": SET_VERSION,
            "spec": spec.to_json(),
            "fingerprint": spec.fingerprint,
            "provenance": provenance,
        }
        try:
            path.mkdir(parents=True, exist_ok=True)
            for parent in reversed(path.relative_to(self.path).parents[:-1]):
                _write_once(self.path / parent / "zarr.json", group_metadata({}))
            _write_once(path / "zarr.json", group_metadata(attributes))
            sync_directory(path.parent)
        except OSError as error:
            raise StoreError(f"Feature set {path} can't be created: {error.strerror or error}.") from error

    def remove(self, name: str) -> None:
        """Remove a feature set and its files; readers that have it open keep what they mapped."""
        self[name]
        path = self.path / name
        # Renamed first: whoever looks meanwhile sees the set whole or not at all.
        gone = path.with_name(f"{TEMPORARY_PREFIX}removed-{secrets.token_hex(6)}")
        try:
            path.rename(gone)
            shutil.rmtree(gone)
            sync_directory(path.parent)
        except OSError as error:
            raise StoreError(f"Feature set {path} can't be removed: {error.strerror or error}.") from error


class FeatureWriter:
    """Appends utterances to a feature set; a context manager. For one thread; other writers may write at the same time.

    What was appended becomes visible and durable in segments: at `commit`, whenever `segment_bytes` are reached, and at
    the end of the `with` block however it ends, since every utterance that was appended is whole.
    """

    def __init__(self, stored: FeatureSet, segment_bytes: int) -> None:
        self.set = stored
        self.spec = stored.spec
        self.segment_bytes = segment_bytes
        self._segment: SegmentWriter | None = None
        self._pending: set[bytes] = set()
        try:
            remove_stale(stored.path)
        except OSError as error:
            raise StoreError(f"{stored.path} can't be read: {error.strerror or error}.") from error

    def __enter__(self) -> "FeatureWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.commit()

    def __contains__(self, key: object) -> bool:
        """Whether the set has the key, committed (as far as this writer has seen) or appended here."""
        return isinstance(key, str) and (key.encode(errors="surrogatepass") in self._pending or key in self.set)

    def append(
        self,
        key: str,
        rows: Mapping[str, np.ndarray] | Sequence[np.ndarray] | np.ndarray,
        duration_s: float = float("nan"),
    ) -> None:
        """Add one utterance: {layer: (T, D)}, or (L, T, D) in the order of the specification's layers.

        Rows are cast to the stored dtype. Raises StoreError, and stays usable, when the key is there already, a shape
        doesn't fit, or a value is not finite after the cast. A StoreError of the disk gives up what was not committed.
        """
        encoded = encode_key(key)
        if key in self:
            raise StoreError(f"Key {key!r} is in feature set {self.set.name!r} already: it is written once.")
        layers = self._cast(key, rows)
        if self._segment is None:
            self._segment = SegmentWriter(self.set.path, self.spec)
        try:
            self._segment.append(encoded, layers, float(duration_s))
        except StoreError:
            self._segment.discard()
            self._segment = None
            self._pending.clear()
            raise
        self._pending.add(encoded)
        if self._segment.n_bytes >= self.segment_bytes:
            self.commit()

    def commit(self) -> None:
        """Make everything appended so far durable and visible; does nothing when there is nothing."""
        segment, self._segment = self._segment, None
        self._pending = set()
        if segment is None:
            return
        if segment.n_utterances == 0:
            segment.discard()
            return
        segment.commit()
        self.set.refresh()

    def _cast(self, key: str, rows: Mapping[str, np.ndarray] | Sequence[np.ndarray] | np.ndarray) -> list[np.ndarray]:
        names = self.spec.layers
        if isinstance(rows, Mapping):
            if set(rows) != set(names):
                raise StoreError(f"Utterance {key!r}: layers {sorted(rows)} given, {sorted(names)} expected.")
            given = [np.asarray(rows[name]) for name in names]
        else:
            given = [np.asarray(layer) for layer in rows]
        shapes = [layer.shape for layer in given]
        fits = len(given) == len(names) and all(len(shape) == 2 and shape[1] == self.spec.dim for shape in shapes)
        if not fits or len({shape[0] for shape in shapes}) != 1:
            raise StoreError(
                f"Utterance {key!r}: rows of shapes {shapes} given; {len(names)} arrays (T, {self.spec.dim}) of the "
                f"same T expected, for the layers {', '.join(names)}."
            )
        return [self._cast_layer(key, name, layer) for name, layer in zip(names, given, strict=True)]

    def _cast_layer(self, key: str, layer: str, rows: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):  # judged below, by what came of it
            cast = np.ascontiguousarray(rows, dtype=np.dtype(self.spec.dtype).newbyteorder("<"))
        if _all_finite(cast):
            return cast
        frame = int(np.flatnonzero(~np.isfinite(cast).all(axis=1))[0])
        where = f"Utterance {key!r}, layer {layer!r}, row {frame} of {len(rows)}"
        if np.isfinite(rows[frame]).all():
            largest = float(np.abs(rows[frame].astype(np.float64)).max())
            dtype = self.spec.dtype
            raise StoreError(f"{where}: {largest:.6g} is too large for {dtype}; store with `--dtype float32`.")
        raise StoreError(
            f"{where}: the encoder gave NaN or infinity. If it computes in float16, let it compute in float32 and "
            "store with `--dtype float32`; otherwise look at the utterance's audio or text."
        )


def _all_finite(rows: np.ndarray) -> bool:
    """Whether no value is NaN or infinite: by its bits, four times as fast as np.isfinite for float16."""
    bits = rows.view(np.uint16 if rows.dtype.itemsize == 2 else np.uint32)
    # Without the sign bit, infinity is the smallest value that isn't finite.
    sign, infinity = (0x7FFF, 0x7C00) if rows.dtype.itemsize == 2 else (0x7FFFFFFF, 0x7F800000)
    return not rows.size or int(np.bitwise_and(bits, sign).max()) < infinity


def _set_names(directory: Path, prefix: str) -> list[str]:
    names: list[str] = []
    for entry in os.scandir(directory):
        if entry.name.startswith(".") or not entry.is_dir():
            continue
        try:
            attributes = read_group(Path(entry.path))
        except StoreError:
            continue
        if "medusa_set" in attributes:
            names.append(prefix + entry.name)
        else:
            names += _set_names(Path(entry.path), prefix + entry.name + "/")
    return names


def _write_once(path: Path, metadata: dict[str, Any]) -> None:
    """Write a zarr.json durably unless there is one: of several writers at once, the first one's counts."""
    if path.exists():
        return
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(6)}")
    try:
        write_bytes(temporary, json.dumps(metadata, indent=1).encode() + b"\n")
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def _check_is_store(path: Path) -> None:
    if not (path / "zarr.json").is_file():
        raise StoreError(f"{path} is not a feature store: {_found_at(path)} was found there.")
    found = read_group(path).get("medusa_store")
    if found != STORE_VERSION:
        what = "a Zarr group of another kind" if found is None else f"a store of version {found!r}"
        raise StoreError(f"{path} is not a feature store of version {STORE_VERSION}: {what} was found there.")


def _found_at(path: Path) -> str:
    if not path.exists():
        return "nothing"
    if not path.is_dir():
        return "a file"
    names = sorted(entry.name for entry in path.iterdir())
    if not names:
        return "an empty directory"
    return f"a directory with {len(names)} entries ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
