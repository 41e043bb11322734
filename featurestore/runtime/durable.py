"""Files and directories that are there whole or not at all, and stay there when the machine loses power.

A rename is durable only after an fsync of the file and of its directory, so each function here does both. They raise
the system's OSError, which names the final path; `writing` turns it into the error of whoever asked.
"""

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NoReturn

from featurestore.errors import MedusaError

# What begins with this is being written, or was when a writer died.
TEMPORARY_PREFIX = ".tmp-"
MAKE_ROOM = "Make room or permit writing there, then run the same command again."


@contextmanager
def writing(path: Path, error: type[MedusaError], remedy: str = MAKE_ROOM) -> Iterator[None]:
    """Raise an OSError of the block as `error` that names the file, the system's reason and the remedy."""
    try:
        yield
    except OSError as reason:
        raise error(f"{path} can't be written: {reason_of(reason)}. {remedy}".rstrip()) from reason


def reason_of(error: BaseException) -> str:
    """Return the system's message of an error; libraries put pages of text into theirs."""
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)


def replace_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let `write` fill a new file, then put it in place of `path`: readers see the old or the new one.

    Directories above `path` are made. Raises OSError naming `path`; the old file is then as it was.
    """
    with replacing(path) as (temporary,), open(temporary, "xb") as file:
        write(file)


def replace_text(path: Path, text: str) -> None:
    """Replace a file by one of this text in UTF-8; as `replace_file`."""
    replace_file(path, lambda file: file.write(text.encode()))


@contextmanager
def replacing(*paths: Path) -> Iterator[list[Path]]:
    """Give temporary paths to write instead; they take the place of `paths` when the block ends without an error.

    Each file is replaced whole; a crash between two renames leaves the first new and the second old.
    """
    temporary = [temporary_beside(path) for path in paths]
    directories = list(dict.fromkeys(path.parent for path in paths))
    try:
        for directory in directories:
            make_directory(directory)
        yield temporary
        for new in temporary:
            sync_file(new)
        for new, path in zip(temporary, paths, strict=True):
            os.replace(new, path)
        for directory in directories:
            sync_directory(directory)
    except OSError as error:
        _raise_naming(error, paths[0])
    finally:
        for new in temporary:
            with contextlib.suppress(OSError):  # gone after the rename; never there when its directory isn't one
                new.unlink()


def _raise_naming(error: OSError, path: Path) -> NoReturn:
    if error.errno is None:  # a library's own words
        raise OSError(str(error)) from error
    raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def temporary_beside(path: Path) -> Path:
    """Return a new name in the directory of `path` that marks a file as being written."""
    return path.absolute().parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(6)}"


def set_aside(path: Path) -> Path:
    """Rename what is to be removed, at once for whoever looks, and return its new name in the same directory."""
    aside = path.with_name(f"{TEMPORARY_PREFIX}removed-{secrets.token_hex(6)}")
    os.rename(path, aside)
    return aside


def replace_directory(fresh: Path, target: Path) -> None:
    """Put a finished directory in place of `target`, which is kept aside until the new one is there."""
    sync_tree(fresh)
    old = temporary_beside(target)
    if target.exists():
        target.rename(old)
    fresh.rename(target)
    sync_directory(target.absolute().parent)
    shutil.rmtree(old, ignore_errors=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a new file and fsync it, not its directory; FileExistsError where there is one."""
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_once(path: Path, data: bytes, size: int | None = None) -> None:
    """Write a file unless there is one: of several writers at once, the first one's counts.

    size: in bytes, beyond those of `data` a hole.
    """
    if path.exists():
        return
    temporary = temporary_beside(path)
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            if size is not None:
                file.truncate(size)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def check_directory(path: Path) -> None:
    """Raise the system's OSError unless files can be made in a directory, or in the nearest one above that is there."""
    existing = next(each for each in (path, *path.absolute().parents) if each.is_dir())
    os.rmdir(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=existing))


def make_directory(path: Path) -> None:
    """Make a directory, and those above it that are missing."""
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(exist_ok=True)
    sync_directory(path.parent)


def sync_tree(directory: Path) -> None:
    """Make a directory durable with all that lies in it.

    Once all is written: the first fsync then has the file system commit what the others would ask for, so that 40 small
    files cost little more than one.
    """
    for path in directory.rglob("*"):
        sync_directory(path) if path.is_dir() else sync_file(path)
    sync_directory(directory)


def sync_directory(directory: Path) -> None:
    """Make the entries of a directory durable; a rename is not durable without it."""
    sync_file(directory)


def sync_file(path: Path) -> None:
    """Make the content of a file that was closed durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
