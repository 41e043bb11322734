"""Reaching a directory at any URL that fsspec knows: retries, listings, and errors that a user can act on."""

import errno
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from featurestore.errors import RemoteError, StoreError
from featurestore.runtime.json_text import read_json

LISTING = ".listing.json"
LISTING_VERSION = 1
RETRY_AFTER_S = (0.2, 1.0)
SMALL_BYTES = 1 << 20  # a file that is sent in one piece
# Other entries of an HTML listing are links to the parent, to other orders of the listing, and the like.
_NAME = re.compile(r"[A-Za-z0-9._+-]+")
_LOCAL_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EMFILE)

T = TypeVar("T")


class RemoteDirectory:
    """A directory behind a URL, or a local one; paths in it are relative, with "/" between their parts.

    Safe to pickle, to fork and to use from several threads. Methods raise FileNotFoundError where there is nothing,
    RemoteError, which names the URL, when it refuses or doesn't answer after some retries.
    """

    def __init__(self, url: str) -> None:
        self.url = url if url.endswith("://") else url.rstrip("/")
        self._opened: dict[int, tuple[Any, str]] = {}
        self._filesystem()  # a package that is missing is reported at once

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteDirectory, (self.url,)

    @property
    def local(self) -> Path | None:
        """The directory itself, where it is a local one."""
        filesystem, root = self._filesystem()
        return Path(root) if _protocols(filesystem) & {"file", "local"} else None

    @property
    def is_http(self) -> bool:
        """Whether it is read through a web server, which may ignore ranges and may not list directories."""
        return bool(_protocols(self._filesystem()[0]) & {"http", "https"})

    def url_of(self, relative: str) -> str:
        """Return the URL of a path."""
        return f"{self.url.rstrip('/')}/{relative}" if relative else self.url

    def read(self, relative: str, start: int | None = None, stop: int | None = None) -> bytes:
        """Return a file, or its bytes start:stop; a web server may ignore the range and give the whole file."""
        return self._call("read", relative, lambda fs, path: bytes(fs.cat_file(path, start=start, end=stop)))

    def stat(self, relative: str) -> tuple[int | None, str]:
        """Return a file's size in bytes (None: unknown), and the tag that changes with its contents ("": unknown)."""
        info = self._call("read", relative, lambda fs, path: fs.info(path))
        if info.get("type") == "directory":
            raise FileNotFoundError(self.url_of(relative))
        tag = next((info[key] for key in ("ETag", "etag", "md5Hash") if info.get(key)), "")
        return info.get("size"), str(tag)

    def names(self, relative: str) -> list[str]:
        """Return the names of the entries of a directory, sorted; none where there is no such directory.

        Where listing is impossible the directory's .listing.json counts, which `push` writes; StoreError without one.
        """
        listed = not self.is_http  # a web server gives a page of links, or none
        try:
            # Web servers list a directory under its address with a slash; some (rclone) know no other.
            slash = "/" if self.is_http else ""
            entries = self._call("listed", relative, lambda fs, path: fs.ls(path.rstrip("/") + slash, detail=False))
        except FileNotFoundError:
            entries = []
        except RemoteError as error:
            if error.transient:
                raise
            entries, listed = [], False
        entry_names = {str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in entries}
        names = sorted(name for name in entry_names - {".", ".."} if _NAME.fullmatch(name))
        if names or listed:
            return names
        try:
            return _listed(self.read(f"{relative}/{LISTING}".lstrip("/")), self.url_of(relative))
        except FileNotFoundError:
            if not self.exists(f"{relative}/zarr.json".lstrip("/")):
                return []
            raise StoreError(
                f"{self.url_of(relative)} can't be listed, and has no {LISTING}: read it from a server that lists "
                "directories, or copy the store there with `medusa store push`, which writes the listings."
            ) from None

    def exists(self, relative: str) -> bool:
        """Whether there is a file."""
        try:
            self.stat(relative)
        except FileNotFoundError:
            return False
        return True

    def sizes(self, relative: str) -> dict[str, int]:
        """Every file below a directory, relative to it, and its size in bytes."""
        root = self._path(relative)
        try:
            entries = self._call("listed", relative, lambda fs, path: fs.find(path, detail=True))
        except FileNotFoundError:
            return {}
        return {name[len(root) :].lstrip("/"): info["size"] for name, info in entries.items()}

    def get(self, relative: str, target: Path, progress: Callable[[int], None]) -> None:
        """Copy a file to a local path; progress gets the bytes of each part."""
        self._call("read", relative, lambda fs, path: fs.get_file(path, str(target), callback=_parts(progress)))

    def put(self, source: Path, relative: str, progress: Callable[[int], None]) -> None:
        """Copy a local file here: it appears whole, and not before (on object stores; in memory:// a small one)."""
        if source.stat().st_size <= SMALL_BYTES:
            self.write(relative, data := source.read_bytes())
            progress(len(data))
            return
        self._call("written", relative, lambda fs, path: fs.put_file(str(source), path, callback=_parts(progress)))

    def write(self, relative: str, data: bytes) -> None:
        """Write a small file."""
        self._call("written", relative, lambda fs, path: fs.pipe_file(path, data))

    def write_listing(self, relative: str, names: list[str]) -> None:
        """Write a directory's .listing.json: for readers of a server that can't list it."""
        self.write(
            f"{relative}/{LISTING}".lstrip("/"),
            json.dumps({"medusa_listing": LISTING_VERSION, "names": names}).encode(),
        )

    def remove(self, relative: str) -> None:
        """Remove a file, or a directory with what is in it; nothing there is fine."""
        try:
            self._call("removed", relative, lambda fs, path: fs.rm(path, recursive=True))
        except FileNotFoundError:
            return

    def _call(self, verb: str, relative: str, do: Callable[[Any, str], T]) -> T:
        filesystem, path = self._filesystem()[0], self._path(relative)
        # The object stores' filesystems have retries of their own.
        for delay in (*(() if hasattr(filesystem, "retries") else RETRY_AFTER_S), None):
            try:
                return do(filesystem, path)
            except Exception as error:  # every backend has its own
                failure = error
            if isinstance(failure, NotADirectoryError) or _is_missing(failure):
                if verb != "written":
                    raise FileNotFoundError(self.url_of(relative)) from failure
                break
            if isinstance(failure, OSError) and failure.errno in _LOCAL_ERRORS:
                raise failure  # of a file that is copied here
            if self.local is not None:
                raise StoreError(f"{self.url_of(relative)} can't be {verb}: {_reason(failure)}.") from failure
            if not _may_pass(failure):
                break
            if delay is None:
                raise RemoteError(
                    f"{self.url_of(relative)} can't be {verb}: {_reason(failure)}. Check the address and the network, "
                    "then run the same command again: what has come so far is kept.",
                    transient=True,
                ) from failure
            time.sleep(delay)
        raise RemoteError(
            f"{self.url_of(relative)} can't be {verb}: {_reason(failure)}. Check the address and your credentials (of "
            "S3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile; FSSPEC_S3_ANON=1 for a public bucket)."
        ) from failure

    def _path(self, relative: str) -> str:
        root = self._filesystem()[1]
        return f"{root.rstrip('/')}/{relative}" if relative else root

    def _filesystem(self) -> tuple[Any, str]:
        # An fsspec filesystem has a thread with an event loop, which a fork leaves behind.
        pid = os.getpid()
        if pid not in self._opened:
            self._opened.setdefault(pid, _open(self.url))
        return self._opened[pid]


def _open(url: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs

        filesystem, path = url_to_fs(url, skip_instance_cache=True, use_listings_cache=False)
    except ImportError as error:
        raise StoreError(
            f"{url} can't be opened: {error}. Remote stores need further packages: pip install 'medusa-ser[remote]'."
        ) from error
    except ValueError as error:
        raise StoreError(f"{url} can't be opened: {error}.") from error
    return filesystem, str(path)


def _protocols(filesystem: Any) -> set[str]:
    protocol = filesystem.protocol
    return {protocol} if isinstance(protocol, str) else set(protocol)


def _parts(progress: Callable[[int], None]) -> Any:
    from fsspec.callbacks import Callback

    class Parts(Callback):  # type: ignore[misc]  # fsspec has no types
        def relative_update(self, inc: int = 1) -> None:
            progress(inc)

    return Parts()


def _listed(data: bytes, url: str) -> list[str]:
    try:
        listing = read_json(data)
    except ValueError:
        listing = None
    names = (
        listing.get("names") if isinstance(listing, dict) and listing.get("medusa_listing") == LISTING_VERSION else None
    )
    if not isinstance(names, list) or not all(isinstance(name, str) and _NAME.fullmatch(name) for name in names):
        raise StoreError(f"{url}/{LISTING} is damaged; `medusa store push` writes it anew.")
    return sorted(names)


def _is_missing(error: Exception) -> bool:
    """Whether there is no such file: fsspec's HTTP says so of every failure, and has the real one as the cause."""
    cause = error.__cause__
    of_the_network = isinstance(cause, OSError) or type(cause).__module__.startswith("aiohttp")
    excused = cause is None or isinstance(cause, FileNotFoundError) or not of_the_network
    return isinstance(error, FileNotFoundError) and (excused or _status(cause) in (404, 410))


def _may_pass(error: Exception) -> bool:
    """Whether trying again makes sense."""
    status = _status(error)
    if status is not None:
        return status >= 500 or status in (408, 429)
    never = (PermissionError, IsADirectoryError, NotADirectoryError, ValueError, TypeError, NotImplementedError)
    return not isinstance(error, never) and "Credentials" not in type(error).__name__


def _status(error: BaseException | None) -> int | None:
    """Return the status of an HTTP answer."""
    status = getattr(error, "status", None)
    return status if isinstance(status, int) else None


def _reason(error: Exception) -> str:
    cause = error.__cause__
    shown = cause if isinstance(error, FileNotFoundError) and cause is not None else error
    return " ".join(str(shown).split()).rstrip(".") or type(shown).__name__
