"""The identity of weights, as specifications, run directories and models carry it."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

BLOCK_BYTES = 1 << 22  # read at once


def weights_digest(parts: Iterable[bytes]) -> str:
    """Return `sha256:` and the first 16 hex digits of the SHA-256 of the parts, one after the other."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return f"sha256:{digest.hexdigest()[:16]}"


def parts_of_files(paths: Iterable[Path]) -> Iterator[bytes]:
    """Give the content of files, one after the other, in parts that take little memory."""
    for path in paths:
        with path.open("rb") as file:
            while part := file.read(BLOCK_BYTES):
                yield part
