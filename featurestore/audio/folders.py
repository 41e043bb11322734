"""The audio files at and below a folder, each real file once, and what else lies there."""

import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from featurestore.audio.suffixes import AUDIO_SUFFIXES

# What lies beside recordings and is plainly none: tables, texts, annotations, pictures, arrays, archives.
BESIDE_AUDIO = (
    ".txt", ".md", ".csv", ".tsv", ".json", ".jsonl", ".yaml", ".yml", ".xml", ".html", ".pdf", ".doc", ".docx",
    ".xlsx", ".parquet", ".lab", ".textgrid", ".eaf", ".trs", ".rttm", ".ctm", ".stm", ".srt", ".vtt", ".ass",
    ".jpg", ".jpeg", ".png", ".gif", ".svg", ".npy", ".npz", ".pt", ".pkl", ".h5", ".mat", ".arff", ".zip", ".tar",
    ".gz", ".py", ".sh", ".ini", ".cfg", ".log", ".bib", ".m3u", ".cue", ".ds_store",
)  # fmt: skip


APPLE_DOUBLE = "._"  # what macOS leaves beside a file on other file systems
N_NAMED = 5  # files left out that are named, of each kind
ZARR_GROUP = "zarr.json"  # in a directory of arrays, such as a feature store, whose chunks have no suffix


@dataclass(frozen=True)
class Folder:
    """What a folder holds: its audio files, and other files that may be recordings too, both sorted.

    hidden: files with a suffix of audio whose names begin with a dot.
    """

    files: list[Path]
    others: list[Path]
    hidden: list[Path]

    def left_out(self, root: Path) -> str:
        """Return the files left out and the reason, from `root`; "" where all others are plainly no recordings."""
        by_suffix: dict[str, list[Path]] = {}
        for path in self.others:
            by_suffix.setdefault(path.suffix.lower(), []).append(path)
        kinds = [_kind(suffix or "without suffix", paths, root) for suffix, paths in sorted(by_suffix.items())]
        n, parts = len(self.others), []
        if kinds:
            parts.append(f"{n:,} {'file' if n == 1 else 'files'} left out, no audio by the suffix: {', '.join(kinds)}")
        if self.hidden:
            parts.append(f"left out, since a dot hides them: {_kind('files', self.hidden, root)}")
        return "; ".join(parts)


def _kind(name: str, paths: Sequence[Path], root: Path) -> str:
    """Return `2 .vox (a.vox, b/c.vox)`, the first few named."""
    examples = [path.relative_to(root).as_posix() for path in paths[:N_NAMED]]
    return f"{len(paths):,} {name} ({', '.join([*examples, *['...'] * (len(paths) > N_NAMED)])})"


def is_utf8(name: str) -> bool:
    """Return whether a file name can be a text elsewhere; one in another encoding holds bytes that can't."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def search(directory: Path, suffixes: Sequence[str] = AUDIO_SUFFIXES) -> Folder:
    """Return the files at and below a directory whose names end in one of the suffixes, in any letter case.

    Links are followed, after everything that is reached without them; a file or folder that is reached twice counts
    once. A link to nothing is listed. Directories of Zarr arrays are passed over, and so are dot files, which macOS
    leaves beside any file it copies.
    """
    directory = Path(directory)
    waiting, linked = deque([(directory, os.path.realpath(directory))]), deque[tuple[Path, str]]()
    visited: set[str] = set()
    paths: dict[str, Path] = {}  # by real path
    linked_files: list[Path] = []
    others: list[Path] = []
    hidden: list[Path] = []
    while waiting or linked:
        place, real = waiting.popleft() if waiting else linked.popleft()
        if real in visited:
            continue
        visited.add(real)
        with os.scandir(place) as entries:
            by_name = sorted(entries, key=lambda entry: entry.name)
            if any(entry.name == ZARR_GROUP for entry in by_name):
                continue
            for entry in by_name:
                path = place / entry.name
                if entry.is_dir():
                    if entry.is_symlink():
                        linked.append((path, os.path.realpath(path)))
                    else:
                        waiting.append((path, os.path.join(real, entry.name)))
                elif entry.name.startswith("."):
                    if entry.name.lower().endswith(AUDIO_SUFFIXES) and not entry.name.startswith(APPLE_DOUBLE):
                        hidden.append(path)
                elif not entry.name.lower().endswith(tuple(suffixes)):
                    others += [path] if path.suffix.lower() not in BESIDE_AUDIO else []
                elif entry.is_symlink():
                    linked_files.append(path)
                else:
                    paths.setdefault(os.path.join(real, entry.name), path)
    for path in linked_files:
        paths.setdefault(os.path.realpath(path), path)
    return Folder(sorted(paths.values()), sorted(others), sorted(hidden))
