"""The audio files at and below a folder, each real file once, and what else lies there."""

import os
from collections import Counter, deque
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


@dataclass(frozen=True)
class Folder:
    """What a folder holds: its audio files, sorted, and by suffix how many other files that may be recordings too."""

    files: list[Path]
    others: dict[str, int]

    def left_out(self) -> str:
        """Return `3 files left out: 2 .vox, 1 .dat`, "" where everything else is plainly no recording."""
        if not self.others:
            return ""
        n = sum(self.others.values())
        kinds = ", ".join(f"{count:,} {suffix or 'without suffix'}" for suffix, count in sorted(self.others.items()))
        return f"{n:,} {'file' if n == 1 else 'files'} left out, no audio by the suffix: {kinds}"


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
    once. A link to nothing is listed. Dot files, which macOS leaves beside any file it copies, are ignored.
    """
    directory = Path(directory)
    waiting, linked = deque([(directory, os.path.realpath(directory))]), deque[tuple[Path, str]]()
    visited: set[str] = set()
    found: dict[str, Path] = {}  # by real path
    linked_files: list[Path] = []
    others: Counter[str] = Counter()
    while waiting or linked:
        place, real = waiting.popleft() if waiting else linked.popleft()
        if real in visited:
            continue
        visited.add(real)
        with os.scandir(place) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                path = place / entry.name
                if entry.is_dir():
                    if entry.is_symlink():
                        linked.append((path, os.path.realpath(path)))
                    else:
                        waiting.append((path, os.path.join(real, entry.name)))
                elif entry.name.startswith("."):
                    continue
                elif not entry.name.lower().endswith(tuple(suffixes)):
                    suffix = path.suffix.lower()
                    others.update([suffix] if suffix not in BESIDE_AUDIO else [])
                elif entry.is_symlink():
                    linked_files.append(path)
                else:
                    found.setdefault(os.path.join(real, entry.name), path)
    for path in linked_files:
        found.setdefault(os.path.realpath(path), path)
    return Folder(sorted(found.values()), dict(others))
