"""A feature store: a directory of feature sets, each keyed rows of one specification; or one at a URL, mirrored."""

import contextlib
import copy
import difflib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore.errors import RemoteError, StoreError
from featurestore.format.compression import check_storage
from featurestore.format.files import LOCAL, Files, url_of
from featurestore.format.segment import Segment, is_segment_name
from featurestore.format.segment_info import read_group
from featurestore.format.segment_writer import remove_stale
from featurestore.format.spec import FeatureSpec, check_set_name
from featurestore.format.zarr3 import group_metadata, json_bytes
from featurestore.runtime.durable import (
    TEMPORARY_PREFIX,
    check_directory,
    make_directory,
    set_aside,
    sync_directory,
    write_once,
)
from featurestore.sets.feature_set import FeatureSet, set_metadata
from featurestore.sets.writer import FeatureWriter

if TYPE_CHECKING:
    from featurestore.sets.compact import CompactReport

STORE_VERSION = 1


class FeatureStore:
    """A directory that holds feature sets; a Zarr v3 group for every other reader.

    A remote one (`open` with a URL) is read through a local mirror and can't be written.
    """

    def __init__(self, path: str | os.PathLike[str], files: Files = LOCAL) -> None:
        self.path = Path(path)
        self._files = files
        self._kept: dict[str, FeatureSet] | None = None
        _check_is_store(self.path, files)

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> "FeatureStore":
        """Make a new, empty store; StoreError when something else is there already."""
        if (url := url_of(path)) is not None:
            raise StoreError(f"{url} can be read only: write into a directory, and `medusa store push` it there.")
        path = Path(path)
        try:
            if not _is_free(path):
                raise StoreError(f"{path} is {_found_at(path)}: a new store needs a free path or an empty directory.")
            make_directory(path)
            write_once(path / "zarr.json", json_bytes(group_metadata({"medusa_store": STORE_VERSION})))
        except OSError as error:
            raise StoreError(f"The store {path} can't be created: {error.strerror or error}.") from error
        return cls(path)

    @classmethod
    def open(cls, path: str | os.PathLike[str], cache: str | os.PathLike[str] | None = None) -> "FeatureStore":
        """Open a store that exists; reads one small file.

        path: a directory, or a URL that fsspec knows (s3://, gcs://, https://, memory://, ...), whose bytes are fetched
        when they are first read and kept in `cache` (default: medusa-ser in the user's cache directory).
        """
        url = url_of(path)
        if url is None:
            return cls(path)
        from featurestore.remote.mirror import Mirror

        mirror = Mirror(url, None if cache is None else Path(cache))
        if mirror.local is not None:
            return cls(mirror.local)
        try:
            mirror.file(mirror.root / "zarr.json")
        except FileNotFoundError:
            raise StoreError(f"{url} is not a feature store: there is no zarr.json.") from None
        return cls(mirror.root, mirror)

    @classmethod
    def open_or_create(cls, path: str | os.PathLike[str]) -> "FeatureStore":
        """Open the store at `path`, or create it where nothing (or an empty directory) is."""
        if url_of(path) is not None:
            return cls.create(path)  # says that it can't be written
        path = Path(path)
        try:
            return cls.create(path)
        except StoreError as error:
            # Another process may have created it at this moment; then it is there, and we open it.
            if isinstance(error.__cause__, OSError):
                raise
        return cls(path)

    def keeping_sets(self) -> "FeatureStore":
        """Return the same store, which opens each feature set once and gives it again, with what it has looked up.

        For a run that reads a set in many places; its segments stay those of the first look, until `refresh`. A store
        that does so already is returned itself.
        """
        if self._kept is not None:
            return self
        kept = copy.copy(self)
        kept._kept = {}
        return kept

    @property
    def files(self) -> Files:
        """Where its bytes come from."""
        return self._files

    def __repr__(self) -> str:
        return f"FeatureStore({str(self.path)!r})"

    def names(self) -> list[str]:
        """Names of the feature sets, sorted."""
        return sorted(set_names(self.path, "", self._files))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        try:
            return "medusa_set" in read_group(self.path / check_set_name(name), self._files)
        except RemoteError:
            raise
        except StoreError:
            return False

    def __getitem__(self, name: str) -> FeatureSet:
        """Return the feature set `name`; StoreError lists near names. Reads one small file, no segment."""
        if self._kept is not None:
            if name not in self._kept:
                self._kept[name] = self._open(name)
            return self._kept[name]
        return self._open(name)

    def _open(self, name: str) -> FeatureSet:
        path = self.path / check_set_name(name)
        if name not in self:
            if _is_there(path / "zarr.json"):
                read_group(path, self._files)  # names the damage where there is some
            raise StoreError(f"Store {self.path} has no feature set {name!r}; {self._near(name)}")
        return FeatureSet(path, name, self._files)

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
        format: str | None = None,
        compress: str | None = None,
    ) -> FeatureWriter:
        """Return a writer that adds utterances to the set `name`, which is created when it is new.

        provenance: JSON values recorded with a new set (versions, command, date). segment_bytes: rows per commit.
        format: "zarr" or "hdf5"; compress: "zstd" or "blosc" (zarr), "gzip" (hdf5), "" for none.
        By default both are what the set was made with, at first zarr without compression; they may differ between
        segments of one set.
        Raises SpecMismatch when the set exists with another fingerprint.
        """
        if self._files.remote:
            raise StoreError(f"{self.path} mirrors a remote store, which is read-only: write locally, and push.")
        path = self.path / check_set_name(name)
        with contextlib.suppress(OSError):
            remove_stale(path.parent)  # what `remove` left when it was interrupted
        if name not in self:
            check_storage(format or "zarr", compress or "")
            self._create_set(name, spec, dict(provenance or {}), format or "zarr", compress or "")
        stored = FeatureSet(path, name)
        format = stored.format if format is None else format
        if compress is None:
            compress = stored.compress if format == stored.format else ""
        check_storage(format, compress)
        stored.check_spec(spec)
        return FeatureWriter(stored, segment_bytes, format, compress)

    def _create_set(self, name: str, spec: FeatureSpec, provenance: dict[str, Any], format: str, compress: str) -> None:
        path = self.path / name
        self._check_place(name)
        try:
            for parent in reversed(path.relative_to(self.path).parents[:-1]):
                make_directory(self.path / parent)
                write_once(self.path / parent / "zarr.json", json_bytes(group_metadata({})))
            make_directory(path)
            write_once(path / "zarr.json", json_bytes(set_metadata(spec, provenance, format, compress)))
            sync_directory(path.parent)
        except OSError as error:
            raise StoreError(f"Feature set {path} can't be created: {error.strerror or error}.") from error

    def _check_place(self, name: str) -> None:
        inside = [other for other in self.names() if other.startswith(name + "/") or name.startswith(other + "/")]
        if inside:
            raise StoreError(
                f"Feature set {name!r} can't be created in {self.path} beside {inside[0]!r}: a set can't lie inside "
                "another one; use another name."
            )

    def check_writable(self, name: str) -> None:
        """Raise StoreError unless the set `name` can be added to, or created: ask before long work, not after it."""
        if self._files.remote:
            raise StoreError(f"{self.path} mirrors a remote store, which is read-only: write locally, and push.")
        path = self.path / check_set_name(name)
        if name not in self:
            self._check_place(name)
        try:
            check_directory(path)
        except OSError as error:
            raise StoreError(
                f"Feature set {name!r} can't be written in {self.path}: {error.strerror or error}. Permit writing "
                "there, or name another store."
            ) from error

    def compact(self, name: str, **options: Any) -> "CompactReport":
        """Merge a set's small segments while others read and write; the options are those of `compact.compact`."""
        from featurestore.sets.compact import compact

        if self._files.remote:
            raise StoreError(f"{self.path} mirrors a remote store, which is read-only: compact locally, and push.")
        return compact(self[name], **options)

    def remove_damaged(self, name: str) -> list[str]:
        """Remove the segments of a set in which `verify` finds anything wrong, and return their names.

        All of such a segment's utterances go with it: encode (or import) again to fill them in.
        """
        from featurestore.sets.compact import remove_segment

        if self._files.remote:
            raise StoreError(f"{self.path} mirrors a remote store, which is read-only.")
        features = self[name]
        damaged = []
        for path in sorted(path for path in features.path.iterdir() if is_segment_name(path.name)):
            try:
                wrong = Segment(path, features.spec).verify()
            except StoreError as error:
                wrong = [str(error)]
            if wrong:
                remove_segment(path)
                damaged.append(path.name)
        return damaged

    def remove(self, name: str) -> None:
        """Remove a feature set and its files; readers that have it open keep what they mapped."""
        if self._files.remote:
            raise StoreError(f"{self.path} mirrors a remote store, which is read-only.")
        path = self.path / check_set_name(name)
        if name not in self and not any(path.glob("seg-*")):  # of a damaged set the segments are left to know it by
            self[name]
        # Renamed first: whoever looks meanwhile sees the set whole or not at all.
        try:
            shutil.rmtree(set_aside(path))
            sync_directory(path.parent)
        except OSError as error:
            raise StoreError(f"Feature set {path} can't be removed: {error.strerror or error}.") from error


def set_names(directory: Path, prefix: str, files: Files) -> list[str]:
    """Names of the feature sets below a directory, each with `prefix` before it; what can't be read is left out."""
    names: list[str] = []
    for name in files.names(directory):
        if name.startswith(".") or name == "zarr.json":
            continue
        try:
            attributes = read_group(directory / name, files)
        except RemoteError:
            raise
        except StoreError:
            continue
        if "medusa_set" in attributes:
            names.append(prefix + name)
        else:
            names += set_names(directory / name, prefix + name + "/", files)
    return names


def broken_sets(directory: Path, files: Files = LOCAL, prefix: str = "") -> dict[str, str]:
    """Return what is wrong with the metadata of the feature sets below a directory that can't be opened, by name."""
    broken: dict[str, str] = {}
    for name in sorted(files.names(directory)):
        path = directory / name
        if name.startswith(".") or name == "zarr.json" or is_segment_name(name):
            continue
        try:
            if "medusa_set" in read_group(path, files):
                FeatureSet(path, prefix + name, files)
            else:
                broken |= broken_sets(path, files, f"{prefix}{name}/")
        except RemoteError:
            raise
        except StoreError as error:
            if _is_there(path / "zarr.json") or any(is_segment_name(each) for each in files.names(path)):
                broken[prefix + name] = str(error)
    return broken


def _check_is_store(path: Path, files: Files) -> None:
    try:
        if not files.remote and not (path / "zarr.json").is_file():
            raise StoreError(
                f"{path} is not a feature store: {_found_at(path)} was found there. `medusa featurize` "
                "makes one; -s names another."
            )
    except OSError as error:
        raise StoreError(f"The store {path} can't be read: {error.strerror or error}.") from error
    version = read_group(path, files).get("medusa_store")
    if version != STORE_VERSION:
        what = "a Zarr group of another kind" if version is None else f"a store of version {version!r}"
        raise StoreError(f"{path} is not a feature store of version {STORE_VERSION}: {what} was found there.")


def _is_free(path: Path) -> bool:
    """Nothing, or a directory that is empty but for what a creation that was interrupted left."""
    if not path.exists():
        return True
    return path.is_dir() and all(entry.name.startswith(TEMPORARY_PREFIX) for entry in path.iterdir())


def _is_there(path: Path) -> bool:
    """Return whether a path exists; True where the system can't say."""
    try:
        return path.exists()
    except OSError:
        return True


def _found_at(path: Path) -> str:
    if not path.exists():
        return "nothing"
    if not path.is_dir():
        return "a file"
    names = sorted(entry.name for entry in path.iterdir())
    if not names:
        return "an empty directory"
    return f"a directory with {len(names)} entries ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
