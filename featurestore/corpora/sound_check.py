"""Look at a corpus's audio files while its manifest is made: pointers of Git LFS, and suffixes that don't decode."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from featurestore.audio import decode, duration_s
from featurestore.audio.layout import LFS_POINTER
from featurestore.corpus.manifest import Manifest
from featurestore.errors import AudioError, ManifestError

POINTER_BYTES = 1024  # no pointer is longer
N_TRIED = 5  # of each suffix
DECODED_S = 60.0  # longer files are tried by their header alone


def check_sounds(manifest: Manifest) -> list[str]:
    """Open a few files of each suffix; return notes on those that can't be decoded, grouped by reason.

    ManifestError: files that are pointers of Git LFS, or a suffix of which none of the tried files can be decoded.
    Files that are not there are passed over.
    """
    if not manifest.has("path"):
        return []
    files = [manifest.root / path for path in dict.fromkeys(manifest.column("path").tolist()) if path is not None]
    refuse_pointers(files)
    by_suffix: dict[str, list[Path]] = {}
    for file in files:
        by_suffix.setdefault(file.suffix.lower(), []).append(file)
    notes = []
    for suffix, of in sorted(by_suffix.items()):
        tried = [file for file in _spread(of, N_TRIED) if file.is_file()]
        problems = [problem for file in tried if (problem := _problem(file))]
        if problems and len(problems) == len(tried):
            raise ManifestError(
                f"None of {len(tried)} {suffix or 'nameless'} files tried, of {len(of):,}, can be decoded: "
                f"{problems[0]} Convert them, or use --no-check-audio where the command has it."
            )
        notes += grouped(f"of {len(tried)} {suffix} files tried can't be decoded", problems)
    return notes


def refuse_pointers(files: Iterable[Path]) -> None:
    """Raise ManifestError if any file is a pointer of Git LFS in place of the audio."""
    files = list(files)
    pointers = [file for file in files if is_pointer(file)]
    if pointers:
        raise ManifestError(
            f"{pointers[0]}: a pointer of Git LFS, not audio, as are {len(pointers):,} of {len(files):,} files. Run "
            f"`git lfs pull` in {pointers[0].parent}, then the command again."
        )


def is_pointer(path: Path | str) -> bool:
    """Return whether a file holds a pointer of Git LFS."""
    try:
        if os.stat(path).st_size > POINTER_BYTES:
            return False
        with open(path, "rb") as file:
            return file.read(len(LFS_POINTER)) == LFS_POINTER
    except OSError:
        return False


def grouped(what: str, problems: Sequence[str]) -> list[str]:
    """Return a note for each reason among AudioErrors' texts: how many, the first in full."""
    first: dict[str, list[str]] = {}
    for problem in problems:
        path, _, reason = problem.partition(": ")
        first.setdefault(re.sub(r"\d+", "#", reason.replace(path, "")), []).append(problem)
    return [f"{len(of):,} {what}, such as {of[0]}" if len(of) > 1 else f"1 {what}: {of[0]}" for of in first.values()]


def _problem(file: Path) -> str:
    try:
        if duration_s(file) <= DECODED_S:
            decode(file)
    except AudioError as error:
        return str(error)
    return ""


def _spread(files: Sequence[Path], n: int) -> list[Path]:
    """Return up to n of the files, evenly from first to last."""
    if len(files) <= n:
        return list(files)
    return [files[round(i * (len(files) - 1) / (n - 1))] for i in range(n)]
