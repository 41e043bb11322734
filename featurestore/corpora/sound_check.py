"""Look at a corpus's audio files while its manifest is made: pointers of Git LFS, and suffixes that don't decode."""

import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from featurestore.audio import decode, duration_s, several_tracks, stated_duration_s
from featurestore.audio.layout import LFS_POINTER
from featurestore.corpus.channels import averaged_channels
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.piece_ends import check_ends, whole_files_twice
from featurestore.errors import AudioError, ManifestError

T = TypeVar("T")
POINTER_BYTES = 1024  # no pointer is longer
N_TRIED = 5  # of each suffix
DURATION_SLACK_S = 0.5  # by which a table's durations are rounded, or trimmed of padding
DECODED_S = 60.0  # longer files are tried by their header alone


def check_sounds(manifest: Manifest) -> list[str]:
    """Open a few files of each suffix; return notes on those that can't be decoded, grouped by reason, and on pieces.

    ManifestError: files that are pointers of Git LFS, a suffix of which none of the tried files can be decoded, pieces
    far beyond the end of their recording.
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
    notes += several_tracks(file for of in by_suffix.values() for file in _spread(of, N_TRIED) if file.is_file())
    notes += averaged_channels(manifest)
    return [*notes, *_other_durations(manifest), *check_ends(manifest), *whole_files_twice(manifest)]


def _other_durations(manifest: Manifest) -> list[str]:
    """Return a note where some of the whole files are much shorter or longer than the manifest says."""
    if not manifest.has("duration_s"):
        return []
    whole_files = [i for i, audio in enumerate(manifest.audios) if isinstance(audio, Path) and audio.is_file()]
    stated, wrong = manifest.column("duration_s"), []
    for i in _spread(whole_files, N_TRIED):
        with suppress(AudioError):
            seconds = stated_duration_s(manifest.audio_path(i))
            if seconds is not None and abs(seconds - stated[i]) > DURATION_SLACK_S:
                wrong.append(f"{manifest.keys[i]} {stated[i]:.2f} s by the table, {seconds:.2f} s by the file")
    return [f"files are not as long as the table says: {', '.join(wrong)}"] if wrong else []


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


def grouped(noun: str, problems: Sequence[str]) -> list[str]:
    """Return a note for each reason among AudioErrors' texts: how many, the first in full."""
    first: dict[str, list[str]] = {}
    for problem in problems:
        path, _, reason = problem.partition(": ")
        first.setdefault(re.sub(r"\d+", "#", reason.replace(path, "")), []).append(problem)
    return [f"{len(of):,} {noun}, such as {of[0]}" if len(of) > 1 else f"1 {noun}: {of[0]}" for of in first.values()]


def _problem(file: Path) -> str:
    try:
        if duration_s(file) <= DECODED_S:
            decode(file)
    except AudioError as error:
        return str(error)
    return ""


def _spread(items: Sequence[T], n: int) -> list[T]:
    """Return up to n of the items, evenly from first to last."""
    if len(items) <= n:
        return list(items)
    return [items[round(i * (len(items) - 1) / (n - 1))] for i in range(n)]
