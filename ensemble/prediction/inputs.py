"""What to predict: files, folders and patterns, as a manifest under the files' own names."""

import fnmatch
import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from featurestore.audio import AUDIO_SUFFIXES, is_utf8, search
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.splits import speaker_groups, with_column
from featurestore.errors import ConfigError

PATTERN = frozenset("*?[")
STDIN = "-"
ENOUGH_CLIPS = 5  # of a speaker, to be told apart from the training corpus


def find_files(places: Iterable[Path | str], listed: Iterable[str] = (), notes: list[str] | None = None) -> list[str]:
    """Audio files, each once, in the order of the places: a file; a folder, with all below it; a pattern; "-".

    A pattern is `*.wav`, or `calls/**/*.flac` for all depths. listed: the lines that "-" stands for, each a place. A
    file that isn't there stays in the list, to fail by itself; a folder or pattern without audio is a ConfigError.
    notes: gets a sentence for each folder with files that may be recordings, but don't have a suffix of audio.
    """
    notes = [] if notes is None else notes
    found: dict[str, None] = {}
    for place in places:
        text = os.fspath(place)
        if text == STDIN:
            lines = [line.rstrip("\r\n") for line in listed]
            found |= dict.fromkeys(name for line in lines if line.strip() for name in _files_at(line, notes))
        else:
            found |= dict.fromkeys(_files_at(text, notes))
    return list(found)


def with_speakers(manifest: Manifest, speaker_of: str) -> Manifest:
    """The manifest with a column `speaker`: another column's values, each file's "folder", or the "file" itself."""
    if speaker_of in ("folder", "file"):
        paths = [Path(str(path)) for path in manifest.column("path").tolist()]
        names: list[str | None] = [str(path.parent if speaker_of == "folder" else path) for path in paths]
    else:
        values = manifest.column(speaker_of).tolist()
        names = [None if value is None or value != value else str(value) for value in values]
    return with_column(manifest, "speaker", names)


def speakers_note(manifest: Manifest) -> str:
    """One sentence on what a speaker-adapted model makes of the speakers; "" where each has enough clips."""
    if not manifest.has("speaker"):
        return (
            "the model is speaker-adapted, but nobody says who speaks (--speaker-of): each clip is normalised as the "
            "training corpus is, and scores will be lower."
        )
    counts = Counter(speaker_groups(manifest).tolist())
    few = sum(n < ENOUGH_CLIPS for n in counts.values())
    if not few:
        return ""
    return (
        f"the model is speaker-adapted, and {few:,} of {len(counts):,} speakers have fewer than {ENOUGH_CLIPS} clips: "
        "these are normalised mostly as the training corpus is (a single clip wholly)."
    )


def _files_at(place: str, notes: list[str]) -> Iterator[str]:
    if os.path.isdir(place):
        folder = search(Path(place))
        if folder.others:
            notes.append(f"{place}: {folder.left_out()}")
        if not folder.files:
            raise ConfigError(f"{place} holds no audio ({', '.join(AUDIO_SUFFIXES)}); name the files themselves.")
        yield from map(os.fspath, folder.files)
    elif PATTERN & set(place) and not os.path.exists(place):
        names = _matching(place)
        if not names:
            raise ConfigError(f"{place} matches no file; ** stands for folders of any depth.")
        yield from names
    else:
        yield place


def _matching(pattern: str) -> list[str]:
    """The files that match a pattern, sorted. Below a `**` each real file counts once, so that loops of links end."""
    head, stars, tail = pattern.partition("**/")
    if not stars or PATTERN & set(head):
        return sorted(name for name in glob.iglob(pattern) if not os.path.isdir(name))
    rest = re.compile("(?:.*/)?" + "".join(map(_expression, re.findall(r"\*\*/|\*+|\?|\[[^\]]+\]|.", tail, re.DOTALL))))
    base = Path(head or ".")
    if not base.is_dir():
        return []
    found = [path for path in search(base, ("",)).files if rest.fullmatch(path.relative_to(base).as_posix())]
    return sorted(os.path.join(head, path.relative_to(base).as_posix()) for path in found)


def _expression(piece: str) -> str:
    """The regular expression of one piece of a pattern."""
    wild = {"**/": "(?:.*/)?", "?": "[^/]"}
    if piece in wild:
        return wild[piece]
    if piece.startswith("*"):
        return "[^/]*"
    if piece.startswith("[") and len(piece) > 1:
        return fnmatch.translate(piece).removeprefix("(?s:").removesuffix(")\\Z")
    return re.escape(piece)


def files_manifest(files: Sequence[Path | str], text: str | None = None) -> Manifest:
    """A manifest of audio files under their own names, each once; `text` is what is said in all of them.

    A name that is not UTF-8 can't be a key: such files are left out, with a sentence for each in the notes.
    """
    given = dict.fromkeys(os.fspath(file) for file in files)
    names = [name for name in given if is_utf8(name)]
    strange = [name for name in given if not is_utf8(name)]
    notes = [f"{name!r}: a file name that is not UTF-8 can't be a key; rename the file." for name in strange]
    if notes and not names:
        raise ConfigError(notes[0])
    if not names:
        raise ConfigError("No file to predict; name one or more audio files, or a manifest.")
    columns = {"utterance_id": names, "path": names} | ({} if text is None else {"text": [text] * len(names)})
    table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    manifest = Manifest(table, root=".", name="files")
    manifest.notes += notes
    return manifest
