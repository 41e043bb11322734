"""Reading a store at any URL through a local mirror, which keeps what was read and is memory-mapped like any store.

    <cache>/<name>-<hash of the URL>/data/...    the store's files: small ones whole, large ones sparse (see sparse.py)
    <cache>/<name>-<hash of the URL>/state/...   the map of each sparse file; what each directory was last seen to hold

Files of a segment never change, so what was fetched of them is never asked for again. What may change (which segments
there are, the metadata of store and sets) is asked for once per open store and directory listing; while the server
can't be reached, what it last said counts, with a warning.
"""

import hashlib
import json
import os
import re
import shutil
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from featurestore.errors import RemoteError, SegmentGone, StoreError
from featurestore.format.hdf5_segment import SUFFIX
from featurestore.format.segment import is_segment_name
from featurestore.format.segment_info import needed_files
from featurestore.format.zarr3 import chunk_file
from featurestore.remote.access import RemoteDirectory
from featurestore.remote.sparse import SparseFile, hash_tag
from featurestore.runtime.durable import replace_file
from featurestore.runtime.json_text import read_json

N_THREADS = 8
READ_BYTES = 16 << 20  # of one ranged read; so many, N_THREADS times, are held in memory
MAX_AHEAD = 1024  # blocks that `announce` may have waiting
OFFLINE_S = 60.0  # how long a server that didn't answer is left alone where the cache can answer


class Mirror:
    """A local directory, `root`, that stands for the remote one and holds what was read of it so far.

    url: anything fsspec knows. cache: directory of all mirrors (default: medusa-ser in the user's cache directory).
    block_bytes: what is fetched of a large file at a time, at least. Processes may share a cache. Safe to pickle and
    to fork. Raises StoreError when the URL can't be reached or refuses, or the cache can't be written; SegmentGone when
    a segment was removed at the remote.
    """

    remote = True

    def __init__(self, url: str, cache: Path | None = None, block_bytes: int = 4 << 20) -> None:
        self.url = url
        self._cache = cache
        self._block_bytes = block_bytes
        self._source = RemoteDirectory(url)
        # One bucket's name may stand for another bucket elsewhere.
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
        identity = self._source.url + ("\n" + endpoint if url.startswith("s3") else "")
        readable = re.sub(r"[^A-Za-z0-9]+", "-", self._source.url).strip("-")[-60:]
        base = (
            cache or _default_cache()
        ) / f"{readable}-{hashlib.blake2b(identity.encode(), digest_size=8).hexdigest()}"
        self.root = base.absolute() / "data"
        self._state = base.absolute() / "state"
        self.local = self._source.local  # of a file:// URL, which needs no mirror
        self._files: dict[Path, SparseFile] = {}
        self._processes: dict[int, _Process] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Mirror, (self.url, self._cache, self._block_bytes)

    def __repr__(self) -> str:
        return f"Mirror({self.url!r}, {str(self.root)!r})"

    def names(self, directory: Path) -> list[str]:
        """Return the names of the entries of a directory, without segments that are still being copied there."""
        relative, listing = self._at(directory), self._state / self._at(directory) / ".names.json"

        def ask() -> None:
            names = self._source.names(relative)
            segments = [name for name in names if is_segment_name(name)]
            whole = self._own.threads.map(self._look_into, [directory / name for name in segments])
            partial = {name for name, is_whole in zip(segments, whole, strict=True) if not is_whole}
            _replace(listing, json.dumps([name for name in names if name not in partial]).encode())

        self._ask(relative, ask, listing)
        return [str(name) for name in read_json(listing.read_bytes())]

    def file(self, path: Path) -> None:
        """Fetch a whole, small file, unless it is here; FileNotFoundError when the remote has none."""
        relative = self._at(path)
        if _segment_of(relative):
            if not path.exists():
                self._own.once(f"file {relative}", lambda: self._fetch_file(path, relative)).result()
        elif relative not in self._own.fresh:
            try:
                self._ask(relative, lambda: self._fetch_file(path, relative), path)
            except FileNotFoundError:
                path.unlink(missing_ok=True)  # it may have been there once
                raise
            self._own.fresh.add(relative)

    def sparse(self, path: Path) -> int:
        """Return the size in bytes of a large file, of which nothing need be here.

        FileNotFoundError when there is none.
        """
        if path not in self._files:
            self._own.once(f"sparse {path}", lambda: self._open_sparse(path)).result()
        return self._files[path].size

    def ensure(self, path: Path, ranges: Sequence[tuple[int, int]]) -> None:
        """Fetch the missing blocks that the byte ranges start:stop touch, with few reads, several at a time."""
        self.sparse(path)
        file = self._files[path]
        while blocks := file.missing(ranges):
            if path not in self._own.fresh:
                self._check_same(file)
                self._own.fresh.add(path)
            for future in self._fetch_blocks(file, blocks):
                future.result()

    def announce(self, path: Path, ranges: Sequence[tuple[int, int]]) -> None:
        """Run `ensure` in the background; its errors are raised when the bytes are needed."""
        self._own.threads.submit(self._announce, path, list(ranges))

    def _announce(self, path: Path, ranges: list[tuple[int, int]]) -> None:
        file = self._files.get(path) or self._open_sparse(path)
        blocks = file.missing(ranges)
        if len(self._own.blocks) + len(blocks) <= MAX_AHEAD:
            self._fetch_blocks(file, blocks)

    @property
    def _own(self) -> "_Process":
        """Threads and the like, which a fork leaves behind."""
        pid = os.getpid()
        if pid not in self._processes:
            self._processes.setdefault(pid, _Process())
        return self._processes[pid]

    def _at(self, path: Path) -> str:
        relative = path.relative_to(self.root).as_posix()
        return "" if relative == "." else relative

    def _ask(self, relative: str, ask: Callable[[], None], cached: Path) -> None:
        """Do `ask`, which brings the file `cached` up to date; if the server can't be reached, the old one counts."""
        shared = self._own
        if cached.exists() and time.monotonic() < shared.offline_until:
            return
        try:
            ask()
        except RemoteError as error:
            if not error.transient or not cached.exists():
                raise
            shared.offline_until = time.monotonic() + OFFLINE_S
            reason = error.__cause__ or error
            warnings.warn(
                f"{self._source.url_of(relative)} doesn't answer, so what was cached of it counts ({reason}).",
                stacklevel=4,
            )

    def _look_into(self, segment: Path) -> bool:
        """Whether a segment is whole; its small files are sent for, since opening it needs them all."""
        shared, relative = self._own, self._at(segment)
        if segment.suffix == SUFFIX:
            shared.once(f"sparse {segment}", lambda: self._open_sparse(segment))
            return True
        group = segment / "zarr.json"
        try:
            if not group.exists():
                self._fetch_file(group, f"{relative}/zarr.json")
        except (FileNotFoundError, SegmentGone):
            return False
        for name, n_dims in needed_files(group).items():
            path = chunk_file(segment / name, n_dims)
            if not path.exists():
                shared.once(f"file {self._at(path)}", lambda path=path: self._fetch_file(path, self._at(path)))  # type: ignore[misc]
        return True

    def _fetch_file(self, path: Path, relative: str) -> None:
        try:
            data = self._source.read(relative)
        except FileNotFoundError:
            self._check_not_gone(relative)
            raise
        with suppress(OSError):
            if path.read_bytes() == data:
                return
        _replace(path, data)

    def _open_sparse(self, path: Path) -> SparseFile:
        relative = self._at(path)
        map_path = self._state / f"{relative}.map"
        try:
            file = SparseFile(path, map_path)
        except FileNotFoundError as error:
            # Only of a file that was removed: a map that was missing a moment ago may be another process's by now.
            if error.filename != str(map_path):
                map_path.unlink(missing_ok=True)
            file = self._create_sparse(path, map_path, relative)
        return self._files.setdefault(path, file)

    def _create_sparse(self, path: Path, map_path: Path, relative: str) -> SparseFile:
        try:
            size, tag = self._source.stat(relative)
            data = self._source.read(relative) if size is None else b""
        except FileNotFoundError:
            self._check_not_gone(relative)
            raise
        try:
            file = SparseFile.create(path, map_path, len(data) if size is None else size, self._block_bytes, tag)
            if size is None:
                file.write(0, data)
        except OSError as error:
            raise _refused(path, error) from error
        self._own.fresh.add(path)
        return file

    def _check_same(self, file: SparseFile) -> None:
        """Raise StoreError when the remote file is another one than that of which blocks are here."""
        relative = self._at(file.path)
        try:
            size, tag = self._source.stat(relative)
        except FileNotFoundError:
            self._check_not_gone(relative)
            raise
        if size in (None, file.size) and (not tag or hash_tag(tag) == file.tag):
            return
        segment = _segment_of(relative)
        for cached in (self.root / segment, self._state / segment, self._state / f"{segment}.map"):
            shutil.rmtree(cached) if cached.is_dir() else cached.unlink(missing_ok=True)
        raise StoreError(
            f"{self._source.url_of(relative)} was replaced by another file since a part of it was cached. The cache is "
            "cleared of it: open the store again."
        )

    def _check_not_gone(self, relative: str) -> None:
        """Raise SegmentGone when the segment of a missing file was removed, or isn't there yet."""
        segment = _segment_of(relative)
        marker = segment if segment.endswith(SUFFIX) else f"{segment}/zarr.json"
        if segment and (relative == marker or not self._source.exists(marker)):
            raise SegmentGone(f"{self._source.url_of(segment)} is gone.")

    def _fetch_blocks(self, file: SparseFile, blocks: list[int]) -> list[Future[None]]:
        """Return reads that bring the blocks, or were about to already."""
        shared, futures = self._own, []
        with shared.lock:
            waiting = {future for block in blocks if (future := shared.blocks.get((file.path, block))) is not None}
            new = [block for block in blocks if (file.path, block) not in shared.blocks and not file.holds(block)]
            runs = _runs(new, max(1, READ_BYTES // file.block_bytes))
            if shared.ranges_work is None:
                shared.ranges_work = None if self._source.is_http else True
            if runs and shared.ranges_work is None:
                runs = runs[:1]  # the rest when it has shown whether the server heeds ranges
            elif runs and shared.ranges_work is False:
                runs = [(0, file.n_blocks)]
            for first, n in runs:
                future = shared.threads.submit(self._fetch_run, file, first, n)
                shared.blocks.update(((file.path, block), future) for block in range(first, first + n))
                futures.append(future)
        return [*waiting, *futures]

    def _fetch_run(self, file: SparseFile, first: int, n_blocks: int) -> None:
        shared, relative = self._own, self._at(file.path)
        start, stop = file.bytes_of(first, n_blocks)
        try:
            data = self._source.read(relative, start, stop)
            if len(data) != stop - start and len(data) != file.size:
                raise StoreError(
                    f"{self._source.url_of(relative)}: bytes {start} to {stop} asked for, {len(data)} bytes came: it "
                    "was altered, or its server is broken."
                )
            # A web server may ignore the range and give all there is.
            whole = len(data) == file.size
            if self._source.is_http and stop - start < file.size:
                shared.ranges_work = not whole
            try:
                file.write(0 if whole else first, data)
            except OSError as error:
                raise _refused(file.path, error) from error
        except FileNotFoundError:
            self._check_not_gone(relative)
            raise
        finally:
            with shared.lock:
                for block in range(first, first + n_blocks):
                    shared.blocks.pop((file.path, block), None)


class _Process:
    """What belongs to one process: threads, what they are at, and what was asked of the server already."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.threads = ThreadPoolExecutor(N_THREADS, "fetch")
        self.tasks: dict[str, Future[Any]] = {}
        self.blocks: dict[tuple[Path, int], Future[None]] = {}
        self.fresh: set[str | Path] = set()
        self.ranges_work: bool | None = None
        self.offline_until = 0.0

    def once(self, key: str, do: Callable[[], Any]) -> Future[Any]:
        """Start `do` in a thread, unless it is under way. Not for waiting on in one of these threads."""

        def run() -> Any:
            try:
                return do()
            finally:
                with self.lock:
                    del self.tasks[key]

        with self.lock:
            if key not in self.tasks:
                self.tasks[key] = self.threads.submit(run)
            return self.tasks[key]


def _segment_of(relative: str) -> str:
    """Return the path of the segment in which a path lies, or "" outside of segments."""
    parts = relative.split("/")
    for i, part in enumerate(parts):
        if is_segment_name(part):
            return "/".join(parts[: i + 1])
    return ""


def _runs(blocks: list[int], most: int) -> list[tuple[int, int]]:
    """Sorted block numbers as runs (first, n) of at most `most`."""
    runs: list[tuple[int, int]] = []
    for block in blocks:
        if runs and sum(runs[-1]) == block and runs[-1][1] < most:
            runs[-1] = runs[-1][0], runs[-1][1] + 1
        else:
            runs.append((block, 1))
    return runs


def _replace(path: Path, data: bytes) -> None:
    """Write a file of the cache in the place of an older one."""
    try:
        replace_file(path, lambda file: file.write(data))
    except OSError as error:
        raise _refused(path, error) from error


def _refused(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"The cache {path} can't be written: {error.strerror or error}. Make room or permit writing, or open the store "
        "with another cache directory; what is cached stays right."
    )


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "medusa-ser"
