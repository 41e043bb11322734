"""What to predict: files, folders and patterns, as a manifest under the files' own names."""

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from featurestore.audio import AUDIO_SUFFIXES, search
from featurestore.corpus.manifest import Manifest
from featurestore.errors import ConfigError

PATTERN = frozenset("*?[")
STDIN = "-"


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


def _files_at(place: str, notes: list[str]) -> Iterator[str]:
    if os.path.isdir(place):
        folder = search(Path(place))
        if folder.others:
            notes.append(f"{place}: {folder.left_out()}")
        if not folder.files:
            raise ConfigError(f"{place} holds no audio ({', '.join(AUDIO_SUFFIXES)}); name the files themselves.")
        yield from map(os.fspath, folder.files)
    elif PATTERN & set(place) and not os.path.exists(place):
        names = sorted(name for name in glob.iglob(place, recursive=True) if not os.path.isdir(name))
        if not names:
            raise ConfigError(f"{place} matches no file; ** stands for folders of any depth.")
        yield from names
    else:
        yield place


def files_manifest(files: Sequence[Path | str], text: str | None = None) -> Manifest:
    """A manifest of audio files under their own names, each once; `text` is what is said in all of them."""
    names = list(dict.fromkeys(os.fspath(file) for file in files))
    if not names:
        raise ConfigError("No file to predict; name one or more audio files, or a manifest.")
    columns = {"utterance_id": names, "path": names} | ({} if text is None else {"text": [text] * len(names)})
    try:
        table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    except UnicodeEncodeError:
        bad = next(name for name in names if not name.isprintable())
        raise ConfigError(f"{bad!r}: a file name that is not UTF-8 can't be a key; rename the file.") from None
    return Manifest(table, root=".", name="files")
