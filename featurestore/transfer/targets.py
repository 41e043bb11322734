"""Where feature sets are copied to: a local directory, or an object store; both show a segment whole or not at all."""

import fcntl
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from featurestore.errors import StoreError
from featurestore.format.hdf5_segment import SUFFIX
from featurestore.format.segment import Segment, is_segment_name
from featurestore.format.segment_info import parse_json
from featurestore.format.segment_writer import remove_stale
from featurestore.format.spec import FeatureSpec
from featurestore.format.zarr3 import group_metadata, json_bytes
from featurestore.remote.access import RemoteDirectory
from featurestore.runtime.durable import TEMPORARY_PREFIX, make_directory, sync_directory, sync_file, write_once
from featurestore.sets.compact import remove_segment
from featurestore.store.feature_store import STORE_VERSION, FeatureStore

# Told (bytes copied, bytes in all, the feature set).
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Plan:
    """One segment to copy: its files, relative to the feature set, and their bytes. With the last one it counts."""

    name: str
    files: dict[str, int]

    @property
    def n_bytes(self) -> int:
        return sum(self.files.values())


class Count:
    """Adds up bytes from several threads."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.what = ""
        self._done, self._total = 0, total
        self._progress = progress
        self._lock = threading.Lock()

    def add(self, n_bytes: int) -> None:
        with self._lock:
            self._done += n_bytes
            if self._progress is not None:
                self._progress(self._done, self._total, self.what)


@dataclass(frozen=True)
class Work:
    """What copying one feature set takes."""

    source: RemoteDirectory
    name: str
    spec: FeatureSpec
    verify: bool
    threads: ThreadPoolExecutor
    count: Count

    def all(self, do: Callable[[str], None], files: Iterable[str]) -> None:
        """Do it for all, in threads; after a failure none is still at work."""
        futures = [self.threads.submit(do, file) for file in files]
        try:
            for future in futures:
                future.result()
        finally:
            for future in futures:
                if not future.cancel():
                    future.exception()


class Target(Protocol):
    """Where feature sets are copied to."""

    place: RemoteDirectory

    def create_store(self) -> None:
        """Make the store unless there is one."""

    def create_set(self, name: str, metadata: bytes) -> None:
        """Make the feature set and the groups above it unless there are some."""

    def take(self, plan: Plan, work: Work) -> None:
        """Copy one segment."""

    def finish(self, name: str, surplus: Sequence[str]) -> None:
        """After the last segment of a set: remove these older ones."""


class LocalTarget:
    """A directory on this machine: segments are staged, verified, synced and renamed."""

    def __init__(self, place: RemoteDirectory, root: Path, listings: bool = False) -> None:
        self.place, self._root, self._listings = place, root, listings

    def create_store(self) -> None:
        FeatureStore.open_or_create(self._root)

    def create_set(self, name: str, metadata: bytes) -> None:
        directory = self._root / name
        try:
            make_directory(directory)
            for group in groups_above(name):
                write_once(self._root / group / "zarr.json", json_bytes(group_metadata({})))
            write_once(directory / "zarr.json", metadata)
            sync_directory(directory.parent)
            remove_stale(directory)
        except OSError as error:
            raise _refused(directory, error) from error

    def take(self, plan: Plan, work: Work) -> None:
        directory = self._root / work.name
        stage = directory / f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(6)}"
        lock = -1
        try:
            stage.mkdir()
            lock = os.open(stage, os.O_RDONLY)
            with suppress(OSError):  # the lock only tells others that this one lives
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            folders = {parent for file in plan.files for parent in (stage / file).parents if stage in parent.parents}
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
            work.all(lambda file: self._fetch(file, stage, plan, work), plan.files)
            staged = stage / plan.name
            if work.verify and (problems := Segment(staged, work.spec).verify()):
                raise StoreError(
                    f"{work.source.url_of(f'{work.name}/{plan.name}')} is damaged, or was on its way; nothing of it is "
                    f"kept, what came before is. {problems[0]}"
                )
            for folder in folders:
                sync_directory(folder)
            if not (directory / plan.name).exists():  # else another process brought the same
                os.rename(staged, directory / plan.name)
            sync_directory(directory)
        except OSError as error:
            raise _refused(directory, error) from error
        finally:
            shutil.rmtree(stage, ignore_errors=True)
            if lock >= 0:
                os.close(lock)

    def _fetch(self, file: str, stage: Path, plan: Plan, work: Work) -> None:
        with _FileCount(work.count, plan.files[file]) as progress:
            work.source.get(f"{work.name}/{file}", stage / file, progress)
            sync_file(stage / file)

    def finish(self, name: str, surplus: Sequence[str]) -> None:
        if self._listings:
            write_listings(self.place, name, surplus)
        for segment in reversed(surplus):
            remove_segment(self._root / name / segment)


class RemoteTarget:
    """An object store or the like, where nothing can be renamed; what is copied there lies on this machine."""

    def __init__(self, place: RemoteDirectory) -> None:
        self.place = place

    def create_store(self) -> None:
        attributes = attributes_of(self.place, "")
        if attributes is None:
            self.place.write("zarr.json", json_bytes(group_metadata({"medusa_store": STORE_VERSION})))
        elif "medusa_store" not in attributes:
            raise StoreError(f"{self.place.url} is a Zarr group of another kind, not a feature store.")

    def create_set(self, name: str, metadata: bytes) -> None:
        for group in groups_above(name):
            if attributes_of(self.place, group) is None:
                self.place.write(f"{group}/zarr.json", json_bytes(group_metadata({})))
        if attributes_of(self.place, name) is None:
            self.place.write(f"{name}/zarr.json", metadata)

    def take(self, plan: Plan, work: Work) -> None:
        assert work.source.local is not None
        directory = work.source.local / work.name
        if work.verify and (problems := Segment(directory / plan.name, work.spec).verify()):
            raise StoreError(f"Nothing damaged is pushed; what was pushed before is whole. {problems[0]}")
        sizes = self.place.sizes(f"{work.name}/{plan.name}")  # of an interrupted push; objects are whole or not there

        def upload(file: str) -> None:
            with _FileCount(work.count, plan.files[file]) as progress:
                if sizes.get(file[len(plan.name) + 1 :]) != plan.files[file]:
                    self.place.put(directory / file, f"{work.name}/{file}", progress)

        *earlier_files, last = plan.files
        work.all(upload, earlier_files)
        upload(last)

    def finish(self, name: str, surplus: Sequence[str]) -> None:
        write_listings(self.place, name, surplus)
        for segment in reversed(surplus):
            if not segment.endswith(SUFFIX):
                self.place.remove(f"{name}/{segment}/zarr.json")
            self.place.remove(f"{name}/{segment}")


def write_listings(place: RemoteDirectory, name: str, surplus: Sequence[str]) -> None:
    """Write the .listing.json of a set, without these segments, and of the groups above it up to the store."""
    for group in (name, *reversed(groups_above(name)), ""):
        written: list[str] | None = None
        left_out = set(surplus) if group == name else set()
        while written != (names := _listed(place, group, left_out)):  # of two pushes, the last sees what the other did
            place.write_listing(group, names)
            written = names


def _listed(place: RemoteDirectory, group: str, left_out: set[str]) -> list[str]:
    names = [name for name in place.names(group) if not name.startswith(".") and name not in left_out]
    return [name for name in names if not is_segment_name(name) or is_whole(place, group, name)]


class _FileCount:
    """The bytes of one file, which count once however often parts of it are sent again, or reported."""

    def __init__(self, count: Count, n_bytes: int) -> None:
        self._count, self._left = count, n_bytes

    def __enter__(self) -> Callable[[int], None]:
        return self._add

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        if kind is None:
            self._add(self._left)

    def _add(self, n_bytes: int) -> None:
        n_bytes = min(n_bytes, self._left)
        self._left -= n_bytes
        self._count.add(n_bytes)


def attributes_of(place: RemoteDirectory, group: str) -> dict[str, Any] | None:
    """Of the Zarr group there, or None."""
    file = f"{group}/zarr.json".lstrip("/")
    try:
        data = place.read(file)
    except FileNotFoundError:
        return None
    attributes = parse_json(data, Path(place.url_of(file))).get("attributes", {})
    return attributes if isinstance(attributes, dict) else {}


def is_whole(place: RemoteDirectory, name: str, segment: str) -> bool:
    """Whether a segment that is listed is there with all that belongs to it."""
    return segment.endswith(SUFFIX) or place.exists(f"{name}/{segment}/zarr.json")


def groups_above(name: str) -> list[str]:
    """Return the groups in which a feature set lies, without the store itself: "a", "a/b" of "a/b/c"."""
    parts = name.split("/")
    return ["/".join(parts[: i + 1]) for i in range(len(parts) - 1)]


def _refused(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{path} can't be written: {error.strerror or error}. What was copied before is whole; make room or permit "
        "writing, then run the same command again: it goes on with what is missing."
    )
